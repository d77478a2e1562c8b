//! A cell's process, however it came to be: started from the binary, or forked by the [`super::nursery`].

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::Child;

use super::CellError;
#[cfg(target_os = "linux")]
use super::nursery::Forked;
use crate::platform::process;

/// A cell's process with its pipes. Dropping it kills the process.
pub(super) struct Process {
    pub(super) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) stdout: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) stderr: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) life: Life,
}

/// What ends a cell's process and hears of its end. Dropping it kills the process.
#[derive(Debug)]
pub(super) enum Life {
    Started(Child),
    #[cfg(target_os = "linux")]
    Forked(Forked),
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.life.fmt(f)
    }
}

impl Process {
    /// Runs a command line.
    pub(super) fn start(line: &[OsString]) -> Result<Self, CellError> {
        let mut child = tokio::process::Command::new(&line[0])
            .args(&line[1..])
            .env_clear()
            .envs(process::system_environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(CellError::Spawn)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for");
        };
        let life = Life::Started(child);
        Ok(Self { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Box::new(stderr), life })
    }

    /// Whether it still lives.
    pub(super) fn is_alive(&mut self) -> bool {
        match &mut self.life {
            Life::Started(child) => matches!(child.try_wait(), Ok(None)),
            #[cfg(target_os = "linux")]
            Life::Forked(forked) => forked.is_alive(),
        }
    }
}

impl Life {
    /// Its process id, until its end was heard of.
    pub(super) fn id(&self) -> Option<u32> {
        match self {
            Self::Started(child) => child.id(),
            #[cfg(target_os = "linux")]
            Self::Forked(forked) => Some(forked.id()),
        }
    }

    /// Kills it, if it lives.
    pub(super) fn kill(&mut self) {
        match self {
            Self::Started(child) => drop(child.start_kill()),
            #[cfg(target_os = "linux")]
            Self::Forked(forked) => forked.kill(),
        }
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match self {
            Self::Started(child) => child.wait().await,
            #[cfg(target_os = "linux")]
            Self::Forked(forked) => forked.wait().await,
        }
    }
}
