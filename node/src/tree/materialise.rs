//! From a manifest to files: never through a link, never over something that is there.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use crdt::ids::BlobHash;

use super::beneath::{self, Dir};
use super::{Entry, EntryKind, Manifest, TreeError, names};

/// Threads that write at most.
const THREADS_MAX: usize = 4;
/// Entries per thread from which on another thread pays.
const ENTRIES_PER_THREAD_MIN: usize = 64;

/// Where a blob's bytes come from.
pub enum Source {
    /// A file of the store: cloned where the file system can, else copied; never linked.
    File(File),
    /// Bytes at hand.
    Bytes(Bytes),
    /// Anything that can be read to its end.
    Reader(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "Source::File",
            Self::Bytes(_) => "Source::Bytes",
            Self::Reader(_) => "Source::Reader",
        })
    }
}

/// Writes a tree into an existing directory. Directories may be there, files and links may not. Links come last. Safe while
/// hostile processes write to the directory: what they put in the way is an error. Blocks; writes with a few threads.
///
/// # Errors
/// [`TreeError`] with the path; what was written until then stays.
pub fn materialise(
    manifest: &Manifest,
    dest: &Path,
    open_blob: impl Fn(&BlobHash) -> io::Result<Source> + Sync,
) -> Result<(), TreeError> {
    let entries = manifest.entries();
    let writer = Writer { dest, open_blob: &open_blob, can_clone: AtomicBool::new(true) };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let per_thread = entries.len().div_ceil(threads).max(ENTRIES_PER_THREAD_MIN);
    let is_link = |entry: &Entry| matches!(entry.kind, EntryKind::Symlink { .. });
    if entries.len() <= per_thread {
        writer.write(entries.iter().filter(|e| !is_link(e)))?;
    } else {
        std::thread::scope(|scope| {
            let parts = entries.chunks(per_thread);
            let workers: Vec<_> =
                parts.map(|part| scope.spawn(|| writer.write(part.iter().filter(|e| !is_link(e))))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("writing does not panic"))
        })?;
    }
    writer.write(entries.iter().filter(|e| is_link(e)))
}

struct Writer<'a, F> {
    dest: &'a Path,
    open_blob: &'a F,
    can_clone: AtomicBool,
}

impl<F: Fn(&BlobHash) -> io::Result<Source>> Writer<'_, F> {
    fn write<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Result<(), TreeError> {
        let fail = |entry: &Entry, source| TreeError::io(self.dest.join(names::to_system(&entry.path)), source);
        let mut stack = Stack::open(self.dest).map_err(|e| TreeError::io(self.dest, e))?;
        for entry in entries {
            let (above, name) = match names::parent(&entry.path) {
                [] => (&[][..], entry.path.as_slice()),
                above => (above, &entry.path[above.len() + 1..]),
            };
            let dir = stack.enter(above).map_err(|e| fail(entry, e))?;
            match &entry.kind {
                EntryKind::Dir => drop(dir.make_child(name).map_err(|e| fail(entry, e))?),
                EntryKind::Symlink { target } => dir.make_link(name, target).map_err(|e| fail(entry, e))?,
                EntryKind::File { hash, size, executable } => {
                    let source = (self.open_blob)(hash).map_err(|e| fail(entry, e))?;
                    let file = dir.create_file(name, *executable).map_err(|e| fail(entry, e))?;
                    let got = self.fill(source, file).map_err(|e| fail(entry, e))?;
                    if got != *size {
                        let path = self.dest.join(names::to_system(&entry.path));
                        return Err(TreeError::Length { path, expected: *size, got });
                    }
                }
            }
        }
        Ok(())
    }

    fn fill(&self, source: Source, mut file: File) -> io::Result<u64> {
        match source {
            Source::Bytes(bytes) => io::copy(&mut bytes.as_ref(), &mut file),
            Source::Reader(mut reader) => io::copy(&mut reader, &mut file),
            Source::File(mut from) => {
                if self.can_clone.load(Ordering::Relaxed) {
                    match beneath::reflink(&from, &file) {
                        Ok(()) => return file.metadata().map(|meta| meta.len()),
                        Err(_) => self.can_clone.store(false, Ordering::Relaxed),
                    }
                }
                io::copy(&mut from, &mut file)
            }
        }
    }
}

/// The open directories on the way to the last entry; the next one mostly shares them.
struct Stack {
    root: Dir,
    below: Vec<(Vec<u8>, Dir)>,
}

impl Stack {
    fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: Dir::open(root)?, below: Vec::new() })
    }

    fn enter(&mut self, path: &[u8]) -> io::Result<&Dir> {
        let names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
        let mut depth = 0;
        for name in names {
            if self.below.get(depth).is_none_or(|(open, _)| open != name) {
                self.below.truncate(depth);
                let above = self.below.last().map_or(&self.root, |(_, dir)| dir);
                let dir = above.make_child(name)?;
                self.below.push((name.to_vec(), dir));
            }
            depth += 1;
        }
        self.below.truncate(depth);
        Ok(self.below.last().map_or(&self.root, |(_, dir)| dir))
    }
}
