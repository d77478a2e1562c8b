//! A cell: the small process `v6 cell` that runs one job's tasks on this node.
//!
//! The node's side ([`Cell`], [`CellHandle`]) starts the process, sends it ranges of tasks and hands out its events. The
//! cell's side ([`child`]) confines itself once, starts the tasks one after the other or side by side, streams their output
//! and dies with its node, taking every process of the job along. The two speak over the cell's stdin and stdout in the
//! bounded frames of `wire`. What a cell says is as trustworthy as the job in it: the node bounds it and never acts on a
//! process id from it.
//!
//! A task's working directory is the workspace itself, or `<workspace>/<index>` when the job is an array; the caller has
//! put the input tree there before it asks for the task. `<workspace>/.v6` belongs to the cell (`HOME` and `TMPDIR`).

pub mod child;
#[cfg(target_os = "linux")]
pub(crate) mod nursery;
mod parent;
mod process;
mod wire;

use std::path::PathBuf;

use crdt::ids::{JobId, TraceId};
use serde::{Deserialize, Serialize};

pub use crate::sandbox::SandboxKind;
pub use parent::{Cell, CellHandle, Cradle, WarmCell};

/// The directory inside a workspace that belongs to the cell: `HOME` and `TMPDIR` lie in it, artifacts never do.
pub const PRIVATE_DIR: &str = ".v6";
/// Bytes of one [`CellEvent::Output`] at most; longer output comes as several.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Events that wait for the caller; at the bound the cell's pipe fills and the job is slowed.
pub const EVENTS_QUEUED_MAX: usize = 64;
/// Commands that wait for the cell; at the bound a command is refused with [`CellError::Busy`].
pub const COMMANDS_QUEUED_MAX: usize = 64;
/// Tasks that one cell runs side by side; a larger wish is cut to it.
pub const PARALLEL_TASKS_MAX: u32 = 256;
/// Time between SIGTERM and SIGKILL, in milliseconds.
pub const KILL_GRACE_MS: u64 = 2_000;
/// Time that a cell has to end after its stdin closed before the node kills it, in milliseconds.
pub const SHUTDOWN_GRACE_MS: u64 = 10_000;

/// What a cell is to run, and within which limits. Limits hold for each task, except where they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellSpec {
    /// The job.
    pub job: JobId,
    /// Its trace, handed to the tasks.
    pub trace: TraceId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The workspace: exists, is an absolute path, holds the input tree.
    #[serde(with = "wire::path")]
    pub workspace: PathBuf,
    /// Program and arguments. A program without `/` is looked up in the task's `PATH`.
    pub command: Vec<String>,
    /// The job's own environment; it wins over the base environment, and the `V6_` variables win over it.
    pub env: Vec<(String, String)>,
    /// How the cell is confined.
    pub sandbox: SandboxKind,
    /// Whether the tasks may open internet sockets.
    pub network: bool,
    /// Cores that the cell as a whole may use.
    pub cpu_cores: Option<u32>,
    /// Resident memory of a task with all its processes, in bytes.
    pub memory_bytes: Option<u64>,
    /// Size of the workspace as a whole and of each file, in bytes.
    pub disk_bytes: Option<u64>,
    /// Wall time of a task, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Where tasks put checkpoints (by rename); writable, made if it is missing.
    #[serde(with = "wire::path")]
    pub checkpoint_dir: PathBuf,
    /// The checkpoint to go on from; readable.
    #[serde(with = "wire::path_option")]
    pub resume_dir: Option<PathBuf>,
    /// Whether each task gets the directory `<workspace>/<index>`.
    pub array: bool,
    /// Whether to run at low priority.
    pub nice: bool,
    /// Further directories that tasks may read and execute (toolchains of this PC).
    #[serde(with = "wire::paths")]
    pub read_only: Vec<PathBuf>,
    /// Directories that stay out of reach even inside readable ones; the node's data directory belongs here.
    #[serde(with = "wire::paths")]
    pub hidden: Vec<PathBuf>,
}

/// One of a task's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Why a task was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its submitter cancelled the job.
    Cancelled,
    /// The node lost its lease or was fenced off by a later attempt.
    LeaseLost,
    /// The PC's owner wants the machine.
    Preempted,
    /// The node stops.
    NodeStopping,
}

/// A limit that a task ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// [`CellSpec::memory_bytes`].
    Memory,
    /// [`CellSpec::disk_bytes`].
    Disk,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal, which nobody here sent.
    Signal(i32),
    /// Killed after [`CellSpec::timeout_ms`].
    Timeout,
    /// Killed by order.
    Killed(KillReason),
    /// The program did not start, with the system's reason.
    SpawnFailed(String),
    /// Killed for its hunger.
    LimitExceeded(LimitKind),
}

/// Which tasks a kill is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillTarget {
    /// Running tasks end, tasks that have not started are dropped without an event.
    All,
    /// This task; it ends with an event also when it had not started.
    Task(u32),
}

/// Why a cell is gone without having been told to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// It could not confine itself as asked, and ran nothing.
    Refused(String),
    /// It ended by itself or was killed; the text says how, with the end of its stderr.
    Ended(String),
    /// It sent something that is no event.
    Garbled(String),
}

/// What a cell tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellEvent {
    /// The sandbox is in force. Notes name what this system's sandbox cannot do.
    Ready {
        /// One sentence each; empty where everything is in force.
        notes: Vec<String>,
    },
    /// A task was started.
    Started {
        /// Its index.
        task: u32,
        /// Its process id, for display only: it comes from inside the sandbox's reach.
        pid: u32,
        /// Just before exec, in milliseconds since 1970.
        at_ms: u64,
    },
    /// A task wrote something.
    Output {
        /// Its index.
        task: u32,
        /// To where.
        stream: Stream,
        /// 1..=[`OUTPUT_BYTES_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// A task ended, and every process that it left behind was killed; all its output has come before.
    Exited {
        /// Its index.
        task: u32,
        /// How.
        exit: Exit,
        /// In milliseconds since 1970.
        started_ms: u64,
        /// In milliseconds since 1970.
        ended_ms: u64,
        /// User and system time of it and of the children it waited for, in milliseconds.
        cpu_ms: u64,
        /// The largest resident size of one of its processes, in bytes.
        max_rss_bytes: u64,
    },
    /// Every task that was asked for has ended.
    Idle,
    /// The cell is gone, and with it all of the job's processes. Always the last event.
    Died {
        /// Why.
        reason: Death,
    },
}

/// Why a cell could not be started or told something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// The specification cannot be run: change the job.
    #[error("the job cannot be run: {0}")]
    Spec(String),
    /// The cell's process did not start: see to the system.
    #[error("the cell's process did not start: {0}")]
    Spawn(#[source] std::io::Error),
    /// Too many commands wait for the cell: try again.
    #[error("the cell has {COMMANDS_QUEUED_MAX} commands waiting")]
    Busy,
    /// The cell has ended.
    #[error("the cell has ended")]
    Gone,
}
