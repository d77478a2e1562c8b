//! What a ledger of many entries costs: adding, seeing, listing, finding, memory, checking, joining.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crdt::SigningKey;
use crdt::ids::PersonId;
use crdt::ledger::{Content, Kind, Signed};
use hyper::Method;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use web_gateway::api::{IdeaAdded, IdeaFound, IdeaRow, IdeasImport, IdeasImported};

use super::idle::status_kb;
use super::nodes::{Mesh, Node};
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, faults, say};
use crate::ledger::file;

const ENTRIES: usize = 100_000;
const ENTRIES_QUICK: usize = 5_000;
/// Entries that are sent together.
const AT_A_TIME: usize = 500;
/// A word that nothing else has: the last entry of each batch has it. Nodes index by ids, which are hashes: when all of these are
/// found, nearly everything is indexed.
const MARKED: &str = "zephyrian";
/// Time after which a node has given back what it no longer uses: it does so once a minute.
const SETTLE: Duration = Duration::from_secs(65);
/// Longest that the index may take.
const INDEX_MAX: Duration = Duration::from_secs(180);

const ADD_MS_MAX: f64 = 10.0;
const SEEN_MS_MAX: f64 = 100.0;
const SEEN_LOADED_MS_MAX: f64 = 1_300.0;
const BULK_PER_S_MIN: f64 = 1_000.0;
const LIST_MS_MAX: f64 = 20.0;
const FIND_MS_MAX: f64 = 20.0;
const INDEX_S_MAX: f64 = 60.0;
const MEMORY_MB_MAX: f64 = 60.0;
const VERIFY_S_MAX: f64 = 30.0;
const JOIN_S_MAX: f64 = 60.0;

/// Words of no language, as many as people use in notes, of both scripts.
struct Words {
    all: Vec<String>,
    rng: ChaCha8Rng,
}

impl Words {
    fn new() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let latin =
            ["ca", "che", "tool", "build", "run", "night", "slow", "test", "disk", "share", "net", "log", "er", "ing"];
        let arabic = ["فك", "رة", "بنا", "ليل", "أدو", "ات", "شبك", "ذاكر", "نص", "تشغ", "يل", "مش", "روع", "ال"];
        let mut all = Vec::new();
        for n in 0..4_000 {
            let of = if n % 2 == 0 { &latin } else { &arabic };
            all.push((0..rng.random_range(2..5)).map(|_| of[rng.random_range(0..of.len())]).collect());
        }
        Self { all, rng }
    }

    fn some(&mut self, count: usize) -> String {
        // A few words are frequent and most are rare, as in any text.
        let pick = |rng: &mut ChaCha8Rng, all: &[String]| {
            let far: f64 = rng.random_range(0.0..1.0);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "below 4000"
            )]
            let at = (far * far * all.len() as f64) as usize;
            all[at.min(all.len() - 1)].clone()
        };
        (0..count).map(|_| pick(&mut self.rng, &self.all)).collect::<Vec<_>>().join(" ")
    }
}

pub(super) async fn ledger(plan: &Plan) -> anyhow::Result<Row> {
    let entries = if plan.quick { ENTRIES_QUICK } else { ENTRIES };
    let mut row = Row::new(
        "ledger",
        format!("a ledger of {entries} entries on 5 nodes"),
        format!(
            "add ≤ {ADD_MS_MAX} ms, seen by all ≤ {SEEN_MS_MAX} ms, under load ≤ {SEEN_LOADED_MS_MAX} ms; bulk ≥ {BULK_PER_S_MIN}/s; list, show ≤ {LIST_MS_MAX} ms; query p95 ≤ \
             {FIND_MS_MAX} ms; index ≤ {INDEX_S_MAX} s; ≤ {MEMORY_MB_MAX} MB more; verify ≤ {VERIFY_S_MAX} s; join ≤ {JOIN_S_MAX} s"
        ),
    );
    if !cfg!(target_os = "linux") {
        return Ok(row.not_measured("it reads /proc, which this system lacks"));
    }
    let mut mesh = Mesh::up(&plan.binary, &[0; 5]).await?;
    mesh.first().wait_peers(4, 0).await?;
    let empty = resident_mb(mesh.first())?;
    let mut words = Words::new();
    let bulk = fill(&mesh, entries, &mut words).await?;
    let indexed = wait_indexed(mesh.first(), entries, bulk.begun).await?;
    say(&format!("ledger: {} entries/s, indexed after {indexed:?}", short(bulk.per_s)));
    wait_all(&mesh, entries, bulk.begun).await?;
    tokio::time::sleep(SETTLE).await;
    let full = resident_mb(mesh.first())? - empty;
    let repeats = plan.repeats(200);
    let (add, seen) = adds(&mesh, repeats.min(50), &mut words).await?;
    let loaded = adds_under_load(&mesh, entries, &mut words).await?;
    let (list, show) = looks(mesh.first(), repeats).await?;
    let find = queries(mesh.first(), repeats, &mut words).await?;
    let verify = mesh.first().time_v6(&["idea", "verify"]).await?.as_secs_f64();
    let rebuilt = rebuild(&mut mesh, entries + loaded_entries(entries)).await?;
    let ticket = mesh.first().ticket(1).await?;
    let begun = Instant::now();
    let joiner = mesh.join("joiner", 0, &ticket).await?;
    let joined = faults::history(&mesh, &joiner, begun).await?.map_or(f64::NAN, |joined| joined.as_secs_f64());
    let met = add.median() <= ADD_MS_MAX
        && seen.median() <= SEEN_MS_MAX
        && loaded.median() <= SEEN_LOADED_MS_MAX
        && bulk.per_s >= BULK_PER_S_MIN
        && list.median().max(show.median()) <= LIST_MS_MAX
        && find.percentile(95) <= FIND_MS_MAX
        && rebuilt.as_secs_f64() <= INDEX_S_MAX
        && full <= MEMORY_MB_MAX
        && verify <= VERIFY_S_MAX
        && joined <= JOIN_S_MAX;
    for (name, samples) in [
        ("add_ms", &add),
        ("seen_ms", &seen),
        ("seen_loaded_ms", &loaded),
        ("list_ms", &list),
        ("show_ms", &show),
        ("find_ms", &find),
    ] {
        row = row.numbers(name, samples);
    }
    Ok(row.measured(
        met,
        format!(
            "add {}, seen by all {}, under load {}; bulk {}/s; list {}, show {}; query p95 {} ms; index {} s; {} MB more; verify {} s; join {} s",
            add.spread("ms"),
            seen.spread("ms"),
            loaded.spread("ms"),
            short(bulk.per_s),
            list.spread("ms"),
            show.spread("ms"),
            short(find.percentile(95)),
            short(rebuilt.as_secs_f64()),
            short(full),
            short(verify),
            short(joined)
        ),
    )
    .note("bulk: entries signed elsewhere, sent as an import by 500, acknowledged by a second node; under load: while entries come in bulk; memory: of the first node, a minute later; index: made anew from the documents"))
}

/// Entries that come in while single ones are added: whole batches.
fn loaded_entries(entries: usize) -> usize {
    entries / 10 / AT_A_TIME * AT_A_TIME
}

struct Bulk {
    per_s: f64,
    begun: Instant,
}

/// Entries in batches, signed elsewhere.
fn batches(numbers: Range<usize>, words: &mut Words) -> anyhow::Result<Vec<IdeasImport>> {
    let key = SigningKey::from_bytes(&[9; 32]);
    let begun_ms = crate::daemon::now_ms().saturating_sub(numbers.end as u64);
    let mut batches = Vec::new();
    for from in numbers.clone().step_by(AT_A_TIME) {
        let mut entries = Vec::new();
        for n in from..(from + AT_A_TIME).min(numbers.end) {
            let is_last = (n + 1) % AT_A_TIME == 0;
            let title = if is_last { format!("{MARKED} {}", words.some(5)) } else { words.some(6) };
            let says = Content { body: words.some(20), ..Content::new(Kind::Idea, title) };
            let mut nonce = [0; 16];
            nonce[..8].copy_from_slice(&(n as u64).to_le_bytes());
            entries.push(file::encode(&Signed::sign(&key, PersonId([7; 16]), begun_ms + n as u64, nonce, says)?));
        }
        batches.push(IdeasImport { entries });
    }
    Ok(batches)
}

async fn bring_in(node: &Node, batch: &IdeasImport) -> anyhow::Result<()> {
    let done: IdeasImported = node.client.send_json(Method::POST, "/v1/ideas/import", batch).await?;
    anyhow::ensure!(done.added > 0, "nothing came in");
    Ok(())
}

/// Brings entries in as an import does.
async fn fill(mesh: &Mesh, entries: usize, words: &mut Words) -> anyhow::Result<Bulk> {
    let batches = batches(0..entries, words)?;
    let begun = Instant::now();
    for (at, batch) in batches.iter().enumerate() {
        bring_in(mesh.first(), batch).await?;
        if at % 20 == 0 {
            say(&format!("ledger: {} entries after {:?}", (at + 1) * AT_A_TIME, begun.elapsed()));
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let per_s = entries as f64 / begun.elapsed().as_secs_f64();
    Ok(Bulk { per_s, begun })
}

async fn wait_indexed(node: &Node, entries: usize, begun: Instant) -> anyhow::Result<Duration> {
    let path = format!("/v1/ideas/search?q={MARKED}&limit={}", entries / AT_A_TIME);
    loop {
        // An index that is not open yet says so.
        let hits: Result<Vec<IdeaFound>, _> = node.client.get(&path).await;
        if hits.is_ok_and(|hits| hits.len() == entries / AT_A_TIME) {
            return Ok(begun.elapsed());
        }
        anyhow::ensure!(begun.elapsed() < INDEX_MAX, "the index was not complete within {INDEX_MAX:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until all nodes hold and have indexed everything.
async fn wait_all(mesh: &Mesh, entries: usize, begun: Instant) -> anyhow::Result<()> {
    for node in &mesh.nodes {
        wait_indexed(node, entries, begun).await?;
    }
    Ok(())
}

/// Adds an idea at a node: time until it is acknowledged, and until the last node shows it.
async fn add(mesh: &Mesh, at: &Node, words: &mut Words) -> anyhow::Result<(Duration, Duration)> {
    let body = json!({ "title": words.some(6), "body": words.some(20) });
    let begun = Instant::now();
    let added: IdeaAdded = at.client.send_json(Method::POST, "/v1/ideas", &body).await?;
    let acknowledged = begun.elapsed();
    let path = format!("/v1/ideas/{}", added.id);
    for node in &mesh.nodes {
        while node.client.get::<serde_json::Value>(&path).await.is_err() {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(10), "an idea did not come to all nodes");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    Ok((acknowledged, begun.elapsed()))
}

/// Single adds at a second node while the first takes entries in bulk: until the last node shows them.
async fn adds_under_load(mesh: &Mesh, entries: usize, words: &mut Words) -> anyhow::Result<Samples> {
    let load = batches(entries..entries + loaded_entries(entries), words)?;
    let ends = AtomicBool::new(false);
    let bring = async {
        let mut done = Ok(());
        for batch in &load {
            done = bring_in(mesh.first(), batch).await;
            if done.is_err() {
                break;
            }
        }
        ends.store(true, Ordering::Relaxed);
        done
    };
    let look = async {
        let mut seen = Samples::default();
        while !ends.load(Ordering::Relaxed) {
            seen.push_ms(add(mesh, &mesh.nodes[1], words).await?.1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(seen)
    };
    let (brought, seen) = tokio::join!(bring, look);
    brought?;
    seen
}

/// Single adds in the quiet mesh: until they are acknowledged, and until the last node shows them.
async fn adds(mesh: &Mesh, repeats: usize, words: &mut Words) -> anyhow::Result<(Samples, Samples)> {
    let (mut acknowledged, mut seen) = (Samples::default(), Samples::default());
    for _ in 0..repeats {
        let (added, everywhere) = add(mesh, mesh.first(), words).await?;
        acknowledged.push_ms(added);
        seen.push_ms(everywhere);
        // The mesh is quiet in between.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    Ok((acknowledged, seen))
}

/// A page of the list as the page of a dashboard asks for it, and one idea.
async fn looks(node: &Node, repeats: usize) -> anyhow::Result<(Samples, Samples)> {
    let (mut list, mut show) = (Samples::default(), Samples::default());
    let rows: Vec<IdeaRow> = node.client.get("/v1/ideas?limit=500").await?;
    for at in 0..repeats {
        let begun = Instant::now();
        let page: Vec<IdeaRow> = node.client.get("/v1/ideas?limit=100").await?;
        list.push_ms(begun.elapsed());
        anyhow::ensure!(page.len() == 100, "the list has {} rows", page.len());
        let row = &rows[at % rows.len()];
        let begun = Instant::now();
        let shown: serde_json::Value = node.client.get(&format!("/v1/ideas/{}", row.id)).await?;
        show.push_ms(begun.elapsed());
        anyhow::ensure!(shown["title"] == row.title, "another idea was shown");
    }
    Ok((list, show))
}

async fn queries(node: &Node, repeats: usize, words: &mut Words) -> anyhow::Result<Samples> {
    let mut times = Samples::default();
    for at in 0..repeats {
        let query = crate::client::percent_encode(&words.some(1 + at % 3));
        let begun = Instant::now();
        let _: Vec<IdeaFound> = node.client.get(&format!("/v1/ideas/search?q={query}&limit=20")).await?;
        times.push_ms(begun.elapsed());
    }
    Ok(times)
}

/// Time to make the index anew from the documents, from the start of the node on.
async fn rebuild(mesh: &mut Mesh, entries: usize) -> anyhow::Result<Duration> {
    let node = &mut mesh.nodes[1];
    node.kill().await?;
    std::fs::remove_dir_all(node.dir.join("index"))?;
    let begun = Instant::now();
    node.restart().await?;
    let took = wait_indexed(node, entries, begun).await?;
    mesh.first().wait_peers(4, 0).await?;
    Ok(took)
}

fn resident_mb(node: &Node) -> anyhow::Result<f64> {
    Ok(status_kb(node.pid()?, "VmRSS:")? * 1_024.0 / 1e6)
}
