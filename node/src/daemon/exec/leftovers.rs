//! What an earlier process of this node left behind when it was killed: processes of its jobs, and their directories.

use std::path::Path;

use crate::platform::process;

/// Ends and removes it. To be called once, before anything runs, by the process that holds the data directory. Blocks.
pub(in crate::daemon) fn sweep(data_dir: &Path) {
    let work = super::work_dir(data_dir);
    let Ok(real) = work.canonicalize() else { return };
    // A working directory is known by its real path, the environment by the path that was given.
    let killed = process::kill_below(&real) + process::kill_below(&work);
    if killed > 0 {
        tracing::warn!(killed, "processes of jobs had outlived their node; they are gone");
    }
    if let Err(error) = std::fs::remove_dir_all(&work) {
        tracing::warn!(%error, path = %work.display(), "what earlier jobs left cannot be removed");
    }
}
