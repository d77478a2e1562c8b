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

type Place = (Table, Arc<[u8]>);
type Rows = BTreeMap<Place, Arc<[u8]>>;

/// A shelf whose rows since the last commit can be taken back.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    shared: Shared,
    rows: Rows,
    /// What the rows were that were put since the last commit, in the order of the writes.
    undo: Vec<(Place, Option<Arc<[u8]>>)>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { shared: shared.clone(), ..Self::default() }
    }

    /// A hash of all rows.
    pub(crate) fn digest(&self) -> u64 {
        foldhash::fast::FixedState::default().hash_one(&self.rows)
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
        for (key, before) in std::mem::take(&mut self.undo).into_iter().rev() {
            match before {
                Some(before) => self.rows.insert(key, before),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl Shelf for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let mut found = self.rows.range::<dyn RowKey, _>((
            Bound::Included(&(table, key) as &dyn RowKey),
            Bound::Included(&(table, key) as &dyn RowKey),
        ));
        found.next().map(|(_, value)| value.to_vec())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.rows
            .range::<dyn RowKey, _>((Bound::Included(&(table, from) as &dyn RowKey), Bound::Unbounded))
            .take_while(|((t, key), _)| *t == table && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let far = [0xff; 64];
        let end = if before.is_empty() { &far[..] } else { before };
        self.rows
            .range::<dyn RowKey, _>((
                Bound::Included(&(table, &[][..]) as &dyn RowKey),
                Bound::Excluded(&(table, end) as &dyn RowKey),
            ))
            .rev()
            .take(limit)
            .map(|((_, key), value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    fn put(&mut self, (table, key, value): Write) {
        let key = (table, self.shared.share(&key));
        let before = match value {
            Some(value) => self.rows.insert(key.clone(), self.shared.share(&value)),
            None => self.rows.remove(&key),
        };
        self.undo.push((key, before));
    }
}

/// Lets rows be looked for by borrowed keys.
trait RowKey {
    fn parts(&self) -> (Table, &[u8]);
}

impl RowKey for (Table, Arc<[u8]>) {
    fn parts(&self) -> (Table, &[u8]) {
        (self.0, &self.1)
    }
}

impl RowKey for (Table, &[u8]) {
    fn parts(&self) -> (Table, &[u8]) {
        (self.0, self.1)
    }
}

impl<'a> std::borrow::Borrow<dyn RowKey + 'a> for (Table, Arc<[u8]>) {
    fn borrow(&self) -> &(dyn RowKey + 'a) {
        self
    }
}

impl PartialEq for dyn RowKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn RowKey + '_ {}

impl PartialOrd for dyn RowKey + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn RowKey + '_ {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts())
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
