//! What is wanted: a job as its submitter writes it, and the order of a list of jobs that depend on each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiError;

/// Most jobs in one request.
pub const JOBS_PER_REQUEST_MAX: usize = 10_000;
/// Most tasks of one array.
pub const ARRAY_TASKS_MAX: u32 = 1_000_000;
/// Most bytes of command and environment together, what Linux accepts for one exec.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Most jobs that one job waits for.
pub const AFTER_MAX: usize = 1_000;
/// Most labels or artifact globs.
pub const WORDS_MAX: usize = 64;

/// A job wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobRequest {
    /// Program and arguments; no shell in between.
    pub command: Vec<String>,
    /// Hash of the manifest of its input tree (`POST /v1/trees`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Globs of the files to keep as artifacts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Environment of the command.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Longest run of an attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Further attempts after a failure.
    pub retries: u32,
    /// Start at most once, by the votes of 3 or 5 members.
    pub at_most_once: bool,
    /// Number of tasks; each finds its index in `V6_TASK_ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<u32>,
    /// Jobs that must be done first: an id, an unambiguous prefix, or `@NAME` for a job of the same request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Idempotency key: the same key of the same person is the same job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Higher goes first.
    pub priority: i32,
    /// What the result is worth to the submitter, in micros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_micros: Option<u64>,
    /// Highest price to pay, in micros per hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price_micros_per_hour: Option<u64>,
    /// Cores that it needs; 1 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory that it needs and is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Operating system that it needs: linux, windows or macos.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Region that it must run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether it needs the network; the node's owner must allow it.
    pub network: bool,
    /// Name, for people and for `@NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Idea that it serves: an id, or an unambiguous part of one. Without it an observation of the command is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idea: Option<String>,
}

/// The acknowledgement of one job: it is durable on `durable_on` nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Identifier of the job.
    pub job: String,
    /// Its trace.
    pub trace: String,
    /// The idea that it serves: the one that was named, or the observation of its command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idea: Option<String>,
    /// Nodes that hold it durably, this one counted.
    pub durable_on: u32,
    /// Why no node that is known could run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A job of a checked and ordered list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedJob {
    /// The request; its `after` holds only ids and prefixes of jobs outside the list.
    pub request: JobRequest,
    /// Positions, in this list and before this job, of the jobs of the same list that it waits for.
    pub after_earlier: Vec<usize>,
    /// Position in the list as it was sent.
    pub position: usize,
}

/// Checks every job and orders the list so that dependencies point backwards. Cost: O(jobs + dependencies).
///
/// # Errors
/// [`ApiError::BadRequest`] or [`ApiError::TooLarge`] naming the job and what is wrong with it.
pub fn plan(requests: Vec<JobRequest>) -> Result<Vec<PlannedJob>, ApiError> {
    if requests.is_empty() {
        return Err(ApiError::BadRequest("the list of jobs is empty: send at least one".into()));
    }
    if requests.len() > JOBS_PER_REQUEST_MAX {
        return Err(ApiError::TooLarge(format!(
            "{} jobs in one request: send at most {JOBS_PER_REQUEST_MAX} at a time",
            requests.len()
        )));
    }
    let mut names = BTreeMap::new();
    for (position, request) in requests.iter().enumerate() {
        check(position, request)?;
        if let Some(name) = &request.name
            && names.insert(name.clone(), position).is_some()
            && requests.iter().any(|r| r.after.iter().any(|a| a.strip_prefix('@') == Some(name)))
        {
            return Err(ApiError::BadRequest(format!(
                "two jobs are named {name:?} and a third waits for it: rename one"
            )));
        }
    }
    let mut inner: Vec<Vec<usize>> = Vec::with_capacity(requests.len());
    for (position, request) in requests.iter().enumerate() {
        let mut mine = Vec::new();
        for name in request.after.iter().filter_map(|a| a.strip_prefix('@')) {
            let at = names.get(name).copied().ok_or_else(|| {
                ApiError::BadRequest(format!(
                    "{} waits for @{name}, but no job of this request has that name",
                    title(position, request)
                ))
            })?;
            mine.push(at);
        }
        mine.sort_unstable();
        mine.dedup();
        inner.push(mine);
    }
    order(requests, &inner)
}

/// Kahn's algorithm; among the ready ones the list's own order is kept.
fn order(requests: Vec<JobRequest>, inner: &[Vec<usize>]) -> Result<Vec<PlannedJob>, ApiError> {
    let count = requests.len();
    let mut open: Vec<usize> = inner.iter().map(Vec::len).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (position, mine) in inner.iter().enumerate() {
        for &before in mine {
            followers[before].push(position);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..count).filter(|&p| open[p] == 0).collect();
    let mut place = vec![usize::MAX; count];
    let mut sequence = Vec::with_capacity(count);
    while let Some(position) = ready.pop_first() {
        place[position] = sequence.len();
        sequence.push(position);
        for &follower in &followers[position] {
            open[follower] -= 1;
            if open[follower] == 0 {
                ready.insert(follower);
            }
        }
    }
    if let Some(stuck) = (0..count).find(|&p| place[p] == usize::MAX) {
        return Err(ApiError::BadRequest(format!(
            "{} waits for itself through its `after`: break the cycle",
            title(stuck, &requests[stuck])
        )));
    }
    let mut slots: Vec<Option<JobRequest>> = requests.into_iter().map(Some).collect();
    Ok(sequence
        .into_iter()
        .map(|position| {
            let mut request = slots[position].take().expect("each position occurs once in the sequence");
            request.after.retain(|a| !a.starts_with('@'));
            PlannedJob { request, after_earlier: inner[position].iter().map(|&b| place[b]).collect(), position }
        })
        .collect())
}

fn title(position: usize, request: &JobRequest) -> String {
    request.name.as_ref().map_or_else(|| format!("job {}", position + 1), |name| format!("job {name:?}"))
}

fn check(position: usize, request: &JobRequest) -> Result<(), ApiError> {
    let bad = |what: String| Err(ApiError::BadRequest(format!("{}: {what}", title(position, request))));
    let Some(program) = request.command.first() else {
        return bad("the command is empty: give a program and its arguments".into());
    };
    if program.is_empty() {
        return bad("the program's name is empty".into());
    }
    if request.command.iter().any(|part| part.contains('\0')) {
        return bad("an argument has a NUL byte, which no program can receive".into());
    }
    let env_bytes: usize = request.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    let bytes: usize = request.command.iter().map(|part| part.len() + 1).sum::<usize>() + env_bytes;
    if bytes > COMMAND_BYTES_MAX {
        return Err(ApiError::TooLarge(format!(
            "{}: command and environment take {bytes} bytes, {COMMAND_BYTES_MAX} is the most: put the data into the input tree",
            title(position, request)
        )));
    }
    for (key, value) in &request.env {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return bad(format!("{key:?} cannot be the name or the value of an environment variable"));
        }
        if key.starts_with("V6_") {
            return bad(format!("{key} is set by V6 itself: choose a name that does not start with V6_"));
        }
    }
    if request.array == Some(0) {
        return bad("an array needs at least one task".into());
    }
    if request.array.is_some_and(|tasks| tasks > ARRAY_TASKS_MAX) {
        return bad(format!("an array has at most {ARRAY_TASKS_MAX} tasks"));
    }
    if request.after.len() > AFTER_MAX {
        return bad(format!("it waits for {} jobs, {AFTER_MAX} is the most", request.after.len()));
    }
    if request.labels.len() > WORDS_MAX || request.outputs.len() > WORDS_MAX {
        return bad(format!("at most {WORDS_MAX} labels and {WORDS_MAX} output globs"));
    }
    if request.timeout_ms == Some(0) || request.cores == Some(0) {
        return bad("a timeout or a number of cores of 0 lets nothing run".into());
    }
    if request.at_most_once && request.retries > 0 {
        return bad("what may start at most once is never tried again: leave retries or at_most_once out".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, after: &[&str]) -> JobRequest {
        JobRequest {
            command: vec!["true".into()],
            name: Some(name.into()),
            after: after.iter().map(|a| (*a).to_owned()).collect(),
            ..JobRequest::default()
        }
    }

    #[test]
    fn a_graph_is_ordered_so_that_dependencies_point_backwards() {
        let planned = plan(vec![job("c", &["@a", "@b", "00ff"]), job("b", &["@a"]), job("a", &[])]).expect("a graph");
        let names: Vec<_> = planned.iter().filter_map(|p| p.request.name.clone()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(planned[2].after_earlier, [1, 0]);
        assert_eq!(planned[2].request.after, ["00ff"]);
        assert_eq!(planned[0].position, 2);
    }

    #[test]
    fn a_cycle_an_unknown_name_and_an_empty_command_are_refused() {
        for (jobs, word) in [
            (vec![job("a", &["@b"]), job("b", &["@a"])], "cycle"),
            (vec![job("a", &["@zzz"])], "@zzz"),
            (vec![JobRequest::default()], "command is empty"),
            (vec![], "empty"),
            (vec![job("a", &[]), job("a", &[]), job("b", &["@a"])], "rename"),
        ] {
            let error = plan(jobs).expect_err("must be refused");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
