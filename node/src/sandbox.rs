//! Sandboxes: how a cell gives up everything that its job does not need.
//!
//! `landlock` is applied by the cell to itself, before it starts a task: Landlock for files, seccomp for system calls, dropped
//! capabilities and rlimits; children inherit all of it. `bwrap` starts the cell inside fresh namespaces made by the
//! `bwrap` program and adds seccomp and rlimits. `none` confines nothing and must be asked for by name. A sandbox that the
//! system cannot give is an error, never a weaker sandbox; what even the strongest one leaves open comes back as notes.
//!
//! Landlock does not govern metadata: a job can see that a path exists and change the mode of files that its user owns.
//!
//! Follows <https://docs.kernel.org/userspace-api/landlock.html> and seccomp(2).

#[cfg(target_os = "linux")]
mod bwrap;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod seccomp;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
pub use bwrap::command as bwrap_command;
#[cfg(target_os = "linux")]
pub use limits::{Limits, set as set_limits};

/// How a cell is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxKind {
    /// Landlock, seccomp, rlimits: the default.
    Landlock,
    /// Own pid, mount, ipc and network namespaces by the `bwrap` program, with seccomp and rlimits.
    Bwrap,
    /// Nothing: only for the owner's own jobs.
    None,
}

/// What a job may reach. Everything else is hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Directories to read, write and execute.
    pub read_write: Vec<PathBuf>,
    /// Directories to read and execute, besides the system's and the toolchains'.
    pub read_only: Vec<PathBuf>,
    /// Directories that stay hidden even inside readable ones.
    pub hidden: Vec<PathBuf>,
    /// The owner's home: hidden, except for its toolchains.
    pub owner_home: Option<PathBuf>,
    /// Internet sockets.
    pub network: bool,
}

/// Why a sandbox is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The system cannot do it.
    #[error("the sandbox `{kind}` does not work here: {why}; {remedy}")]
    Unavailable {
        /// Its name.
        kind: &'static str,
        /// What is missing.
        why: String,
        /// What its owner can do.
        remedy: &'static str,
    },
    /// A directory of the job cannot be opened or granted.
    #[error("cannot grant {path}: {source}", path = path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A step that works on every supported system failed.
    #[error("{step} failed: {source}")]
    Step {
        /// Which.
        step: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Confines this process and all its children for good.
///
/// Call it once, in a process with one thread. In bwrap (`inside_bwrap`) only the parts that bwrap does not do itself are
/// applied. Returns notes on what this system leaves open.
///
/// # Errors
/// [`SandboxError`]; the process may then be half confined and must end.
#[cfg(target_os = "linux")]
pub fn confine(kind: SandboxKind, grants: &Grants) -> Result<Vec<String>, SandboxError> {
    match kind {
        SandboxKind::None => Ok(Vec::new()),
        SandboxKind::Bwrap => {
            limits::drop_capabilities()?;
            seccomp::apply(grants.network)?;
            Ok(Vec::new())
        }
        SandboxKind::Landlock => {
            limits::drop_capabilities()?;
            let notes = landlock::apply(grants)?;
            seccomp::apply(grants.network)?;
            Ok(notes)
        }
    }
}

/// Does ahead what processes that are forked from this one and confined with such hidden paths and home would each do.
#[cfg(target_os = "linux")]
pub fn prepare(kind: SandboxKind, hidden: &[PathBuf], owner_home: Option<&std::path::Path>) {
    if kind == SandboxKind::Landlock {
        let (hidden, owner_home) = (hidden.to_vec(), owner_home.map(std::path::Path::to_owned));
        landlock::open_ahead(&Grants { hidden, owner_home, ..Grants::default() });
    }
}

/// Confines this process: on this system only `none` exists.
///
/// # Errors
/// Every kind but `none` is [`SandboxError::Unavailable`].
#[cfg(not(target_os = "linux"))]
pub fn confine(kind: SandboxKind, _grants: &Grants) -> Result<Vec<String>, SandboxError> {
    probe(kind).map(|()| Vec::new())
}

/// Says whether this system can give a sandbox, without confining anything.
///
/// # Errors
/// [`SandboxError::Unavailable`] with what is missing and its mend.
#[cfg(target_os = "linux")]
pub fn probe(kind: SandboxKind) -> Result<(), SandboxError> {
    match kind {
        SandboxKind::None => Ok(()),
        SandboxKind::Bwrap => bwrap::probe(),
        SandboxKind::Landlock => landlock::probe(),
    }
}

/// Says whether this system can give a sandbox.
///
/// # Errors
/// [`SandboxError::Unavailable`] for every kind but `none`.
#[cfg(not(target_os = "linux"))]
pub fn probe(kind: SandboxKind) -> Result<(), SandboxError> {
    let name = match kind {
        SandboxKind::None => return Ok(()),
        SandboxKind::Bwrap => "bwrap",
        SandboxKind::Landlock => "landlock",
    };
    Err(SandboxError::Unavailable {
        kind: name,
        why: "it exists on Linux only".to_owned(),
        remedy: "use `--sandbox none`, which runs the owner's own jobs only",
    })
}
