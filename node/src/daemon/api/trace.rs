//! A trace: what every node says of its jobs, oldest first.
//!
//! Steps come from the registers that count; their times are those of the nodes that state them.

use std::collections::BTreeSet;

use crdt::cbor;
use crdt::doc::{DocId, Key, TaskRange};
use crdt::ids::{JobId, NodeId, TraceId};
use crdt::job::{Accept, Basis, Claim, ClaimId, Control, ControlOp, Exit, JobSpec, Lost, Outcome, RunReport};
use crdt::shelf::{Shelf, Table};
use web_gateway::api::*;

use super::Api;
use super::jobs::find_job;
use crate::daemon::driver::NodeCore;
use crate::daemon::views;

/// Rows of jobs that are looked through in one question to the core.
const ROWS_PER_QUESTION: usize = 2_000;
/// Jobs of a trace that are shown: those with the lowest ids.
const JOBS_MAX: usize = 1_000;

/// The steps of a trace, named by itself or by one of its jobs. Cost: linear in the jobs that are known.
pub(super) async fn trace(api: &Api, word: &str) -> Result<TraceView, ApiError> {
    let (id, jobs) = find(api, word).await?;
    let mut steps = Vec::new();
    for job in jobs {
        steps.extend(api.ask(move |core| steps_of(core, job)).await?);
    }
    steps.sort_by_key(|(at_ms, rank, _)| (*at_ms, *rank));
    Ok(TraceView { id: id.to_string(), steps: steps.into_iter().map(|(_, _, step)| step).collect() })
}

/// The trace that a word names, and its jobs.
async fn find(api: &Api, word: &str) -> Result<(TraceId, Vec<JobId>), ApiError> {
    let lower = word.to_lowercase();
    let of_job = api.ask(move |core| match find_job(core, &lower) {
        Ok(id) => Ok(core.replica().job_row(id).filter(|row| row.submitter.is_some()).map(|row| row.trace)),
        Err(ApiError::Ambiguous(why)) => Err(ApiError::Ambiguous(why)),
        Err(_) => Ok(None),
    });
    let prefix = match of_job.await?? {
        Some(trace) => trace.to_string(),
        None => word.to_lowercase(),
    };
    let (mut traces, mut jobs, mut from) = (BTreeSet::new(), Vec::new(), Vec::new());
    loop {
        let (start, wanted) = (from.clone(), prefix.clone());
        let page = api.ask(move |core| {
            let rows = core.replica().shelf().scan(Table::Jobs, &[], &start, ROWS_PER_QUESTION);
            let next = (rows.len() == ROWS_PER_QUESTION).then(|| rows.last().map(|(key, _)| [key, &[0][..]].concat()));
            let rows = rows.iter().filter_map(|(_, row)| cbor::decode::<crdt::replica::JobRow>(row).ok());
            let rows = rows.filter(|row| row.submitter.is_some() && row.trace.to_string().starts_with(&wanted));
            (rows.map(|row| (row.trace, row.id)).collect::<Vec<_>>(), next.flatten())
        });
        let (found, next) = page.await?;
        traces.extend(found.iter().map(|(trace, _)| *trace));
        jobs.extend(found.into_iter().map(|(_, job)| job).take(JOBS_MAX.saturating_sub(jobs.len())));
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    match traces.len() {
        1 => Ok((traces.pop_first().unwrap_or_default(), jobs)),
        0 => Err(ApiError::NotFound(format!("no trace or job {word:?}: `v6 job show` tells a job's trace"))),
        _ => Err(ApiError::Ambiguous(format!("several traces begin with {word:?}: write more of it"))),
    }
}

/// A step with its time and its place among steps of that time.
type Timed = (u64, u8, TraceStep);

/// One job's steps.
struct Steps {
    job: JobId,
    found: Vec<Timed>,
}

impl Steps {
    fn add(&mut self, at_ms: u64, rank: u8, node: NodeId, what: &str, more: (Option<TaskRange>, u32, String)) {
        let (range, attempt, mut detail) = more;
        let task = range.filter(|range| range.len() == 1).map(|range| range.start);
        if let Some(range) = range.filter(|range| range.len() > 1) {
            let comma = if detail.is_empty() { "" } else { ": " };
            detail = format!("tasks {} to {}{comma}{detail}", range.start, range.end - 1);
        }
        let step = TraceStep {
            at: views::time(at_ms),
            node: node.to_string(),
            what: what.to_owned(),
            job: self.job.to_string(),
            task,
            attempt: (attempt > 0).then_some(attempt),
            detail: (!detail.is_empty()).then_some(detail),
        };
        self.found.push((at_ms, rank, step));
    }

    fn run(&mut self, node: NodeId, attempt: u32, range: TaskRange, run: &RunReport) {
        let ended = || run.tasks.iter().filter_map(|task| task.2.as_ref());
        if let Some(at_ms) = run.tasks.iter().map(|task| task.1).min() {
            self.add(at_ms, 3, node, "started", (Some(range), attempt, String::new()));
        }
        let Some(at_ms) = ended().map(|(at_ms, _)| *at_ms).max().filter(|_| run.ended) else { return };
        let detail = match &run.tasks[..] {
            [only] => only.2.as_ref().map(|(_, exit)| said(exit)).unwrap_or_default(),
            _ => {
                let done = ended().filter(|(_, exit)| exit.outcome() == Outcome::Done).count();
                format!("{done} done, {} otherwise", ended().count() - done)
            }
        };
        self.add(at_ms, 4, node, "ended", (Some(range), attempt, detail));
    }
}

fn said(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Timeout => "timeout".to_owned(),
        Exit::Limit(kind) => format!("{kind} limit"),
        Exit::NotStarted(why) => format!("not started: {why}"),
        Exit::Cancelled => "cancelled".to_owned(),
        Exit::Returned => "given back".to_owned(),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what is not named gets the same answer, also when kinds are added")]
fn steps_of(core: &mut NodeCore, id: JobId) -> Vec<Timed> {
    let mut steps = Steps { job: id, found: Vec::new() };
    let registers = core.replica().show(DocId::job(id));
    let Some(job) = core.replica_mut().job(id).cloned() else { return Vec::new() };
    let submitter = job.spec().map(|(node, _)| *node);
    let counts = |attempt: u32, range: TaskRange, owner: NodeId| {
        let claim = ClaimId { attempt, range, owner };
        job.claims().contains_key(&claim) && !job.is_void(&claim)
    };
    for (author, key, seq, value) in registers {
        match key {
            Key::Spec if submitter == Some(author) => {
                let Ok(spec) = cbor::decode::<JobSpec>(&value) else { continue };
                let title = if spec.name.is_empty() { spec.command.join(" ") } else { spec.name };
                steps.add(spec.created_ms, 0, author, "submitted", (None, 0, title));
            }
            Key::Control(_) => {
                let Ok(control) = cbor::decode::<Control>(&value) else { continue };
                let (what, detail) = match control.op {
                    ControlOp::Cancel => ("cancelled", String::new()),
                    ControlOp::Priority(priority) => ("priority", priority.to_string()),
                };
                steps.add(control.at_ms, 1, author, what, (None, 0, detail));
            }
            Key::Claim(attempt, range) if counts(attempt, range, author) => {
                let Ok(claim) = cbor::decode::<Claim>(&value) else { continue };
                let why = match claim.basis {
                    Basis::First => String::new(),
                    Basis::Retry => "the attempt before gave no result".to_owned(),
                    Basis::Lost { owner, .. } => format!("{} was lost", owner.short()),
                };
                steps.add(claim.at_ms, 2, author, "claimed", (Some(range), attempt, why));
            }
            Key::Run(attempt, range) if counts(attempt, range, author) => {
                let Ok(run) = cbor::decode::<RunReport>(&value) else { continue };
                steps.run(author, attempt, range, &run);
            }
            Key::Lost(attempt, range, _) => {
                let Ok(lost) = cbor::decode::<Lost>(&value) else { continue };
                let at_ms = core.replica().written_ms(author, seq).unwrap_or(0);
                for owner in lost.owners.into_iter().filter(|owner| counts(attempt, range, *owner)) {
                    let detail = format!("{} is not heard", owner.short());
                    steps.add(at_ms, 5, author, "lost", (Some(range), attempt, detail));
                }
            }
            Key::Accept(range) if submitter == Some(author) => {
                let Ok(accept) = cbor::decode::<Accept>(&value) else { continue };
                let outcome = format!("{:?}", accept.outcome).to_lowercase();
                let why = if accept.reason.is_empty() { outcome } else { format!("{outcome}: {}", accept.reason) };
                steps.add(accept.at_ms, 6, author, "accepted", (Some(range), accept.attempt, why));
            }
            _ => {}
        }
    }
    steps.found
}
