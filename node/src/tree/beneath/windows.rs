//! Windows: by path, each step checked for links before it is taken.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Meta};

/// A directory that was none but a directory when it was opened.
#[derive(Debug)]
pub(in crate::tree) struct Dir(PathBuf);

fn text(name: &[u8]) -> io::Result<&str> {
    let text = std::str::from_utf8(name).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not Unicode"))?;
    crate::tree::names::check_windows_name(name).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    Ok(text)
}

impl Dir {
    /// Opens a directory by its path; the last name must not be a link.
    pub(in crate::tree) fn open(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path)?.file_type().is_dir() {
            Ok(Self(path.to_owned()))
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    pub(in crate::tree) fn child(&self, name: &[u8]) -> io::Result<Self> {
        Self::open(&self.0.join(text(name)?))
    }

    /// Opens a child directory, making it where it is missing.
    pub(in crate::tree) fn make_child(&self, name: &[u8]) -> io::Result<Self> {
        match fs::create_dir(self.0.join(text(name)?)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => self.child(name),
        }
    }

    pub(in crate::tree) fn create_file(&self, name: &[u8], _executable: bool) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(self.0.join(text(name)?))
    }

    pub(in crate::tree) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let path = self.0.join(text(name)?);
        if !fs::symlink_metadata(&path)?.file_type().is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        File::open(path)
    }

    pub(in crate::tree) fn make_link(&self, name: &[u8], target: &[u8]) -> io::Result<()> {
        let target = std::str::from_utf8(target).map_err(|_| io::ErrorKind::InvalidInput)?.replace('/', "\\");
        let link = self.0.join(text(name)?);
        if self.0.join(&target).is_dir() {
            std::os::windows::fs::symlink_dir(target, link)
        } else {
            std::os::windows::fs::symlink_file(target, link)
        }
    }

    pub(in crate::tree) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let target = fs::read_link(self.0.join(text(name)?))?;
        let target = target.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(target.replace('\\', "/").into_bytes())
    }

    pub(in crate::tree) fn meta(&self, name: &[u8]) -> io::Result<Meta> {
        let meta = fs::symlink_metadata(self.0.join(text(name)?))?;
        let kind = match meta.file_type() {
            t if t.is_file() => Kind::File,
            t if t.is_dir() => Kind::Dir,
            t if t.is_symlink() => Kind::Symlink,
            _ => Kind::Other,
        };
        let mtime = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mtime_ns = i128::try_from(mtime.as_nanos()).unwrap_or(i128::MAX);
        Ok(Meta { kind, size: meta.len(), mtime_ns, inode: 0 })
    }

    /// At most `max` names, sorted, and whether these are all. Names that are not Unicode are passed over.
    pub(in crate::tree) fn names(&self, max: usize) -> io::Result<(Vec<Vec<u8>>, bool)> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if names.len() == max {
                return Ok((names, false));
            }
            names.push(name.into_bytes());
        }
        names.sort_unstable();
        Ok((names, true))
    }
}

/// Whether a file may be executed: Windows goes by its ending.
pub(in crate::tree) fn is_executable(_meta: &std::fs::Metadata) -> bool {
    false
}

/// Gives `to` the content of `from` without copying: not on this system.
pub(in crate::tree) fn reflink(_from: &File, _to: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
