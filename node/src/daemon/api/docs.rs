//! Documents and notebooks: what the CRDTs hold and who wrote it.

use std::collections::BTreeSet;

use crdt::bundle::{Body, Bundle, ChangeKind};
use crdt::doc::{DocId, DocKind, Key};
use crdt::ids::{EntryId, JobId, NodeId, NoteId};
use crdt::job::ClaimId;
use crdt::shelf::{Shelf, Table};
use web_gateway::api::*;

use super::ideas::find_shown;
use super::jobs::find_job;
use super::{Api, jobs};
use crate::daemon::driver::NodeCore;
use crate::daemon::{notes, views};

/// Jobs in the list of documents: the newest.
const JOBS_LISTED_MAX: usize = 1_000;
/// Notebooks in the list of documents: those with the lowest ids.
const NOTES_LISTED_MAX: usize = 1_000;
/// Documents that are counted in one question to the core, so that it is never kept for long.
const DOCS_PER_QUESTION: usize = 64;
/// Bundles that are read in one question to the core.
const BUNDLES_PER_QUESTION: usize = 512;
/// Changes in a document's history: the oldest of each author.
const HISTORY_MAX: usize = 50_000;

/// The roster, notebooks, and the newest jobs.
pub(super) async fn docs(api: &Api) -> Result<Vec<DocRow>, ApiError> {
    let ids = api.ask(|core| {
        let replica = core.replica();
        let notes = replica.notes().into_iter().take(NOTES_LISTED_MAX).map(DocId::note);
        let jobs = replica.shelf().scan_back(Table::JobsByTime, &[], JOBS_LISTED_MAX);
        let jobs = jobs.into_iter().filter_map(|(key, _)| Some(DocId::job(JobId(key.get(8..)?.try_into().ok()?))));
        [DocId::ROSTER, DocId::FEED].into_iter().chain(notes).chain(jobs).collect::<Vec<_>>()
    });
    let mut rows = Vec::new();
    for some in ids.await?.chunks(DOCS_PER_QUESTION) {
        let some = some.to_vec();
        rows.extend(api.ask(move |core| some.into_iter().map(|doc| row(core, doc)).collect::<Vec<_>>()).await?);
    }
    rows.retain(|row| row.changes > 0);
    Ok(rows)
}

fn row(core: &NodeCore, doc: DocId) -> DocRow {
    let replica = core.replica();
    let authors: Vec<NodeId> = match doc.kind {
        DocKind::Note => replica.note_changes(doc).into_iter().map(|(author, ..)| author).collect(),
        DocKind::Roster | DocKind::Feed | DocKind::Job | DocKind::Ledger => {
            replica.show(doc).into_iter().map(|(a, ..)| a).collect()
        }
    };
    let title = match doc.kind {
        DocKind::Roster => Some(replica.roster().mesh_name.clone()),
        DocKind::Feed => None,
        DocKind::Job => replica.job_row(JobId(doc.id)).map(|row| row.title),
        DocKind::Note => {
            let of_idea = || replica.subject_row(DocId { kind: DocKind::Ledger, ..doc }).map(|row| row.title);
            let title = replica.job_row(JobId(doc.id)).map(|row| row.title).or_else(of_idea);
            title.map(|title| format!("notes on {title}"))
        }
        DocKind::Ledger => replica.subject_row(doc).map(|row| row.title),
    };
    let changes = authors.len() as u64;
    let authors = authors.into_iter().collect::<BTreeSet<_>>().len();
    DocRow { id: doc.to_string(), kind: kind(doc).into(), title, changes, authors: u32::try_from(authors).unwrap_or(0) }
}

fn kind(doc: DocId) -> &'static str {
    match doc.kind {
        DocKind::Roster => "roster",
        DocKind::Job => "job",
        DocKind::Feed => "feed",
        DocKind::Note => "note",
        DocKind::Ledger => "ledger",
    }
}

/// A document by its name (`roster`, `job/…`, `note/…`), or a job or notebook by its id; prefixes will do.
async fn find(api: &Api, word: &str) -> Result<DocId, ApiError> {
    let singleton = [DocId::ROSTER, DocId::FEED].into_iter().find(|doc| doc.to_string() == word);
    if let Some(doc) = singleton {
        return Ok(doc);
    }
    if let Some(id) = word.strip_prefix("job/") {
        return jobs::job_id(api, id).await.map(DocId::job);
    }
    if word.starts_with("ledger/") {
        return word.parse().map_err(|error| ApiError::BadRequest(format!("{word:?} names no document: {error}")));
    }
    if word.starts_with("note/") {
        return find_note(api, word).await.map(DocId::note);
    }
    match jobs::job_id(api, word).await {
        Err(ApiError::NotFound(_)) => find_note(api, word).await.map(DocId::note),
        found => found.map(DocId::job),
    }
}

/// A notebook: by `note/` and its id, or by the id of the job or the idea that it is about.
async fn find_note(api: &Api, word: &str) -> Result<NoteId, ApiError> {
    if let Some(whole) = word.strip_prefix("note/").and_then(|id| id.parse().ok()) {
        return Ok(whole);
    }
    if let Some(idea) = word.strip_prefix("idea:") {
        let idea = idea.to_owned();
        return api.ask(move |core| find_shown(core, &idea).map(|shown| NoteId::of_idea(shown.id))).await?;
    }
    let bare = word.strip_prefix("note/").or_else(|| word.strip_prefix("job/")).unwrap_or(word).to_lowercase();
    let missing = || ApiError::NotFound(format!("no notebook, job or idea {word:?}: `v6 doc list` lists them"));
    if bare.len() < 2 || bare.len() > 2 * EntryId::LEN || !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let whole = bare.parse::<NoteId>().ok();
    let found = api.ask(move |core| {
        let mut found: BTreeSet<NoteId> = match whole {
            Some(id) => core.replica().job_row(JobId(id.0)).map(|_| id).into_iter().collect(),
            None => find_job(core, &bare).map(|id| NoteId(id.0)).into_iter().collect(),
        };
        found.extend(core.replica().notes().into_iter().filter(|id| id.to_string().starts_with(&bare)));
        found.extend(find_shown(core, &bare).map(|shown| NoteId::of_idea(shown.id)));
        found
    });
    let found = found.await?;
    match found.len() {
        0 => Err(missing()),
        1 => found.first().copied().ok_or_else(missing),
        _ => Err(ApiError::Ambiguous(format!("several notebooks begin with {word:?}: write more of the id"))),
    }
}

/// A document's registers with their writers, or a notebook's text.
pub(super) async fn doc(api: &Api, id: &str) -> Result<DocDetail, ApiError> {
    let doc = find(api, id).await?;
    let text = match doc.kind {
        DocKind::Note => Some(notes::read(&api.0, NoteId(doc.id)).await?.text()),
        DocKind::Roster | DocKind::Feed | DocKind::Job | DocKind::Ledger => None,
    };
    let registers = api.ask(move |core| registers(core, doc)).await?;
    Ok(DocDetail { id: doc.to_string(), kind: kind(doc).into(), registers, text })
}

fn registers(core: &mut NodeCore, doc: DocId) -> Vec<RegisterView> {
    let shown = core.replica().show(doc);
    let views = shown.into_iter().map(|(author, key, seq, value)| RegisterView {
        author: author.to_string(),
        seq,
        at: views::time(core.replica().written_ms(author, seq).unwrap_or(0)),
        value: views::cbor(&value),
        ignored: ignored(core, doc, author, &key, seq).map(str::to_owned),
        key: key.to_string(),
    });
    let mut views: Vec<RegisterView> = views.collect();
    views.sort_by(|a, b| (&a.key, &a.author).cmp(&(&b.key, &b.author)));
    views
}

/// Why the fold leaves a register out, where that can be told from the register alone.
#[allow(clippy::wildcard_enum_match_arm, reason = "what is not named gets the same answer, also when kinds are added")]
fn ignored(core: &mut NodeCore, doc: DocId, author: NodeId, key: &Key, seq: u64) -> Option<&'static str> {
    if core.replica().roster().revoked.get(&author).is_some_and(|(last, _)| seq > *last) {
        return Some("written after its author was revoked");
    }
    let job = core.replica_mut().job(doc.as_job()?)?;
    let submitter = job.spec().map(|(node, _)| *node);
    #[allow(clippy::wildcard_enum_match_arm, reason = "the other keys have no such rule")]
    match key {
        Key::Spec if submitter != Some(author) => Some("another spec counts, or its author may not submit"),
        Key::Claim(attempt, range) => {
            let void = job.is_void(&ClaimId { attempt: *attempt, range: *range, owner: author });
            void.then_some("its author may not run jobs, or what makes the attempt possible is not there")
        }
        Key::Accept(_) if submitter != Some(author) => Some("only the submitter's node accepts"),
        _ => None,
    }
}

/// Every change of a document, oldest first.
pub(super) async fn doc_history(api: &Api, id: &str) -> Result<Vec<ChangeView>, ApiError> {
    let doc = find(api, id).await?;
    let mut changes: Vec<(u64, ChangeView)> = Vec::new();
    for author in api.ask(move |core| writers(core, doc)).await? {
        let mut from = 1;
        while changes.len() < HISTORY_MAX {
            let wires = api.ask(move |core| core.replica().bundles(author, from, BUNDLES_PER_QUESTION)).await?;
            let read = wires.len();
            for wire in wires {
                let header = Bundle::header_of(&wire).map_err(super::internal)?;
                if header.changes.iter().any(|change| change.doc == doc) {
                    changes.extend(changes_in(doc, &Bundle::decode(wire).map_err(super::internal)?));
                }
            }
            if read < BUNDLES_PER_QUESTION {
                break;
            }
            from += read as u64;
        }
    }
    changes.sort_by(|(at, a), (bt, b)| (at, &a.author, a.seq).cmp(&(bt, &b.author, b.seq)));
    Ok(changes.into_iter().map(|(_, change)| change).collect())
}

/// Whose feeds may have changes of a document: those who have a register or a change in it, and the revoked ones.
fn writers(core: &mut NodeCore, doc: DocId) -> BTreeSet<NodeId> {
    let replica = core.replica();
    let mut writers: BTreeSet<NodeId> = replica.roster().revoked.keys().copied().collect();
    match doc.kind {
        DocKind::Roster | DocKind::Feed => writers.extend(replica.feeds().keys().copied()),
        DocKind::Job | DocKind::Ledger => writers.extend(replica.show(doc).into_iter().map(|(author, ..)| author)),
        DocKind::Note => writers.extend(replica.note_changes(doc).into_iter().map(|(author, ..)| author)),
    }
    writers
}

fn changes_in(doc: DocId, bundle: &Bundle) -> Vec<(u64, ChangeView)> {
    let header = &bundle.header;
    let of_doc = header.changes.iter().zip(&bundle.bodies).filter(|(change, _)| change.doc == doc);
    let views = of_doc.map(|(change, body)| {
        let mut view = ChangeView {
            author: header.author.to_string(),
            seq: header.seq,
            at: views::time(header.hlc >> 16),
            hash: data_encoding::HEXLOWER.encode(&change.hash),
            key: None,
            value: None,
            summary: None,
        };
        match (body, change.kind) {
            (Body::Register { key, value }, _) => {
                view.key = Some(key.to_string());
                view.value = Some(views::cbor(value));
            }
            (Body::Notebook(bytes), ChangeKind::Notebook) => {
                if let Ok(told) = crdt::notebook::examine(NoteId(doc.id), header.author, bytes) {
                    view.hash = data_encoding::HEXLOWER.encode(&told.hash.0);
                    view.summary = Some(format!("{} characters inserted, {} deleted", told.inserted, told.deleted));
                }
            }
            (Body::Notebook(_), ChangeKind::Register | ChangeKind::Lasting) | (Body::Pruned, _) => {}
        }
        (header.hlc, view)
    });
    views.collect()
}

/// A notebook's text.
pub(super) async fn note(api: &Api, id: &str) -> Result<NoteView, ApiError> {
    let id = find_note(api, id).await?;
    Ok(notes::view(&notes::read(&api.0, id).await?))
}

/// Changes a notebook's text.
pub(super) async fn note_edit(api: &Api, id: &str, edit: NoteEdit) -> Result<NoteView, ApiError> {
    let id = find_note(api, id).await?;
    notes::edit(&api.0, id, edit).await
}
