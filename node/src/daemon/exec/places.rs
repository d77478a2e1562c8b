//! Directories of runs. One whose run left nothing behind serves the next run under another name: making and removing a
//! dozen directories costs a short job more than its process.
//!
//! Only a directory that is exactly as it was made is used again, and only after its cell ended in order, which it does
//! when no process of the job is left: nobody who could reach it before lives.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::platform::files;

/// Directories that wait to be used again. More: removed.
const SPARE_MAX: usize = 32;
/// Where a task's files go in a run's directory.
pub(super) const WORKSPACE: &str = "ws";
/// Where its checkpoints appear.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// The directories of one node's runs.
pub(super) struct Places {
    root: PathBuf,
    spare: Mutex<Vec<PathBuf>>,
    count: AtomicU64,
}

impl Places {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, spare: Mutex::default(), count: AtomicU64::new(0) }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The path of a run's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a run's directory with its workspace, or takes one that is as good as new.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn make(&self, dir: &Path) -> io::Result<()> {
        // The lock is not held over the rename.
        let spare = self.spare().pop();
        if spare.is_some_and(|spare| std::fs::rename(spare, dir).is_ok()) {
            return Ok(());
        }
        files::create_private_dir(dir)?;
        files::create_private_dir(&dir.join(WORKSPACE))?;
        files::create_private_dir(&dir.join(CHECKPOINTS))
    }

    /// Removes what waits to be used again. Blocks.
    pub(super) fn clear(&self) {
        for spare in std::mem::take(&mut *self.spare()) {
            drop(std::fs::remove_dir_all(spare));
        }
    }

    /// Takes back a run's directory. `is_over`: its cell ended in order. Blocks.
    pub(super) fn give_back(&self, dir: &Path, is_over: bool) {
        if is_over && self.spare().len() < SPARE_MAX && shape::is_new(dir) {
            let spare = self.root.join(format!("spare-{}", self.count.fetch_add(1, Ordering::Relaxed)));
            if std::fs::rename(dir, &spare).is_ok() {
                self.spare().push(spare);
                return;
            }
        }
        drop(std::fs::remove_dir_all(dir));
    }
}

/// What a directory looks like in which a cell has run a job that left nothing.
#[cfg(target_os = "linux")]
mod shape {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::{CHECKPOINTS, WORKSPACE};
    use crate::cell::PRIVATE_DIR;
    use crate::platform::process;

    /// Bytes of the names of a directory's attributes. More: it is not new.
    const ATTRIBUTES_BYTES_MAX: usize = 1_024;

    enum Shape {
        Dir(&'static [(&'static str, Shape)]),
        /// A link to the owner's directory of this name in `.cargo`.
        Cargo,
    }

    const CARGO: Shape = Shape::Dir(&[("registry", Shape::Cargo), ("git", Shape::Cargo)]);
    const HOME: Shape = Shape::Dir(&[(".cargo", CARGO)]);
    const PRIVATE: Shape = Shape::Dir(&[("home", HOME), ("tmp", Shape::Dir(&[]))]);
    const RUN: Shape =
        Shape::Dir(&[(WORKSPACE, Shape::Dir(&[(PRIVATE_DIR, PRIVATE)])), (CHECKPOINTS, Shape::Dir(&[]))]);

    /// Whether a run's directory is as it was made.
    pub(super) fn is_new(dir: &Path) -> bool {
        fits(dir, &RUN).unwrap_or(false)
    }

    fn fits(path: &Path, shape: &Shape) -> std::io::Result<bool> {
        let meta = path.symlink_metadata()?;
        match shape {
            Shape::Cargo => {
                let name = path.file_name().unwrap_or_default();
                let owners = process::home_dir().map(|home| home.join(".cargo").join(name));
                Ok(meta.is_symlink() && owners == std::fs::read_link(path).ok())
            }
            Shape::Dir(inside) => {
                if !meta.is_dir() || meta.permissions().mode() & 0o7777 != 0o700 || has_attributes(path) {
                    return Ok(false);
                }
                for entry in std::fs::read_dir(path)? {
                    let entry = entry?;
                    let Some((_, shape)) = inside.iter().find(|(name, _)| entry.file_name() == *name) else {
                        return Ok(false);
                    };
                    if !fits(&entry.path(), shape)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Whether somebody hung words or access lists on a directory.
    fn has_attributes(path: &Path) -> bool {
        let mut names = [0; ATTRIBUTES_BYTES_MAX];
        match rustix::fs::llistxattr(path, &mut names[..]) {
            Ok(len) => {
                let given = |name: &[u8]| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl");
                names[..len].split(|byte| *byte == 0).any(given)
            }
            Err(error) => error != rustix::io::Errno::NOTSUP,
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod shape {
    /// Directories are used once here.
    pub(super) fn is_new(_dir: &std::path::Path) -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Makes a run's directory, lets a job do something in it, and tells whether it is used again.
    fn is_used_again(job: impl FnOnce(&Path)) -> bool {
        let root = tempfile::tempdir().expect("a directory");
        let places = Places::new(root.path().to_owned());
        let dir = places.path("one");
        places.make(&dir).expect("made");
        let private = dir.join(WORKSPACE).join(crate::cell::PRIVATE_DIR);
        files::create_private_dir(&private.join("home")).expect("made");
        files::create_private_dir(&private.join("tmp")).expect("made");
        job(&dir);
        places.give_back(&dir, true);
        assert!(!dir.exists());
        let again = !places.spare().is_empty();
        let next = places.path("two");
        places.make(&next).expect("made again");
        assert!(next.join(WORKSPACE).is_dir());
        again
    }

    #[test]
    fn only_a_directory_that_is_as_it_was_made_serves_again() {
        assert!(is_used_again(|_| {}));
        assert!(!is_used_again(|dir| std::fs::write(dir.join("ws/file"), "").expect("written")));
        assert!(!is_used_again(|dir| std::fs::create_dir(dir.join("checkpoints/1")).expect("made")));
        assert!(!is_used_again(
            |dir| symlink("/", dir.join("ws").join(crate::cell::PRIVATE_DIR).join("tmp/l")).expect("made")
        ));
        let mode = |dir: &Path| std::fs::set_permissions(dir.join("ws"), PermissionsExt::from_mode(0o755));
        assert!(!is_used_again(|dir| mode(dir).expect("changed")));
        let word = |dir: &Path| rustix::fs::setxattr(dir.join("ws"), "user.a", b"b", rustix::fs::XattrFlags::empty());
        assert!(!is_used_again(|dir| word(dir).expect("this file system keeps attributes")));
    }

    #[test]
    fn the_directory_of_a_cell_that_did_not_end_in_order_goes() {
        let root = tempfile::tempdir().expect("a directory");
        let places = Places::new(root.path().to_owned());
        let dir = places.path("one");
        places.make(&dir).expect("made");
        places.give_back(&dir, false);
        assert!(!dir.exists() && places.spare().is_empty());
    }
}
