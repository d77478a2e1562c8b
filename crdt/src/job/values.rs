//! The values of a job's registers.
//!
//! Fields that are absent take their default, so that an older node reads a newer spec; what it does not know it leaves
//! alone. Durations are milliseconds, money is micro-units, sizes are bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::ids::{BlobHash, EntryId, JobId, NodeId, PersonId, TraceId};
use crate::limits::ARTIFACTS_PER_RUN_MAX;

/// `spec`: what is wanted. Written once by the submitter's node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Manifest of the input tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<BlobHash>,
    /// Bytes of the input tree in all: what a node without it has to fetch.
    #[serde(skip_serializing_if = "is_default")]
    pub input_bytes: u64,
    /// Bytes of the manifest itself.
    #[serde(skip_serializing_if = "is_default")]
    pub input_manifest_bytes: u64,
    /// Globs of the files that come home.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Labels that the node must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Environment beside the contract's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Time that one task may run; 0: as long as it takes.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout_ms: u64,
    /// Failed attempts that are tried again.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: u32,
    /// Tasks; 0 stands for a single job, which is one task without a directory of its own.
    #[serde(skip_serializing_if = "is_default")]
    pub array: u32,
    /// Jobs that must be done before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<JobId>,
    /// Idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Random bytes of which, with the submitter, the id of a job without a key is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<ByteArray<16>>,
    /// Higher goes first among the jobs of one person.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// What the result is worth to the submitter, in micros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// Highest price per hour of an offer that may be taken, in micros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_price: Option<u64>,
    /// Cores that one task needs; 0: one.
    #[serde(skip_serializing_if = "is_default")]
    pub cores: u32,
    /// Memory that one task needs, in bytes; 0: not stated.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_bytes: u64,
    /// Operating system that the node must have (`linux`, `windows`, `macos`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Region that the node must be in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether it asks for the network.
    #[serde(skip_serializing_if = "is_default")]
    pub network: bool,
    /// Whether each task may start but once: most of the voters choose the claim that may.
    #[serde(skip_serializing_if = "is_default")]
    pub at_most_once: bool,
    /// Who votes on that, at most [`crate::limits::VOTERS_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<Voter>,
    /// The subject of the ledger that it serves: nobody starts it before he holds that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idea: Option<EntryId>,
    /// The person it is for.
    pub person: PersonId,
    /// The trace that it belongs to.
    pub trace: TraceId,
    /// When the submitter accepted it, in milliseconds since 1970.
    pub created_ms: u64,
}

impl JobSpec {
    /// Number of tasks.
    #[must_use]
    pub fn tasks(&self) -> u32 {
        self.array.max(1)
    }

    /// What is wanted, whenever, in whichever trace and for whichever idea: two specs of one idempotency key are compared by it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let wanted = Self { created_ms: 0, trace: TraceId::ZERO, voters: Vec::new(), idea: None, ..self.clone() };
        *blake3::hash(&crate::cbor::encode(&wanted)).as_bytes()
    }
}

/// Who votes on which claim of a task may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// The number of its store: one that was lost or came from a backup does not know what it said before, and has another.
    pub store: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for PersonId {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Default for TraceId {
    fn default() -> Self {
        Self::ZERO
    }
}

/// The id of a job with an idempotency key: the same key of the same person is the same job.
#[must_use]
pub fn job_id_of_key(person: PersonId, key: &str) -> JobId {
    let mut hasher = blake3::Hasher::new_derive_key("v6 job of an idempotency key 1");
    hasher.update(&person.0).update(key.as_bytes());
    JobId(hasher.finalize().as_bytes()[..16].try_into().expect("16 of 32 bytes"))
}

/// The id of a job without a key: nobody but its submitter can write a spec that owns it.
#[must_use]
pub fn job_id_of_nonce(submitter: NodeId, nonce: &[u8; 16]) -> JobId {
    let mut hasher = blake3::Hasher::new_derive_key("v6 job of a submitter's nonce 1");
    hasher.update(&submitter.0).update(nonce);
    JobId(hasher.finalize().as_bytes()[..16].try_into().expect("16 of 32 bytes"))
}

/// `control/<n>`: a person's wish about a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// What is wished.
    pub op: ControlOp,
    /// Stated time, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What a control asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlOp {
    /// End it.
    Cancel,
    /// Another priority.
    Priority(i32),
}

/// `claim/<attempt>/<range>`: a node's signed statement that it takes these tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its bid in micros, from its offer at the time.
    pub bid_micros: u64,
    /// Its price per hour in micros.
    pub price_micros_per_hour: u64,
    /// Owners of the claims of this attempt that it had seen: it loses to them where they overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<NodeId>,
    /// Who may declare it lost.
    pub watchers: Vec<NodeId>,
    /// What makes this attempt possible.
    pub basis: Basis,
    /// Milliseconds after which it is lost if it does not run.
    pub start_by_ms: u64,
    /// Stated time, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What makes an attempt possible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// The first attempt.
    First,
    /// The attempt before ended without a result and may be tried again.
    Retry,
    /// The attempt before was lost: its owner, and the watchers that were not heard themselves for three leases.
    Lost {
        /// Owner of the lost claim.
        owner: NodeId,
        /// Watchers that the claimer had not heard.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unheard: Vec<NodeId>,
    },
}

/// How a task's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned a code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ran longer than its timeout.
    Timeout,
    /// It exceeded a limit, named here.
    Limit(String),
    /// It could not be started, for this reason.
    NotStarted(String),
    /// It was cancelled.
    Cancelled,
    /// The node gave it back: it shuts down, or another claim won.
    Returned,
}

/// What an ended task comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// Exit code 0.
    Done,
    /// Anything else that the command did.
    Failed,
    /// A person ended it.
    Cancelled,
    /// A job before it failed.
    Skipped,
    /// Without result or fault: another attempt may begin.
    Returned,
}

/// The signal that ends a task at its timeout.
const SIGTERM: i32 = 15;

impl Exit {
    /// What it comes to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Code(0) => Outcome::Done,
            Self::Code(_) | Self::Signal(_) | Self::Timeout | Self::Limit(_) | Self::NotStarted(_) => Outcome::Failed,
            Self::Cancelled => Outcome::Cancelled,
            Self::Returned => Outcome::Returned,
        }
    }

    /// The exit code as a shell shows it; `None` where there is none.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            Self::Signal(signal) => Some(128 + signal),
            Self::Timeout => Some(128 + SIGTERM),
            Self::Limit(_) => Some(137),
            Self::NotStarted(_) => Some(125),
            Self::Cancelled => Some(130),
            Self::Returned => None,
        }
    }
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport(
    /// Index.
    pub u32,
    /// Just before exec, in milliseconds since 1970.
    pub u64,
    /// When it ended, and how.
    pub Option<(u64, Exit)>,
);

/// A file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// The task that made it.
    pub task: u32,
    /// Path in the workspace (in the task's directory, of an array), with `/`.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// The blob.
    pub blob: BlobHash,
    /// Bytes.
    pub size: u64,
    /// Whether the blob is a list of parts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parts: bool,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub executable: bool,
}

/// A blob that holds all artifacts of a run: canonical CBOR of a list of [`ArtifactRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactList {
    /// The blob.
    pub blob: BlobHash,
    /// Its bytes, at most [`crate::limits::ARTIFACT_LIST_BYTES_MAX`].
    pub size: u64,
    /// Artifacts in it.
    pub count: u32,
}

impl ArtifactList {
    /// The bytes of a list.
    #[must_use]
    pub fn encode(artifacts: &[ArtifactRef]) -> Vec<u8> {
        crate::cbor::encode(artifacts)
    }

    /// Reads a list that a peer made; `None` when it is none, or has more than [`ARTIFACTS_PER_RUN_MAX`] entries.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Vec<ArtifactRef>> {
        let list: Vec<ArtifactRef> = crate::cbor::decode(bytes).ok()?;
        (list.len() <= ARTIFACTS_PER_RUN_MAX).then_some(list)
    }
}

/// A checkpoint of a run: a tree. Of two the one with the higher number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// Its number.
    pub number: u64,
    /// Manifest of its tree.
    pub tree: BlobHash,
    /// Bytes of the manifest itself.
    pub manifest_bytes: u64,
}

/// Where a run's output is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRef {
    /// The frames themselves.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A sealed blob of this many bytes.
    Blob(BlobHash, u64),
}

/// `run/<attempt>/<range>`: what the owner says of its run, written again as it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunReport {
    /// Tasks that started, by index.
    pub tasks: Vec<TaskReport>,
    /// Whether no more of this run will change.
    pub ended: bool,
    /// Files so far; the first of them where there is a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactRef>,
    /// Where all files are named, when they are more than [`crate::limits::ARTIFACTS_INLINE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ArtifactList>,
    /// The output, once it is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogRef>,
    /// Highest checkpoint that a second node holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
    /// The claim that the voters chose, of a task that may start but once: attempt, owner, number of the owner's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<(u32, NodeId, u64)>,
    /// What it cost, in micros.
    #[serde(skip_serializing_if = "is_default")]
    pub cost_micros: u64,
    /// Who else holds its files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<NodeId>,
}

impl RunReport {
    /// The report of one task.
    #[must_use]
    pub fn task(&self, index: u32) -> Option<&TaskReport> {
        self.tasks.binary_search_by_key(&index, |t| t.0).ok().map(|at| &self.tasks[at])
    }
}

/// `lost/<attempt>/<range>/<watcher>`: a watcher did not hear these owners.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Owners of claims of this attempt and range.
    pub owners: Vec<NodeId>,
}

/// `accept/<range>`: the result that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// What it came to.
    pub outcome: Outcome,
    /// The accepted attempt; 0 where nothing ran.
    pub attempt: u32,
    /// Its owner.
    pub node: Option<NodeId>,
    /// The job whose failure skipped this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<JobId>,
    /// Nobody else held the run's files when it was accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub at_risk: bool,
    /// What to tell people, where the outcome does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Stated time, in milliseconds since 1970.
    pub at_ms: u64,
}
