//! What happens, as it happens; what happened, by trace; and what is wrong.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows; the `id` of the server-sent event.
    pub id: u64,
    /// `job`, `peer`, `roster`, `doc` (a notebook or another document), or `reset`: read everything again.
    pub kind: String,
    /// What changed: of a job `id`, `state`, `owner`, `tasks`, `done`; of a peer `node`, `online`; of a document `id`.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// What is known about a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceView {
    /// The trace.
    pub id: String,
    /// Its steps, oldest first.
    pub steps: Vec<TraceStep>,
}

/// One step of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// When, by the clock of the node that says so.
    pub at: String,
    /// Node that says so.
    pub node: String,
    /// What: submitted, claimed, started, ended, lost, accepted, cancelled, …
    pub what: String,
    /// The job.
    pub job: String,
    /// The task.
    #[serde(default)]
    pub task: Option<u32>,
    /// The attempt.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// More, in plain words.
    #[serde(default)]
    pub detail: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work, or works badly.
    Warning,
    /// Worth knowing.
    Info,
}

/// A problem and its mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Name of the check ("clock", "disk", "sandbox", "peers", …).
    pub check: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub mend: String,
}
