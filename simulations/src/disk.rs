//! A disk under a virtual clock: rows in memory whose last commit can still be taken back.
//!
//! Rows that many nodes hold alike are one allocation: a mesh of a thousand nodes fits into the memory of a desktop.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crdt::shelf::{Shelf, Table, Write};

const SHARDS: usize = 16;
/// Rows that are remembered as shared, per shard. More: all are forgotten, and rows of later are shared anew.
const SHARED_MAX: usize = 1 << 20;
/// Bytes in front of a row that say how long its key is.
const KEY_LEN_BYTES: usize = 2;

/// A row in one piece: the length of its key, the key, the value. A mesh has millions of them.
#[derive(Debug, Clone)]
struct Row(Arc<[u8]>);

impl Row {
    fn bytes(key: &[u8], value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(key.len()).expect("keys are short");
        [&len.to_le_bytes()[..], key, value].concat()
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let len = usize::from(u16::from_le_bytes([self.0[0], self.0[1]]));
        self.0[KEY_LEN_BYTES..].split_at(len)
    }

    fn key(&self) -> &[u8] {
        self.split().0
    }

    fn value(&self) -> &[u8] {
        self.split().1
    }

    fn owned(&self) -> (Vec<u8>, Vec<u8>) {
        let (key, value) = self.split();
        (key.to_vec(), value.to_vec())
    }
}

// Rows are found by their keys.
impl std::borrow::Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(other.key())
    }
}

type Shard = Mutex<HashSet<Arc<[u8]>, foldhash::fast::FixedState>>;

/// Rows that nodes share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    shards: Arc<[Shard; SHARDS]>,
}

impl Shared {
    fn share(&self, bytes: Vec<u8>) -> Arc<[u8]> {
        let hash = foldhash::fast::FixedState::default().hash_one(&bytes[..]);
        let shard = usize::try_from(hash % SHARDS as u64).expect("few shards");
        let mut known = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&bytes[..]) {
            return Arc::clone(found);
        }
        if known.len() >= SHARED_MAX {
            known.clear();
        }
        let new: Arc<[u8]> = bytes.into();
        known.insert(Arc::clone(&new));
        new
    }
}

/// What a row was: there with this value, or not there.
#[derive(Debug, Clone)]
enum Undo {
    Put(Table, Row),
    Remove(Table, Vec<u8>),
}

/// A shelf whose rows since the last commit can be taken back.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    shared: Shared,
    tables: [BTreeSet<Row>; Table::ALL.len()],
    /// What the rows were that were put since the last commit, in the order of the writes.
    undo: Vec<Undo>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: usize = self.tables.iter().map(BTreeSet::len).sum();
        f.debug_struct("Disk").field("rows", &rows).finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone(), ..Self::default() }
    }

    /// A hash of all rows.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        for table in &self.tables {
            table.len().hash(&mut hasher);
            table.iter().for_each(|row| row.0.hash(&mut hasher));
        }
        hasher.finish()
    }

    /// Whether anything was put since the last commit.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.undo.is_empty()
    }

    /// What was put is durable from now on.
    pub(crate) fn commit(&mut self) {
        self.undo.clear();
    }

    /// What was put since the last commit is gone.
    pub(crate) fn roll_back(&mut self) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::Put(table, row) => drop(self.table_mut(table).replace(row)),
                Undo::Remove(table, key) => drop(self.table_mut(table).remove(&key[..])),
            }
        }
    }

    fn table(&self, table: Table) -> &BTreeSet<Row> {
        &self.tables[table as usize]
    }

    fn table_mut(&mut self, table: Table) -> &mut BTreeSet<Row> {
        &mut self.tables[table as usize]
    }
}

impl Shelf for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.table(table).get(key).map(|row| row.value().to_vec())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.table(table)
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|row| row.key().starts_with(prefix))
            .take(limit)
            .map(Row::owned)
            .collect()
    }

    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let end = if before.is_empty() { Bound::Unbounded } else { Bound::Excluded(before) };
        self.table(table).range::<[u8], _>((Bound::Unbounded, end)).rev().take(limit).map(Row::owned).collect()
    }

    fn put(&mut self, (table, key, value): Write) {
        let Some(value) = value else {
            let before = self.table_mut(table).take(&key[..]);
            self.undo.extend(before.map(|row| Undo::Put(table, row)));
            return;
        };
        let bytes = Row::bytes(&key, &value);
        // Sums and heads are each node's own while things move: to remember them would only cost memory.
        let is_own = matches!(table, Table::Feeds | Table::Buckets | Table::Votes | Table::Peers | Table::Meta);
        let row = Row(if is_own { bytes.into() } else { self.shared.share(bytes) });
        let before = self.table_mut(table).replace(row);
        self.undo.push(before.map_or(Undo::Remove(table, key), |row| Undo::Put(table, row)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_committed_can_be_taken_back() {
        let mut disk = Disk::new(&Shared::default());
        disk.put((Table::Jobs, vec![1], Some(vec![1])));
        disk.put((Table::Jobs, vec![2], Some(vec![2])));
        disk.commit();
        disk.put((Table::Jobs, vec![1], Some(vec![9])));
        disk.put((Table::Jobs, vec![1], None));
        disk.put((Table::Jobs, vec![3], Some(vec![3])));
        assert_eq!(disk.get(Table::Jobs, &[1]), None);
        disk.roll_back();
        assert_eq!(disk.all(Table::Jobs, &[]), [(vec![1], vec![1]), (vec![2], vec![2])]);
        assert_eq!(disk.scan_back(Table::Jobs, &[2], 5), [(vec![1], vec![1])]);
    }
}
