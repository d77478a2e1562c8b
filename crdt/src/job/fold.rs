//! From a job's registers to the state of its tasks.
//!
//! Tasks that share their history are folded together: a job with a million tasks and a hundred claims has a few hundred
//! segments. A claim counts only where its writer may run jobs and its basis holds; the award of an attempt goes to the
//! claim that loses to no other (see [`beats`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::values::{Accept, Basis, Claim, ControlOp, JobSpec, Outcome, TaskReport};
use super::{ClaimId, Job, Written};
use crate::doc::TaskRange;
use crate::ids::{JobId, NodeId};
use crate::limits::{ATTEMPTS_MAX, LOST_ATTEMPTS_MAX, TASKS_PER_JOB_MAX, VOTERS_MAX};
use crate::mutant::{Mutant, is_made};
use crate::roster::Roster;

/// State of a task or a job. The order of a job's states is that of DESIGN 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Nobody has it.
    Queued,
    /// A node took it and has not started it.
    Claimed,
    /// It runs.
    Running,
    /// Accepted with exit code 0.
    Done,
    /// Accepted as a failure.
    Failed,
    /// A person ended it.
    Cancelled,
    /// A job before it failed.
    Skipped,
}

/// A task's state is of the same kind as a job's.
pub type TaskState = JobState;

impl JobState {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Claimed, Self::Running, Self::Done, Self::Failed, Self::Cancelled, Self::Skipped];

    /// The state's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Whether nothing changes it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled | Self::Skipped)
    }
}

/// State of one attempt of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttemptState {
    /// Taken.
    Claimed,
    /// Started.
    Running,
    /// Exit code 0.
    Done,
    /// Ended otherwise.
    Failed,
    /// Ended by a person, or given back.
    Cancelled,
    /// Its watchers do not hear its owner.
    Lost,
}

impl AttemptState {
    /// The state's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

/// One attempt of one task.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Its claim.
    pub id: ClaimId,
    /// Its state.
    pub state: AttemptState,
    /// Whether it is the award of its attempt number; the others are duplicates.
    pub award: bool,
    /// What its owner reports of the task.
    pub report: Option<&'a TaskReport>,
}

/// What an unfinished task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// A node that claims it: the attempt that is open, and why.
    Claim {
        /// Number of the open attempt.
        attempt: u32,
        /// What makes it possible; for [`Basis::Lost`] the owner that was lost.
        lost_owner: Option<NodeId>,
    },
    /// The award's owner, which holds it.
    Owner(ClaimId),
    /// The submitter, which accepts this outcome of this claim.
    Acceptance(ClaimId, Outcome),
    /// A person: the claim that might start but once is lost or was given back.
    Person(ClaimId),
    /// The submitter, which accepts that nothing will come of it.
    GivingUp(&'static str),
    /// Nobody: it is final.
    Nobody,
}

/// Neighbouring tasks with one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The tasks.
    pub range: TaskRange,
    /// Their state.
    pub state: TaskState,
    /// What they wait for.
    pub waiting: Waiting,
}

#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) submitter: Option<NodeId>,
    pub(super) cancelled: bool,
    pub(super) priority: i32,
    pub(super) segments: Vec<Segment>,
    /// Acceptances by admins that count, since the submitter is revoked.
    adopted: Vec<(NodeId, TaskRange)>,
    counts: [u32; 7],
    voids: BTreeSet<ClaimId>,
    longest: u32,
}

#[derive(Serialize)]
pub(super) struct Summary(Option<NodeId>, bool, i32, [u32; 7], Option<JobState>);

impl View {
    pub(super) fn summary(&self) -> Summary {
        Summary(self.submitter, self.cancelled, self.priority, self.counts, self.state())
    }

    /// Acceptances by admins that count.
    pub(super) fn adopted(&self) -> &[(NodeId, TaskRange)] {
        &self.adopted
    }

    fn count(&self, state: JobState) -> u32 {
        self.counts[state as usize]
    }

    fn state(&self) -> Option<JobState> {
        self.submitter?;
        let open = [JobState::Running, JobState::Claimed, JobState::Queued];
        let ended = [JobState::Failed, JobState::Cancelled, JobState::Skipped];
        if let Some(state) = open.into_iter().find(|s| self.count(*s) > 0) {
            let started = self.counts[2..].iter().any(|n| *n > 0);
            return Some(if started { JobState::Running } else { state });
        }
        Some(ended.into_iter().find(|s| self.count(*s) > 0).unwrap_or(JobState::Done))
    }
}

/// Folds a job.
pub(super) fn fold(job: &Job, roster: &Roster) -> View {
    let mut view = View::default();
    let submitter = job
        .facts()
        .specs
        .iter()
        .filter(|(node, w)| {
            roster.role_at(node, w.seq).is_some_and(|role| role.may_submit())
                && w.value.tasks() <= TASKS_PER_JOB_MAX
                && w.value.voters.len() <= VOTERS_MAX
                && owns_id(job.id, node, &w.value, roster)
        })
        .min_by_key(|(node, w)| (!is_bound(job.id, node, &w.value), w.value.created_ms, **node));
    let Some((submitter, spec)) = submitter else {
        return view;
    };
    let spec = &spec.value;
    view.submitter = Some(*submitter);
    view.priority = spec.priority;
    controls(job, roster, spec, &mut view);
    view.longest = job.facts().claims.keys().map(|id| id.range.len()).max().unwrap_or(0);
    view.voids = void_claims(job, roster, spec);
    view.adopted = adopted(job, *submitter, roster);
    segments(job, *submitter, spec, &mut view);
    view
}

/// Folds the record of a sealed job, which needs nobody's right but its sealer's.
pub(super) fn fold_sealed(job: &Job, by: NodeId) -> View {
    let mut view = View::default();
    let Some(spec) = job.facts().specs.get(&by).map(|written| &written.value) else { return view };
    view.submitter = Some(by);
    view.priority = spec.priority;
    view.longest = 1;
    segments(job, by, spec, &mut view);
    view
}

fn segments(job: &Job, submitter: NodeId, spec: &JobSpec, view: &mut View) {
    let accepts = accepts(job, submitter, &view.adopted);
    for range in elementary(job, spec, &accepts) {
        let accept = accepts.iter().find(|(r, _)| r.contains(range.start)).map(|(_, accept)| *accept);
        let (state, waiting) = task(job, view, spec, range.start, accept);
        view.counts[state as usize] += range.len();
        match view.segments.last_mut() {
            Some(last) if last.range.end == range.start && last.state == state && last.waiting == waiting => {
                last.range.end = range.end;
            }
            _ => {
                // Most jobs have one: a vector would make room for four.
                if view.segments.is_empty() {
                    view.segments.reserve_exact(1);
                }
                view.segments.push(Segment { range, state, waiting });
            }
        }
    }
}

/// Whether the id is made of what only this submitter can state: its person's key, or a nonce of its own. Such a spec is not
/// displaced by another's under the same id, whatever time that one states.
fn is_bound(id: JobId, node: &NodeId, spec: &JobSpec) -> bool {
    match (&spec.key, &spec.nonce) {
        (Some(_), _) => true,
        (None, Some(nonce)) => super::job_id_of_nonce(*node, nonce) == id,
        (None, None) => false,
    }
}

/// A job with an idempotency key lies under the hash of key and person, and the person must be the submitter's own.
fn owns_id(id: JobId, node: &NodeId, spec: &JobSpec, roster: &Roster) -> bool {
    roster.person(node) == Some(spec.person)
        && spec.key.as_ref().is_none_or(|key| super::job_id_of_key(spec.person, key) == id)
}

fn controls(job: &Job, roster: &Roster, spec: &JobSpec, view: &mut View) {
    let mut latest = None;
    for ((author, n), control) in job.facts().controls.iter() {
        let role = roster.role_at(author, control.seq);
        let own = roster.person(author) == Some(spec.person) && role.is_some_and(|r| r.may_submit());
        if !own && !role.is_some_and(|r| r.may_administer()) {
            continue;
        }
        match control.value.op {
            ControlOp::Cancel => view.cancelled = true,
            ControlOp::Priority(priority) => {
                let order = (control.value.at_ms, *author, *n);
                if latest.is_none_or(|l| l < order) {
                    latest = Some(order);
                    view.priority = priority;
                }
            }
        }
    }
}

/// Acceptances of the jobs of a revoked submitter by those who adopt them: admins, the earliest stated first.
fn adopted(job: &Job, submitter: NodeId, roster: &Roster) -> Vec<(NodeId, TaskRange)> {
    if !roster.revoked.contains_key(&submitter) {
        return Vec::new();
    }
    let counting = job.facts().accepts.iter().filter(|((author, _), written)| {
        *author != submitter && roster.role_at(author, written.seq).is_some_and(|role| role.may_administer())
    });
    let mut found: Vec<_> = counting.map(|(key, written)| (written.value.at_ms, *key)).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, key)| key).collect()
}

/// The acceptances that count, the submitter's before those of who adopts its jobs: of two over one task the one written
/// first, so the later is cut out by order.
pub(super) fn accepts<'a>(
    job: &'a Job,
    submitter: NodeId,
    adopted: &[(NodeId, TaskRange)],
) -> Vec<(TaskRange, &'a Accept)> {
    let mut found: Vec<_> = job
        .facts()
        .accepts
        .iter()
        .filter(|((author, _), _)| *author == submitter || is_made(Mutant::AnybodyAccepts))
        .map(|((_, range), w)| (w.seq, *range, &w.value))
        .collect();
    found.sort_by_key(|(seq, range, _)| (*seq, *range));
    let own = found.into_iter().map(|(_, range, accept)| (range, accept));
    let adopted = adopted.iter().filter_map(|key| Some((key.1, &job.facts().accepts.get(key)?.value)));
    own.chain(adopted).collect()
}

/// Ranges within which no claim, acceptance or ended task begins or ends.
fn elementary(job: &Job, spec: &JobSpec, accepts: &[(TaskRange, &Accept)]) -> Vec<TaskRange> {
    let tasks = spec.tasks();
    let mut bounds: BTreeSet<u32> = [0, tasks].into();
    for range in job.facts().claims.keys().map(|id| id.range).chain(accepts.iter().map(|(r, _)| *r)) {
        bounds.extend([range.start, range.end]);
    }
    for (id, run) in job.facts().runs.iter() {
        let mut last = None;
        for report in run.value.tasks.iter().filter(|t| id.range.contains(t.0)) {
            let kind = report.2.as_ref().map(|(_, exit)| exit.outcome());
            if last != Some((report.0.wrapping_sub(1), kind)) {
                bounds.insert(report.0);
            }
            if let Some((before, _)) = last.filter(|(before, _)| before + 1 != report.0) {
                bounds.insert(before + 1);
            }
            last = Some((report.0, kind));
        }
        bounds.extend(last.map(|(index, _)| index + 1));
    }
    let bounds: Vec<u32> = bounds.into_iter().filter(|b| *b <= tasks).collect();
    bounds.windows(2).map(|two| TaskRange { start: two[0], end: two[1] }).collect()
}

/// Claims whose writer may not run jobs, or whose basis does not hold.
fn void_claims(job: &Job, roster: &Roster, spec: &JobSpec) -> BTreeSet<ClaimId> {
    let mut voids = BTreeSet::new();
    for (id, claim) in job.facts().claims.iter() {
        let allowed = roster.role_at(&id.owner, claim.seq).is_some_and(|role| role.may_run());
        let fits = id.range.end <= spec.tasks();
        if !allowed || !fits || !basis_holds(job, id, &claim.value) {
            voids.insert(*id);
        }
    }
    voids
}

fn basis_holds(job: &Job, id: &ClaimId, claim: &Claim) -> bool {
    match &claim.basis {
        Basis::First => id.attempt == 1,
        Basis::Retry => job.facts().claims.keys().any(|other| {
            other.attempt + 1 == id.attempt
                && other.range.contains(id.range.start)
                && gave_up(job, other, id.range.start)
        }),
        Basis::Lost { owner, unheard } => {
            let before = job.facts().claims.iter().filter(|(other, _)| {
                other.attempt + 1 == id.attempt && other.owner == *owner && other.range.contains(id.range.start)
            });
            before.into_iter().any(|(other, lost)| {
                let heard = lost.value.watchers.iter().filter(|w| !unheard.contains(w)).count();
                let by = job.lost_by(other).filter(|by| lost.value.watchers.contains(by)).count();
                heard == 0 || by * 2 > heard
            })
        }
    }
}

/// Whether a claim's owner reports that it ended without a result for this task.
fn gave_up(job: &Job, id: &ClaimId, index: u32) -> bool {
    job.facts().runs.get(id).is_some_and(|run| match run.value.task(index) {
        Some(TaskReport(_, _, Some((_, exit)))) => exit.outcome() != Outcome::Done,
        Some(_) => false,
        None => run.value.ended,
    })
}

/// Whether claim `a` wins over the concurrent claim `b` of the same attempt: the one that had seen the other loses, then
/// the better bid wins, then the rendezvous hash of task and node.
fn beats(job: JobId, a: (&ClaimId, &Claim), b: (&ClaimId, &Claim)) -> bool {
    let a_saw = a.1.seen.contains(&b.0.owner);
    let b_saw = b.1.seen.contains(&a.0.owner);
    if a_saw != b_saw {
        return b_saw;
    }
    let order =
        |(id, claim): (&ClaimId, &Claim)| (claim.bid_micros, rendezvous(job, id.range.start, id.owner), id.owner);
    order(a) < order(b)
}

/// The hash that breaks ties between nodes, different for each task.
#[must_use]
pub fn rendezvous(job: JobId, task: u32, node: NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&job.0).update(&task.to_be_bytes()).update(&node.0);
    u64::from_be_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}

/// State of one task and what it waits for.
fn task(job: &Job, view: &View, spec: &JobSpec, index: u32, accept: Option<&Accept>) -> (TaskState, Waiting) {
    if let Some(accept) = accept {
        let state = match accept.outcome {
            Outcome::Done => JobState::Done,
            Outcome::Failed | Outcome::Returned => JobState::Failed,
            Outcome::Cancelled => JobState::Cancelled,
            Outcome::Skipped => JobState::Skipped,
        };
        return (state, Waiting::Nobody);
    }
    let attempts = job.attempts_in(view, index);
    if let Some(done) =
        attempts.iter().filter(|a| a.state == AttemptState::Done).min_by_key(|a| (a.id.attempt, a.id.owner))
    {
        return (JobState::Running, Waiting::Acceptance(done.id, Outcome::Done));
    }
    let chosen = if spec.at_most_once { job.chosen(&attempts) } else { None };
    if view.cancelled {
        let held = attempts.iter().any(|a| a.state == AttemptState::Running && a.award);
        return (if held { JobState::Running } else { JobState::Cancelled }, Waiting::GivingUp("cancelled"));
    }
    match chosen {
        Some((attempt, owner, _)) => {
            let range = TaskRange { start: index, end: index + 1 };
            let found = attempts.iter().find(|a| (a.id.attempt, a.id.owner) == (attempt, owner));
            // A claim that counts no longer, for its owner was revoked: it may have started all the same.
            found.map_or((JobState::Queued, Waiting::Person(ClaimId { attempt, range, owner })), once)
        }
        None => open(spec, &attempts),
    }
}

/// A task of which the voters chose the one claim that may start.
fn once(chosen: &Attempt<'_>) -> (TaskState, Waiting) {
    match chosen.state {
        AttemptState::Claimed => (JobState::Claimed, Waiting::Owner(chosen.id)),
        AttemptState::Running => (JobState::Running, Waiting::Owner(chosen.id)),
        AttemptState::Done => (JobState::Running, Waiting::Acceptance(chosen.id, Outcome::Done)),
        AttemptState::Failed => (JobState::Running, Waiting::Acceptance(chosen.id, Outcome::Failed)),
        AttemptState::Lost | AttemptState::Cancelled => (JobState::Queued, Waiting::Person(chosen.id)),
    }
}

fn open(spec: &JobSpec, attempts: &[Attempt<'_>]) -> (TaskState, Waiting) {
    let losses = attempts.iter().filter(|a| a.award && a.state == AttemptState::Lost).count();
    let failures = attempts.iter().filter(|a| a.award && a.state == AttemptState::Failed).count();
    let last = attempts.iter().rev().find(|a| a.award);
    let Some(last) = last else {
        return (JobState::Queued, Waiting::Claim { attempt: 1, lost_owner: None });
    };
    let next = last.id.attempt + 1;
    match last.state {
        AttemptState::Claimed => (JobState::Claimed, Waiting::Owner(last.id)),
        AttemptState::Running => (JobState::Running, Waiting::Owner(last.id)),
        AttemptState::Done => (JobState::Running, Waiting::Acceptance(last.id, Outcome::Done)),
        AttemptState::Failed if failures > spec.retries as usize => {
            (JobState::Running, Waiting::Acceptance(last.id, Outcome::Failed))
        }
        AttemptState::Lost if losses >= LOST_ATTEMPTS_MAX as usize => {
            (JobState::Queued, Waiting::GivingUp("its owners vanish"))
        }
        _ if next > ATTEMPTS_MAX => (JobState::Queued, Waiting::GivingUp("it was attempted too often")),
        AttemptState::Lost => (JobState::Queued, Waiting::Claim { attempt: next, lost_owner: Some(last.id.owner) }),
        AttemptState::Failed | AttemptState::Cancelled => {
            (JobState::Queued, Waiting::Claim { attempt: next, lost_owner: None })
        }
    }
}

impl Job {
    /// The folded state; `None` while no counting spec is known.
    #[must_use]
    pub fn state(&self) -> Option<JobState> {
        self.view.state()
    }

    /// Tasks in a state.
    #[must_use]
    pub fn count(&self, state: JobState) -> u32 {
        self.view.count(state)
    }

    /// Whether a person asked for its end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.view.cancelled
    }

    /// Priority in force.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.view.priority
    }

    /// What the job comes to if what is there is accepted; `None` while it is not over, and once it is accepted.
    #[must_use]
    pub fn provisional_state(&self) -> Option<JobState> {
        if self.state()?.is_final() {
            return None;
        }
        let outcome = |segment: &Segment| match segment.waiting {
            Waiting::Acceptance(_, Outcome::Done) => Some(JobState::Done),
            Waiting::Acceptance(..) => Some(JobState::Failed),
            Waiting::Nobody => Some(segment.state),
            Waiting::Claim { .. } | Waiting::Owner(_) | Waiting::Person(_) | Waiting::GivingUp(_) => None,
        };
        let found = self.view.segments.iter().map(outcome).collect::<Option<BTreeSet<_>>>()?;
        let ended = [JobState::Failed, JobState::Cancelled, JobState::Skipped];
        Some(ended.into_iter().find(|state| found.contains(state)).unwrap_or(JobState::Done))
    }

    /// The job as it is if what is there is accepted, to be shown while its submitter is away; `None` as in
    /// [`Job::provisional_state`].
    #[must_use]
    pub fn provisional(&self) -> Option<Self> {
        self.provisional_state()?;
        let accept = |segment: &Segment| {
            let Waiting::Acceptance(claim, outcome) = segment.waiting else { return None };
            let (attempt, node) = (claim.attempt, Some(claim.owner));
            let accept =
                Accept { outcome, attempt, node, because: None, at_risk: false, reason: String::new(), at_ms: 0 };
            Some((segment.range, accept))
        };
        let accepts: Vec<_> = self.view.segments.iter().filter_map(accept).collect();
        self.if_accepted(accepts)
    }

    /// The job as it is once its submitter has written this; `None` while its spec is not known.
    #[must_use]
    pub fn if_accepted(&self, accepts: impl IntoIterator<Item = (TaskRange, Accept)>) -> Option<Self> {
        let submitter = self.view.submitter?;
        let mut job = self.clone();
        for (range, accept) in accepts {
            let key = (submitter, range);
            if !job.registers.accepts.contains_key(&key) {
                job.registers.accepts.insert(key, Written { seq: u64::MAX, value: accept });
            }
        }
        let spec = job.spec().map(|(_, spec)| Arc::clone(spec))?;
        let mut view = std::mem::take(&mut job.view);
        (view.segments, view.counts) = (Vec::new(), [0; 7]);
        segments(&job, submitter, &spec, &mut view);
        job.view = view;
        Some(job)
    }

    /// Neighbouring tasks with one state, ascending, all tasks covered.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.view.segments
    }

    /// The state of one task.
    #[must_use]
    pub fn task_state(&self, index: u32) -> Option<&Segment> {
        let at = self.view.segments.partition_point(|s| s.range.end <= index);
        self.view.segments.get(at)
    }

    /// Whether all tasks of a range are final.
    #[must_use]
    pub fn is_over(&self, range: TaskRange) -> bool {
        let at = self.view.segments.partition_point(|s| s.range.end <= range.start);
        let mut within = self.view.segments[at..].iter().take_while(|s| s.range.start < range.end).peekable();
        within.peek().is_some() && within.all(|s| s.state.is_final())
    }

    /// The acceptance of one task.
    #[must_use]
    pub fn accepted(&self, index: u32) -> Option<&Accept> {
        let submitter = self.view.submitter?;
        accepts(self, submitter, &self.view.adopted)
            .into_iter()
            .find(|(range, _)| range.contains(index))
            .map(|(_, accept)| accept)
    }

    /// Whether the files of an accepted result had no second holder when it was accepted.
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        let Some(submitter) = self.view.submitter else { return false };
        accepts(self, submitter, &self.view.adopted).iter().any(|(_, accept)| accept.at_risk)
    }

    /// Whether a claim counts for nothing: its writer may not run jobs, or its basis does not hold.
    #[must_use]
    pub fn is_void(&self, id: &ClaimId) -> bool {
        self.view.voids.contains(id)
    }

    /// The attempts of one task, by attempt and owner, without the void ones.
    #[must_use]
    pub fn attempts(&self, index: u32) -> Vec<Attempt<'_>> {
        self.attempts_in(&self.view, index)
    }

    fn attempts_in(&self, view: &View, index: u32) -> Vec<Attempt<'_>> {
        let mut found: BTreeMap<u32, Vec<(&ClaimId, &Claim)>> = BTreeMap::new();
        let mut from = 1;
        while let Some((next, _)) = self.facts().claims.range(claim_floor(from)..).next() {
            let start = index.saturating_sub(view.longest);
            let low = ClaimId { attempt: next.attempt, range: TaskRange { start, end: 0 }, owner: NodeId::ZERO };
            let high =
                ClaimId { attempt: next.attempt, range: TaskRange { start: index + 1, end: 0 }, owner: NodeId::ZERO };
            for (id, claim) in self.facts().claims.range(low..high) {
                if id.range.contains(index) && !view.voids.contains(id) {
                    found.entry(id.attempt).or_default().push((id, &claim.value));
                }
            }
            from = next.attempt + 1;
        }
        let mut attempts = Vec::new();
        for claims in found.values() {
            let chosen = |id: &ClaimId| {
                self.run(id).is_some_and(|run| run.chosen.is_some_and(|c| (c.0, c.1) == (id.attempt, id.owner)))
            };
            let award = claims
                .iter()
                .find(|(id, _)| chosen(id))
                .or_else(|| claims.iter().find(|a| claims.iter().all(|b| a.0 == b.0 || beats(self.id, **a, *b))))
                .or_else(|| claims.iter().min_by_key(|(id, claim)| (claim.bid_micros, id.owner)))
                .map(|(id, _)| **id);
            for (id, claim) in claims {
                let report = self.facts().runs.get(id).and_then(|run| run.value.task(index));
                let state = self.attempt_state(id, claim, report);
                attempts.push(Attempt { id: **id, state, award: award == Some(**id), report });
            }
        }
        attempts
    }

    /// Attempt, owner and store that the voters chose for a task that may start but once, as far as an owner of a claim said.
    #[must_use]
    pub fn chosen_for(&self, index: u32) -> Option<(u32, NodeId, u64)> {
        self.chosen(&self.attempts(index))
    }

    fn chosen(&self, attempts: &[Attempt<'_>]) -> Option<(u32, NodeId, u64)> {
        attempts.iter().find_map(|a| self.run(&a.id)?.chosen)
    }

    fn attempt_state(&self, id: &ClaimId, claim: &Claim, report: Option<&TaskReport>) -> AttemptState {
        let run = self.facts().runs.get(id).map(|run| &run.value);
        // What comes with an exit, its log and its files, is whole once the run ended: until then it runs, and of an owner that
        // is lost the exit alone is no result. A task that starts but once has no other.
        let is_whole = run.is_some_and(|run| run.ended || run.chosen.is_some());
        if let Some((_, exit)) = report.and_then(|r| r.2.as_ref()) {
            match exit.outcome() {
                Outcome::Cancelled | Outcome::Skipped | Outcome::Returned => return AttemptState::Cancelled,
                Outcome::Done if is_whole => return AttemptState::Done,
                Outcome::Failed if is_whole => return AttemptState::Failed,
                Outcome::Done | Outcome::Failed => {}
            }
        }
        if self.is_lost(id, claim) {
            return AttemptState::Lost;
        }
        if run.is_some_and(|run| run.ended) {
            return AttemptState::Cancelled;
        }
        if report.is_some() { AttemptState::Running } else { AttemptState::Claimed }
    }

    /// Lost: most watchers say so, or a claim of the next attempt proves that those who could be heard did.
    fn is_lost(&self, id: &ClaimId, claim: &Claim) -> bool {
        let by = self.lost_by(id).filter(|by| claim.watchers.contains(by)).count();
        if by * 2 > claim.watchers.len() {
            return true;
        }
        let next = ClaimId {
            attempt: id.attempt + 1,
            range: TaskRange { start: id.range.start, end: 0 },
            owner: NodeId::ZERO,
        };
        self.facts()
            .claims
            .range(next..claim_floor(id.attempt + 2))
            .take_while(|(other, _)| other.range.start < id.range.end)
            .any(|(other, c)| {
                matches!(&c.value.basis, Basis::Lost { owner, .. } if *owner == id.owner)
                    && basis_holds(self, other, &c.value)
            })
    }
}

fn claim_floor(attempt: u32) -> ClaimId {
    ClaimId { attempt, range: TaskRange { start: 0, end: 0 }, owner: NodeId::ZERO }
}
