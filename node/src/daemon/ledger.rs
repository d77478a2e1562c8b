//! Keeps the index of the ledger as new as the documents, and answers what it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use crdt::doc::DocId;
use crdt::ids::EntryId;
use crdt::ledger::{Kind, Method, NEAR_MIN, Print, Subject};
use tokio::sync::Notify;
use web_gateway::api::ApiError;

use super::Shared;
use super::driver::NodeCore;
use super::meaning;
use crate::ledger::index::{Filter, Hit, Indexed, LedgerIndex, Piece, prints};
use crate::ledger::meaning::Meanings;

/// Changes gather for this time before they are indexed together.
const GATHER: Duration = Duration::from_millis(250);
/// Time without changes after which the writer and its memory go.
const REST_AFTER: Duration = Duration::from_secs(2);
/// Subjects that are read together.
const SUBJECTS_PER_STEP: usize = 256;
/// Subjects that are committed together: each commit makes files, which are merged later.
const SUBJECTS_PER_COMMIT: usize = 4_096;
/// Characters of a subject that are indexed.
const INDEXED_CHARS_MAX: usize = 64 * 1024;
/// Time that a search waits for what was added before it.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);
/// Entries that are told to be like another.
const SIMILAR_MAX: usize = 10;
/// Subjects that are compared although they are not indexed yet.
const PENDING_COMPARED_MAX: usize = 2_000;
/// What alike titles count where the texts below them differ.
const TITLES_ALONE: f64 = 0.9;

/// The index, and what is still to go into it.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Once it is open.
    index: OnceLock<Arc<LedgerIndex>>,
    pending: Mutex<BTreeMap<DocId, u64>>,
    wake: Notify,
    pub(super) indexed: Notify,
    /// What entries mean, where the owner has a model.
    pub(super) meanings: OnceLock<Arc<Mutex<Meanings>>>,
    /// Held while something is compared with what is there and joined to it.
    pub(super) joining: tokio::sync::Mutex<()>,
    /// Held while the observation of a command is written.
    pub(super) observing: tokio::sync::Mutex<()>,
    /// Held while a program's key is read or made.
    pub(super) programs: tokio::sync::Mutex<()>,
}

/// A subject that is like another text.
pub(crate) struct Alike {
    pub(crate) id: EntryId,
    pub(crate) score: f64,
    pub(crate) method: Method,
}

impl Ledger {
    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<DocId, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These changed.
    pub(super) fn changed(&self, docs: impl IntoIterator<Item = DocId>) {
        let mut docs = docs.into_iter().peekable();
        if docs.peek().is_none() {
            return;
        }
        let mut pending = self.pending();
        for doc in docs {
            *pending.entry(doc).or_default() += 1;
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// Asks the index, on a thread that may block; `None` while it is not open.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&LedgerIndex) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<Option<T>> {
        let Some(index) = self.index.get().cloned() else { return Ok(None) };
        tokio::task::spawn_blocking(move || question(&index).map(Some)).await?
    }
}

/// Indexes what changes, from what changed while the node was away on.
pub(super) async fn keep(shared: Arc<Shared>) {
    if let Err(error) = catch_up(&shared).await {
        tracing::error!(
            error = format!("{error:#}"),
            "the index of the ledger cannot be kept: ideas are not found by their words"
        );
        return;
    }
    let ledger = &shared.ledger;
    let mut writes = false;
    loop {
        if ledger.pending().is_empty() {
            let woken = ledger.wake.notified();
            if !writes {
                woken.await;
            } else if tokio::time::timeout(REST_AFTER, woken).await.is_err() {
                writes = false;
                if let Err(error) = ledger.ask(LedgerIndex::rest).await {
                    tracing::warn!(%error, "the index of the ledger");
                }
                continue;
            }
            tokio::time::sleep(GATHER).await;
        }
        writes = true;
        if let Err(error) = step(&shared).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "the index of the ledger cannot be written, and is tried again"
            );
            tokio::time::sleep(REST_AFTER).await;
        }
    }
}

/// Finds what differs between index and documents.
async fn catch_up(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let directory = shared.options.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || LedgerIndex::open(&directory));
    let (index, mut known) = opened.await??;
    shared.ledger.index.get_or_init(|| Arc::new(index));
    let mut after = None;
    loop {
        let page = shared.core.ask(move |core| core.replica().subject_digests(after, SUBJECTS_PER_STEP)).await;
        let page = page.context("the node is stopping")?;
        let Some((last, ..)) = page.last() else { break };
        after = Some(*last);
        let differs = page.into_iter().filter_map(|(doc, id, digest)| {
            let known = known.remove(&doc);
            (id.is_some() && known != Some(digest)).then_some(doc)
        });
        shared.ledger.changed(differs.collect::<Vec<_>>());
    }
    // What is in the index and no longer in the documents.
    shared.ledger.changed(known.into_keys());
    Ok(())
}

/// Indexes some of what changed, and commits it.
async fn step(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let some: Vec<(DocId, u64)> =
        shared.ledger.pending().iter().take(SUBJECTS_PER_COMMIT).map(|(doc, n)| (*doc, *n)).collect();
    let mut is_dirty = false;
    for some in some.chunks(SUBJECTS_PER_STEP) {
        is_dirty |= put(shared, some.iter().map(|(doc, _)| *doc).collect()).await?;
    }
    // A writer costs threads and a buffer: outcomes alone, of which each job writes one, need none.
    if is_dirty {
        shared.ledger.ask(LedgerIndex::commit).await?;
    }
    let mut pending = shared.ledger.pending();
    for (doc, n) in some {
        if pending.get(&doc) == Some(&n) {
            pending.remove(&doc);
        }
    }
    drop(pending);
    shared.ledger.indexed.notify_waiters();
    Ok(())
}

/// Puts documents into the index as they stand; answers whether there is something to commit.
async fn put(shared: &Arc<Shared>, docs: Vec<DocId>) -> anyhow::Result<bool> {
    let read = shared.core.ask(move |core| {
        // What came of jobs is found by the ideas that they served.
        let docs = docs.into_iter().filter(|doc| !core.replica().is_outcome(*doc));
        docs.map(|doc| (doc, indexed(core, doc))).collect::<Vec<_>>()
    });
    let (mut put, mut gone) = (Vec::new(), Vec::new());
    for (doc, subject) in read.await.context("the node is stopping")? {
        match subject {
            Some(subject) => put.push(subject),
            None => gone.push(doc),
        }
    }
    let written = shared.ledger.ask(move |index| index.put(&put, &gone));
    Ok(written.await?.unwrap_or_default())
}

fn indexed(core: &NodeCore, doc: DocId) -> Option<Indexed> {
    let subject = core.replica().subject(doc)?;
    let digest = core.replica().subject_digest(doc)?;
    let shown = subject.shown();
    let short = |text: &str| text.chars().take(INDEXED_CHARS_MAX).collect::<String>();
    let (mut comments, mut tags) = (String::new(), subject.root.says.tags.clone());
    for entry in subject.standing() {
        if comments.len() < INDEXED_CHARS_MAX {
            comments.extend([entry.says.title.as_str(), "\n", entry.says.body.as_str(), "\n"]);
        }
        tags.extend(entry.says.tags.iter().cloned());
    }
    Some(Indexed {
        id: subject.root.id,
        digest,
        title: subject.root.says.title.clone(),
        body: short(&subject.root.says.body),
        comments: short(&comments),
        tags,
        kind: shown.kind.as_str().to_owned(),
        status: shown.status().as_str().to_owned(),
        owner: shown.owner.to_string(),
        language: subject.root.says.language.clone(),
        created_ms: shown.created_ms,
    })
}

/// What is like a text, best first; what was taken back is not.
pub(super) async fn similar(shared: &Shared, title: &str, body: &str) -> anyhow::Result<Vec<Alike>> {
    let own = prints(title, body);
    let asked = own.clone();
    let found = shared.ledger.ask(move |index| Ok(index.candidates(&asked))).await?.unwrap_or_default();
    let pending: Vec<DocId> = shared.ledger.pending().keys().take(PENDING_COMPARED_MAX).copied().collect();
    let same = meaning::same(shared, title, body).await;
    let docs: BTreeSet<DocId> = found.into_iter().chain(pending).chain(same.keys().copied()).collect();
    let texts = shared.core.ask(move |core| {
        let text = |subject: Subject| {
            let stands = subject.status != crdt::ledger::Status::Retracted && !subject.is_of_command();
            let says = subject.root.says;
            let is_root = matches!(says.kind, Kind::Idea | Kind::Observation | Kind::Issue);
            (is_root && stands).then_some((subject.root.id, says.title, says.body))
        };
        docs.into_iter().filter_map(|doc| core.replica().subject(doc).and_then(text)).collect::<Vec<_>>()
    });
    let mut alike: Vec<Alike> = texts
        .await
        .context("the node is stopping")?
        .into_iter()
        .map(|(id, title, body)| {
            let (score, method) = compare(&own, &prints(&title, &body));
            // Meaning is asked only where letters and words say nothing.
            match same.get(&DocId::ledger(id)) {
                Some(cosine) if score < NEAR_MIN => Alike { id, score: *cosine, method: Method::Semantic },
                Some(_) | None => Alike { id, score, method },
            }
        })
        .filter(|alike| alike.score >= NEAR_MIN || alike.method == Method::Semantic)
        .collect();
    alike.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    alike.truncate(SIMILAR_MAX);
    Ok(alike)
}

fn compare(own: &[Print], other: &[Print]) -> (f64, Method) {
    let whole = own.last().zip(other.last()).map_or((0.0, Method::Near), |(a, b)| a.compare(b));
    let titles = own.first().zip(other.first()).map_or(0.0, |(a, b)| a.compare(b).0);
    if whole.0 >= titles * TITLES_ALONE { whole } else { (titles * TITLES_ALONE, Method::Near) }
}

/// Searches, once what was added before is indexed.
pub(super) async fn search(
    shared: &Shared,
    words: String,
    filter: Filter,
    offset: usize,
    limit: usize,
) -> Result<Vec<Hit>, ApiError> {
    let deadline = tokio::time::Instant::now() + CATCH_UP_WAIT;
    loop {
        let indexed = shared.ledger.indexed.notified();
        if shared.ledger.pending().is_empty() || tokio::time::timeout_at(deadline, indexed).await.is_err() {
            break;
        }
    }
    let found = shared.ledger.ask(move |index| index.search(&words, &filter, offset, limit)).await;
    found.map_err(|error| ApiError::Internal(format!("{error:#}")))?.ok_or_else(|| {
        ApiError::NotReady("the index of the ledger is still being opened: try again in a moment".into())
    })
}

/// The pieces of texts that show best why they were found.
pub(super) async fn pieces(shared: &Shared, words: String, texts: Vec<String>) -> Result<Vec<Piece>, ApiError> {
    let pieces = shared.ledger.ask(move |index| texts.iter().map(|text| index.piece(&words, text)).collect());
    let pieces = pieces.await.map_err(|error| ApiError::Internal(format!("{error:#}")))?;
    Ok(pieces.unwrap_or_default())
}
