//! Directories by handle: every step goes from an open directory to a name in it and refuses links, so that nobody who
//! changes the tree meanwhile can lead a step elsewhere.
//!
//! On Windows the steps go by path and check for links before each; jobs there run for the owner only.

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

use std::fs::File;
use std::io;
use std::path::Path;

#[cfg(unix)]
pub(super) use unix::{Dir, is_executable, reflink};
#[cfg(not(unix))]
pub(super) use windows::{Dir, is_executable, reflink};

use super::DEPTH_MAX;

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    Other,
}

/// What is known of a name without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mtime_ns: i128,
    pub(super) inode: u64,
}

/// Opens a regular file below a directory whose content is not to be trusted: no link on the way is followed, and a pipe
/// is refused without waiting for it.
///
/// # Errors
/// The system's, or `InvalidInput` where the path is none or names no regular file.
pub fn open_file(root: &Path, path: &[u8]) -> io::Result<File> {
    super::names::check_path(path).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let mut dir = Dir::open(root)?;
    let mut names = path.split(|b| *b == b'/').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            return dir.open_file(name);
        }
        dir = dir.child(name)?;
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Enter,
    Skip,
    Stop,
}

/// Walks everything below a directory, names of a directory in order, and asks what to do with each. Directories that
/// vanish or cannot be read are passed over; `entries_max` bounds the walk as a whole. Returns whether it saw everything.
pub(super) fn walk(
    root: Dir,
    entries_max: usize,
    mut visit: impl FnMut(&Dir, &[u8], &[u8], Meta) -> Step,
) -> io::Result<bool> {
    let mut seen = 0;
    let mut path: Vec<u8> = Vec::new();
    let (names, mut whole) = root.names(entries_max)?;
    let mut open = vec![(root, names.into_iter(), 0usize)];
    while let Some((dir, names, length)) = open.last_mut() {
        path.truncate(*length);
        let Some(name) = names.next() else {
            open.pop();
            continue;
        };
        seen += 1;
        if seen > entries_max {
            return Ok(false);
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let Ok(meta) = dir.meta(&name) else { continue };
        match visit(dir, &path, &name, meta) {
            Step::Stop => return Ok(false),
            Step::Enter if meta.kind == Kind::Dir && open.len() < DEPTH_MAX => {
                let Some((dir, _, _)) = open.last() else { break };
                let Ok(child) = dir.child(&name) else { continue };
                let Ok((names, all)) = child.names(entries_max - seen) else { continue };
                whole &= all;
                open.push((child, names.into_iter(), path.len()));
            }
            Step::Enter if meta.kind == Kind::Dir => whole = false,
            Step::Enter | Step::Skip => {}
        }
    }
    Ok(whole)
}
