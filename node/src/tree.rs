//! Trees of files: what a job gets as input, what it leaves as artifacts and checkpoints.
//!
//! A tree is named by its [`Manifest`]: canonical CBOR of sorted entries, files by the hash of their bytes. [`scan`] makes one
//! from a directory that its user vouches for; [`snapshot`] and [`collect`] read what a job wrote, which may change under
//! their hands: they go through directory handles and never follow a link. [`materialise`] writes a tree, whoever sent it,
//! and nothing outside of its destination.
//!
//! Paths are raw bytes with `/` between names: on Unix whatever the file system has, on Windows UTF-8.

mod beneath;
mod checkpoints;
mod collect;
mod manifest;
mod materialise;
mod names;
mod scan;

use std::io;
use std::path::PathBuf;

use crdt::ids::BlobHash;

pub use beneath::open_file;
pub use checkpoints::{Checkpoint, new_checkpoints};
pub use collect::{Collected, Found, Globs, Snapshot, collect};
pub use manifest::{Manifest, ManifestError};
pub use materialise::{Source, materialise};
pub use scan::{Scan, ScanOptions, scan, snapshot};

/// Entries of one tree at most.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Bytes of a path at most.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of one name in a path at most, the bound of the file systems.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of an encoded manifest at most.
pub const MANIFEST_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Names above each other in a path at most.
pub const DEPTH_MAX: usize = 128;

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Relative to the tree's root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is. Directories are named only where they are empty; the others follow from the paths below them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its blob.
        hash: BlobHash,
        /// Its length in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link whose target is relative and stays within the tree.
    Symlink {
        /// As it is stored.
        target: Vec<u8>,
    },
    /// A directory.
    Dir,
}

/// Why a tree cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A file or directory cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A name or link that no tree may have: rename it, remove it, or ignore it by `.gitignore`.
    #[error("{path} cannot be part of a tree: {why}", path = path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The tree is larger than a tree may be.
    #[error("the tree has more than {ENTRIES_MAX} entries or is deeper than {DEPTH_MAX} directories")]
    TooLarge,
    /// A file that was written does not have the length that the manifest says.
    #[error("{path}: its blob has {got} bytes, the manifest says {expected}", path = path.display())]
    Length {
        /// Which.
        path: PathBuf,
        /// By the manifest.
        expected: u64,
        /// By the blob.
        got: u64,
    },
    /// A pattern is none.
    #[error("`{pattern}` is not a pattern: {why}")]
    Pattern {
        /// Which.
        pattern: String,
        /// Why.
        why: String,
    },
}

impl TreeError {
    fn io(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.into(), source: source.into() }
    }
}
