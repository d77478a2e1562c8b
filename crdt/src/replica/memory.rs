//! What a replica knows beside its rows, so that one can be taken up elsewhere as it was.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Replica;
use super::prune::Cursors;
use crate::bundle::Bundle;
use crate::ids::{JobId, NodeId};
use crate::shelf::Shelf;

/// All of a replica that opening its rows does not give back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Memory {
    hlc: u64,
    waiting: Vec<Bundle>,
    unknown: Vec<Bundle>,
    tails_wanted: BTreeSet<NodeId>,
    /// Jobs that are in memory.
    loaded: Vec<JobId>,
    reopened: BTreeSet<JobId>,
    cursors: Cursors,
}

impl<S: Shelf> Replica<S> {
    /// What is known here beside the rows.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            hlc: self.hlc,
            waiting: self.waiting.values().cloned().collect(),
            unknown: self.unknown.values().cloned().collect(),
            tails_wanted: self.tails_wanted.clone(),
            loaded: self.jobs.keys().copied().collect(),
            reopened: self.reopened.clone(),
            cursors: self.cursors.clone(),
        }
    }

    /// Takes up what another replica over the same rows knew beside them.
    pub fn remember(&mut self, memory: Memory) {
        let bundles = |bundles: Vec<Bundle>| {
            bundles.into_iter().map(|bundle| ((bundle.header.author, bundle.header.seq), bundle)).collect()
        };
        self.hlc = memory.hlc;
        self.waiting = bundles(memory.waiting);
        self.unknown = bundles(memory.unknown);
        self.tails_wanted = memory.tails_wanted;
        self.reopened = memory.reopened;
        self.cursors = memory.cursors;
        let loaded: BTreeSet<JobId> = memory.loaded.into_iter().collect();
        self.jobs.retain(|id, _| loaded.contains(id));
        for id in loaded {
            self.load_job(id);
        }
    }
}
