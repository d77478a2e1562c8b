//! Folds as they are shown.

use std::borrow::Cow;

use crdt::ids::{JobId, NodeId};
use crdt::job::{ArtifactRef, AttemptState, ClaimId, Exit, Job, JobSpec, JobState, LogRef, Outcome};
use web_gateway::api;

use super::artifacts::{self, Lists};
use super::driver::NodeCore;
use super::logs::code;
use crate::joblog::LogKey;

/// One claim's output: where it is, and whether more will come.
#[derive(Debug, Clone)]
pub(super) struct RunView {
    pub(super) key: LogKey,
    pub(super) owner: NodeId,
    pub(super) started: bool,
    pub(super) over: bool,
    pub(super) lost: bool,
    /// Whether it is the award of its attempt; another is a duplicate.
    pub(super) award: bool,
    pub(super) log: Option<LogRef>,
}

/// A job as it is to be shown: while its submitter is away as it is if what is there is accepted, which the second answer
/// says.
pub(super) fn shown(core: &mut NodeCore, id: JobId) -> Option<(Cow<'_, Job>, bool)> {
    let job = core.replica_mut().job(id)?;
    let submitter = job.spec().map(|(node, _)| *node);
    let provisional = job.provisional_state().is_some() && submitter.is_some_and(|node| core.is_away(&node));
    let job = core.replica_mut().job(id)?;
    match job.provisional().filter(|_| provisional) {
        Some(job) => Some((Cow::Owned(job), true)),
        None => Some((Cow::Borrowed(job), false)),
    }
}

/// The claims of a job that count, by attempt and range.
pub(super) fn runs(job: &Job) -> Vec<RunView> {
    job.claims()
        .keys()
        .filter(|claim| !job.is_void(claim))
        .map(|claim| {
            let run = job.run(claim);
            let attempt = job.attempts(claim.range.start).into_iter().find(|a| a.id == *claim);
            let lost = attempt.is_some_and(|a| a.state == AttemptState::Lost);
            let key = LogKey { job: job.id, attempt: claim.attempt, start: claim.range.start, owner: claim.owner };
            let award = attempt.is_some_and(|a| a.award);
            let over = lost || run.is_some_and(|run| run.ended);
            RunView {
                key,
                owner: claim.owner,
                started: run.is_some_and(|r| !r.tasks.is_empty()),
                over,
                lost,
                award,
                log: run.and_then(|r| r.log.clone()),
            }
        })
        .collect()
}

/// What to tell people about how a job ended.
pub(super) fn reason(job: &Job) -> Option<String> {
    let accepted = job.segments().iter().find(|s| s.state.is_final() && s.state != JobState::Done);
    let task = accepted?.range.start;
    let accept = job.accepted(task)?;
    if let Some(up) = accept.because {
        return Some(format!("job {up} did not succeed"));
    }
    if !accept.reason.is_empty() {
        return Some(accept.reason.clone());
    }
    let attempts = job.attempts(task);
    let (_, exit) = attempts.iter().find(|a| a.id.attempt == accept.attempt)?.report?.2.as_ref()?;
    why(exit)
}

/// Why a task did not end with an exit code of its own.
fn why(exit: &Exit) -> Option<String> {
    match exit {
        Exit::NotStarted(why) => Some(why.clone()),
        Exit::Limit(kind) => Some(format!("it exceeded its {kind} limit")),
        Exit::Timeout => Some("it ran longer than its timeout".into()),
        Exit::Code(_) | Exit::Signal(_) | Exit::Cancelled | Exit::Returned => None,
    }
}

/// A register's value for people: bytes as hexadecimal.
pub(super) fn cbor(value: &[u8]) -> serde_json::Value {
    crdt::cbor::decode::<ciborium::Value>(value).map_or(serde_json::Value::Null, json)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what is not named gets the same answer, also when kinds are added")]
fn json(value: ciborium::Value) -> serde_json::Value {
    use ciborium::Value;
    #[allow(clippy::wildcard_enum_match_arm, reason = "the enum may grow")]
    match value {
        Value::Integer(number) => {
            let number = i128::from(number);
            let small = i64::try_from(number).map(Into::into).or_else(|_| u64::try_from(number).map(Into::into));
            small.unwrap_or_else(|_| number.to_string().into())
        }
        Value::Bytes(bytes) => data_encoding::HEXLOWER.encode(&bytes).into(),
        Value::Float(number) => number.into(),
        Value::Text(text) => text.into(),
        Value::Bool(flag) => flag.into(),
        Value::Array(items) => items.into_iter().map(json).collect(),
        Value::Map(entries) => entries.into_iter().map(|(key, value)| (name(json(key)), json(value))).collect(),
        Value::Tag(_, inner) => json(*inner),
        _ => serde_json::Value::Null,
    }
}

/// A map's key as JSON has it.
fn name(key: serde_json::Value) -> String {
    if let serde_json::Value::String(text) = key { text } else { key.to_string() }
}

/// The state's name in the API.
pub(super) fn state(state: JobState) -> api::JobState {
    match state {
        JobState::Queued => api::JobState::Queued,
        JobState::Claimed => api::JobState::Claimed,
        JobState::Running => api::JobState::Running,
        JobState::Done => api::JobState::Done,
        JobState::Failed => api::JobState::Failed,
        JobState::Cancelled => api::JobState::Cancelled,
        JobState::Skipped => api::JobState::Skipped,
    }
}

pub(super) fn attempt_state(state: AttemptState) -> api::AttemptState {
    match state {
        AttemptState::Claimed => api::AttemptState::Claimed,
        AttemptState::Running => api::AttemptState::Running,
        AttemptState::Done => api::AttemptState::Done,
        AttemptState::Failed => api::AttemptState::Failed,
        AttemptState::Cancelled => api::AttemptState::Cancelled,
        AttemptState::Lost => api::AttemptState::Lost,
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn time(ms: u64) -> String {
    let stamp =
        jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(jiff::Timestamp::MAX);
    format!("{stamp:.3}")
}

/// A path as text; what is not UTF-8 is replaced, the exact bytes stand beside it.
pub(super) fn path(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(data_encoding::BASE64.encode(bytes))),
    }
}

/// A job with a window of its tasks.
pub(super) fn job_view((job, provisional): (&Job, bool), lists: &Lists, from: u32, most: u32) -> Option<api::JobView> {
    let (submitter, spec) = job.spec()?;
    let tasks = spec.tasks();
    let last = from.saturating_add(most).min(tasks);
    let views = (from..last).map(|index| task_view(job, lists, index)).collect();
    Some(api::JobView {
        id: job.id.to_string(),
        state: state(job.state()?),
        trace: spec.trace.to_string(),
        submitter: submitter.to_string(),
        person: Some(spec.person.to_string()),
        name: (!spec.name.is_empty()).then(|| spec.name.clone()),
        command: spec.command.clone(),
        created: time(spec.created_ms),
        ended: job.ended_ms().map(time),
        labels: spec.labels.clone(),
        after: spec.after.iter().map(ToString::to_string).collect(),
        idea: spec.idea.map(|idea| idea.to_string()),
        priority: job.priority(),
        wanted: job.seal().is_none().then(|| Box::new(wanted(spec))),
        reason: reason(job),
        provisional,
        at_risk: job.is_at_risk(),
        sealed: job.seal().map(|seal| time(seal.3.2)),
        array: spec.array > 0,
        tasks_total: tasks,
        tasks: views,
    })
}

/// A job's spec as its submitter would write it again.
fn wanted(spec: &JobSpec) -> api::JobRequest {
    let some = |number: u64| (number > 0).then_some(number);
    api::JobRequest {
        command: spec.command.clone(),
        input: spec.input.map(|tree| tree.to_string()),
        outputs: spec.outputs.clone(),
        labels: spec.labels.clone(),
        env: spec.env.clone(),
        timeout_ms: some(spec.timeout_ms),
        retries: spec.retries,
        at_most_once: spec.at_most_once,
        array: (spec.array > 0).then_some(spec.array),
        after: spec.after.iter().map(ToString::to_string).collect(),
        key: None,
        priority: spec.priority,
        value_micros: spec.value,
        max_price_micros_per_hour: spec.max_price,
        cores: (spec.cores > 0).then_some(spec.cores),
        memory_bytes: some(spec.memory_bytes),
        os: spec.os.clone(),
        region: spec.region.clone(),
        network: spec.network,
        name: (!spec.name.is_empty()).then(|| spec.name.clone()),
        idea: spec.idea.map(|idea| idea.to_string()),
    }
}

fn task_view(job: &Job, lists: &Lists, index: u32) -> api::TaskView {
    let mut executions = job.attempts(index);
    // A claim that gave way to another before anything started, or without a result, was no execution. Of several of one number
    // the accepted one stands first, and before it is known the award last.
    let gave_way = |state| matches!(state, AttemptState::Cancelled);
    executions.retain(|attempt| attempt.award || (attempt.report.is_some() && !gave_way(attempt.state)));
    let by = job.accepted(index).and_then(|accept| Some((accept.attempt, accept.node?)));
    let is_accepted = |id: &ClaimId| by == Some((id.attempt, id.owner));
    // While the accepted execution itself has not come here, none of those that are shown is it.
    let is_here = executions.iter().any(|attempt| is_accepted(&attempt.id));
    let accepted = job.accepted(index).filter(|a| a.outcome == Outcome::Done && is_here).map(|a| a.attempt);
    executions.sort_by_key(|attempt| (attempt.id.attempt, !is_accepted(&attempt.id), attempt.award));
    let attempts = executions.into_iter().map(|attempt| {
        let ended = attempt.report.and_then(|r| r.2.as_ref());
        let run = job.run(&attempt.id);
        let signal = ended.and_then(|(_, exit)| if let Exit::Signal(s) = exit { Some(*s) } else { None });
        api::AttemptView {
            attempt: attempt.id.attempt,
            node: attempt.id.owner.to_string(),
            state: attempt_state(attempt.state),
            started: attempt.report.map(|r| time(r.1)),
            ended: ended.map(|(at, _)| time(*at)),
            exit: ended.and_then(|(_, exit)| code(exit)),
            signal,
            reason: ended.and_then(|(_, exit)| why(exit)),
            duplicate: !attempt.award,
            cost_micros: run.map(|r| r.cost_micros),
            checkpoint: run.and_then(|r| r.checkpoint).map(|c| c.number),
            holders: run.map(|r| r.holders.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            artifacts: run
                .map(|r| artifact_views(artifacts::of(r, lists), attempt.id.attempt, index))
                .unwrap_or_default(),
        }
    });
    let attempts = attempts.collect();
    let state_now = job.task_state(index).map_or(JobState::Queued, |s| s.state);
    api::TaskView { index, state: state(state_now), accepted_attempt: accepted, attempts }
}

fn artifact_views(artifacts: &[ArtifactRef], attempt: u32, task: u32) -> Vec<api::ArtifactView> {
    artifacts
        .iter()
        .filter(|a| a.task == task)
        .map(|a| {
            let (text, path_base64) = path(&a.path);
            api::ArtifactView {
                path: text,
                path_base64,
                blob: a.blob.to_string(),
                size: a.size,
                executable: a.executable,
                task,
                attempt,
            }
        })
        .collect()
}

/// Per task the files of the accepted attempt, else of the newest that has any.
pub(super) fn job_artifacts(job: &Job, lists: &Lists) -> Vec<(api::ArtifactView, NodeId)> {
    let tasks = job.spec().map_or(0, |(_, spec)| spec.tasks());
    let mut found = Vec::new();
    for task in 0..tasks {
        let accepted = job.accepted(task).map(|a| (a.attempt, a.node));
        let attempts = job.attempts(task);
        let chosen = attempts.iter().find(|a| accepted == Some((a.id.attempt, Some(a.id.owner))));
        let with_files = |a: &&crdt::job::Attempt<'_>| {
            job.run(&a.id).is_some_and(|r| artifacts::of(r, lists).iter().any(|f| f.task == task))
        };
        let chosen = chosen.or_else(|| attempts.iter().rev().find(with_files));
        if let Some(attempt) = chosen
            && let Some(run) = job.run(&attempt.id)
        {
            let views = artifact_views(artifacts::of(run, lists), attempt.id.attempt, task);
            found.extend(views.into_iter().map(|a| (a, attempt.id.owner)));
        }
    }
    found
}
