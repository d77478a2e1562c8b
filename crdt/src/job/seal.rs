//! A sealed job: the record that stays when its history goes.
//!
//! Seals are written by the submitter's node after the job's retention. From then on the job folds to its record, whatever
//! else is or was written to its registers: so their bodies can be dropped on one replica and kept on another. A seal proves
//! by itself that its writer submitted the job, since the id is made of what it states ([`super::job_id_of_nonce`],
//! [`super::job_id_of_key`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::values::{Accept, Basis, Claim, Exit, JobSpec, Outcome, RunReport, TaskReport};
use super::{ClaimId, Facts, Job, Waiting, Written, job_id_of_key, job_id_of_nonce};
use crate::cbor;
use crate::doc::TaskRange;
use crate::ids::{JobId, NodeId, PersonId, TraceId};
use crate::limits::{ATTEMPTS_MAX, SEAL_BYTES_MAX, TASKS_PER_JOB_MAX};
use crate::roster::Roster;

/// Stretches of tasks with one outcome that a record names. Of more, the order is lost and the numbers stay.
const STRETCHES_MAX: usize = 8;
/// Characters that stay of a reason.
const REASON_CHARS_MAX: usize = 40;

/// `seal`: what stays of a finished job, at most [`SEAL_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(
    /// What the id is made of.
    pub Origin,
    /// The person that it was for.
    pub PersonId,
    /// Its trace.
    pub TraceId,
    /// When the submitter accepted it, when the last of it ended, and when it was sealed, in milliseconds since 1970.
    pub (u64, u64, u64),
    /// Half of [`JobSpec::digest`]: the same idempotency key with another spec is still refused.
    pub ByteArray<16>,
    /// Name and command, perhaps shortened, and whether they are.
    pub (String, Vec<String>, bool),
    /// Tasks (0 for a single job), and priority.
    pub (u32, i32),
    /// Stretches of tasks: one past the last task, outcome, accepted attempt.
    pub Vec<(u32, Outcome, u32)>,
    /// Of a single job: the accepted run.
    pub Option<SealedRun>,
    /// Why it did not succeed, where the outcome does not say it: the job before it, and words.
    pub (Option<JobId>, String),
);

/// What a sealed job's id is made of, beside its submitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// [`JobSpec::nonce`].
    #[serde(rename = "n")]
    Nonce(ByteArray<16>),
    /// [`JobSpec::key`].
    #[serde(rename = "k")]
    Key(String),
}

/// The accepted run of a single job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRun(
    /// Who ran it.
    pub NodeId,
    /// When it started and ended, in milliseconds since 1970.
    pub (u64, u64),
    /// How it ended.
    pub Exit,
);

impl Seal {
    /// The record of a job; `None` while it is not over, or where its id is not bound to its submitter or its record would be
    /// larger than [`SEAL_BYTES_MAX`] (a long idempotency key): such a job keeps its history.
    #[must_use]
    pub fn of(job: &Job, now_ms: u64) -> Option<Self> {
        let (submitter, spec) = job.spec()?;
        if !job.state()?.is_final() || job.segments().iter().any(|s| s.waiting != Waiting::Nobody) {
            return None;
        }
        let origin = match (&spec.key, &spec.nonce) {
            (Some(key), _) => Origin::Key(key.clone()),
            (None, Some(nonce)) if job_id_of_nonce(*submitter, nonce) == job.id => Origin::Nonce(*nonce),
            (None, _) => return None,
        };
        let accepts: Vec<(u32, &Accept)> =
            job.segments().iter().filter_map(|s| Some((s.range.end, job.accepted(s.range.start)?))).collect();
        let first_bad = accepts.iter().map(|(_, accept)| *accept).find(|accept| accept.outcome != Outcome::Done);
        let wanted = spec.digest()[..16].try_into().expect("16 of 32 bytes");
        let mut seal = Self(
            origin,
            spec.person,
            spec.trace,
            (spec.created_ms, job.ended_ms().unwrap_or(now_ms), now_ms),
            ByteArray::new(wanted),
            (spec.name.clone(), spec.command.clone(), false),
            (spec.array, job.priority()),
            stretches(&accepts),
            if spec.array == 0 { accepts.first().and_then(|(_, accept)| sealed_run(job, accept)) } else { None },
            first_bad.map_or((None, String::new()), |a| (a.because, shortened(&a.reason))),
        );
        seal.shrink().then_some(seal)
    }

    /// Shortens name and command until the record fits; answers whether it does.
    fn shrink(&mut self) -> bool {
        loop {
            let over = cbor::encode(self).len().saturating_sub(SEAL_BYTES_MAX);
            if over == 0 {
                return true;
            }
            let (name, command, cut) = &mut self.5;
            *cut = true;
            if name.is_empty() && command.iter().all(String::is_empty) {
                if command.pop().is_none() {
                    return false;
                }
                continue;
            }
            if let Some(word) = command.iter_mut().chain([name]).max_by_key(|word| word.len()) {
                let keep = word.len() - over.min(word.len().div_ceil(2));
                *word = word.char_indices().take_while(|(at, c)| at + c.len_utf8() <= keep).map(|(_, c)| c).collect();
            }
        }
    }

    /// Whether this node may seal this job: what the seal states makes the job's id. A record that no job could leave
    /// counts for nothing.
    pub(super) fn binds(&self, id: JobId, node: NodeId, roster: &Roster) -> bool {
        let tasks = self.6.0;
        let ascending = self.7.windows(2).all(|two| two[0].0 < two[1].0);
        let bounded =
            self.7.iter().all(|(end, _, attempt)| (1..=tasks.max(1)).contains(end) && *attempt <= ATTEMPTS_MAX);
        if tasks > TASKS_PER_JOB_MAX || !ascending || !bounded {
            return false;
        }
        match &self.0 {
            Origin::Nonce(nonce) => job_id_of_nonce(node, nonce) == id,
            Origin::Key(key) => roster.person(&node) == Some(self.1) && job_id_of_key(self.1, key) == id,
        }
    }

    /// The registers that come to this record.
    pub(super) fn facts(&self, node: NodeId) -> Facts {
        let (created_ms, ended_ms, _) = self.3;
        let (name, command, _) = &self.5;
        let (array, priority) = self.6;
        let (key, nonce) = match &self.0 {
            Origin::Nonce(nonce) => (None, Some(*nonce)),
            Origin::Key(key) => (Some(key.clone()), None),
        };
        let spec = JobSpec {
            command: command.clone(),
            name: name.clone(),
            array,
            key,
            nonce,
            priority,
            person: self.1,
            trace: self.2,
            created_ms,
            ..JobSpec::default()
        };
        let tasks = spec.tasks();
        let mut facts = Facts::default();
        facts.specs.insert(node, written(Arc::new(spec)));
        let mut start = 0;
        for (end, outcome, attempt) in self.7.iter().copied() {
            let accept = Accept {
                outcome,
                attempt,
                node: self.8.as_ref().map(|run| run.0),
                because: self.9.0.filter(|_| outcome != Outcome::Done),
                at_risk: false,
                reason: if outcome == Outcome::Done { String::new() } else { self.9.1.clone() },
                at_ms: ended_ms,
            };
            facts.accepts.insert((node, TaskRange { start, end }), written(accept));
            start = end;
        }
        if start < tasks {
            // A record that says nothing of some tasks: its writer did not keep to the rules, and the job is over all the same.
            let accept = Accept {
                outcome: Outcome::Cancelled,
                attempt: 0,
                node: None,
                because: None,
                at_risk: false,
                reason: String::new(),
                at_ms: ended_ms,
            };
            facts.accepts.insert((node, TaskRange { start, end: tasks }), written(accept));
        }
        if let (Some(SealedRun(owner, times, exit)), Some((_, _, attempt @ 1..))) = (&self.8, self.7.first()) {
            let id = ClaimId { attempt: *attempt, range: TaskRange { start: 0, end: 1 }, owner: *owner };
            let claim = Claim {
                bid_micros: 0,
                price_micros_per_hour: 0,
                seen: Vec::new(),
                watchers: Vec::new(),
                basis: Basis::First,
                start_by_ms: 0,
                at_ms: times.0,
            };
            let tasks = vec![TaskReport(0, times.0, Some((times.1, exit.clone())))];
            facts.claims.insert(id, written(claim));
            facts.runs.insert(id, written(RunReport { tasks, ended: true, ..RunReport::default() }));
        }
        facts
    }
}

const fn written<T>(value: T) -> Written<T> {
    Written { seq: 0, value }
}

fn shortened(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// Neighbours with one outcome and attempt together; of too many, all with one outcome together.
fn stretches(accepts: &[(u32, &Accept)]) -> Vec<(u32, Outcome, u32)> {
    let mut found: Vec<(u32, Outcome, u32)> = Vec::new();
    for (end, accept) in accepts {
        match found.last_mut() {
            Some(last) if (last.1, last.2) == (accept.outcome, accept.attempt) => last.0 = *end,
            _ => found.push((*end, accept.outcome, accept.attempt)),
        }
    }
    if found.len() <= STRETCHES_MAX {
        return found;
    }
    let mut counts: BTreeMap<Outcome, u32> = BTreeMap::new();
    let mut start = 0;
    for (end, outcome, _) in found {
        *counts.entry(outcome).or_default() += end - start;
        start = end;
    }
    let mut end = 0;
    let merged = counts.into_iter().map(|(outcome, count)| {
        end += count;
        (end, outcome, 1)
    });
    merged.collect()
}

fn sealed_run(job: &Job, accept: &Accept) -> Option<SealedRun> {
    let attempts = job.attempts(0);
    let accepted = |a: &&super::Attempt<'_>| a.id.attempt == accept.attempt && Some(a.id.owner) == accept.node;
    let attempt = attempts.iter().find(accepted)?;
    let TaskReport(_, started_ms, ended) = attempt.report?;
    let (ended_ms, exit) = ended.as_ref()?;
    let exit = match exit {
        Exit::Limit(what) => Exit::Limit(shortened(what)),
        Exit::NotStarted(why) => Exit::NotStarted(shortened(why)),
        Exit::Code(_) | Exit::Signal(_) | Exit::Timeout | Exit::Cancelled | Exit::Returned => exit.clone(),
    };
    Some(SealedRun(attempt.id.owner, (*started_ms, *ended_ms), exit))
}
