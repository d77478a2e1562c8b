//! One process per data directory: a lock that the system releases when its holder ends, however it ends.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::files::private_options;

/// The locked file in a data directory; its text is the holder's process id.
const FILE_NAME: &str = "v6.lock";

/// A held lock, released when it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds it.
    #[error("{dir} is in use by the process {pid}; stop it, or use another --data-dir", dir = dir.display(), pid = pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string()))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The holder's process id, where it can be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be opened or locked.
    #[error("cannot lock {dir}: {source}", dir = dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of an existing directory without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let fail = |source| LockError::Io { dir: dir.to_owned(), source };
        let path = dir.join(FILE_NAME);
        let mut file = private_options().read(true).create(true).truncate(false).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { dir: dir.to_owned(), pid: holder(dir) }),
            Err(TryLockError::Error(source)) => return Err(fail(source)),
        }
        let pid_path = dir.join(PID_NAME);
        let written = (|| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            // On Windows the locked file cannot be read by others.
            #[cfg(windows)]
            std::fs::write(&pid_path, std::process::id().to_string())?;
            file.flush()
        })();
        let _ = pid_path;
        written.map_err(fail)?;
        Ok(Self { _file: file, path })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where the holder's process id is to be read.
#[cfg(windows)]
const PID_NAME: &str = "v6.pid";
#[cfg(not(windows))]
const PID_NAME: &str = FILE_NAME;

/// The process that holds a directory's lock, as far as it says.
fn holder(dir: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(dir.join(PID_NAME)).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_learns_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path()).unwrap();
        match Lock::acquire(dir.path()) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(Lock::acquire(dir.path()).is_ok());
    }

    #[test]
    fn an_old_lock_file_without_a_holder_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), "999999999").unwrap();
        let lock = Lock::acquire(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(lock.path()).unwrap(), std::process::id().to_string());
    }
}
