//! The queue of a fetch: which pieces are left, who may still be asked for them, what came from whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crdt::ids::{BlobHash, NodeId};
use tokio::sync::watch;

use super::super::error::{BlobError, HolderFault};
use super::super::limits::{FETCH_BATCH_BLOB_BYTES, FETCH_BATCH_BYTES, REQUEST_BLOBS_MAX};
use super::{FetchProgress, FetchReport};

/// Times in a row that streams of one holder may break before it is left alone.
const STRIKES_MAX: u32 = 4;
/// Times that one holder may break off at one piece before it counts as not having it.
const BREAKS_MAX: u32 = 2;

/// One blob as the store has it, and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    pub(super) hash: BlobHash,
    pub(super) size: u64,
}

/// Pieces that are asked for on one stream.
pub(super) type Job = Vec<Piece>;

/// Half of the request's bound leaves room for its ranges.
const BATCH_BLOBS_MAX: usize = REQUEST_BLOBS_MAX / 2;

pub(super) struct Work {
    holders: BTreeSet<NodeId>,
    progress: Option<watch::Sender<FetchProgress>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    lacking: BTreeSet<(BlobHash, NodeId)>,
    strikes: BTreeMap<NodeId, u32>,
    breaks: BTreeMap<(BlobHash, NodeId), u32>,
    gone: BTreeSet<NodeId>,
    corrupt: BTreeSet<NodeId>,
    faults: BTreeMap<NodeId, HolderFault>,
    moved: BTreeMap<NodeId, u64>,
    fatal: Option<BlobError>,
}

impl State {
    fn may_ask(&self, node: NodeId, job: &Job) -> bool {
        !self.gone.contains(&node) && !job.iter().any(|piece| self.lacking.contains(&(piece.hash, node)))
    }
}

impl Work {
    pub(super) fn new(
        holders: BTreeSet<NodeId>,
        bytes_total: u64,
        progress: Option<watch::Sender<FetchProgress>>,
    ) -> Self {
        if let Some(progress) = &progress {
            progress.send_replace(FetchProgress { bytes_moved: 0, bytes_total });
        }
        Self { holders, progress, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holders(&self) -> &BTreeSet<NodeId> {
        &self.holders
    }

    /// Makes jobs of pieces: large ones alone, small ones together.
    pub(super) fn enqueue(&self, pieces: &[Piece]) {
        let mut state = self.state();
        let mut batch = Job::new();
        let mut bytes = 0;
        for piece in pieces {
            if piece.size > FETCH_BATCH_BLOB_BYTES {
                state.queue.push_back(vec![*piece]);
                continue;
            }
            if bytes + piece.size > FETCH_BATCH_BYTES || batch.len() >= BATCH_BLOBS_MAX {
                state.queue.push_back(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += piece.size;
            batch.push(*piece);
        }
        if !batch.is_empty() {
            state.queue.push_back(batch);
        }
    }

    /// The next job that this holder may be asked for.
    pub(super) fn take(&self, node: NodeId) -> Option<Job> {
        let mut state = self.state();
        if state.fatal.is_some() {
            return None;
        }
        let at = state.queue.iter().position(|job| state.may_ask(node, job))?;
        state.queue.remove(at)
    }

    /// Whether any holder may be asked for anything that is left.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state();
        let askable = |job: &Job| self.holders.iter().any(|node| state.may_ask(*node, job));
        state.fatal.is_none() && state.queue.iter().any(askable)
    }

    /// The local store failed: nothing more is asked for.
    pub(super) fn fail(&self, job: Job, error: BlobError) {
        let mut state = self.state();
        state.queue.push_back(job);
        state.fatal.get_or_insert(error);
    }

    /// A holder failed at a piece; what is left of its job goes back.
    pub(super) fn give_back(&self, node: NodeId, at: Option<Piece>, fault: HolderFault, left: Vec<Piece>) {
        let mut state = self.state();
        match (&fault, at) {
            (HolderFault::Lacks | HolderFault::WrongSize { .. }, Some(piece)) => {
                state.lacking.insert((piece.hash, node));
            }
            (HolderFault::Corrupt, _) => {
                state.corrupt.insert(node);
                state.gone.insert(node);
            }
            (HolderFault::Broken(_), at) => {
                if let Some(piece) = at {
                    let breaks = state.breaks.entry((piece.hash, node)).or_default();
                    *breaks += 1;
                    if *breaks >= BREAKS_MAX {
                        state.lacking.insert((piece.hash, node));
                    }
                }
                let strikes = state.strikes.entry(node).or_default();
                *strikes += 1;
                if *strikes >= STRIKES_MAX {
                    state.gone.insert(node);
                }
            }
            _ => {
                state.gone.insert(node);
            }
        }
        state.faults.insert(node, fault);
        // The piece that failed goes alone, so that the others of its job can still be had from this holder.
        let (failed, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|piece| Some(*piece) == at);
        state.queue.extend([others, failed].into_iter().filter(|job| !job.is_empty()));
    }

    /// A holder did a job: what broke before may have been chance.
    pub(super) fn succeeded(&self, node: NodeId) {
        self.state().strikes.remove(&node);
    }

    /// Counts content that came from a holder.
    pub(super) fn moved(&self, node: NodeId, bytes: u64) {
        *self.state().moved.entry(node).or_default() += bytes;
        if let Some(progress) = &self.progress {
            progress.send_modify(|progress| progress.bytes_moved += bytes);
        }
    }

    pub(super) fn take_fatal(&self) -> Option<BlobError> {
        self.state().fatal.take()
    }

    pub(super) fn first_left(&self) -> Option<Piece> {
        self.state().queue.front().and_then(|job| job.first()).copied()
    }

    pub(super) fn faults(&self) -> Vec<(NodeId, HolderFault)> {
        self.state().faults.iter().map(|(node, fault)| (*node, fault.clone())).collect()
    }

    pub(super) fn report(&self) -> FetchReport {
        let state = self.state();
        FetchReport {
            bytes_moved: state.moved.values().sum(),
            from: state.moved.iter().map(|(node, bytes)| (*node, *bytes)).collect(),
            corrupt: state.corrupt.iter().copied().collect(),
        }
    }
}
