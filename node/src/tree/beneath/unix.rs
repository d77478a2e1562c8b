//! Unix: `openat` with `O_NOFOLLOW` at every step.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, openat, readlinkat, statat, symlinkat};

use super::{Kind, Meta};

/// An open directory.
#[derive(Debug)]
pub(in crate::tree) struct Dir(OwnedFd);

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory by its path; the last name must not be a link.
    pub(in crate::tree) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, DIR, Mode::empty())?))
    }

    pub(in crate::tree) fn child(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self(openat(&self.0, name, DIR, Mode::empty())?))
    }

    /// Opens a child directory, making it where it is missing.
    pub(in crate::tree) fn make_child(&self, name: &[u8]) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => self.child(name),
            Err(error) => Err(error.into()),
        }
    }

    pub(in crate::tree) fn create_file(&self, name: &[u8], executable: bool) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
        Ok(openat(&self.0, name, flags, mode)?.into())
    }

    pub(in crate::tree) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.0, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file.into())
    }

    pub(in crate::tree) fn make_link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(symlinkat(target, &self.0, name)?)
    }

    pub(in crate::tree) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    pub(in crate::tree) fn meta(&self, name: &[u8]) -> io::Result<Meta> {
        let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Kind::Other,
        };
        let mtime_ns = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Ok(Meta { kind, size: stat.st_size.try_into().unwrap_or(0), mtime_ns, inode: stat.st_ino })
    }

    /// At most `max` names, sorted, and whether these are all.
    pub(in crate::tree) fn names(&self, max: usize) -> io::Result<(Vec<Vec<u8>>, bool)> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == max {
                return Ok((names, false));
            }
            names.push(name);
        }
        names.sort_unstable();
        Ok((names, true))
    }
}

/// Whether a file may be executed.
pub(in crate::tree) fn is_executable(meta: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(meta) & 0o111 != 0
}

/// Gives `to` the content of `from` without copying, where the file system can.
pub(in crate::tree) fn reflink(from: &File, to: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::ioctl_ficlone(to, from)?);
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}
