//! Processes that are not our own: ending them, and what a child needs from the system's environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

#[cfg(windows)]
pub use windows::{JobObject, JobUsage};

/// The home directory of the user that runs the node.
#[must_use]
pub fn home_dir() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute() && home.parent().is_some())
}

/// Variables without which programs do not start on this system; nothing of the owner's own.
#[must_use]
pub fn system_environment() -> Vec<(OsString, OsString)> {
    system::ENVIRONMENT.iter().filter_map(|key| Some(((*key).into(), std::env::var_os(key)?))).collect()
}

/// Kills what a cell left behind when it was killed from outside: the processes of its session (`cell_pid`) and those
/// whose environment has the variable `mark` (`NAME=VALUE`). Blocks for some milliseconds.
pub fn kill_strays(cell_pid: Option<u32>, mark: &str) {
    system::kill_strays(cell_pid, mark);
}

/// Kills processes that were started in a directory or below it, however they were orphaned: they work there, or their
/// environment names it as `V6_CHECKPOINT_DIR`. Returns how many. Blocks for some milliseconds. Nothing to do on Windows,
/// whose job objects end with the node.
pub fn kill_below(dir: &Path) -> usize {
    system::kill_below(dir)
}

/// Whether a process with this id exists.
#[must_use]
pub fn exists(pid: u32) -> bool {
    system::exists(pid)
}
