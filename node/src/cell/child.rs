//! The cell's own side: `v6 cell`, which confines itself, runs tasks and ends with its node.
//!
//! It speaks the frames of `wire` on stdin and stdout and is useless to start by hand.

#[cfg(target_os = "linux")]
mod descendants;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod environment;
#[cfg(target_os = "linux")]
mod free_dir;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod setup;
#[cfg(target_os = "linux")]
mod task;
#[cfg(target_os = "linux")]
mod wait;
#[cfg(windows)]
mod windows;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs the cell until its node closes its stdin or tells it to end.
#[must_use]
pub fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    let result = linux::run();
    #[cfg(windows)]
    let result = windows::run();
    #[cfg(not(any(target_os = "linux", windows)))]
    let result = Err(std::io::Error::other("cells run on Linux and Windows"));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("v6 cell: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
pub(super) use {setup::grants, wait::ignore_requests};
