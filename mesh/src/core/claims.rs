//! Claims of ours: answering calls, writing claims, giving way, starting, and reporting what runs.

use std::collections::BTreeSet;

use crdt::doc::{DocId, Key, TaskRange};
use crdt::ids::{JobId, NodeId};
use crdt::job::{
    ArtifactList, ArtifactRef, Basis, CheckpointRef, Claim, ClaimId, Exit, JobSpec, LogRef, RunReport, TaskReport,
    Waiting, rendezvous,
};
use crdt::limits::WATCHERS_MAX;
use crdt::mutant::{Mutant, is_made};
use crdt::shelf::Shelf;

use super::{Called, Core, Held, Phase};
use crate::io::{Effect, Effects};
use crate::limits::{
    ARRAY_AHEAD_MS, AWARD_SETTLES_MS, CLAIM_AHEAD_MS, CLAIMS_HELD_MAX, MOVE_BYTES_PER_MS, STAGGER_MS, START_BY_MS,
};
use crate::msg::Msg;
use crate::offer::{Lack, bid_micros, lacks};
use crate::time::Now;

/// Interval in which a claim of several tasks reports its progress.
const REPORT_EVERY_MS: u64 = 500;
/// Time that a report of a start or an end waits for what follows at once: short tasks are reported once.
const REPORT_SHORT_MS: u64 = 15;

impl<S: Shelf> Core<S> {
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_call(
        &mut self,
        now: Now,
        from: NodeId,
        job: JobId,
        attempt: u32,
        range: TaskRange,
        (rank, _slices): (Vec<NodeId>, Vec<TaskRange>),
        out: &mut Effects,
    ) {
        let Some(place) = rank.iter().position(|node| *node == self.me) else { return };
        if self.called.len() >= CLAIMS_HELD_MAX && !is_made(Mutant::TakesEveryCall) {
            self.decline(from, &rank, (job, attempt, range.start), Lack::Busy, out);
            return;
        }
        let called = Called { by: from, range, at: now.mono, place, declined: BTreeSet::new(), rank };
        self.called.insert((job, attempt, range.start), called);
    }

    fn decline(
        &mut self,
        by: NodeId,
        rank: &[NodeId],
        (job, attempt, start): (JobId, u32, u32),
        lack: Lack,
        out: &mut Effects,
    ) {
        let msg = Msg::Decline { job, attempt, start, lack: lack.clone() };
        let to: BTreeSet<NodeId> = rank.iter().copied().chain([by]).collect();
        for node in to {
            if node == self.me {
                if let Some(call) = self.calls.get_mut(&(job, start)) {
                    call.declines.insert(self.me, lack.clone());
                }
            } else {
                self.send(node, &msg, out);
            }
        }
    }

    /// Claims what we were called for when our turn has come.
    pub(super) fn tick_called(&mut self, now: Now, out: &mut Effects) {
        let keys: Vec<_> = self.called.keys().copied().collect();
        for key in keys {
            let (id, attempt, start) = key;
            let called = self.called.get(&key).expect("just listed").clone();
            let Some((_, spec)) = self.replica.cached_job(&id).and_then(|j| j.spec()) else {
                // The bundle with the spec is on its way; the caller goes on without us if it never comes.
                if called.at.plus_ms(AWARD_SETTLES_MS) <= now.mono {
                    self.called.remove(&key);
                } else {
                    self.wake_at(called.at.plus_ms(AWARD_SETTLES_MS));
                }
                continue;
            };
            let spec = spec.clone();
            if !self.knows_idea(&spec) {
                self.decline(called.by, &called.rank, key, Lack::Idea, out);
                self.called.remove(&key);
                continue;
            }
            let open = self.open_ranges(now, &id);
            let fits = |r: &TaskRange, a: u32| r.contains(start) && called.range.end <= r.end && a == attempt;
            let Some((_, _, basis)) = open.into_iter().find(|(r, a, _)| fits(r, *a)) else {
                self.called.remove(&key);
                continue;
            };
            if let Some(lack) = self.lack_when_called(now, &spec) {
                self.decline(called.by, &called.rank, key, lack, out);
                self.called.remove(&key);
                continue;
            }
            let before = called.rank.iter().take(called.place).filter(|n| !called.declined.contains(n)).count() as u64;
            if !self.is_due(now, called.at.plus_ms(before * STAGGER_MS)) {
                continue;
            }
            self.called.remove(&key);
            self.claim(now, id, called.range, attempt, basis);
        }
    }

    /// Why we do not take a task now, if we do not.
    pub(super) fn my_lack(&self, now: Now, spec: &JobSpec) -> Option<Lack> {
        if self.hold_own_feed {
            return Some(Lack::Paused("it waits to hear what it wrote before its store was lost".into()));
        }
        if !self.may_run() {
            return Some(Lack::Role);
        }
        if self.draining {
            return Some(Lack::Paused("it is about to stop".into()));
        }
        if let Some(lack) = lacks(&self.offer, spec).into_iter().next() {
            return Some(lack);
        }
        if spec.at_most_once && !self.hears_majority(spec) {
            return Some(Lack::Majority);
        }
        (self.room(now, spec) == 0).then_some(Lack::Busy)
    }

    /// Why we do not take what we are called for: as [`Self::my_lack`], and a call takes only a slot that is free. Work
    /// ahead is drawn, for a draw shares between persons and a call does not.
    fn lack_when_called(&self, now: Now, spec: &JobSpec) -> Option<Lack> {
        if is_made(Mutant::OldestFirst) {
            let is_older = |id| {
                let known = self.replica.cached_job(id).and_then(|job| job.spec());
                known.is_some_and(|(_, other)| other.created_ms < spec.created_ms)
            };
            return self.open.iter().any(is_older).then_some(Lack::Busy).or_else(|| self.my_lack(now, spec));
        }
        self.my_lack(now, spec).or_else(|| (self.held.len() >= self.offer.slots as usize).then_some(Lack::Busy))
    }

    /// Tasks like this one that may be claimed on top of what is held: free slots, or as many as end within a second.
    pub(super) fn room(&self, now: Now, spec: &JobSpec) -> u32 {
        let held = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        let free = self.offer.slots.saturating_sub(held + u32::from(is_made(Mutant::KeepsSlotBack)));
        if free > 0 || self.held.len() >= CLAIMS_HELD_MAX {
            return free;
        }
        let Some(each_us) = self.durations.of(spec) else { return 0 };
        let budget_us = u64::from(self.offer.slots) * CLAIM_AHEAD_MS * 1_000;
        u32::try_from(budget_us.saturating_sub(self.queued_us(now)) / (each_us + self.overhead_us).max(1_000))
            .unwrap_or(u32::MAX)
    }

    /// Whether there is room for no task at all, not even one that takes no time beside its overhead.
    pub(super) fn is_full(&self, now: Now) -> bool {
        if self.held.len() < self.offer.slots as usize {
            return false;
        }
        let budget_us = u64::from(self.offer.slots) * CLAIM_AHEAD_MS * 1_000;
        let left_us = budget_us.saturating_sub(self.queued_us(now));
        self.held.len() >= CLAIMS_HELD_MAX || left_us < self.overhead_us.max(1_000)
    }

    /// Time that what is held is still expected to take. What takes longer than was expected may take for ever: it fills
    /// its slot.
    fn queued_us(&self, now: Now) -> u64 {
        let left = |held: &Held| match held.phase {
            Phase::Running { since } => held
                .estimate_us
                .checked_sub(now.mono.0.saturating_sub(since.0))
                .unwrap_or(held.estimate_us.max(CLAIM_AHEAD_MS * 1_000)),
            Phase::Waiting | Phase::Ending => held.estimate_us,
        };
        self.held.values().map(left).sum()
    }

    /// Whether enough of a job's tasks are claimed and wait: what others could begin is left to them.
    pub(super) fn has_ahead(&self, id: JobId) -> bool {
        let waiting = self.held.iter().filter(|((job, _), held)| *job == id && held.phase == Phase::Waiting);
        let waiting_us: u64 = waiting.map(|(_, held)| held.estimate_us).sum();
        waiting_us >= u64::from(self.offer.slots) * ARRAY_AHEAD_MS * 1_000
    }

    /// Whether all slots are taken and at least half of the work that may be held ahead is: then a draw, which looks at
    /// every open job, is not worth it yet.
    pub(super) fn has_enough(&self, now: Now) -> bool {
        let enough_us = u64::from(self.offer.slots) * CLAIM_AHEAD_MS * 1_000 / 2;
        self.held.len() >= self.offer.slots as usize && (self.is_full(now) || self.queued_us(now) >= enough_us)
    }

    /// Writes a claim and remembers it.
    pub(super) fn claim(&mut self, now: Now, id: JobId, range: TaskRange, attempt: u32, basis: Basis) {
        let claim_id = ClaimId { attempt, range, owner: self.me };
        if self.held.contains_key(&(id, claim_id)) {
            return;
        }
        let Some(job) = self.replica.cached_job(&id).filter(|job| !job.claims().contains_key(&claim_id)) else {
            return;
        };
        let Some((submitter, spec)) = job.spec() else { return };
        let (submitter, spec) = (*submitter, spec.clone());
        if !self.knows_idea(&spec) {
            return;
        }
        let seen =
            job.claims().keys().filter(|c| c.attempt == attempt && c.range.overlaps(&range)).map(|c| c.owner).collect();
        let each_us = self.durations.of(&spec);
        let queued_ms: u64 = self.held.values().map(|held| held.estimate_us / 1_000).sum();
        let moving_ms = spec.input_bytes / MOVE_BYTES_PER_MS * 10;
        let claim = Claim {
            bid_micros: bid_micros(&self.offer, &spec, each_us.map(|us| us / 1_000), 0),
            price_micros_per_hour: self.offer.price_micros_per_hour,
            seen,
            watchers: self.choose_watchers(id, submitter),
            basis,
            start_by_ms: START_BY_MS + 4 * queued_ms + moving_ms,
            at_ms: now.wall_ms,
        };
        self.write(DocId::job(id), &Key::Claim(attempt, range), &claim);
        let held = Held {
            at: now.mono,
            estimate_us: self.overhead_us + each_us.unwrap_or(CLAIM_AHEAD_MS * 1_000) * u64::from(range.len()),
            phase: Phase::Waiting,
            report: RunReport::default(),
            reported_at: now.mono,
            report_due: None,
        };
        self.held.insert((id, claim_id), held);
    }

    /// The submitter's node and up to four more that are present.
    fn choose_watchers(&self, id: JobId, submitter: NodeId) -> Vec<NodeId> {
        let mut others: Vec<NodeId> = self.connected().filter(|n| *n != submitter).collect();
        others.sort_by_key(|node| rendezvous(id, 0, *node));
        let first = (submitter != self.me).then_some(submitter);
        first.into_iter().chain(others).take(WATCHERS_MAX).collect()
    }

    /// Starts what is claimed, durable and waiting, as slots allow.
    pub(super) fn start_waiting(&mut self, now: Now, out: &mut Effects) {
        let mut free = self.offer.slots.saturating_sub(self.slots_used());
        if free == 0 {
            return;
        }
        let mut waiting: Vec<_> =
            self.held.iter().filter(|(_, h)| h.phase == Phase::Waiting).map(|(k, h)| (h.at, *k)).collect();
        waiting.sort_unstable_by_key(|(at, key)| (*at, *key));
        for (_, (id, claim)) in waiting {
            if free == 0 {
                break;
            }
            let known = self.replica.cached_job(&id).is_some_and(|job| job.claims().contains_key(&claim));
            if !known || !self.may_start(now, id, claim, out) {
                continue;
            }
            let Some(job) = self.replica.cached_job(&id) else { continue };
            let Some((submitter, spec)) = job.spec() else { continue };
            let earlier = |c: &&ClaimId| c.attempt < claim.attempt && c.range == claim.range && !job.is_void(c);
            let resume = job.claims().keys().filter(earlier);
            let resume = resume.filter_map(|c| job.run(c)?.checkpoint.map(|p| (c.attempt, p))).max().map(|(_, p)| p);
            let mut holders = vec![*submitter];
            holders.extend(self.connected().filter(|n| n != submitter));
            out.push(Effect::Start { job: id, claim, spec: spec.clone(), holders, resume });
            let held = self.held.get_mut(&(id, claim)).expect("just listed");
            held.phase = Phase::Running { since: now.mono };
            free -= 1;
        }
    }

    pub(super) fn on_started(&mut self, now: Now, job: JobId, claim: ClaimId, task: u32, at_ms: u64) {
        let Some(held) = self.held.get_mut(&(job, claim)) else { return };
        if held.report.chosen.is_some() {
            held.report.tasks = vec![TaskReport(task, at_ms, None)];
        } else if held.report.tasks.last().is_none_or(|t| t.0 < task) {
            held.report.tasks.push(TaskReport(task, at_ms, None));
        }
        let first = held.report.tasks.len() == 1;
        self.report_within(now, job, claim, if first { REPORT_SHORT_MS } else { REPORT_EVERY_MS });
    }

    pub(super) fn on_exited(
        &mut self,
        now: Now,
        job: JobId,
        claim: ClaimId,
        task: u32,
        (started_ms, at_ms): (u64, u64),
        exit: Exit,
    ) {
        let Some(held) = self.held.get_mut(&(job, claim)) else { return };
        let entry = TaskReport(task, started_ms, Some((at_ms, exit)));
        match held.report.tasks.binary_search_by_key(&task, |t| t.0) {
            Ok(at) => held.report.tasks[at] = entry,
            Err(at) => held.report.tasks.insert(at, entry),
        }
        let single = claim.range.len() == 1;
        if let Some((_, spec)) = self.replica.cached_job(&job).and_then(|j| j.spec()) {
            self.durations.learn(&spec.clone(), at_ms.saturating_sub(started_ms).max(1) * 1_000);
        }
        self.report_within(now, job, claim, if single { REPORT_SHORT_MS } else { REPORT_EVERY_MS });
    }

    pub(super) fn on_progress(
        &mut self,
        now: Now,
        (job, claim): (JobId, ClaimId),
        (artifacts, list): (Vec<ArtifactRef>, Option<ArtifactList>),
        checkpoint: Option<CheckpointRef>,
        holders: Vec<NodeId>,
    ) {
        let Some(held) = self.held.get_mut(&(job, claim)) else { return };
        held.report.artifacts = artifacts;
        held.report.list = list;
        if checkpoint.map(|c| c.number) >= held.report.checkpoint.map(|c| c.number) {
            held.report.checkpoint = checkpoint;
        }
        held.report.holders = holders;
        self.report_within(now, job, claim, 0);
    }

    pub(super) fn on_ended(&mut self, now: Now, job: JobId, claim: ClaimId, log: Option<LogRef>, cost_micros: u64) {
        let ending = self.held.get(&(job, claim)).is_some_and(|held| held.phase == Phase::Ending);
        if ending && is_made(Mutant::LeaksSlot) {
            return;
        }
        let Some(mut held) = self.held.remove(&(job, claim)) else { return };
        if let Phase::Running { since } = held.phase {
            let ran = held.report.tasks.iter().filter_map(|t| t.2.as_ref().map(|(end, _)| end.saturating_sub(t.1)));
            let beside_us = (now.mono.0 - since.0).saturating_sub(ran.sum::<u64>() * 1_000);
            self.overhead_us = (self.overhead_us * 7 + beside_us) / 8;
        }
        held.report.ended = true;
        held.report.log = log;
        held.report.cost_micros = cost_micros;
        self.write(DocId::job(job), &Key::Run(claim.attempt, claim.range), &held.report);
        self.reported.insert((job, claim));
        self.slot_freed = true;
    }

    /// What a run left is lost: its result does not count, and another attempt may begin. What may start but once counts as it is.
    pub(super) fn on_unkept(&mut self, job: JobId, claim: ClaimId) {
        if self.held.contains_key(&(job, claim)) {
            self.give_back(job, claim, None);
        }
    }

    /// Has the report written again within this time: what follows until then goes with it.
    fn report_within(&mut self, now: Now, job: JobId, claim: ClaimId, within_ms: u64) {
        if let Some(held) = self.held.get_mut(&(job, claim)) {
            let at = match within_ms {
                REPORT_EVERY_MS => held.reported_at.plus_ms(REPORT_EVERY_MS).max(now.mono),
                other => now.mono.plus_ms(other),
            };
            held.report_due = Some(held.report_due.map_or(at, |due| due.min(at)));
        }
    }

    /// Writes the reports that are due.
    pub(super) fn tick_reports(&mut self, now: Now) {
        let (mut due, mut next) = (Vec::new(), None);
        for (key, held) in &mut self.held {
            match held.report_due {
                Some(at) if at <= now.mono => {
                    held.report_due = None;
                    held.reported_at = now.mono;
                    due.push((*key, held.report.clone()));
                }
                Some(at) => next = Some(next.map_or(at, |n: crate::time::Time| n.min(at))),
                None => {}
            }
        }
        for ((job, claim), report) in due {
            self.write(DocId::job(job), &Key::Run(claim.attempt, claim.range), &report);
        }
        if let Some(at) = next {
            self.wake_at(at);
        }
    }

    /// Gives up claims of ours of one job that are cancelled, accepted elsewhere, or lost to a better claim; and what an
    /// earlier process of this node left behind.
    pub(super) fn review_claims(&mut self, now: Now, id: JobId, out: &mut Effects) {
        let Some(job) = self.replica.cached_job(&id) else { return };
        let mine: Vec<ClaimId> = job.claims().keys().filter(|c| c.owner == self.me).copied().collect();
        let mut ends = Vec::new();
        for claim in mine {
            let ended = job.run(&claim).is_some_and(|run| run.ended);
            let held = self.held.get(&(id, claim));
            if ended || self.reported.contains(&(id, claim)) {
                continue;
            }
            let Some(held) = held else {
                // What ended it may be in what is still to come of our feed.
                if !self.hold_own_feed {
                    ends.push((claim, None));
                }
                continue;
            };
            let start = claim.range.start;
            // A spec that no longer counts, for its submitter was shut out, or that is given up; or the voters chose another.
            let is_elsewhere = match job.task_state(start).map(|s| s.waiting) {
                None | Some(Waiting::GivingUp(_)) => true,
                Some(Waiting::Person(chosen)) => chosen.attempt != claim.attempt || chosen.owner != self.me,
                Some(_) => false,
            };
            let over = job.is_over(claim.range) || is_elsewhere;
            let attempts = job.attempts(start);
            let award = attempts.iter().any(|a| a.id == claim && a.award);
            let settled = matches!(held.phase, Phase::Running { since } if since.plus_ms(AWARD_SETTLES_MS) <= now.mono);
            let chosen = held.report.chosen.is_some();
            let exit = if job.is_cancelled() || over {
                Some(Exit::Cancelled)
            } else if chosen {
                None
            } else if job.is_void(&claim) || (!award && !settled) {
                Some(Exit::Returned)
            } else {
                None
            };
            if let Some(exit) = exit {
                ends.push((claim, Some((exit, held.phase))));
            }
        }
        for (claim, end) in ends {
            match end {
                Some((exit, Phase::Running { .. })) => {
                    self.held.get_mut(&(id, claim)).expect("just found").phase = Phase::Ending;
                    out.push(Effect::Kill { job: id, claim, exit });
                }
                Some((_, Phase::Ending)) => {}
                Some((_, Phase::Waiting)) | None => self.abandon(id, claim),
            }
        }
    }

    /// Reports a claim as over that nothing runs of any more. What had exited by then lacks its log and its files: it is given
    /// back with the rest, but where it may start once only.
    pub(super) fn abandon(&mut self, id: JobId, claim: ClaimId) {
        self.give_back(id, claim, None);
    }

    /// The same, and which claim the voters chose instead.
    pub(super) fn give_back(&mut self, id: JobId, claim: ClaimId, chosen: Option<(u32, NodeId, u64)>) {
        self.held.remove(&(id, claim));
        let before = self.replica.cached_job(&id).and_then(|job| job.run(&claim)).cloned().unwrap_or_default();
        let mut report = RunReport { ended: true, chosen: chosen.or(before.chosen), ..before };
        let at_ms = report.tasks.last().map_or(0, |t| t.1);
        let once = report.chosen.is_some();
        for task in report.tasks.iter_mut().filter(|t| t.2.is_none() || !once) {
            task.2 = Some((at_ms, Exit::Returned));
        }
        self.write(DocId::job(id), &Key::Run(claim.attempt, claim.range), &report);
        self.reported.insert((id, claim));
        self.slot_freed = true;
    }
}
