//! Changes that came before those they build on, and the rebuilding of a notebook from a heap of changes.
//!
//! The first change that is offered for a place in its writer's sequence has that place, whatever becomes of it; and
//! behind a refused one nothing of that writer counts. Feeds bring each author's changes in one order everywhere, so
//! that every replica comes to the same notebook, however the authors' feeds interleave.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;

use super::chunk::{Checked, check};
use super::{Applied, EPOCH_MAX, Engine, NoteRefusal, Notebook, PENDING_BYTES_MAX, PENDING_CHANGES_MAX, Writer, build};
use crate::ids::{NodeId, NoteId};

type Seat = (Writer, u64);

/// A change that waits, as bytes only: what is known of it would take several times their space.
#[derive(Debug)]
struct Held {
    hash: ChangeHash,
    bytes: Vec<u8>,
    /// A dependency that it waits for; else it waits for its writer's previous change.
    missing: Option<ChangeHash>,
}

/// Holds changes that do not fit yet and tries again when something arrives that they wait for.
#[derive(Debug, Default)]
pub struct Pending {
    held: BTreeMap<Seat, Held>,
    held_bytes: usize,
    waiting: BTreeMap<ChangeHash, BTreeSet<Seat>>,
    /// Where a writer's sequence ended with a refusal.
    stopped: BTreeMap<Writer, u64>,
    unbounded: bool,
    incomplete: bool,
}

/// What came of offering a change: of it, and of those that had waited for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// Changes that are part of the notebook since this call, in order.
    pub applied: Vec<ChangeHash>,
    /// Changes that will never be part of it, and why.
    pub refused: Vec<(NodeId, NoteRefusal)>,
    /// The offered change waits.
    pub held: bool,
}

impl Pending {
    /// Changes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a change was dropped because too many waited: the notebook is to be rebuilt from the stored feeds.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The changes that others wait for and that are not here.
    pub fn missing(&self) -> impl Iterator<Item = &ChangeHash> {
        self.waiting.keys()
    }

    /// Offers a change to the notebook. One that does not fit yet is kept, up to [`PENDING_CHANGES_MAX`] and
    /// [`PENDING_BYTES_MAX`]; beyond that it is refused with [`NoteRefusal::PendingFull`].
    pub fn offer(&mut self, note: &mut Notebook, author: NodeId, bytes: &[u8]) -> Offered {
        let mut offered = Offered::default();
        let checked = match check(note.id, author, bytes) {
            Ok(checked) => checked,
            Err(reason) => {
                offered.refused.push((author, reason));
                return offered;
            }
        };
        let seat = (checked.writer, checked.seq);
        if self.held.get(&seat).is_some_and(|h| h.hash == checked.hash) {
            offered.held = true;
            return offered;
        }
        // A known change is offered on, for others may wait for one that this node itself has made.
        if let Some(reason) = self.why_not_seated(note, seat).filter(|_| !note.contains(&checked.hash)) {
            offered.refused.push((author, reason));
            return offered;
        }
        self.try_seat(note, checked, bytes.to_vec(), &mut offered);
        offered.held = self.held.contains_key(&seat);
        offered
    }

    fn why_not_seated(&self, note: &Notebook, (writer, seq): Seat) -> Option<NoteRefusal> {
        if self.stopped.get(&writer).is_some_and(|from| seq >= *from) {
            return Some(NoteRefusal::WriterStopped);
        }
        let taken = seq <= note.graph.last_seq(writer) || self.held.contains_key(&(writer, seq));
        taken.then_some(NoteRefusal::SeqTaken { seq })
    }

    /// Applies a change and all that waited for it, holds it, or ends its writer's sequence.
    fn try_seat(&mut self, note: &mut Notebook, checked: Checked, bytes: Vec<u8>, offered: &mut Offered) {
        let mut ready = vec![(checked, bytes)];
        while let Some((checked, bytes)) = ready.pop() {
            let seat @ (writer, seq) = (checked.writer, checked.seq);
            let hash = checked.hash;
            match note.take(checked, &bytes) {
                Ok(outcome) => {
                    if outcome == Applied::Fresh {
                        offered.applied.push(hash);
                    }
                    let woken = self.waiting.remove(&hash).unwrap_or_default();
                    let next = (writer, seq + 1);
                    ready.extend(woken.into_iter().chain([next]).filter_map(|seat| self.release(note, seat)));
                }
                Err(NoteRefusal::MissingDependencies { missing }) => {
                    self.hold(seat, Held { hash, bytes, missing: missing.first().copied() }, offered);
                }
                Err(NoteRefusal::WrongSeq { expected, got }) if got > expected => {
                    self.hold(seat, Held { hash, bytes, missing: None }, offered);
                }
                Err(reason) => self.stop(writer, seq, reason, offered),
            }
        }
    }

    /// Takes a held change out if its writer's turn has come.
    fn release(&mut self, note: &Notebook, seat: Seat) -> Option<(Checked, Vec<u8>)> {
        let due = seat.1 == note.graph.last_seq(seat.0) + 1;
        let held = if due { self.held.remove(&seat) } else { None }?;
        self.forget(seat, &held);
        let checked = check(note.id, seat.0.author, &held.bytes).ok()?;
        Some((checked, held.bytes))
    }

    fn hold(&mut self, seat: Seat, held: Held, offered: &mut Offered) {
        let full = self.held.len() >= PENDING_CHANGES_MAX || self.held_bytes + held.bytes.len() > PENDING_BYTES_MAX;
        if full && !self.unbounded {
            self.incomplete = true;
            offered.refused.push((seat.0.author, NoteRefusal::PendingFull));
            return;
        }
        if let Some(missing) = held.missing {
            self.waiting.entry(missing).or_default().insert(seat);
        }
        self.held_bytes += held.bytes.len();
        self.held.insert(seat, held);
    }

    /// Takes back what holding a change has noted.
    fn forget(&mut self, seat: Seat, held: &Held) {
        self.held_bytes -= held.bytes.len();
        let Some(missing) = held.missing else { return };
        if let Some(seats) = self.waiting.get_mut(&missing) {
            seats.remove(&seat);
            if seats.is_empty() {
                self.waiting.remove(&missing);
            }
        }
    }

    /// Ends a writer's sequence before `seq`: what it has waiting behind goes too.
    fn stop(&mut self, writer: Writer, seq: u64, reason: NoteRefusal, offered: &mut Offered) {
        self.stopped.insert(writer, seq);
        offered.refused.push((writer.author, reason));
        let mut behind = self.held.split_off(&(writer, seq));
        let mut others = behind.split_off(&(writer, u64::MAX));
        self.held.append(&mut others);
        for (seat, held) in behind {
            self.forget(seat, &held);
            offered.refused.push((writer.author, NoteRefusal::WriterStopped));
        }
    }
}

/// A notebook that was built from stored changes.
#[derive(Debug)]
pub struct Rebuilt {
    /// The notebook.
    pub notebook: Notebook,
    /// What waits, and which writers' sequences have ended: goes on with the notebook.
    pub pending: Pending,
    /// What is not in the notebook, in the order of author and place.
    pub skipped: Vec<Skipped>,
}

/// A change that a rebuilt notebook has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Who wrote it.
    pub author: NodeId,
    /// The change; None where the bytes were no change.
    pub hash: Option<ChangeHash>,
    /// Why: [`NoteRefusal::MissingDependencies`] where it builds on what was left out.
    pub reason: NoteRefusal,
}

/// Builds a notebook from changes, leaving out those whose dependencies are not among them.
///
/// The order is free, and each change may come more than once; only where one author wrote several changes for one
/// place, the first of them counts, so that the changes of an author should come in the order of its feed. Cost: one
/// pass of the guards, then one batch in automerge.
///
/// The next edit of an author some of whose changes are skipped goes under its next epoch.
#[must_use]
pub fn rebuild<B: AsRef<[u8]>>(id: NoteId, changes: impl IntoIterator<Item = (NodeId, B)>) -> Rebuilt {
    let mut notebook = Notebook::new(id);
    notebook.engine = Engine::Collecting(Vec::new());
    let mut pending = Pending { unbounded: true, ..Pending::default() };
    let mut skipped = Vec::new();
    for (author, bytes) in changes {
        let offered = pending.offer(&mut notebook, author, bytes.as_ref());
        skipped.extend(offered.refused.into_iter().map(|(author, reason)| Skipped { author, hash: None, reason }));
    }
    finish(&mut notebook);
    pending.unbounded = false;
    for (seat, held) in &pending.held {
        let judged = check(id, seat.0.author, &held.bytes).and_then(|c| notebook.graph.judge(&c, &held.bytes));
        let reason = judged.err().unwrap_or(NoteRefusal::WriterStopped);
        skipped.push(Skipped { author: seat.0.author, hash: Some(held.hash), reason });
        notebook.pass_epoch(seat.0);
    }
    for writer in pending.stopped.keys() {
        notebook.pass_epoch(*writer);
    }
    skipped.sort_by_key(|s| (s.author, s.hash));
    Rebuilt { notebook, pending, skipped }
}

/// Applies what was collected in one go; should automerge fail on it, one by one.
fn finish(notebook: &mut Notebook) {
    let Engine::Collecting(changes) = std::mem::replace(&mut notebook.engine, Engine::Poisoned) else { return };
    notebook.engine = build(notebook.id, changes).map_or(Engine::Poisoned, |doc| Engine::Live(Box::new(doc)));
    if !notebook.is_poisoned() {
        return;
    }
    let mut slow = Notebook::new(notebook.id);
    for (author, bytes) in notebook.changes() {
        // A refusal here leaves out what automerge cannot take and all that builds on it.
        let _ = slow.apply(author, bytes);
    }
    slow.epochs = std::mem::take(&mut notebook.epochs);
    *notebook = slow;
}

impl Notebook {
    /// Keeps an author's next edit clear of the places that orphans have taken.
    fn pass_epoch(&mut self, writer: Writer) {
        let epoch = self.epochs.entry(writer.author).or_default();
        *epoch = (*epoch).max(writer.epoch.saturating_add(1)).min(EPOCH_MAX + 1);
    }
}
