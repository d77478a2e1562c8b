//! What becomes of old jobs: their submitter seals them, each author says up to where bodies may go, each node drops them.
//!
//! All of it is done in small steps: one pass over the list of jobs and over all bundles, then a rest.

use std::collections::BTreeSet;

use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::job::{JobState, Seal};
use crdt::replica::Checkpoint;
use crdt::shelf::{Shelf, Table};
use serde::{Deserialize, Serialize};

use super::Core;
use crate::io::{Effect, Effects, Retention};
use crate::limits::{
    HISTORY_KEEPS_MS, PRUNE_GRACE_MS_MAX, RETAIN_FIRST_MS, RETAIN_REST_MS_MAX, RETAIN_STEP_BUNDLES, RETAIN_STEP_JOBS,
    RETAIN_STEP_MS, RETAIN_STEP_SEALS,
};
use crate::time::{Now, Time};

/// Where the passes are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Retaining {
    /// When the next step is due; `None` before the first.
    at: Option<Time>,
    /// Row of the jobs in order of their creation at which the next step begins.
    jobs: Vec<u8>,
    /// Whether this pass has seen all jobs that are old enough.
    seen_jobs: bool,
    /// Jobs that this pass has sealed.
    sealed: u64,
    /// Feeds that hold bodies of sealed jobs beyond their checkpoint, as far as this pass has come.
    uncovered: BTreeSet<NodeId>,
}

impl Retention {
    /// Time that bodies stay after the seal.
    fn grace_ms(self) -> u64 {
        self.keep_ms.min(PRUNE_GRACE_MS_MAX)
    }

    /// Time between two passes; `over`: while there is more history than the bound.
    fn rest_ms(self, over: bool) -> u64 {
        let most = if over { RETAIN_FIRST_MS } else { RETAIN_REST_MS_MAX };
        (self.keep_ms / 4).clamp(RETAIN_STEP_MS, most)
    }
}

impl<S: Shelf> Core<S> {
    pub(super) fn tick_retention(&mut self, now: Now, out: &mut Effects) {
        let first = now.mono.plus_ms(self.config.retention.rest_ms(true));
        let at = *self.retaining.at.get_or_insert(first);
        if !self.is_due(now, at) {
            return;
        }
        if !self.retaining.seen_jobs {
            self.seal_old_jobs(now);
        }
        let grace_ms = if self.is_over_history() { 0 } else { self.config.retention.grace_ms() };
        let pruned = self.replica.prune(RETAIN_STEP_BUNDLES, now.wall_ms.saturating_sub(grace_ms));
        self.retaining.uncovered.extend(pruned.uncovered);
        if !pruned.jobs.is_empty() {
            self.forget_votes(&pruned.jobs);
            out.push(Effect::Pruned(pruned.jobs.into_iter().collect()));
        }
        let mut pause_ms = RETAIN_STEP_MS;
        if pruned.end && self.retaining.seen_jobs {
            self.write_checkpoints(now);
            self.retaining = Retaining::default();
            pause_ms = self.config.retention.rest_ms(self.is_over_history());
        }
        self.retaining.at = Some(now.mono.plus_ms(pause_ms));
        self.wake_at(now.mono.plus_ms(pause_ms));
    }

    fn is_over_history(&self) -> bool {
        self.replica.history_bytes() > self.config.retention.history_bytes_max
    }

    /// Whether this node may say something about its jobs and its feed.
    fn may_retain(&self) -> bool {
        let frozen = self.replica.feeds().get(&self.me).is_none_or(|feed| feed.frozen);
        let role = self.replica.roster().role(&self.me);
        !frozen && !self.hold_own_feed && self.peer_heads.is_empty() && role.is_some_and(|role| role.may_submit())
    }

    /// One step through the jobs, the oldest first: those of ours that have been over for long enough are sealed. With more
    /// history than the bound an hour is enough, and a pass seals an eighth of what is over, so that the newest stay.
    fn seal_old_jobs(&mut self, now: Now) {
        if !self.may_retain() {
            self.retaining.seen_jobs = true;
            return;
        }
        let over = self.is_over_history();
        let keep_ms =
            if over { HISTORY_KEEPS_MS.min(self.config.retention.keep_ms) } else { self.config.retention.keep_ms };
        let finished: u64 =
            self.replica.job_counts().iter().filter(|(s, _)| s.is_final()).map(|(_, count)| count).sum();
        let most = if over { (finished / 8).max(RETAIN_STEP_SEALS) } else { u64::MAX };
        let old_ms = now.wall_ms.saturating_sub(keep_ms);
        let rows = self.replica.shelf().scan(Table::JobsByTime, &[], &self.retaining.jobs, RETAIN_STEP_JOBS);
        self.retaining.seen_jobs = rows.len() < RETAIN_STEP_JOBS;
        let begun = self.retaining.sealed;
        for (key, _) in rows {
            let Some((created, id)) = key.split_at_checked(8) else { continue };
            let (Ok(created), Ok(id)) = (created.try_into(), id.try_into()) else { continue };
            if u64::from_be_bytes(created) > old_ms {
                self.retaining.seen_jobs = true;
                break;
            }
            if self.retaining.sealed >= most {
                self.retaining.seen_jobs = true;
                break;
            }
            if self.retaining.sealed - begun == RETAIN_STEP_SEALS {
                self.retaining.seen_jobs = false;
                break;
            }
            if self.seal(now, JobId(id), old_ms) {
                self.retaining.sealed += 1;
            }
            self.retaining.jobs = [&key[..], &[0]].concat();
        }
    }

    /// Seals a job if it is ours and has been over since then.
    fn seal(&mut self, now: Now, id: JobId, old_ms: u64) -> bool {
        let row = self.replica.job_row(id).filter(|row| {
            row.submitter == Some(self.me)
                && row.sealed_ms.is_none()
                && row.state().is_some_and(JobState::is_final)
                && row.ended_ms.is_some_and(|ended_ms| ended_ms <= old_ms)
        });
        if row.is_none() || self.replica.is_incomplete(id) {
            return false;
        }
        // A job that another waits for is not needed any more either: its state stays in its record.
        let Some(seal) = self.replica.job(id).and_then(|job| Seal::of(job, now.wall_ms)) else { return false };
        self.write(DocId::job(id), &Key::Seal, &seal);
        true
    }

    /// Says of our own feed that the bodies of sealed jobs may go, and as an admin of the feeds of those who are gone.
    fn write_checkpoints(&mut self, now: Now) {
        if !self.may_retain() {
            return;
        }
        let admin = self.replica.roster().role(&self.me).is_some_and(|role| role.may_administer());
        let gone_ms = now.wall_ms.saturating_sub(self.config.retention.keep_ms);
        for author in std::mem::take(&mut self.retaining.uncovered) {
            let Some(feed) = self.replica.feeds().get(&author).cloned() else { continue };
            let silent = feed.hlc >> 16 < gone_ms && !self.is_connected(&author);
            let gone = silent || feed.frozen || !self.replica.roster().is_member(&author);
            if author == self.me || (admin && gone) {
                let checkpoint = Checkpoint { seq: feed.seq, hash: feed.hash };
                self.write(DocId::FEED, &Key::Checkpoint(author), &checkpoint);
            }
        }
    }

    /// Asks a peer for a body that is missing here and should not be.
    pub(super) fn want_missing_body(&mut self, peer: NodeId, out: &mut Effects) {
        if !self.peer_heads.is_empty() {
            return;
        }
        if let Some((author, from_seq)) = self.replica.review_missing(RETAIN_STEP_BUNDLES) {
            self.send(peer, &crate::msg::Msg::Want { author, from_seq }, out);
        }
    }
}
