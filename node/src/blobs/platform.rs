//! What differs between systems: opening a file that may be a trap, free space, syncing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Opens a regular file for reading without ever blocking on a pipe or a device.
///
/// With `follow` a last component that is a link is followed; without, it is refused.
///
/// # Errors
/// What the system says; `InvalidInput` when it is not a regular file.
#[cfg(unix)]
pub(super) fn open_regular(path: &Path, follow: bool) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    check_regular(file)
}

/// Opens a regular file for reading; see the twin for Unix.
///
/// # Errors
/// What the system says; `InvalidInput` when it is not a regular file.
#[cfg(windows)]
pub(super) fn open_regular(path: &Path, follow: bool) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    let mut options = File::options();
    options.read(true);
    if !follow {
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }
    check_regular(options.open(path)?)
}

fn check_regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Bytes that may still be written to the disk of this directory.
#[cfg(unix)]
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that may still be written to the disk of this directory.
#[cfg(windows)]
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let disks = sysinfo::Disks::new_with_refreshed_list().ok()?;
    let longest = disks.iter().filter(|disk| dir.starts_with(disk.mount_point()));
    longest.max_by_key(|disk| disk.mount_point().as_os_str().len()).map(sysinfo::Disk::available_space)
}

/// Syncs files (those that are gone are skipped) and then their directory.
pub(super) fn sync_files(paths: &[PathBuf], dir: &Path) -> io::Result<()> {
    let mut any = false;
    for path in paths {
        match File::open(path) {
            Ok(file) => file.sync_all()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        }
        any = true;
    }
    if any { sync_dir(dir) } else { Ok(()) }
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(windows)]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}
