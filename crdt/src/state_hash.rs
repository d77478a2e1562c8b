//! The state hash: one number that two replicas with the same feeds share, kept up to date at a constant cost.
//!
//! Documents fall into 256 buckets by their hash. A bucket holds the sum (modulo 2^256) of its documents' digests, so that
//! a change costs one subtraction and one addition; the root is BLAKE3 over the buckets. The sum finds divergence, it is
//! no defence against a forger, and nothing relies on it for that (docs/decisions/0001-state-hash-sums.md).

use crate::doc::DocId;
use crate::shelf::{Shelf, Table};

/// A 256-bit sum, little-endian.
pub type Sum = [u8; 32];

/// Adds modulo 2^256.
pub fn add(sum: &mut Sum, term: &Sum) {
    let mut carry = 0u16;
    for (byte, other) in sum.iter_mut().zip(term) {
        let total = u16::from(*byte) + u16::from(*other) + carry;
        *byte = total.to_le_bytes()[0];
        carry = total >> 8;
    }
}

/// Subtracts modulo 2^256.
pub fn subtract(sum: &mut Sum, term: &Sum) {
    let mut negated = term.map(|byte| !byte);
    add(&mut negated, &{
        let mut one = [0; 32];
        one[0] = 1;
        one
    });
    add(sum, &negated);
}

/// The buckets.
#[derive(Clone, PartialEq, Eq)]
pub struct StateHash {
    buckets: Box<[Sum; 256]>,
}

impl std::fmt::Debug for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateHash({})", data_encoding::HEXLOWER.encode(&self.root()[..4]))
    }
}

impl StateHash {
    /// The buckets as a shelf holds them; all zeros in an empty one.
    #[must_use]
    pub fn load(shelf: &impl Shelf) -> Self {
        let mut buckets = Box::new([[0; 32]; 256]);
        for (key, value) in shelf.all(Table::Buckets, &[]) {
            // Longer keys are others' rows.
            if let ([at], Ok(sum)) = (&key[..], Sum::try_from(value.as_slice())) {
                buckets[usize::from(*at)] = sum;
            }
        }
        Self { buckets }
    }

    /// Replaces a document's digest; `None` stands for a document that holds nothing.
    pub fn replace(&mut self, shelf: &mut impl Shelf, doc: DocId, old: Option<&Sum>, new: Option<&Sum>) {
        if old == new {
            return;
        }
        let at = blake3::hash(&doc.to_bytes()).as_bytes()[0];
        let bucket = &mut self.buckets[usize::from(at)];
        if let Some(old) = old {
            subtract(bucket, old);
        }
        if let Some(new) = new {
            add(bucket, new);
        }
        let row = (*bucket != [0; 32]).then(|| bucket.to_vec());
        shelf.put((Table::Buckets, vec![at], row));
    }

    /// BLAKE3 over the buckets.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for bucket in self.buckets.iter() {
            hasher.update(bucket);
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shelf::MemoryShelf;

    #[test]
    fn taking_back_what_was_added_leaves_the_root_as_it_was() {
        let mut shelf = MemoryShelf::default();
        let mut hash = StateHash::load(&shelf);
        let before = hash.root();
        let (a, b) = ([0xff; 32], [0x81; 32]);
        hash.replace(&mut shelf, DocId::ROSTER, None, Some(&a));
        hash.replace(&mut shelf, DocId::ROSTER, None, Some(&b));
        assert_ne!(hash.root(), before);
        assert_eq!(StateHash::load(&shelf), hash);
        hash.replace(&mut shelf, DocId::ROSTER, Some(&b), None);
        hash.replace(&mut shelf, DocId::ROSTER, Some(&a), None);
        assert_eq!(hash.root(), before);
    }

    #[test]
    fn other_rows_of_the_table_are_no_buckets() {
        let mut shelf = MemoryShelf::default();
        let before = StateHash::load(&shelf).root();
        shelf.put((Table::Buckets, b"job-counts".to_vec(), Some(vec![7; 32])));
        assert_eq!(StateHash::load(&shelf).root(), before);
    }
}
