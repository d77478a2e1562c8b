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

/// What a file system says of a file: no copy of it says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Names the file and when it was made, without blanks.
    pub identity: String,
    /// When its content or anything else of it last changed, in nanoseconds by the file system's clock. No program can set it.
    pub changed_ns: u128,
}

/// The state of a file.
///
/// # Errors
/// The system's.
#[cfg(unix)]
pub fn state(path: &Path) -> io::Result<FileState> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path)?;
    // A number is given again as soon as a file is gone; not every file system knows when a file was made.
    let born = meta.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let born_ns = born.map_or(0, |since| since.as_nanos());
    let seconds = u128::try_from(meta.ctime()).unwrap_or_default();
    let changed_ns = seconds * 1_000_000_000 + u128::try_from(meta.ctime_nsec()).unwrap_or_default();
    Ok(FileState { identity: format!("{}.{born_ns}", meta.ino()), changed_ns })
}

/// The state of a file.
///
/// # Errors
/// The system's.
#[cfg(windows)]
#[allow(unsafe_code, reason = "the standard library tells neither a file's number nor when it changed")]
pub fn state(path: &Path) -> io::Result<FileState> {
    use std::os::windows::io::AsRawHandle;
    use windows_sys::Win32::Storage::FileSystem::{
        BY_HANDLE_FILE_INFORMATION, FILE_BASIC_INFO, FileBasicInfo, GetFileInformationByHandle,
        GetFileInformationByHandleEx,
    };
    let file = File::open(path)?;
    let (mut by_handle, mut basic) = (BY_HANDLE_FILE_INFORMATION::default(), FILE_BASIC_INFO::default());
    let size = u32::try_from(size_of::<FILE_BASIC_INFO>()).expect("a few bytes");
    // SAFETY: the handle is open until the end of this function; both structures live as long and have the stated size.
    let told = unsafe {
        GetFileInformationByHandle(file.as_raw_handle(), &raw mut by_handle) != 0
            && GetFileInformationByHandleEx(file.as_raw_handle(), FileBasicInfo, (&raw mut basic).cast(), size) != 0
    };
    if !told {
        return Err(io::Error::last_os_error());
    }
    let number = u64::from(by_handle.nFileIndexHigh) << 32 | u64::from(by_handle.nFileIndexLow);
    // In steps of 100 ns since 1601; only what is equal matters, and how much later something is.
    let since_1970 = basic.ChangeTime - 116_444_736_000_000_000;
    let changed_ns = u128::try_from(since_1970).unwrap_or_default() * 100;
    Ok(FileState { identity: format!("{number}.{}", basic.CreationTime), changed_ns })
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
