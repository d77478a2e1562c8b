//! Files that are nobody else's business, and the room that a disk has left.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens options that create a file which only its owner can read and write (mode 0600; on Windows the profile
/// directory's access list does the same).
#[must_use]
pub fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true);
    options
}

/// Creates a directory and its parents; the directory is its owner's alone (mode 0700), also when it existed.
///
/// # Errors
/// The system's.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

/// Replaces a file's content as a whole, durably: it holds the old or the new content whatever happens. Mode 0600.
///
/// # Errors
/// The system's.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let written = private_options().create(true).truncate(true).open(&beside).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&beside, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    renamed?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes renames and new names in a directory durable. Windows has no such call and needs none.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes renames and new names in a directory durable.
///
/// # Errors
/// None on this system.
#[cfg(not(unix))]
pub fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Bytes that this user can still write to the file system of `path`.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that are still free on the disk of `path`.
///
/// # Errors
/// The path is on no known disk.
#[cfg(not(unix))]
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = path.canonicalize()?;
    let disks = sysinfo::Disks::new_with_refreshed_list().map_err(|e| io::Error::other(e.to_string()))?;
    let plain = path.to_string_lossy().trim_start_matches(r"\\?\").to_owned();
    let of = disks.iter().filter(|disk| Path::new(&plain).starts_with(disk.mount_point()));
    let nearest = of.max_by_key(|disk| disk.mount_point().as_os_str().len());
    nearest.map(sysinfo::Disk::available_space).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether others than its owner can read a file.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn is_exposed(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

/// Whether others than its owner can read a file: not told by mode bits on this system.
///
/// # Errors
/// The system's.
#[cfg(not(unix))]
pub fn is_exposed(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| false)
}

/// Opens a file for reading without following a link at its end, and without waiting for a pipe's other end.
///
/// # Errors
/// The system's; a link is an error.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    #[cfg(not(unix))]
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(file)
}

/// A number that names a file on its file system, so that a copy is told from the original; 0 where there is none.
#[cfg(unix)]
#[must_use]
pub fn file_id(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |meta| meta.ino())
}

/// A number that names a file on its file system; Windows' standard library tells none, so its time of creation stands in.
#[cfg(not(unix))]
#[must_use]
pub fn file_id(path: &Path) -> u64 {
    let created = std::fs::metadata(path).and_then(|meta| meta.created()).ok();
    let since = created.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn private_files_and_directories_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("a/b");
        create_private_dir(&private).unwrap();
        let file = private.join("identity.key");
        write_private(&file, b"one").unwrap();
        write_private(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(!is_exposed(&file).unwrap());
        assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&private).unwrap().count(), 1);
    }

    #[test]
    fn a_disk_has_room() {
        assert!(free_bytes(Path::new("/")).unwrap() > 0);
    }
}
