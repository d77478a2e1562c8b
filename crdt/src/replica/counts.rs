//! How many jobs are in each state, and how many are sealed, kept beside the rows so that nobody has to read them all.

use std::collections::BTreeMap;

use crate::cbor;
use crate::job::JobState;
use crate::shelf::{Shelf, Table};

use super::rows::JobRow;

/// Row of [`Table::Buckets`], which every change of a job writes to anyway: the counts in the order of [`JobState::ALL`], and
/// that of the sealed ones.
const ROW: &[u8] = b"job-counts";
const STATES: usize = JobState::ALL.len();

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; STATES + 1]);

/// The counts that a job belongs to.
fn counted(row: Option<&JobRow>) -> [Option<usize>; 2] {
    let state = row.and_then(JobRow::state).map(|state| state as usize);
    [state, row.and_then(|row| row.sealed_ms).map(|_| STATES)]
}

impl Counts {
    /// The counts of a shelf; where it has none (a store of an older version) its jobs are counted once.
    pub(super) fn load(shelf: &mut impl Shelf) -> Self {
        let known = shelf.get(Table::Buckets, ROW).and_then(|row| cbor::decode::<[u64; STATES + 1]>(&row).ok());
        if let Some(known) = known {
            return Self(known);
        }
        let mut counts = Self::default();
        for (_, row) in shelf.all(Table::Jobs, &[]) {
            let row: Option<JobRow> = cbor::decode(&row).ok();
            counted(row.as_ref()).into_iter().flatten().for_each(|at| counts.0[at] += 1);
        }
        counts.store(shelf);
        counts
    }

    /// A job's line changed; `None`: it was not known, or is not any more.
    pub(super) fn moved(&mut self, shelf: &mut impl Shelf, from: Option<&JobRow>, to: Option<&JobRow>) {
        let (from, to) = (counted(from), counted(to));
        if from == to {
            return;
        }
        from.into_iter().flatten().for_each(|at| self.0[at] = self.0[at].saturating_sub(1));
        to.into_iter().flatten().for_each(|at| self.0[at] += 1);
        self.store(shelf);
    }

    /// States that some job is in.
    pub(super) fn by_state(&self) -> BTreeMap<JobState, u64> {
        JobState::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0).collect()
    }

    /// Jobs that are sealed.
    pub(super) fn sealed(&self) -> u64 {
        self.0[STATES]
    }

    fn store(&self, shelf: &mut impl Shelf) {
        shelf.put((Table::Buckets, ROW.to_vec(), Some(cbor::encode(&self.0))));
    }
}
