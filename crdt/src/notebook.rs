//! Notebooks: texts that people write together, offline too, each with its whole history.
//!
//! A notebook is one automerge document with one text. Automerge trusts what it is given; this module does not: a
//! change reaches it only after the guards of `chunk` (its form) and `graph` (its place), and runs where a panic costs
//! that notebook's document only, which is then built again from the changes that were good. All limits are per change
//! and per writer, so that what is refused does not depend on the order of arrival.
//!
//! A node writes as the actor that is its id. When a fork or revocation orphans changes of its own, it goes on under
//! the same id with the next *epoch* as a further byte, for its old sequence numbers are taken on replicas that do not
//! know of the cut yet. Compressed changes are refused and never made, so that nothing inflates.

mod chunk;
mod diff;
mod graph;
mod pending;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{ActorId, Automerge, Change, ObjId, ObjType, PatchLog, ROOT, ReadDoc, TextEncoding};

use crate::ids::{NodeId, NoteId};
pub use automerge::ChangeHash;
use chunk::{Checked, check};
pub use chunk::{Examined, examine};
use graph::{Graph, Record};
pub use pending::{Offered, Pending, Rebuilt, Skipped, rebuild};

/// Bytes of one change, so that it fits a bundle beside its header. Larger: refused.
pub const CHANGE_BYTES_MAX: usize = crate::limits::BUNDLE_BYTES_MAX - 160 * 1024;
/// Operations (characters inserted or deleted) of one change. More: refused; an edit must be made in parts.
pub const OPS_PER_CHANGE_MAX: usize = 65_536;
/// Dependencies of one change, that is, heads that its writer had seen. More: refused.
pub const DEPS_PER_CHANGE_MAX: usize = 2_048;
/// Other actors that one change names. More: refused.
pub const OTHER_ACTORS_PER_CHANGE_MAX: usize = 4_096;
/// Operations of one writer in one notebook. More: refused.
pub const OPS_PER_WRITER_MAX: u64 = 500_000;
/// Bytes of one writer's changes in one notebook. More: refused.
pub const BYTES_PER_WRITER_MAX: u64 = 8 * 1024 * 1024;
/// The highest operation counter, far below 2^32 where automerge's own arithmetic ends. Beyond: refused.
pub const MAX_OP_MAX: u64 = 50_000_000;
/// Characters of a notebook's text after an edit on this node. More: the edit is refused.
pub const TEXT_CHARS_MAX: usize = 262_144;
/// The highest epoch of a writer. An author that was orphaned more often than this reads on, but writes no more.
pub const EPOCH_MAX: u8 = 15;
/// Changes of one notebook that wait for others. More: dropped, and the buffer says that it is incomplete.
pub const PENDING_CHANGES_MAX: usize = 4_096;
/// Bytes of the changes of one notebook that wait for others. More: dropped, and the buffer says so.
pub const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The key of the text in the document's root.
const TEXT_KEY: &str = "text";
/// The actor of edits that are only tried out: shorter than any writer's.
const COPY_ACTOR: u8 = 0xff;
const DIGEST_CONTEXT: &str = "v6 2026 notebook digest";

/// Why a notebook does not take a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteRefusal {
    /// More than [`CHANGE_BYTES_MAX`].
    #[error("the change has {bytes} bytes, more than {CHANGE_BYTES_MAX}")]
    TooLarge {
        /// Bytes of the change.
        bytes: usize,
    },
    /// The bytes end too early.
    #[error("the change is cut short")]
    Truncated,
    /// Something follows the change, such as a second one.
    #[error("bytes follow the end of the change")]
    TrailingBytes,
    /// A compressed change or column: what it inflates to cannot be known beforehand.
    #[error("compressed changes are not accepted")]
    Compressed,
    /// Not the form of a change.
    #[error("not a sound change: {0}")]
    Format(String),
    /// The checksum belongs to other bytes.
    #[error("the change's checksum is wrong")]
    Checksum,
    /// More than [`OPS_PER_CHANGE_MAX`] operations.
    #[error("the change has more than {OPS_PER_CHANGE_MAX} operations")]
    TooManyOps,
    /// More than [`DEPS_PER_CHANGE_MAX`] dependencies.
    #[error("the change has more than {DEPS_PER_CHANGE_MAX} dependencies")]
    TooManyDependencies,
    /// The change does nothing.
    #[error("the change has no operations")]
    Empty,
    /// The change does something else than to insert and delete characters of the notebook's text.
    #[error("the change does more than to edit the notebook's text")]
    NotText,
    /// The change was made in the name of another node.
    #[error("the change's actor is not its author")]
    ForeignActor,
    /// The change builds on changes that are not here (yet): keep it and try again.
    #[error("{} changes that it builds on are missing", missing.len())]
    MissingDependencies {
        /// Their hashes.
        missing: Vec<ChangeHash>,
    },
    /// Not the writer's next change.
    #[error("expected change {expected} of its writer, got {got}")]
    WrongSeq {
        /// Last + 1.
        expected: u64,
        /// What the change says.
        got: u64,
    },
    /// Another change took this place in its writer's sequence.
    #[error("change {seq} of this writer is another one")]
    SeqTaken {
        /// The place.
        seq: u64,
    },
    /// The operations are not numbered from 1 + the highest number of the dependencies.
    #[error("expected operations from {expected}, got {got}")]
    WrongStartOp {
        /// 1 + the largest operation counter among the dependencies.
        expected: u64,
        /// What the change says.
        got: u64,
    },
    /// Operation counters of 0 or beyond [`MAX_OP_MAX`].
    #[error("operation counter {start_op} is out of range")]
    StartOpOutOfRange {
        /// What the change says.
        start_op: u64,
    },
    /// The change names a character that does not exist.
    #[error("the change names a character that does not exist")]
    UnknownElement,
    /// The change names something, or follows a change of its writer, that its dependencies had not seen.
    #[error("the change names what its dependencies had not seen")]
    OutsidePast,
    /// [`OPS_PER_WRITER_MAX`] or [`BYTES_PER_WRITER_MAX`] is reached.
    #[error("its writer has written as much into this notebook as one may")]
    WriterFull,
    /// An earlier change of this writer was refused; what follows it has no place.
    #[error("an earlier change of this writer was refused")]
    WriterStopped,
    /// The buffer of waiting changes is full: offer the change again later.
    #[error("too many changes of this notebook wait for others")]
    PendingFull,
    /// Automerge itself failed on the change.
    #[error("the document could not take the change")]
    Engine,
    /// The notebook's document is lost until it is rebuilt.
    #[error("the notebook must be rebuilt first")]
    Poisoned,
}

/// Why an edit on this node was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditRefusal {
    /// The text would be longer than [`TEXT_CHARS_MAX`].
    #[error("the text would have {chars} characters, more than {TEXT_CHARS_MAX}: shorten it")]
    TextTooLong {
        /// Characters that the text would have.
        chars: usize,
    },
    /// More than [`OPS_PER_CHANGE_MAX`] characters change at once.
    #[error("{ops} characters change at once, more than {OPS_PER_CHANGE_MAX}: edit in parts")]
    TooMuchAtOnce {
        /// Characters inserted and deleted.
        ops: usize,
    },
    /// The version that was edited is not (or not wholly) known here.
    #[error("the version that was edited is not known here: read the notebook again")]
    UnknownBase,
    /// This node reached a limit of what one node writes into one notebook.
    #[error("this node has written as much into this notebook as one may: start another")]
    WriterFull,
    /// Automerge failed on the edit; the text is as it was.
    #[error("the document could not take the edit")]
    Engine,
    /// The notebook's document is lost until it is rebuilt.
    #[error("the notebook must be rebuilt first")]
    Poisoned,
}

/// What became of a change that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is part of the notebook since this call.
    Fresh,
    /// It was already.
    Known,
}

/// One change in a notebook's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Who wrote it.
    pub author: NodeId,
    /// The author's epoch (see the module's page).
    pub epoch: u8,
    /// Its place among the writer's changes, from 1.
    pub seq: u64,
    /// When, by the author's clock, verbatim: milliseconds since 1970.
    pub at_ms: i64,
    /// Characters inserted and deleted.
    pub ops: u32,
    /// The change.
    pub hash: ChangeHash,
}

/// An author in one of its epochs: the actor of its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Writer {
    author: NodeId,
    epoch: u8,
}

impl Writer {
    fn actor(self) -> ActorId {
        let mut bytes = self.author.0.to_vec();
        if self.epoch > 0 {
            bytes.push(self.epoch);
        }
        ActorId::from(bytes)
    }

    fn of_actor(actor: &ActorId) -> Option<Self> {
        let (author, epoch) = actor.to_bytes().split_first_chunk::<{ NodeId::LEN }>()?;
        let epoch = match epoch {
            [] => 0,
            [epoch @ 1..=EPOCH_MAX] => *epoch,
            _ => return None,
        };
        Some(Self { author: NodeId(*author), epoch })
    }
}

/// Where the document is.
enum Engine {
    /// It holds every change of the graph.
    Live(Box<Automerge>),
    /// Changes are collected first and applied at once.
    Collecting(Vec<Change>),
    /// It could not be built from the graph's changes.
    Poisoned,
}

/// A text that several nodes write.
pub struct Notebook {
    id: NoteId,
    graph: Graph,
    engine: Engine,
    /// The epoch below which an author's numbers may be taken by orphans.
    epochs: std::collections::BTreeMap<NodeId, u8>,
}

impl fmt::Debug for Notebook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notebook").field("id", &self.id).field("changes", &self.graph.records().len()).finish()
    }
}

impl Notebook {
    /// The empty notebook, the same on every node that creates one of this id.
    ///
    /// # Panics
    /// When automerge cannot create an empty document: a defect of ours.
    #[must_use]
    pub fn new(id: NoteId) -> Self {
        let (doc, first) = create(id);
        let graph = Graph::new(Record::genesis(first.hash(), first.raw_bytes().to_vec()));
        Self { id, graph, engine: Engine::Live(Box::new(doc)), epochs: std::collections::BTreeMap::new() }
    }

    /// A notebook of these changes; see [`rebuild`] for their order and for what is left out.
    #[must_use]
    pub fn load_changes<B: AsRef<[u8]>>(id: NoteId, changes: impl IntoIterator<Item = (NodeId, B)>) -> Rebuilt {
        rebuild(id, changes)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NoteId {
        self.id
    }

    /// The text; empty while [`Notebook::is_poisoned`]. Cost: linear in its length.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.engine {
            Engine::Live(doc) => guarded(|| text_of(doc)).flatten().unwrap_or_default(),
            Engine::Collecting(_) | Engine::Poisoned => String::new(),
        }
    }

    /// Whether the document was lost to a defect of automerge; [`rebuild`] makes another.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self.engine, Engine::Poisoned)
    }

    /// The changes that no other change builds on, in order: the notebook's version.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.graph.heads().iter().copied().collect()
    }

    /// A hash of the set of changes, the same on every replica that has the same ones. Cost: linear in the heads.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(DIGEST_CONTEXT);
        hasher.update(&self.id.0);
        for head in self.graph.heads() {
            hasher.update(&head.0);
        }
        *hasher.finalize().as_bytes()
    }

    /// Whether a change is part of the notebook.
    #[must_use]
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.graph.contains(hash)
    }

    /// Every change but the first (which [`Notebook::new`] makes), in an order that is the same on every replica and
    /// in which each follows what it builds on.
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEntry> {
        let mut entries: Vec<(u64, HistoryEntry)> = self.graph.records().iter().filter_map(entry).collect();
        entries.sort_unstable_by_key(|(start_op, e)| (*start_op, e.hash));
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Every change's author and bytes in the order in which this replica took them: what another one needs.
    pub fn changes(&self) -> impl Iterator<Item = (NodeId, &[u8])> {
        self.graph.records().iter().filter_map(|r| r.writer.map(|w| (w.author, r.bytes.as_slice())))
    }

    /// Makes the text `new_text` and returns the change that says so, None where nothing changes. `author` is this
    /// node, `at_ms` its clock in milliseconds since 1970.
    ///
    /// # Errors
    /// [`EditRefusal`]; the text is then as it was.
    pub fn edit(&mut self, author: NodeId, new_text: &str, at_ms: i64) -> Result<Option<Vec<u8>>, EditRefusal> {
        let Engine::Live(doc) = &mut self.engine else { return Err(EditRefusal::Poisoned) };
        let old = guarded(|| text_of(doc)).flatten().ok_or(EditRefusal::Engine)?;
        let splices = diff::splices(&old, new_text);
        if splices.is_empty() {
            return Ok(None);
        }
        let writer = Writer { author, epoch: self.epochs.get(&author).copied().unwrap_or(0) };
        bound_edit(&self.graph, writer, new_text, &splices)?;
        let made = guarded(|| commit(doc, writer, &splices, at_ms)).flatten();
        let bytes = made.map(|change| change.raw_bytes().to_vec());
        let checked = bytes.as_ref().and_then(|bytes| {
            let checked = check(self.id, author, bytes).ok()?;
            self.graph.judge(&checked, bytes).ok().map(|()| checked)
        });
        if let (Some(bytes), Some(checked)) = (bytes, checked) {
            self.graph.admit(&checked, bytes.clone());
            return Ok(Some(bytes));
        }
        self.restore();
        Err(EditRefusal::Engine)
    }

    /// The text that comes of making the version `base` (its heads) read `new_text`, with everything that was written
    /// since: what [`Notebook::edit`] is to be given by who has seen an older version.
    ///
    /// # Errors
    /// [`EditRefusal`].
    pub fn merged(&self, base: &[ChangeHash], new_text: &str) -> Result<String, EditRefusal> {
        let chars = new_text.chars().count();
        if chars > TEXT_CHARS_MAX {
            return Err(EditRefusal::TextTooLong { chars });
        }
        if base.is_empty() || base.len() > DEPS_PER_CHANGE_MAX || !base.iter().all(|head| self.contains(head)) {
            return Err(EditRefusal::UnknownBase);
        }
        if self.graph.heads().iter().all(|head| base.contains(head)) {
            return Ok(new_text.to_owned());
        }
        let Engine::Live(doc) = &self.engine else { return Err(EditRefusal::Poisoned) };
        guarded(|| edited_at(doc, base, new_text)).flatten().ok_or(EditRefusal::Engine)
    }

    /// Takes a change that another node made. Cost: automerge's, linear in the document (0.5 ms at 2,000 characters,
    /// 13 ms at 49,000); many changes at once are cheaper through [`rebuild`], which applies them as one batch.
    ///
    /// # Errors
    /// [`NoteRefusal`]; the notebook is then as it was. [`NoteRefusal::MissingDependencies`] is normal when authors'
    /// changes overtake each other: [`Pending`] keeps such a change until it fits.
    pub fn apply(&mut self, author: NodeId, change_bytes: &[u8]) -> Result<Applied, NoteRefusal> {
        let checked = check(self.id, author, change_bytes)?;
        self.take(checked, change_bytes)
    }

    /// Takes a change whose form is checked.
    fn take(&mut self, checked: Checked, bytes: &[u8]) -> Result<Applied, NoteRefusal> {
        if self.graph.contains(&checked.hash) {
            return Ok(Applied::Known);
        }
        self.graph.judge(&checked, bytes)?;
        match &mut self.engine {
            Engine::Live(doc) => {
                if !run(doc, vec![checked.change.clone()]) {
                    self.restore();
                    return Err(NoteRefusal::Engine);
                }
            }
            Engine::Collecting(changes) => changes.push(checked.change.clone()),
            Engine::Poisoned => return Err(NoteRefusal::Poisoned),
        }
        let epoch = self.epochs.entry(checked.writer.author).or_default();
        *epoch = checked.writer.epoch.max(*epoch);
        self.graph.admit(&checked, bytes.to_vec());
        Ok(Applied::Fresh)
    }

    /// Builds the document again from the graph's changes.
    fn restore(&mut self) {
        let changes = self.graph.records()[1..].iter().map(|r| Change::from_bytes(r.bytes.clone()).ok());
        let built =
            guarded(|| changes.collect::<Option<Vec<_>>>()).flatten().and_then(|changes| build(self.id, changes));
        self.engine = built.map_or(Engine::Poisoned, |doc| Engine::Live(Box::new(doc)));
    }
}

fn entry(record: &Record) -> Option<(u64, HistoryEntry)> {
    let writer = record.writer?;
    let (seq, at_ms, ops, hash) = (record.seq, record.at_ms, record.ops, record.hash);
    Some((record.start_op, HistoryEntry { author: writer.author, epoch: writer.epoch, seq, at_ms, ops, hash }))
}

/// The document with its text, and the change that creates it.
fn create(id: NoteId) -> (Automerge, Change) {
    let mut doc = Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint).with_actor(chunk::genesis_actor(id));
    let mut transaction = doc.transaction();
    transaction.put_object(ROOT, TEXT_KEY, ObjType::Text).expect("an empty document takes a text");
    transaction.commit_with(CommitOptions::default().with_time(0));
    let first = doc.get_last_local_change().expect("the change was made above");
    (doc, first)
}

fn build(id: NoteId, changes: Vec<Change>) -> Option<Automerge> {
    let (mut doc, _) = create(id);
    run(&mut doc, changes).then_some(doc)
}

/// Lets automerge apply changes; whether it did. After a failure the document is not to be used.
fn run(doc: &mut Automerge, changes: Vec<Change>) -> bool {
    let last = changes.last().map(Change::hash);
    let applied = guarded(|| {
        doc.apply_changes(changes).is_ok() && last.is_none_or(|h| doc.get_change_meta_by_hash(&h).is_some())
    });
    applied == Some(true)
}

fn text_object(doc: &Automerge) -> Option<ObjId> {
    let (_, id) = doc.get(ROOT, TEXT_KEY).ok()??;
    Some(id)
}

fn text_of(doc: &Automerge) -> Option<String> {
    doc.text(text_object(doc)?).ok()
}

fn bound_edit(graph: &Graph, writer: Writer, new_text: &str, splices: &[diff::Splice]) -> Result<(), EditRefusal> {
    let chars = new_text.chars().count();
    if chars > TEXT_CHARS_MAX {
        return Err(EditRefusal::TextTooLong { chars });
    }
    let ops: usize = splices.iter().map(|s| s.deleted + s.inserted.chars().count()).sum();
    if ops > OPS_PER_CHANGE_MAX {
        return Err(EditRefusal::TooMuchAtOnce { ops });
    }
    let room = writer.epoch <= EPOCH_MAX && graph.has_room(writer, CHANGE_BYTES_MAX as u64, ops as u64);
    if room { Ok(()) } else { Err(EditRefusal::WriterFull) }
}

fn commit(doc: &mut Automerge, writer: Writer, splices: &[diff::Splice], at_ms: i64) -> Option<Change> {
    doc.set_actor(writer.actor());
    let text = text_object(doc)?;
    let mut transaction = doc.transaction();
    splice_all(&mut transaction, &text, splices)?;
    transaction.commit_with(CommitOptions::default().with_time(at_ms));
    doc.get_last_local_change()
}

fn splice_all(transaction: &mut Transaction<'_>, text: &ObjId, splices: &[diff::Splice]) -> Option<()> {
    for splice in splices.iter().rev() {
        let deleted = isize::try_from(splice.deleted).ok()?;
        transaction.splice_text(text, splice.at, deleted, &splice.inserted).ok()?;
    }
    Some(())
}

/// The text after an edit of an older version, made in a copy.
fn edited_at(doc: &Automerge, base: &[ChangeHash], new_text: &str) -> Option<String> {
    let text = text_object(doc)?;
    let splices = diff::splices(&doc.text_at(&text, base).ok()?, new_text);
    let mut copy = doc.clone();
    copy.set_actor(ActorId::from(&[COPY_ACTOR][..]));
    let mut transaction = copy.transaction_at(PatchLog::inactive(), base).ok()?;
    splice_all(&mut transaction, &text, &splices)?;
    transaction.commit_with(CommitOptions::default().with_time(0));
    text_of(&copy)
}

/// Runs foreign code that might panic; None if it did.
fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}
