//! Which changes a notebook holds, who wrote them, and what each of them had seen.
//!
//! The graph admits a change only when its place is right: dependencies present, the writer's next number, counters
//! that follow from its past, and no mention of anything outside that past. So the outcome for a change depends on its
//! own history alone and is the same on every replica.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use automerge::ChangeHash;

use super::chunk::Checked;
use super::{BYTES_PER_WRITER_MAX, MAX_OP_MAX, NoteRefusal, OPS_PER_WRITER_MAX, Writer};

/// A change that the notebook holds. Its number in the graph is larger than those of its dependencies.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// None for the notebook's first change.
    pub(super) writer: Option<Writer>,
    pub(super) seq: u64,
    pub(super) start_op: u64,
    pub(super) ops: u32,
    pub(super) at_ms: i64,
    pub(super) hash: ChangeHash,
    pub(super) bytes: Vec<u8>,
    deps: Vec<u32>,
    /// It had seen every change with a smaller number.
    saw_all: bool,
    inserts: Vec<(u64, u64)>,
}

impl Record {
    pub(super) fn genesis(hash: ChangeHash, bytes: Vec<u8>) -> Self {
        Self {
            writer: None,
            seq: 1,
            start_op: 1,
            ops: 1,
            at_ms: 0,
            hash,
            bytes,
            deps: Vec::new(),
            saw_all: true,
            inserts: Vec::new(),
        }
    }

    fn max_op(&self) -> u64 {
        self.start_op + u64::from(self.ops) - 1
    }
}

/// Whether a number lies in one of the runs `(first, count)`, which are in order.
pub(super) fn in_runs(runs: &[(u64, u64)], number: u64) -> bool {
    let after = runs.partition_point(|(first, _)| *first <= number);
    after.checked_sub(1).is_some_and(|i| number - runs[i].0 < runs[i].1)
}

#[derive(Debug, Clone, Default)]
struct Written {
    changes: Vec<u32>,
    bytes: u64,
    ops: u64,
}

/// The changes of a notebook.
#[derive(Debug, Clone)]
pub(super) struct Graph {
    records: Vec<Record>,
    by_hash: BTreeMap<ChangeHash, u32>,
    by_writer: BTreeMap<Writer, Written>,
    heads: BTreeSet<ChangeHash>,
}

impl Graph {
    pub(super) fn new(genesis: Record) -> Self {
        Self {
            by_hash: BTreeMap::from([(genesis.hash, 0)]),
            heads: BTreeSet::from([genesis.hash]),
            by_writer: BTreeMap::new(),
            records: vec![genesis],
        }
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn heads(&self) -> &BTreeSet<ChangeHash> {
        &self.heads
    }

    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// The number of the writer's last change, 0 before the first.
    pub(super) fn last_seq(&self, writer: Writer) -> u64 {
        self.by_writer.get(&writer).map_or(0, |w| w.changes.len() as u64)
    }

    /// Whether the writer may add so much.
    pub(super) fn has_room(&self, writer: Writer, bytes: u64, ops: u64) -> bool {
        let (had_bytes, had_ops) = self.by_writer.get(&writer).map_or((0, 0), |w| (w.bytes, w.ops));
        had_bytes + bytes <= BYTES_PER_WRITER_MAX && had_ops + ops <= OPS_PER_WRITER_MAX
    }

    /// Checks a change against its past without adding it.
    pub(super) fn judge(&self, checked: &Checked, bytes: &[u8]) -> Result<(), NoteRefusal> {
        let missing: Vec<ChangeHash> = checked.deps.iter().filter(|d| !self.contains(d)).copied().collect();
        if !missing.is_empty() {
            return Err(NoteRefusal::MissingDependencies { missing });
        }
        let expected = self.last_seq(checked.writer) + 1;
        if checked.seq != expected {
            return Err(NoteRefusal::WrongSeq { expected, got: checked.seq });
        }
        let deps = self.numbers(&checked.deps);
        let expected = 1 + deps.iter().map(|n| self.record(*n).max_op()).max().unwrap_or(0);
        if checked.start_op != expected {
            return Err(NoteRefusal::WrongStartOp { expected, got: checked.start_op });
        }
        if checked.start_op + u64::from(checked.ops) - 1 > MAX_OP_MAX {
            return Err(NoteRefusal::StartOpOutOfRange { start_op: checked.start_op });
        }
        if !self.has_room(checked.writer, bytes.len() as u64, u64::from(checked.ops)) {
            return Err(NoteRefusal::WriterFull);
        }
        let needed = self.needed(checked)?;
        if self.all_in_past(deps, needed) { Ok(()) } else { Err(NoteRefusal::OutsidePast) }
    }

    /// Adds a change that [`Graph::judge`] let through.
    pub(super) fn admit(&mut self, checked: &Checked, bytes: Vec<u8>) {
        let number = u32::try_from(self.records.len()).expect("limits per writer keep the count far below 2^32");
        let deps = self.numbers(&checked.deps);
        let saw_all = self.heads.len() == checked.deps.len() && checked.deps.iter().all(|d| self.heads.contains(d));
        for dep in &checked.deps {
            self.heads.remove(dep);
        }
        self.heads.insert(checked.hash);
        self.by_hash.insert(checked.hash, number);
        let written = self.by_writer.entry(checked.writer).or_default();
        written.changes.push(number);
        written.bytes += bytes.len() as u64;
        written.ops += u64::from(checked.ops);
        self.records.push(Record {
            writer: Some(checked.writer),
            seq: checked.seq,
            start_op: checked.start_op,
            ops: checked.ops,
            at_ms: checked.at_ms,
            hash: checked.hash,
            bytes,
            deps,
            saw_all,
            inserts: checked.inserts.clone(),
        });
    }

    fn record(&self, number: u32) -> &Record {
        &self.records[number as usize]
    }

    fn numbers(&self, hashes: &[ChangeHash]) -> Vec<u32> {
        hashes.iter().filter_map(|h| self.by_hash.get(h).copied()).collect()
    }

    /// The changes that must be in a change's past: its writer's previous one and those whose elements it names.
    fn needed(&self, checked: &Checked) -> Result<BTreeSet<u32>, NoteRefusal> {
        let mut needed = BTreeSet::new();
        needed.extend(self.by_writer.get(&checked.writer).and_then(|w| w.changes.last().copied()));
        for (writer, counter) in &checked.references {
            let written = self.by_writer.get(writer).ok_or(NoteRefusal::UnknownElement)?;
            let after = written.changes.partition_point(|n| self.record(*n).start_op <= *counter);
            let number = after.checked_sub(1).map(|i| written.changes[i]).ok_or(NoteRefusal::UnknownElement)?;
            if !in_runs(&self.record(number).inserts, *counter) {
                return Err(NoteRefusal::UnknownElement);
            }
            needed.insert(number);
        }
        if checked.deps.is_empty() {
            return Err(NoteRefusal::OutsidePast); // not even the text itself
        }
        Ok(needed)
    }

    /// Whether all of `needed` are among `deps` and what those had seen. Numbers fall along every path, so that the
    /// walk ends at the smallest needed number, or at a change that had seen all before it.
    fn all_in_past(&self, deps: Vec<u32>, mut needed: BTreeSet<u32>) -> bool {
        let mut visited: BTreeSet<u32> = deps.iter().copied().collect();
        let mut open: BinaryHeap<u32> = deps.into();
        while let Some(number) = open.pop() {
            needed.remove(&number);
            let Some(highest) = needed.last() else { return true };
            if *highest > number {
                return false;
            }
            if self.record(number).saw_all {
                return true;
            }
            open.extend(self.record(number).deps.iter().filter(|n| visited.insert(**n)));
        }
        needed.is_empty()
    }
}
