//! What the ledger takes for alike, on a labelled set: 200 distinct notes on one subject per language, and what people and programs
//! make of each when they write it again.

use crdt::ledger::{Method, NEAR_MIN, Print, Sketch};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ARABIC: &str = include_str!("data/distinct-ar.txt");
const ENGLISH: &str = include_str!("data/distinct-en.txt");

fn lines(text: &'static str) -> Vec<&'static str> {
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 200);
    lines
}

/// Marks that a fast writer leaves out or puts in, and forms that keyboards differ in.
fn spelled_otherwise(text: &str, rng: &mut ChaCha8Rng) -> String {
    let tashkeel = ['\u{064e}', '\u{064f}', '\u{0650}', '\u{0651}', '\u{0652}'];
    let mut out = String::new();
    for c in text.chars() {
        let some = rng.random_range(0..4) == 0;
        match c {
            'أ' | 'إ' | 'آ' if some => out.push('ا'),
            'ة' if some => out.push('ه'),
            'ى' if some => out.push('ي'),
            'ي' if some => out.push('ى'),
            '0'..='9' => out.push(char::from_u32(0x0660 + u32::from(c) - 0x30).expect("a digit")),
            '\u{064b}'..='\u{0652}' => {}
            c if c.is_ascii_lowercase() && some => out.push(c.to_ascii_uppercase()),
            c if c.is_ascii_uppercase() => out.push(c.to_ascii_lowercase()),
            ' ' if some => out.push_str("  "),
            c => out.push(c),
        }
        if some && ('\u{0621}'..='\u{064a}').contains(&c) {
            out.push(if rng.random() { '\u{0640}' } else { *tashkeel.choose(rng).expect("some") });
        }
    }
    out.push(*['!', '.', '؟', '…'].choose(rng).expect("some"));
    out
}

/// One word becomes another one of the same subject's.
fn with_a_word_changed(text: &str, words: &[&str], rng: &mut ChaCha8Rng) -> String {
    let mut own: Vec<&str> = text.split(' ').collect();
    let at = rng.random_range(0..own.len());
    own[at] = words.choose(rng).expect("some");
    own.join(" ")
}

#[derive(Debug, Default, Clone, Copy)]
struct Found {
    right: u32,
    wrong: u32,
    missed: u32,
}

impl Found {
    fn f1(self) -> f64 {
        2.0 * f64::from(self.right) / f64::from(2 * self.right + self.wrong + self.missed)
    }
}

/// For each variant the entries that are near it, found as a node finds them: by their sketches, then by comparison.
fn search(known: &[Print], variants: &[Print]) -> Found {
    let sketches: Vec<Sketch> = known.iter().filter_map(Print::sketch).collect();
    assert_eq!(sketches.len(), known.len());
    let mut found = Found::default();
    for (label, variant) in variants.iter().enumerate() {
        let own = variant.sketch().expect("it has words");
        let near = |at: &usize| {
            sketches[*at].likeness(&own) >= Sketch::CANDIDATE_MIN && known[*at].compare(variant).0 >= NEAR_MIN
        };
        let near: Vec<usize> = (0..known.len()).filter(near).collect();
        found.wrong += u32::try_from(near.iter().filter(|at| **at != label).count()).expect("few");
        if near.contains(&label) {
            found.right += 1;
        } else {
            found.missed += 1;
        }
    }
    found
}

fn prints<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Print> {
    texts.into_iter().map(Print::of).collect()
}

#[test]
fn what_is_spelled_otherwise_is_the_same_and_nothing_else_is() {
    for text in [ARABIC, ENGLISH] {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let known = lines(text);
        let prints = prints(known.iter().copied());
        for (label, line) in known.iter().enumerate() {
            let again = Print::of(&spelled_otherwise(line, &mut rng));
            let same: Vec<usize> = (0..known.len()).filter(|at| prints[*at].exact() == again.exact()).collect();
            assert_eq!(same, [label], "{line}");
            assert_eq!(prints[label].compare(&again), (1.0, Method::Exact));
        }
    }
}

#[test]
fn what_is_near_is_found_and_what_is_only_about_the_same_is_not() {
    for (language, text) in [("ar", ARABIC), ("en", ENGLISH)] {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let known = lines(text);
        let words: Vec<&str> = known.iter().flat_map(|line| line.split(' ')).collect();
        let all = prints(known.iter().copied());
        let spelled: Vec<String> = known.iter().map(|line| spelled_otherwise(line, &mut rng)).collect();
        let spelled = search(&all, &prints(spelled.iter().map(String::as_str)));
        let changed: Vec<String> = known.iter().map(|line| with_a_word_changed(line, &words, &mut rng)).collect();
        let changed = search(&all, &prints(changed.iter().map(String::as_str)));
        let itself = search(&all, &all);
        println!(
            "{language}: F1 spelled otherwise {:.3}, a word changed {:.3} ({changed:?}), false alarms {}",
            spelled.f1(),
            changed.f1(),
            itself.wrong
        );
        assert!(spelled.f1() >= 0.98, "{language}: {spelled:?}");
        assert!(changed.f1() >= 0.90, "{language}: {changed:?}");
        assert!(itself.wrong <= 2, "{language}: one pair at most, seen from both: {itself:?}");
    }
}

#[test]
fn of_all_that_is_near_the_sketches_miss_next_to_nothing() {
    let (mut near, mut missed) = (0, 0);
    for text in [ARABIC, ENGLISH] {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let known = lines(text);
        let words: Vec<&str> = known.iter().flat_map(|line| line.split(' ')).collect();
        for line in &known {
            let one = Print::of(line);
            let mut variant = (*line).to_owned();
            for _ in 0..4 {
                variant = with_a_word_changed(&variant, &words, &mut rng);
                let other = Print::of(&variant);
                if one.compare(&other).0 >= NEAR_MIN {
                    near += 1;
                    let likeness = one.sketch().zip(other.sketch()).map(|(a, b)| a.likeness(&b));
                    missed += u32::from(likeness < Some(Sketch::CANDIDATE_MIN));
                }
            }
        }
    }
    println!("{near} near, {missed} of them missed");
    assert!(near > 500 && missed * 200 <= near, "{missed} of {near}");
    assert_eq!(Print::of(" … !").sketch(), None, "nothing is like nothing");
}
