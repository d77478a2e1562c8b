//! Where a replica keeps its rows: ordered tables of bytes, read at once, made durable by the owner in groups.
//!
//! A [`Shelf`] answers reads with every row that was put, durable or not. Who promises something to others waits for the
//! durable write first; that is the driver's part.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The tables. The order is not part of any format; the names in a store are the driver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `author, seq → bundle`.
    Bundles,
    /// `doc, key, author → seq, value`.
    Registers,
    /// `doc, author, seq, index → change` of notebooks.
    Notes,
    /// `author → head and cut`.
    Feeds,
    /// `bucket → sum` of the state hash.
    Buckets,
    /// `job → row` for lists.
    Jobs,
    /// `job → ()` of the jobs that are not finished.
    OpenJobs,
    /// `created, job → ()`.
    JobsByTime,
    /// `subject's document → row` of the ledger, for lists.
    Ledger,
    /// `created, subject → ()` of the ledger.
    LedgerByTime,
    /// `first half of what it leads to, link → subject` of the ledger.
    LedgerLinks,
    /// `author, seq → the other branch` of a fork.
    Forks,
    /// `job, task → what this node said as a voter`.
    Votes,
    /// `node → addresses and last contact`.
    Peers,
    /// Everything that there is one of.
    Meta,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 15] = [
        Self::Bundles,
        Self::Registers,
        Self::Notes,
        Self::Feeds,
        Self::Buckets,
        Self::Jobs,
        Self::OpenJobs,
        Self::JobsByTime,
        Self::Ledger,
        Self::LedgerByTime,
        Self::LedgerLinks,
        Self::Forks,
        Self::Votes,
        Self::Peers,
        Self::Meta,
    ];
}

/// A row to write (`Some`) or to remove (`None`).
pub type Write = (Table, Vec<u8>, Option<Vec<u8>>);

/// Ordered tables of bytes.
pub trait Shelf {
    /// The row under a key.
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>>;
    /// Up to `limit` rows from `from` (included) whose keys begin with `prefix`, in the order of their keys.
    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)>;
    /// Up to `limit` rows below `before` (excluded; everything when empty), the last first.
    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)>;
    /// Writes or removes a row: seen by reads at once.
    fn put(&mut self, write: Write);

    /// All rows under a prefix.
    fn all(&self, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.scan(table, prefix, prefix, usize::MAX)
    }
}

/// A shelf in memory, for tests and the simulator.
#[derive(Debug, Clone, Default)]
pub struct MemoryShelf {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl Shelf for MemoryShelf {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.get(&(table, key.to_vec())).cloned()
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.rows
            .range((table, from.to_vec())..)
            .take_while(|((t, key), _)| *t == table && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let end = if before.is_empty() { vec![0xff; 64] } else { before.to_vec() };
        self.rows
            .range((Bound::Included((table, Vec::new())), Bound::Excluded((table, end))))
            .rev()
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn put(&mut self, (table, key, value): Write) {
        match value {
            Some(value) => self.rows.insert((table, key), value),
            None => self.rows.remove(&(table, key)),
        };
    }
}
