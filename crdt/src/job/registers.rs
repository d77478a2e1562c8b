//! A job's registers of one kind, by key.
//!
//! Most jobs have one of each, and a node holds thousands of jobs: up to [`FEW`] stand in a vector that is just as long. An array
//! may have a million claims: more go into a tree.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use either::Either;

use super::Written;

/// Registers up to which a vector is searched and moved as fast as a tree.
const FEW: usize = 16;

/// Registers in the order of their keys.
#[derive(Debug, Clone)]
pub struct Registers<K, W>(Kept<K, W>);

#[derive(Debug, Clone)]
enum Kept<K, W> {
    Few(Vec<(K, Written<W>)>),
    Many(BTreeMap<K, Box<Written<W>>>),
}

impl<K, W> Default for Registers<K, W> {
    fn default() -> Self {
        Self(Kept::Few(Vec::new()))
    }
}

impl<K: Ord, W> Registers<K, W> {
    /// The register under a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&Written<W>> {
        match &self.0 {
            Kept::Few(few) => few.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|at| &few[at].1),
            Kept::Many(many) => many.get(key).map(|written| &**written),
        }
    }

    /// Whether there is a register under a key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Number of registers.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Few(few) => few.len(),
            Kept::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All registers, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &Written<W>)> {
        match &self.0 {
            Kept::Few(few) => Either::Left(few.iter().map(|(key, written)| (key, written))),
            Kept::Many(many) => Either::Right(many.iter().map(|(key, written)| (key, &**written))),
        }
    }

    /// All keys, ascending.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Registers whose keys lie in a range.
    pub fn range(&self, keys: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &Written<W>)> {
        match &self.0 {
            Kept::Few(few) => {
                let from = few.partition_point(|(key, _)| match keys.start_bound() {
                    Bound::Included(start) => key < start,
                    Bound::Excluded(start) => key <= start,
                    Bound::Unbounded => false,
                });
                let to = few.partition_point(|(key, _)| match keys.end_bound() {
                    Bound::Included(end) => key <= end,
                    Bound::Excluded(end) => key < end,
                    Bound::Unbounded => true,
                });
                let to = to.max(from);
                Either::Left(few[from..to].iter().map(|(key, written)| (key, written)))
            }
            Kept::Many(many) => Either::Right(many.range(keys).map(|(key, written)| (key, &**written))),
        }
    }

    pub(super) fn insert(&mut self, key: K, written: Written<W>) {
        let few = match &mut self.0 {
            Kept::Few(few) => few,
            Kept::Many(many) => return drop(many.insert(key, Box::new(written))),
        };
        match few.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => few[at].1 = written,
            Err(at) if few.len() < FEW => {
                few.reserve_exact(1);
                few.insert(at, (key, written));
            }
            Err(_) => {
                let all = std::mem::take(few).into_iter().chain([(key, written)]);
                self.0 = Kept::Many(all.map(|(key, written)| (key, Box::new(written))).collect());
            }
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        match &mut self.0 {
            Kept::Few(few) => {
                if let Ok(at) = few.binary_search_by(|(k, _)| k.cmp(key)) {
                    few.remove(at);
                }
            }
            Kept::Many(many) => drop(many.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_answer_alike() {
        let mut registers = Registers::default();
        let mut tree = BTreeMap::new();
        for n in 0..3 * FEW as u64 {
            let key = n * 7 % 50;
            registers.insert(key, Written { seq: n, value: n });
            tree.insert(key, n);
            let plain = |(key, written): (&u64, &Written<u64>)| (*key, written.value);
            let expected: Vec<_> = tree.iter().map(|(key, value)| (*key, *value)).collect();
            assert_eq!(registers.iter().map(plain).collect::<Vec<_>>(), expected);
            assert_eq!(registers.iter().rev().map(plain).next(), expected.last().copied());
            let within = tree.range(10..=30).map(|(key, value)| (*key, *value)).collect::<Vec<_>>();
            assert_eq!(registers.range(10..=30).map(plain).collect::<Vec<_>>(), within);
            assert_eq!(registers.range(10..31).map(plain).collect::<Vec<_>>(), within);
            assert_eq!(registers.range(..).count(), tree.len());
            assert_eq!((registers.len(), registers.contains_key(&key)), (tree.len(), true));
        }
        for key in 0..50 {
            registers.remove(&key);
            assert!(registers.get(&key).is_none());
        }
        assert!(registers.is_empty());
    }
}
