//! Jobs as they are shown: rows, whole jobs with tasks and attempts, and why they are where they are.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::JobRequest;

/// State of a job or a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Nobody has claimed it.
    Queued,
    /// A node has claimed it and prepares to run it.
    Claimed,
    /// It runs.
    Running,
    /// It has an accepted result.
    Done,
    /// Its failure has been accepted.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Something that it depends on failed.
    Skipped,
}

impl JobState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// The word that JSON has.
    #[must_use]
    pub fn as_str(self) -> &'static str {
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
}

/// State of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttemptState {
    /// Claimed, not running yet.
    Claimed,
    /// Running.
    Running,
    /// Ended with exit code 0.
    Done,
    /// Ended otherwise.
    Failed,
    /// Stopped because the job was cancelled.
    Cancelled,
    /// Its node vanished.
    Lost,
}

impl AttemptState {
    /// The word that JSON has.
    #[must_use]
    pub fn as_str(self) -> &'static str {
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

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Only jobs in this state.
    #[param(inline)]
    pub state: Option<JobState>,
    /// Only jobs that this node submitted.
    pub submitter: Option<String>,
    /// Only jobs with this label.
    pub label: Option<String>,
    /// Only jobs in whose name or command these words are, or whose id or trace begins so.
    pub q: Option<String>,
    /// Most rows to return; 1,000 without it, 10,000 at most.
    pub limit: Option<u32>,
    /// Where the page before ended (its `v6-next` header).
    pub cursor: Option<String>,
}

/// Which tasks of a job to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// Index of the first task to show; 0 without it.
    pub tasks_from: Option<u32>,
    /// Most tasks to show; 10,000 without it and at most.
    pub tasks_max: Option<u32>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Cursor of the next page, if there is one.
    pub next: Option<String>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRow {
    /// Identifier of the job.
    pub id: String,
    /// Folded state of all its tasks.
    pub state: JobState,
    /// Trace that it belongs to.
    pub trace: String,
    /// Node that submitted it.
    pub submitter: String,
    /// Node that runs it or ran it last (of an array: its last started task); none before the first claim.
    pub owner: Option<String>,
    /// When the submitter accepted it.
    pub created: String,
    /// When its last task ended.
    #[serde(default)]
    pub ended: Option<String>,
    /// Number of tasks: 1 unless it is an array.
    pub tasks: u32,
    /// Tasks that are done.
    pub done: u32,
    /// Name that its submitter gave it.
    #[serde(default)]
    pub name: Option<String>,
    /// Program and arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// The idea that it serves.
    #[serde(default)]
    pub idea: Option<String>,
}

/// A job with its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Identifier of the job.
    pub id: String,
    /// Folded state of all its tasks.
    pub state: JobState,
    /// Trace that it belongs to.
    pub trace: String,
    /// Node that submitted it.
    pub submitter: String,
    /// Person who submitted it.
    #[serde(default)]
    pub person: Option<String>,
    /// Name that its submitter gave it.
    #[serde(default)]
    pub name: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// When the submitter accepted it.
    pub created: String,
    /// When its last task ended.
    #[serde(default)]
    pub ended: Option<String>,
    /// Labels that a node must have.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Jobs that must be done before it starts.
    #[serde(default)]
    pub after: Vec<String>,
    /// The idea that it serves.
    #[serde(default)]
    pub idea: Option<String>,
    /// Priority; higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// What its submitter asked for, so that it can be asked for again; not of a sealed job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Box<JobRequest>>,
    /// Why it ended as it did or what it waits for, in one plain sentence.
    #[serde(default)]
    pub reason: Option<String>,
    /// The submitter's node is away: the result shown is derived and may still change.
    #[serde(default)]
    pub provisional: bool,
    /// The result has no second holder yet.
    #[serde(default)]
    pub at_risk: bool,
    /// When its submitter's node sealed it: history, log and files are kept no longer than a day after, this record stays.
    #[serde(default)]
    pub sealed: Option<String>,
    /// Whether it was submitted as an array, be it of one task.
    #[serde(default)]
    pub array: bool,
    /// Number of tasks of the whole job.
    #[serde(default)]
    pub tasks_total: u32,
    /// The tasks asked for, by index.
    pub tasks: Vec<TaskView>,
}

/// One task of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Index in the array, from 0.
    pub index: u32,
    /// Its state.
    pub state: JobState,
    /// The attempt whose result was accepted.
    pub accepted_attempt: Option<u32>,
    /// All attempts, by number and then node.
    pub attempts: Vec<AttemptView>,
}

/// One execution of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// Number, from 1.
    pub attempt: u32,
    /// Node that claimed it, whole id.
    pub node: String,
    /// Its state.
    pub state: AttemptState,
    /// Just before exec.
    pub started: Option<String>,
    /// When its process had ended.
    pub ended: Option<String>,
    /// Exit code; 128 + N after signal N.
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Why it did not end with an exit code of its own ("timeout", "memory limit", …).
    #[serde(default)]
    pub reason: Option<String>,
    /// A further result beside the accepted one.
    #[serde(default)]
    pub duplicate: bool,
    /// What it cost, in micros.
    #[serde(default)]
    pub cost_micros: Option<u64>,
    /// Number of its highest checkpoint that a second node holds.
    #[serde(default)]
    pub checkpoint: Option<u64>,
    /// Nodes beside its own that hold all its files, whole ids.
    #[serde(default)]
    pub holders: Vec<String>,
    /// Files that it produced so far.
    pub artifacts: Vec<ArtifactView>,
}

/// A file that an attempt produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// Path in the task's directory, `/`-separated; bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// The path's bytes in base64, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Hash of its bytes.
    pub blob: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether the file may be executed.
    #[serde(default)]
    pub executable: bool,
    /// Task that produced it.
    #[serde(default)]
    pub task: u32,
    /// Attempt that produced it.
    #[serde(default)]
    pub attempt: u32,
}

/// Answer to a cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cancelled {
    /// The job.
    pub job: String,
    /// Its state now.
    pub state: JobState,
    /// Nodes that hold the order durably, this one counted.
    pub durable_on: u32,
}

/// Why a job runs where it runs, or why it still waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// The job.
    pub id: String,
    /// Its state.
    pub state: JobState,
    /// The answer in one plain sentence.
    pub summary: String,
    /// What lies behind it, one plain sentence each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Offers that were looked at, best first, those that do not fit last.
    pub offers: Vec<ExplainOffer>,
}

/// One offer, looked at for one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainOffer {
    /// Who offers.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Whether it fits.
    pub fits: bool,
    /// Its bid in micros, where it fits.
    pub bid_micros: Option<u64>,
    /// Its place in the rank, from 1, where it fits.
    pub rank: Option<u32>,
    /// What the bid is made of.
    #[serde(default)]
    pub detail: Option<String>,
    /// Reason codes of what it lacks or of its decline ("label_missing", "owner_active", …).
    pub codes: Vec<String>,
    /// The same in plain words.
    pub lacks: Vec<String>,
    /// Whether it holds the claim.
    #[serde(default)]
    pub won: bool,
}

/// Jobs that nobody has claimed yet, by what they wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingView {
    /// How many wait in all.
    pub waiting: u64,
    /// What they wait for, the most common first. The oldest jobs are looked at, 500 at most.
    pub groups: Vec<WaitingGroup>,
}

/// Jobs that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingGroup {
    /// For programs: `after`, `idea`, `submitter`, `person`, `voters`, `giving_up`, `placing`, `no_slot`, `nobody_fits`.
    pub code: String,
    /// The same in one plain sentence, of the oldest of them.
    pub text: String,
    /// How many.
    pub count: u32,
    /// The oldest of them, 3 at most.
    pub jobs: Vec<JobRow>,
}
