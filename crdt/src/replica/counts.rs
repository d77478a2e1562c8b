//! How many jobs are in each state, kept beside the rows so that nobody has to read them all.

use std::collections::BTreeMap;

use crate::cbor;
use crate::job::JobState;
use crate::shelf::{Shelf, Table};

use super::rows::JobRow;

/// Row of [`Table::Buckets`], which every change of a job writes to anyway: the counts in the order of [`JobState::ALL`].
const ROW: &[u8] = b"job-counts";

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; JobState::ALL.len()]);

impl Counts {
    /// The counts of a shelf; where it has none (a store of an older version) its jobs are counted once.
    pub(super) fn load(shelf: &mut impl Shelf) -> Self {
        let known =
            shelf.get(Table::Buckets, ROW).and_then(|row| cbor::decode::<[u64; JobState::ALL.len()]>(&row).ok());
        if let Some(known) = known {
            return Self(known);
        }
        let mut counts = Self::default();
        for (_, row) in shelf.all(Table::Jobs, &[]) {
            let state = cbor::decode::<JobRow>(&row).ok().and_then(|row| row.state());
            state.into_iter().for_each(|state| counts.0[state as usize] += 1);
        }
        counts.store(shelf);
        counts
    }

    /// A job went from one state to another; `None`: it was not known, or is not any more.
    pub(super) fn moved(&mut self, shelf: &mut impl Shelf, from: Option<JobState>, to: Option<JobState>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.0[from as usize] = self.0[from as usize].saturating_sub(1);
        }
        if let Some(to) = to {
            self.0[to as usize] += 1;
        }
        self.store(shelf);
    }

    /// States that some job is in.
    pub(super) fn by_state(&self) -> BTreeMap<JobState, u64> {
        JobState::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0).collect()
    }

    fn store(&self, shelf: &mut impl Shelf) {
        shelf.put((Table::Buckets, ROW.to_vec(), Some(cbor::encode(&self.0))));
    }
}
