//! From a directory to a manifest.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crdt::ids::BlobHash;
use ignore::WalkBuilder;

use super::beneath::{self, Dir, Kind, Step};
use super::{ENTRIES_MAX, Entry, EntryKind, Manifest, ManifestError, TreeError, names};
use crate::blobs::BlobNamer;
use crate::cell::PRIVATE_DIR;

/// Threads that hash at most.
const THREADS_MAX: usize = 4;
/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// Names that are remembered as skipped; more are only counted.
const SKIPPED_MAX: usize = 100;

/// How to read a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Take what `.gitignore` leaves out as well (`.git` is never taken).
    pub no_ignore: bool,
}

/// A directory as a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Its entries.
    pub manifest: Manifest,
    /// The directory, for opening the files by [`super::open_file`].
    pub root: PathBuf,
    /// What was left out because no tree can hold it, with the reason; at most 100.
    pub skipped: Vec<(PathBuf, &'static str)>,
}

/// A file that still has to be hashed.
#[derive(Debug)]
struct Pending {
    path: Vec<u8>,
}

/// Reads a directory that its user vouches for: `.gitignore` respected, `.git` and a root's `.v6` left out, hidden files taken.
/// Blocks; hashes with a few threads, about as fast as the files can be read.
///
/// # Errors
/// [`TreeError::Refused`] names a link that leads out of the directory or a name that no tree can have.
pub fn scan(root: &Path, options: ScanOptions) -> Result<Scan, TreeError> {
    let mut found = Found::default();
    let obey = !options.no_ignore;
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false)
        .git_ignore(obey)
        .git_exclude(obey)
        .parents(obey)
        .require_git(false)
        .follow_links(false);
    walk.filter_entry(|entry| entry.file_name() != ".git" && !(entry.depth() == 1 && entry.file_name() == PRIVATE_DIR));
    for entry in walk.build() {
        let entry = entry.map_err(|error| walk_error(root, error))?;
        if entry.depth() == 0 {
            if !entry.file_type().is_some_and(|kind| kind.is_dir()) {
                return Err(TreeError::io(root, io::ErrorKind::NotADirectory));
            }
            continue;
        }
        let relative = entry.path().strip_prefix(root).expect("the walk stays below its root");
        let Some(path) = names::from_system(relative) else {
            return Err(TreeError::Refused { path: entry.path().into(), why: "its name is not Unicode".to_owned() });
        };
        match entry.file_type() {
            Some(kind) if kind.is_dir() => found.dirs.push(path),
            Some(kind) if kind.is_file() => found.files.push(Pending { path }),
            Some(kind) if kind.is_symlink() => {
                let target = std::fs::read_link(entry.path()).map_err(|e| TreeError::io(entry.path(), e))?;
                let target = names::from_system(&target).unwrap_or_default();
                found.links.push(Entry { path, kind: EntryKind::Symlink { target } });
            }
            _ => found.skip(&path, "it is neither a file nor a directory nor a link"),
        }
        if found.count() > ENTRIES_MAX {
            return Err(TreeError::TooLarge);
        }
    }
    found.finish(root)
}

/// Reads a directory that a job wrote and may still change: no link is followed, nothing outside is read, what no tree
/// can hold is left out and named in [`Scan::skipped`].
///
/// # Errors
/// [`TreeError::TooLarge`], and [`TreeError::Io`] where the directory itself cannot be read.
pub fn snapshot(root: &Path) -> Result<Scan, TreeError> {
    let mut found = Found::default();
    let dir = Dir::open(root).map_err(|e| TreeError::io(root, e))?;
    let whole = beneath::walk(dir, ENTRIES_MAX, |dir, path, name, meta| {
        if let Err(why) = names::check_path(path) {
            found.skip(path, why);
            return Step::Skip;
        }
        match meta.kind {
            Kind::Dir => found.dirs.push(path.to_vec()),
            Kind::File => found.files.push(Pending { path: path.to_vec() }),
            Kind::Symlink => match dir.read_link(name) {
                Ok(target) => found.links.push(Entry { path: path.to_vec(), kind: EntryKind::Symlink { target } }),
                Err(_) => found.skip(path, "it changed while it was read"),
            },
            Kind::Other => found.skip(path, "it is neither a file nor a directory nor a link"),
        }
        Step::Enter
    });
    if !whole.map_err(|e| TreeError::io(root, e))? {
        return Err(TreeError::TooLarge);
    }
    found.drop_bad_links();
    found.lenient = true;
    found.finish(root)
}

/// What a walk has found.
#[derive(Debug, Default)]
struct Found {
    dirs: Vec<Vec<u8>>,
    files: Vec<Pending>,
    links: Vec<Entry>,
    skipped: Vec<(PathBuf, &'static str)>,
    lenient: bool,
}

impl Found {
    fn count(&self) -> usize {
        self.dirs.len() + self.files.len() + self.links.len()
    }

    fn skip(&mut self, path: &[u8], why: &'static str) {
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push((names::to_system(path), why));
        }
    }

    /// Leaves out links that lead out. Without one of them another may lead elsewhere, so that it takes rounds.
    fn drop_bad_links(&mut self) {
        loop {
            let target = |entry: &Entry| match &entry.kind {
                EntryKind::Symlink { target } => target.clone(),
                EntryKind::File { .. } | EntryKind::Dir => Vec::new(),
            };
            let targets: Vec<(Vec<u8>, Vec<u8>)> = self.links.iter().map(|e| (e.path.clone(), target(e))).collect();
            let map = targets.iter().map(|(path, target)| (path.as_slice(), target.as_slice())).collect();
            let verdicts: Vec<_> = targets.iter().map(|(path, target)| names::check_link(path, target, &map)).collect();
            if verdicts.iter().all(Result::is_ok) {
                return;
            }
            let mut kept = Vec::new();
            for (entry, verdict) in std::mem::take(&mut self.links).into_iter().zip(verdicts) {
                match verdict {
                    Ok(()) => kept.push(entry),
                    Err(why) => self.skip(&entry.path, why),
                }
            }
            self.links = kept;
        }
    }

    fn finish(mut self, root: &Path) -> Result<Scan, TreeError> {
        let files = std::mem::take(&mut self.files);
        let mut entries = Vec::with_capacity(files.len() + self.links.len());
        for (path, hashed) in hash_all(root, files) {
            match hashed {
                Ok(kind) => entries.push(Entry { path, kind }),
                Err(_) if self.lenient => self.skip(&path, "it vanished or cannot be read"),
                Err(source) => return Err(TreeError::io(root.join(names::to_system(&path)), source)),
            }
        }
        entries.append(&mut self.links);
        let filled: std::collections::HashSet<Vec<u8>> =
            entries.iter().map(|e| &e.path).chain(&self.dirs).map(|path| names::parent(path).to_vec()).collect();
        let empty = self.dirs.into_iter().filter(|dir| !filled.contains(dir));
        entries.extend(empty.map(|path| Entry { path, kind: EntryKind::Dir }));
        let manifest = Manifest::new(entries).map_err(|error| match error {
            ManifestError::TooLarge => TreeError::TooLarge,
            ManifestError::Entry { path, why } => TreeError::Refused { path: root.join(path), why: why.to_owned() },
            ManifestError::Format(why) => TreeError::Refused { path: root.to_owned(), why },
        })?;
        Ok(Scan { manifest, root: root.to_owned(), skipped: self.skipped })
    }
}

fn walk_error(root: &Path, error: ignore::Error) -> TreeError {
    let path = if let ignore::Error::WithPath { path, .. } = &error { path.clone() } else { root.to_owned() };
    let text = error.to_string();
    TreeError::io(path, error.into_io_error().unwrap_or_else(|| io::Error::other(text)))
}

type Hashed = (Vec<u8>, io::Result<EntryKind>);

fn hash_all(root: &Path, files: Vec<Pending>) -> Vec<Hashed> {
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(files.len() / 16 + 1);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut hashed = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            hashed.push((file.path.clone(), hash(root, &file.path, &mut buffer)));
        }
        hashed
    };
    if threads == 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let parts = workers.into_iter().map(|worker| worker.join().expect("hashing does not panic"));
        parts.flatten().collect()
    })
}

fn hash(root: &Path, path: &[u8], buffer: &mut [u8]) -> io::Result<EntryKind> {
    let mut file = beneath::open_file(root, path)?;
    let executable = beneath::is_executable(&file.metadata()?);
    let (hash, size) = hash_reader(&mut file, buffer)?;
    Ok(EntryKind::File { hash, size, executable })
}

fn hash_reader(file: &mut File, buffer: &mut [u8]) -> io::Result<(BlobHash, u64)> {
    let mut namer = BlobNamer::new();
    loop {
        match file.read(buffer) {
            Ok(0) => {
                let blob = namer.finish();
                return Ok((blob.hash, blob.size));
            }
            Ok(len) => namer.update(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
