//! The draw: what a node with a free slot takes of the tasks that wait.
//!
//! It must not take the head of the queue, for all would. It draws the person first, so that nobody waits behind another's
//! long queue, then among that person's oldest tasks of the highest priority. Of an array it takes a range from its own
//! part of what is left, so that neighbours seldom collide.

use std::collections::BTreeMap;

use crdt::doc::TaskRange;
use crdt::ids::{JobId, NodeId, PersonId};
use crdt::job::{Basis, JobSpec, rendezvous};
use crdt::limits::TASKS_PER_CLAIM_MAX;
use crdt::shelf::Shelf;
use rand::RngExt;

use super::Core;
use crate::limits::{
    CLAIM_AHEAD_MS, CLAIM_UNMEASURED_TASKS, DRAW_AFTER_MS, DRAW_EVERY_MS, DRAW_ON_FREE_AFTER_MS, DRAW_WINDOW_PER_SLOT,
    RETRY_BACKOFF_MS, RETRY_BACKOFF_MS_MAX,
};
use crate::offer::lacks;
use crate::time::Now;

struct Candidate {
    id: JobId,
    person: PersonId,
    priority: i32,
    created_ms: u64,
    range: TaskRange,
    attempt: u32,
    basis: Basis,
    array: bool,
}

impl<S: Shelf> Core<S> {
    pub(super) fn tick_draw(&mut self, now: Now) {
        let freed = std::mem::take(&mut self.slot_freed);
        if self.draining || !self.may_run() || self.offer.slots == 0 {
            return;
        }
        if !freed && !self.is_due(now, self.draw_at) {
            return;
        }
        let mut candidates = self.candidates(now, freed);
        let mut rounds = crate::limits::CLAIMS_HELD_MAX;
        while rounds > 0 && !candidates.is_empty() {
            rounds -= 1;
            let Some(at) = self.pick(&candidates) else { break };
            let chosen = candidates.swap_remove(at);
            let Some((_, spec)) = self.replica.cached_job(&chosen.id).and_then(|j| j.spec()) else { continue };
            let spec = spec.clone();
            if self.room(&spec) == 0 {
                continue;
            }
            let range = if chosen.array { self.slice(&spec, chosen.id, chosen.range) } else { chosen.range };
            self.claim(now, chosen.id, range, chosen.attempt, chosen.basis.clone());
            if chosen.array {
                for part in
                    [TaskRange { end: range.start, ..chosen.range }, TaskRange { start: range.end, ..chosen.range }]
                {
                    if part.start < part.end {
                        candidates.push(Candidate { range: part, basis: chosen.basis.clone(), ..chosen });
                    }
                }
            }
        }
        self.draw_at = now.mono.plus_ms(DRAW_EVERY_MS);
        let open = self.replica.jobs().values().any(|(job, _)| job.state().is_some_and(|s| !s.is_final()));
        if open {
            self.wake_at(self.draw_at);
        }
    }

    fn candidates(&mut self, now: Now, freed: bool) -> Vec<Candidate> {
        let mut found = Vec::new();
        let ids: Vec<JobId> = self.replica.jobs().keys().copied().collect();
        for id in ids {
            let Some(job) = self.replica.cached_job(&id) else { continue };
            if job.state().is_none_or(crdt::job::JobState::is_final) || job.is_cancelled() {
                continue;
            }
            let Some((_, spec)) = job.spec() else { continue };
            let (spec, priority) = (spec.clone(), job.priority());
            if !lacks(&self.offer, &spec).is_empty() {
                continue;
            }
            for (range, attempt, basis) in self.open_ranges(now, &id) {
                let seen = *self.first_seen.entry((id, attempt)).or_insert(now.mono);
                let age = if spec.array > 0 {
                    0
                } else if freed {
                    DRAW_ON_FREE_AFTER_MS
                } else {
                    DRAW_AFTER_MS
                };
                let backoff = match basis {
                    Basis::Retry => (RETRY_BACKOFF_MS << attempt.saturating_sub(2).min(16)).min(RETRY_BACKOFF_MS_MAX),
                    Basis::First | Basis::Lost { .. } => 0,
                };
                let mine = |h: &&(JobId, crdt::job::ClaimId)| {
                    h.0 == id && h.1.range.overlaps(&range) && h.1.attempt == attempt
                };
                if !self.is_due(now, seen.plus_ms(age + backoff)) || self.held.keys().any(|h| mine(&h)) {
                    continue;
                }
                found.push(Candidate {
                    id,
                    person: spec.person,
                    priority,
                    created_ms: spec.created_ms,
                    range,
                    attempt,
                    basis,
                    array: spec.array > 0,
                });
            }
        }
        found
    }

    /// Draws a person, then one of that person's oldest tasks of the highest priority.
    fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let mut persons: BTreeMap<PersonId, Vec<usize>> = BTreeMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            persons.entry(candidate.person).or_default().push(at);
        }
        let slots: usize = self.live_offers().map(|(_, offer)| offer.slots as usize).sum();
        let draw = self.rng.random_range(0..persons.len().max(1));
        let mut tasks = persons.into_values().nth(draw)?;
        let best = tasks.iter().map(|at| candidates[*at].priority).max()?;
        tasks.retain(|at| candidates[*at].priority == best);
        tasks.sort_by_key(|at| (candidates[*at].created_ms, candidates[*at].id, candidates[*at].range.start));
        tasks.truncate((DRAW_WINDOW_PER_SLOT * slots).max(1));
        Some(tasks[self.rng.random_range(0..tasks.len())])
    }

    /// Our next range of an array's open tasks: as many as end within a second, no more than a fair share, from our part.
    fn slice(&self, spec: &JobSpec, id: JobId, open: TaskRange) -> TaskRange {
        let mut nodes: Vec<(u64, NodeId, u32)> = self
            .live_offers()
            .filter(|(_, offer)| lacks(offer, spec).is_empty())
            .map(|(node, offer)| (rendezvous(id, 0, node), node, offer.slots))
            .collect();
        nodes.sort_unstable();
        let slots: u32 = nodes.iter().map(|(_, _, slots)| *slots).sum::<u32>().max(1);
        let before: u32 = nodes.iter().take_while(|(_, node, _)| *node != self.me).map(|(_, _, slots)| *slots).sum();
        let wanted = match self.durations.of(spec) {
            Some(us) => u32::try_from(CLAIM_AHEAD_MS * 1_000 / us.max(100)).unwrap_or(u32::MAX).max(1),
            None => CLAIM_UNMEASURED_TASKS,
        };
        let fair = open.len().div_ceil(2 * slots).max(1);
        let len = wanted.min(fair).min(TASKS_PER_CLAIM_MAX).min(open.len());
        let offset = u64::from(open.len()) * u64::from(before.min(slots - 1)) / u64::from(slots);
        let offset = u32::try_from(offset).unwrap_or(0).min(open.len() - len);
        TaskRange { start: open.start + offset, end: open.start + offset + len }
    }
}
