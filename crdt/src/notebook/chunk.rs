//! The door of a notebook: what can be said of a change from its bytes alone.
//!
//! A walk over the bytes bounds everything that automerge would follow blindly (lengths, runs, counts, references)
//! before automerge reads them; then the change must consist of insertions and deletions of characters in the
//! notebook's one text and of nothing else. Nothing here depends on which other changes are known. The format is the
//! change chunk of <https://automerge.org/automerge-binary-format-spec/>.

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId};
use automerge::{ActorId, Change, ChangeHash, ScalarValue};

use super::walk::{Reader, Runs, booleans, deltas, runs};
use super::{
    CHANGE_BYTES_MAX, DEPS_PER_CHANGE_MAX, MAX_OP_MAX, NoteRefusal, OPS_PER_CHANGE_MAX, OTHER_ACTORS_PER_CHANGE_MAX,
    Writer,
};
use crate::ids::{NodeId, NoteId};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const CHUNK_COMPRESSED: u8 = 2;
/// The bit of a column's specification that says "deflated".
const COLUMN_DEFLATE: u64 = 0b1000;

/// The columns that a change to one text has: `id << 4 | type`.
mod column {
    pub(super) const OBJ_ACTOR: u64 = 0x01;
    pub(super) const OBJ_COUNTER: u64 = 0x02;
    pub(super) const KEY_ACTOR: u64 = 0x11;
    pub(super) const KEY_COUNTER: u64 = 0x13;
    pub(super) const INSERT: u64 = 0x34;
    pub(super) const ACTION: u64 = 0x42;
    pub(super) const VALUE_META: u64 = 0x56;
    pub(super) const VALUE: u64 = 0x57;
    pub(super) const PRED_GROUP: u64 = 0x70;
    pub(super) const PRED_ACTOR: u64 = 0x71;
    pub(super) const PRED_COUNTER: u64 = 0x73;
}

/// The operation that creates the notebook's text: the first of its first change.
pub(super) const TEXT_COUNTER: u64 = 1;

/// A change whose form is sound.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) writer: Writer,
    pub(super) seq: u64,
    pub(super) start_op: u64,
    pub(super) ops: u32,
    pub(super) at_ms: i64,
    pub(super) hash: ChangeHash,
    pub(super) deps: Vec<ChangeHash>,
    /// Runs `(first, count)` of the operations that insert.
    pub(super) inserts: Vec<(u64, u64)>,
    /// Elements of other changes that this one names, in order and once each.
    pub(super) references: Vec<(Writer, u64)>,
    pub(super) change: Change,
}

/// What a change says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Its name.
    pub hash: ChangeHash,
    /// Its place among its writer's changes, from 1.
    pub seq: u64,
    /// When, by the writer's clock, verbatim: milliseconds since 1970.
    pub at_ms: i64,
    /// Characters inserted.
    pub inserted: u32,
    /// Characters deleted.
    pub deleted: u32,
}

/// Checks the form of a change: the answer is the same whatever else is known. Whether the change has a place in the
/// notebook, [`super::Notebook::apply`] says.
///
/// # Errors
/// [`NoteRefusal`].
pub fn examine(note: NoteId, author: NodeId, bytes: &[u8]) -> Result<Examined, NoteRefusal> {
    let checked = check(note, author, bytes)?;
    let inserted: u64 = checked.inserts.iter().map(|(_, count)| count).sum();
    let inserted = u32::try_from(inserted).map_err(|_| NoteRefusal::TooManyOps)?;
    let (seq, at_ms, hash) = (checked.seq, checked.at_ms, checked.hash);
    Ok(Examined { hash, seq, at_ms, inserted, deleted: checked.ops - inserted })
}

/// Checks the form of a change.
pub(super) fn check(note: NoteId, author: NodeId, bytes: &[u8]) -> Result<Checked, NoteRefusal> {
    let ops_walked = walk(bytes)?;
    let change = super::guarded(|| Change::from_bytes(bytes.to_vec()))
        .ok_or(NoteRefusal::Engine)?
        .map_err(|e| NoteRefusal::Format(e.to_string()))?;
    if bytes[4..8] != change.hash().0[..4] {
        return Err(NoteRefusal::Checksum);
    }
    let writer = Writer::of_actor(change.actor_id()).filter(|w| w.author == author).ok_or(NoteRefusal::ForeignActor)?;
    if change.len() != ops_walked {
        return Err(NoteRefusal::Format("the columns differ in length".into()));
    }
    let expanded = super::guarded(|| change.decode()).ok_or(NoteRefusal::Engine)?;
    let mut checked = Checked {
        writer,
        seq: change.seq(),
        start_op: change.start_op().get(),
        ops: u32::try_from(change.len()).map_err(|_| NoteRefusal::TooManyOps)?,
        at_ms: change.timestamp(),
        hash: change.hash(),
        deps: change.deps().to_vec(),
        inserts: Vec::new(),
        references: Vec::new(),
        change,
    };
    let genesis = genesis_actor(note);
    for (op, counter) in expanded.operations.iter().zip(checked.start_op..) {
        checked.take_op(&genesis, op, counter)?;
    }
    checked.references.sort_unstable();
    checked.references.dedup();
    checked.refuse_unused_actors(&genesis)?;
    Ok(checked)
}

/// The actor of a notebook's first change; shorter than any writer's, so that nobody can write as it.
pub(super) fn genesis_actor(note: NoteId) -> ActorId {
    ActorId::from(&note.0[..])
}

impl Checked {
    /// An operation inserts one character into the notebook's text or deletes one from it.
    fn take_op(&mut self, genesis: &ActorId, op: &Op, counter: u64) -> Result<(), NoteRefusal> {
        let in_text = matches!(&op.obj, ObjectId::Id(OpId(TEXT_COUNTER, actor)) if actor == genesis);
        if !in_text {
            return Err(NoteRefusal::NotText);
        }
        let Key::Seq(element) = &op.key else { return Err(NoteRefusal::NotText) };
        if let ElementId::Id(id) = element {
            self.take_reference(id, counter)?;
        }
        match (&op.action, op.insert, element) {
            (automerge::legacy::OpType::Put(ScalarValue::Str(s)), true, _)
                if s.chars().count() == 1 && op.pred.is_empty() =>
            {
                match self.inserts.last_mut() {
                    Some((first, count)) if *first + *count == counter => *count += 1,
                    _ => self.inserts.push((counter, 1)),
                }
                Ok(())
            }
            (automerge::legacy::OpType::Delete, false, ElementId::Id(id))
                if op.pred.len() == 1 && op.pred.get(0) == Some(id) =>
            {
                Ok(())
            }
            _ => Err(NoteRefusal::NotText),
        }
    }

    fn take_reference(&mut self, id: &OpId, counter: u64) -> Result<(), NoteRefusal> {
        let writer = Writer::of_actor(&id.1).ok_or(NoteRefusal::UnknownElement)?;
        if writer == self.writer && id.0 >= self.start_op {
            let known = id.0 < counter && super::graph::in_runs(&self.inserts, id.0);
            return if known { Ok(()) } else { Err(NoteRefusal::UnknownElement) };
        }
        if self.references.last() != Some(&(writer, id.0)) {
            self.references.push((writer, id.0));
        }
        Ok(())
    }

    /// Each actor in the change's table is there because an operation names it, once, in order.
    fn refuse_unused_actors(&self, genesis: &ActorId) -> Result<(), NoteRefusal> {
        let others = self.change.other_actor_ids();
        let in_order = others.windows(2).all(|two| two[0] < two[1]);
        let used = others.iter().all(|actor| {
            actor == genesis
                || Writer::of_actor(actor).is_some_and(|w| {
                    w != self.writer
                        && self
                            .references
                            .get(self.references.partition_point(|r| *r < (w, 0)))
                            .is_some_and(|r| r.0 == w)
                })
        });
        if in_order && used { Ok(()) } else { Err(NoteRefusal::Format("actors out of order or without use".into())) }
    }
}

/// Bounds every length, run and count of a change's bytes and returns its number of operations.
pub(super) fn walk(bytes: &[u8]) -> Result<usize, NoteRefusal> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(NoteRefusal::TooLarge { bytes: bytes.len() });
    }
    let mut reader = Reader::new(bytes);
    if reader.take(4)? != MAGIC {
        return Err(NoteRefusal::Format("not an automerge change".into()));
    }
    reader.take(4)?;
    match reader.take(1)?[0] {
        CHUNK_CHANGE => {}
        CHUNK_COMPRESSED => return Err(NoteRefusal::Compressed),
        kind => return Err(NoteRefusal::Format(format!("chunk type {kind} is not a change"))),
    }
    let body_len = reader.length()?;
    if body_len < reader.rest().len() {
        return Err(NoteRefusal::TrailingBytes);
    }
    let mut body = Reader::new(reader.take(body_len)?);
    walk_head(&mut body)?;
    let columns = walk_columns(&mut body)?;
    if !body.rest().is_empty() {
        return Err(NoteRefusal::TrailingBytes);
    }
    walk_ops(&columns)
}

fn walk_head(body: &mut Reader<'_>) -> Result<(), NoteRefusal> {
    let deps = body.length()?;
    if deps > DEPS_PER_CHANGE_MAX {
        return Err(NoteRefusal::TooManyDependencies);
    }
    let hashes = body.take(deps * 32)?;
    let (hashes, _) = hashes.as_chunks::<32>();
    if !hashes.windows(2).all(|two| two[0] < two[1]) {
        return Err(NoteRefusal::Format("dependencies out of order".into()));
    }
    let actor_len = body.length()?;
    body.take(actor_len)?;
    body.unsigned()?; // seq
    let start_op = body.unsigned()?;
    if start_op == 0 || start_op > MAX_OP_MAX {
        return Err(NoteRefusal::StartOpOutOfRange { start_op });
    }
    body.signed()?; // time
    if body.length()? != 0 {
        return Err(NoteRefusal::NotText); // a commit message
    }
    let others = body.length()?;
    if others > OTHER_ACTORS_PER_CHANGE_MAX {
        return Err(NoteRefusal::Format("too many actors".into()));
    }
    for _ in 0..others {
        let len = body.length()?;
        body.take(len)?;
    }
    body.actors = 1 + others as u64;
    Ok(())
}

/// The columns of a change to one text, each empty when it is absent.
#[derive(Default)]
struct Columns<'a> {
    actors: u64,
    by_spec: Vec<(u64, &'a [u8])>,
}

impl<'a> Columns<'a> {
    fn get(&self, spec: u64) -> &'a [u8] {
        self.by_spec.iter().find(|(s, _)| *s == spec).map_or(&[], |(_, data)| data)
    }
}

fn walk_columns<'a>(body: &mut Reader<'a>) -> Result<Columns<'a>, NoteRefusal> {
    use column::*;
    let count = body.length()?;
    let mut specs: Vec<(u64, usize)> = Vec::new();
    for _ in 0..count {
        let (spec, len) = (body.unsigned()?, body.length()?);
        if spec & COLUMN_DEFLATE != 0 {
            return Err(NoteRefusal::Compressed);
        }
        let of_text = matches!(
            spec,
            OBJ_ACTOR
                | OBJ_COUNTER
                | KEY_ACTOR
                | KEY_COUNTER
                | INSERT
                | ACTION
                | VALUE_META
                | VALUE
                | PRED_GROUP
                | PRED_ACTOR
                | PRED_COUNTER
        );
        if !of_text {
            return Err(NoteRefusal::NotText);
        }
        if specs.last().is_some_and(|(last, _)| *last >= spec) {
            return Err(NoteRefusal::Format("columns out of order".into()));
        }
        specs.push((spec, len));
    }
    let mut by_spec = Vec::with_capacity(specs.len());
    for (spec, len) in specs {
        by_spec.push((spec, body.take(len)?));
    }
    Ok(Columns { actors: body.actors, by_spec })
}

fn walk_ops(columns: &Columns<'_>) -> Result<usize, NoteRefusal> {
    use column::*;
    let ops = runs(columns.get(ACTION), OPS_PER_CHANGE_MAX)?.rows;
    if ops == 0 {
        return Err(NoteRefusal::Empty);
    }
    for spec in [OBJ_ACTOR, KEY_ACTOR, PRED_ACTOR] {
        let Runs { value_max, .. } = runs(columns.get(spec), ops)?;
        if value_max.is_some_and(|v| v >= columns.actors) {
            return Err(NoteRefusal::Format("an actor that is not in the change's table".into()));
        }
    }
    let objects = runs(columns.get(OBJ_COUNTER), ops)?;
    if objects.value_max.is_some_and(|v| v > MAX_OP_MAX) {
        return Err(NoteRefusal::NotText);
    }
    for spec in [KEY_COUNTER, PRED_COUNTER] {
        deltas(columns.get(spec), ops)?;
    }
    booleans(columns.get(INSERT), ops)?;
    if runs(columns.get(PRED_GROUP), ops)?.value_sum > ops as u64 {
        return Err(NoteRefusal::NotText);
    }
    // A value's length is in the upper bits of its row in the metadata column.
    let values = runs(columns.get(VALUE_META), ops)?;
    if values.length_sum != columns.get(VALUE).len() as u64 {
        return Err(NoteRefusal::Format("values and their lengths differ".into()));
    }
    Ok(ops)
}
