//! The directory of an array's task that ended and left nothing in it: it becomes the next task's, for a rename costs less
//! than a directory's end and another's beginning.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of a task's directory.
const MODE: u32 = 0o755;

/// A directory that waits for the next task, or none.
#[derive(Debug, Default)]
pub(super) struct FreeDir(Option<PathBuf>);

impl FreeDir {
    /// Makes a task's directory; one that exists (its input lies there) stays as it is.
    pub(super) fn make(&mut self, dir: &Path) -> io::Result<()> {
        // A rename would go through where an empty directory is in the way, and that is as good.
        if self.0.take().is_some_and(|free| fs::rename(free, dir).is_ok()) {
            return Ok(());
        }
        match DirBuilder::new().mode(MODE).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Takes over the directory of a task that ended, where it is as it was made.
    pub(super) fn keep(&mut self, dir: PathBuf) {
        let is_new = |dir: &Path| {
            let meta = dir.symlink_metadata()?;
            let empty = meta.is_dir() && fs::read_dir(dir)?.next().is_none();
            io::Result::Ok(empty && meta.permissions().mode() & 0o7777 == MODE)
        };
        if self.0.is_none() && is_new(&dir).unwrap_or(false) {
            self.0 = Some(dir);
        }
    }

    /// Removes what waits.
    pub(super) fn clear(&mut self) {
        if let Some(dir) = self.0.take() {
            let _ = fs::remove_dir(dir);
        }
    }
}
