//! The draw: what a node with a free slot takes of the tasks that wait.
//!
//! It must not take the head of the queue, for all would. It draws the person first, so that nobody waits behind another's
//! long queue, then among that person's oldest tasks of the highest priority. Of an array it takes a range from its own
//! part of what is left, so that neighbours seldom collide.

use std::cmp::Reverse;

use crdt::doc::TaskRange;
use crdt::ids::{JobId, NodeId, PersonId};
use crdt::job::{Basis, JobSpec, rendezvous};
use crdt::limits::{TASKS_PER_CLAIM_MAX, WATCHERS_MAX};
use crdt::mutant::{Mutant, is_made};
use crdt::shelf::Shelf;
use rand::RngExt;

use super::Core;
use crate::limits::{
    CLAIM_AHEAD_MS, CLAIM_UNMEASURED_TASKS, DRAW_AFTER_MS, DRAW_EVERY_MS, DRAW_ON_FREE_AFTER_MS, DRAW_WAITING_AFTER_MS,
    DRAW_WINDOW_PER_SLOT, OFFER_STALE_INTERVALS, RETRY_BACKOFF_MS, RETRY_BACKOFF_MS_MAX,
};
use crate::offer::lacks;
use crate::time::Now;

struct Candidate {
    id: JobId,
    person: PersonId,
    priority: i32,
    created_ms: u64,
    /// Time since it was seen to be open.
    age_ms: u64,
    /// Open tasks with this attempt and basis: of a single job one range, of an array all.
    ranges: Vec<TaskRange>,
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
        let mut candidates = if self.has_enough(now) { Vec::new() } else { self.candidates(now, freed) };
        let mut rounds = crate::limits::CLAIMS_HELD_MAX;
        while rounds > 0 && !candidates.is_empty() && !self.is_full(now) {
            rounds -= 1;
            let Some(at) = self.pick(&candidates) else { break };
            let chosen = candidates.remove(at);
            let Some((_, spec)) = self.replica.cached_job(&chosen.id).and_then(|j| j.spec()) else { continue };
            let spec = spec.clone();
            if self.room(now, &spec) == 0 || (chosen.array && self.has_ahead(chosen.id)) {
                continue;
            }
            let range = if chosen.array { self.slice(&spec, chosen.id, &chosen.ranges) } else { chosen.ranges[0] };
            self.claim(now, chosen.id, range, chosen.attempt, chosen.basis.clone());
            let left: Vec<TaskRange> = chosen.ranges.iter().flat_map(|open| without(*open, range)).collect();
            if chosen.array && !left.is_empty() {
                candidates.insert(at, Candidate { ranges: left, ..chosen });
            }
        }
        self.draw_at = now.mono.plus_ms(DRAW_EVERY_MS);
        if !self.open.is_empty() {
            self.wake_at(self.draw_at);
        }
    }

    /// Open tasks that fit, by person, then highest priority first, then oldest.
    fn candidates(&mut self, now: Now, freed: bool) -> Vec<Candidate> {
        let mut found = Vec::new();
        let ids: Vec<JobId> = self.open.iter().copied().collect();
        for id in ids {
            let Some(job) = self.replica.cached_job(&id) else { continue };
            if job.state().is_none_or(crdt::job::JobState::is_final) || job.is_cancelled() {
                continue;
            }
            let Some((submitter, spec)) = job.spec().filter(|(submitter, _)| !self.is_behind(submitter)) else {
                continue;
            };
            let waits = self.has_waiting(submitter);
            let (spec, priority) = (spec.clone(), job.priority());
            if !lacks(&self.offer, &spec).is_empty() || (spec.at_most_once && !self.hears_majority(&spec)) {
                continue;
            }
            for (range, attempt, basis) in self.open_ranges(now, &id) {
                let seen = *self.first_seen.entry((id, attempt)).or_insert(now.mono);
                let age = match (spec.array > 0, waits, freed) {
                    (true, ..) => 0,
                    (false, true, true) => DRAW_ON_FREE_AFTER_MS,
                    (false, true, false) => DRAW_WAITING_AFTER_MS,
                    (false, false, _) => DRAW_AFTER_MS,
                };
                let backoff = match basis {
                    Basis::Retry => (RETRY_BACKOFF_MS << attempt.saturating_sub(2).min(16)).min(RETRY_BACKOFF_MS_MAX),
                    Basis::First | Basis::Lost { .. } => 0,
                };
                if !self.is_due(now, seen.plus_ms(age + backoff)) {
                    continue;
                }
                let mut open = vec![range];
                for (_, held) in self.held.keys().filter(|(job, held)| *job == id && held.attempt == attempt) {
                    open = open.into_iter().flat_map(|open| without(open, held.range)).collect();
                }
                if open.is_empty() {
                    continue;
                }
                let array = spec.array > 0;
                let same = |c: &&mut Candidate| array && c.id == id && c.attempt == attempt && c.basis == basis;
                if let Some(candidate) = found.iter_mut().find(same) {
                    candidate.ranges.extend(open);
                    continue;
                }
                found.push(Candidate {
                    id,
                    person: spec.person,
                    priority,
                    created_ms: spec.created_ms,
                    age_ms: if array { u64::MAX } else { now.mono.ms_since(seen) },
                    ranges: open,
                    attempt,
                    basis,
                    array,
                });
            }
        }
        found.sort_by_key(|c| (c.person, Reverse(c.priority), c.created_ms, c.id, c.ranges[0].start));
        found
    }

    /// Whether a submitter has more tasks than it calls for, as far as it said.
    fn has_waiting(&self, submitter: &NodeId) -> bool {
        if *submitter == self.me {
            return self.offer.waiting > 0;
        }
        self.offers.get(submitter).is_some_and(|known| known.offer.waiting > 0)
    }

    /// Draws a person, then one of that person's oldest tasks of the highest priority: one of our part of them, so that
    /// neighbours which do not hear of each other's claims at once seldom draw the same, else any.
    fn pick(&mut self, candidates: &[Candidate]) -> Option<usize> {
        if is_made(Mutant::OldestFirst) {
            return (0..candidates.len()).min_by_key(|at| (candidates[*at].created_ms, candidates[*at].id));
        }
        let slots: usize = self.live_offers().map(|(_, offer)| offer.slots as usize).sum();
        let mut persons = candidates.chunk_by(|a, b| a.person == b.person);
        let draw = self.rng.random_range(0..persons.clone().count().max(1));
        let tasks = persons.nth(draw)?;
        let first = candidates.partition_point(|c| c.person < tasks[0].person);
        let window = tasks.iter().take((DRAW_WINDOW_PER_SLOT * slots).max(1));
        let best = window.take_while(|c| c.priority == tasks[0].priority).count();
        let (before, mine, total) = self.our_part();
        let is_ours = |c: &Candidate| {
            let place = u64::from_be_bytes(c.id.0[..8].try_into().expect("8 of 16 bytes")) % u64::from(total.max(1));
            (u64::from(before)..u64::from(before + mine)).contains(&place)
        };
        let ours: Vec<usize> = (0..best).filter(|at| is_ours(&tasks[*at])).collect();
        // Of others' parts what is claimed may not be known here yet, but where everybody hears of every claim at once.
        let all_hear = self.offers.len() <= WATCHERS_MAX;
        let theirs = |at: &usize| all_hear || tasks[*at].age_ms >= DRAW_AFTER_MS;
        let chosen = if ours.is_empty() { (0..best).filter(theirs).collect() } else { ours };
        (!chosen.is_empty()).then(|| first + chosen[self.rng.random_range(0..chosen.len())])
    }

    /// Slots of the mesh before ours in the order of the nodes, ours, and all.
    fn our_part(&self) -> (u32, u32, u32) {
        let stale_ms = OFFER_STALE_INTERVALS * self.offer_every_ms();
        let is_fresh = |known: &&super::KnownOffer| known.heard.plus_ms(stale_ms) > self.turn_at;
        let mut parts = (0u32, self.offer.slots, self.offer.slots);
        for (node, known) in self.offers.iter().filter(|(_, known)| is_fresh(known)) {
            parts.2 = parts.2.saturating_add(known.offer.slots);
            if *node < self.me {
                parts.0 = parts.0.saturating_add(known.offer.slots);
            }
        }
        parts
    }

    /// Our next range of an array's open tasks: as many as end within a second, no more than a fair share, from our part.
    fn slice(&self, spec: &JobSpec, id: JobId, open: &[TaskRange]) -> TaskRange {
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
        let total: u32 = open.iter().map(TaskRange::len).sum();
        let fair = total.div_ceil(2 * slots).max(1);
        let len = if spec.at_most_once { 1 } else { wanted.min(fair).min(TASKS_PER_CLAIM_MAX) };
        let part = u64::from(total) * u64::from(before.min(slots - 1)) / u64::from(slots);
        take_from(open, u32::try_from(part).unwrap_or(0), len)
    }
}

/// What is left of a range when another is taken out.
fn without(open: TaskRange, taken: TaskRange) -> impl Iterator<Item = TaskRange> {
    let before = TaskRange { start: open.start, end: taken.start.clamp(open.start, open.end) };
    let after = TaskRange { start: taken.end.clamp(open.start, open.end), end: open.end };
    let parts = if open.overlaps(&taken) { [Some(before), Some(after)] } else { [Some(open), None] };
    parts.into_iter().flatten().filter(|part| !part.is_empty())
}

/// Up to `len` neighbouring tasks from the place `skip` of the open tasks on. Where too few follow in that range, the next
/// range is taken from its start, so that crumbs are left only at the end.
fn take_from(open: &[TaskRange], mut skip: u32, len: u32) -> TaskRange {
    let mut at = 0;
    while at + 1 < open.len() && skip >= open[at].len() {
        skip -= open[at].len();
        at += 1;
    }
    if at + 1 < open.len() && skip > 0 && open[at].len() - skip < len {
        at += 1;
        skip = 0;
    }
    let range = open[at];
    let start = range.start + skip.min(range.len() - 1);
    TaskRange { start, end: range.end.min(start.saturating_add(len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u32, end: u32) -> TaskRange {
        TaskRange { start, end }
    }

    #[test]
    fn a_taken_range_leaves_what_lies_on_both_sides() {
        assert_eq!(without(range(0, 10), range(3, 5)).collect::<Vec<_>>(), [range(0, 3), range(5, 10)]);
        assert_eq!(without(range(0, 10), range(0, 10)).collect::<Vec<_>>(), []);
        assert_eq!(without(range(0, 10), range(20, 30)).collect::<Vec<_>>(), [range(0, 10)]);
    }

    #[test]
    fn a_part_begins_at_the_next_range_rather_than_at_a_crumb() {
        let open = [range(10, 50), range(60, 100)];
        assert_eq!(take_from(&open, 0, 20), range(10, 30));
        assert_eq!(take_from(&open, 38, 20), range(60, 80));
        assert_eq!(take_from(&open, 79, 20), range(99, 100));
    }
}
