//! A disk under a virtual clock: rows in memory whose last commit can still be taken back.
//!
//! Rows that many nodes hold alike are one allocation: a mesh of a thousand nodes fits into the memory of a desktop.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use crdt::shelf::{Shelf, Table, Write};

const SHARDS: usize = 16;
/// Rows that are remembered as shared, per shard. More: all are forgotten, and rows of later are shared anew.
const SHARED_MAX: usize = 1 << 20;

type Shard = Mutex<HashSet<Arc<[u8]>, foldhash::fast::FixedState>>;

/// Bytes that nodes share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    shards: Arc<[Shard; SHARDS]>,
}

impl Shared {
    fn share(&self, bytes: &[u8]) -> Arc<[u8]> {
        let hash = foldhash::fast::FixedState::default().hash_one(bytes);
        let shard = usize::try_from(hash % SHARDS as u64).expect("few shards");
        let mut known = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(bytes) {
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

type Rows = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// A row's table and key, and what it was.
type Undo = (Table, Arc<[u8]>, Option<Arc<[u8]>>);

/// A shelf whose rows since the last commit can be taken back.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    shared: Shared,
    tables: [Rows; Table::ALL.len()],
    /// What the rows were that were put since the last commit, in the order of the writes.
    undo: Vec<Undo>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("rows", &self.tables.iter().map(Rows::len).sum::<usize>()).finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone(), ..Self::default() }
    }

    /// A hash of all rows.
    pub(crate) fn digest(&self) -> u64 {
        foldhash::fast::FixedState::default().hash_one(&self.tables)
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
        for (table, key, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            match before {
                Some(before) => self.table_mut(table).insert(key, before),
                None => self.table_mut(table).remove(&key),
            };
        }
    }

    fn table(&self, table: Table) -> &Rows {
        &self.tables[table as usize]
    }

    fn table_mut(&mut self, table: Table) -> &mut Rows {
        &mut self.tables[table as usize]
    }
}

impl Shelf for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.table(table).get(key).map(|value| value.to_vec())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.table(table)
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let end = if before.is_empty() { Bound::Unbounded } else { Bound::Excluded(before) };
        self.table(table)
            .range::<[u8], _>((Bound::Unbounded, end))
            .rev()
            .take(limit)
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    fn put(&mut self, (table, key, value): Write) {
        let key = self.shared.share(&key);
        // Sums and heads are each node's own while things move: to remember them would only cost memory.
        let is_shared = matches!(table, Table::Bundles | Table::Registers | Table::Notes | Table::Jobs);
        let value = value.map(|value| if is_shared { self.shared.share(&value) } else { value.into() });
        let rows = self.table_mut(table);
        let before = match value {
            Some(value) => rows.insert(Arc::clone(&key), value),
            None => rows.remove(&key),
        };
        self.undo.push((table, key, before));
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
