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
///
/// What its key begins with stands beside the pointer: a search through the tree seldom leaves the tree.
#[derive(Debug, Clone)]
struct Row {
    head: u64,
    bytes: Arc<[u8]>,
}

/// The first eight bytes of a key as a number that is ordered as they are.
fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

impl Row {
    fn new(bytes: Arc<[u8]>) -> Self {
        let mut row = Self { head: 0, bytes };
        row.head = head(row.key());
        row
    }

    fn bytes(key: &[u8], value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(key.len()).expect("keys are short");
        [&len.to_le_bytes()[..], key, value].concat()
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let len = usize::from(u16::from_le_bytes([self.bytes[0], self.bytes[1]]));
        self.bytes[KEY_LEN_BYTES..].split_at(len)
    }

    fn value(&self) -> &[u8] {
        self.split().1
    }

    fn owned(&self) -> (Vec<u8>, Vec<u8>) {
        let (key, value) = self.split();
        (key.to_vec(), value.to_vec())
    }
}

/// What rows are found by: a row, or a key with its head.
trait Keyed {
    fn head(&self) -> u64;
    fn key(&self) -> &[u8];
}

impl Keyed for Row {
    fn head(&self) -> u64 {
        self.head
    }

    fn key(&self) -> &[u8] {
        self.split().0
    }
}

impl Keyed for (u64, &[u8]) {
    fn head(&self) -> u64 {
        self.0
    }

    fn key(&self) -> &[u8] {
        self.1
    }
}

fn compare(a: &dyn Keyed, b: &dyn Keyed) -> std::cmp::Ordering {
    a.head().cmp(&b.head()).then_with(|| a.key().cmp(b.key()))
}

impl<'a> std::borrow::Borrow<dyn Keyed + 'a> for Row {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        compare(self, other).is_eq()
    }
}

impl Eq for dyn Keyed + '_ {}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare(self, other)
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
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
        self.head.cmp(&other.head).then_with(|| self.key().cmp(other.key()))
    }
}

/// A key to look for.
fn probe(key: &[u8]) -> (u64, &[u8]) {
    (head(key), key)
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
            table.iter().for_each(|row| row.bytes.hash(&mut hasher));
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
                Undo::Remove(table, key) => drop(self.table_mut(table).remove(&probe(&key) as &dyn Keyed)),
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
        self.table(table).get(&probe(key) as &dyn Keyed).map(|row| row.value().to_vec())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.table(table)
            .range::<dyn Keyed, _>((Bound::Included(&probe(from) as &dyn Keyed), Bound::Unbounded))
            .take_while(|row| row.key().starts_with(prefix))
            .take(limit)
            .map(Row::owned)
            .collect()
    }

    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let before = probe(before);
        let end = if before.1.is_empty() { Bound::Unbounded } else { Bound::Excluded(&before as &dyn Keyed) };
        self.table(table).range::<dyn Keyed, _>((Bound::Unbounded, end)).rev().take(limit).map(Row::owned).collect()
    }

    fn put(&mut self, (table, key, value): Write) {
        let Some(value) = value else {
            let before = self.table_mut(table).take(&probe(&key) as &dyn Keyed);
            self.undo.extend(before.map(|row| Undo::Put(table, row)));
            return;
        };
        let bytes = Row::bytes(&key, &value);
        // Sums and heads are each node's own while things move: to remember them would only cost memory.
        let is_own = matches!(table, Table::Feeds | Table::Buckets | Table::Votes | Table::Peers | Table::Meta);
        let row = Row::new(if is_own { bytes.into() } else { self.shared.share(bytes) });
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
