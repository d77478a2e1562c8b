//! Which of a job's files are artifacts, and which of those changed since the last look.

use std::collections::BTreeMap;
use std::path::Path;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::beneath::{self, Dir, Kind, Step};
use super::{TreeError, names};

/// Entries that one look goes through; a larger workspace is looked at in part.
const LOOK_ENTRIES_MAX: usize = 200_000;
/// Artifacts of one workspace; further ones are left out.
const ARTIFACTS_MAX: usize = 50_000;

/// Patterns of artifacts, relative to a task's working directory: `*` stays within one name, `**` crosses directories, and
/// a pattern that matches a directory takes all of it.
#[derive(Debug, Clone)]
pub struct Globs(GlobSet);

/// What a file looked like: length, time of change, identity.
type Look = (u64, i128, u64);

/// What the artifacts looked like at the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<Vec<u8>, Look>);

impl Snapshot {
    /// Lets the next look find a file again.
    pub fn forget(&mut self, path: &[u8]) {
        self.0.remove(path);
    }
}

/// An artifact that is new or has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Relative to the workspace; open it by [`super::open_file`] only.
    pub path: Vec<u8>,
    /// Its length in bytes when it was looked at.
    pub size: u64,
    /// Its last change, in nanoseconds since 1970.
    pub mtime_ns: i128,
}

/// The outcome of one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// New or changed, sorted by path.
    pub changed: Vec<Found>,
    /// Gone since the last look, sorted.
    pub gone: Vec<Vec<u8>>,
    /// For the next look.
    pub snapshot: Snapshot,
    /// Whether the workspace was too large to be seen whole.
    pub truncated: bool,
}

impl Globs {
    /// Compiles patterns.
    ///
    /// # Errors
    /// [`TreeError::Pattern`] names the first one that is none, or that leaves the workspace.
    pub fn new(patterns: &[String]) -> Result<Self, TreeError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let fail = |why: String| TreeError::Pattern { pattern: pattern.clone(), why };
            let plain = pattern.strip_prefix("./").unwrap_or(pattern).trim_end_matches('/');
            if plain.starts_with('/') || plain.split('/').any(|name| name == "..") {
                return Err(fail("it leaves the working directory".to_owned()));
            }
            let plain = if plain.is_empty() || plain == "." { "**" } else { plain };
            let glob: Glob = GlobBuilder::new(plain)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| fail(error.kind().to_string()))?;
            set.add(glob);
        }
        let set = set.build().map_err(|e| TreeError::Pattern { pattern: patterns.join(" "), why: e.to_string() })?;
        Ok(Self(set))
    }

    fn takes(&self, path: &[u8]) -> bool {
        self.0.is_match(names::to_system(path))
    }
}

/// Looks for artifacts in a workspace that a job may be writing to. Links are never followed, only regular files are taken,
/// `.v6` at the root is passed over. Blocks for about a microsecond per file.
///
/// # Errors
/// [`TreeError::Io`] where the workspace itself cannot be read.
pub fn collect(workspace: &Path, globs: &Globs, previous: &Snapshot) -> Result<Collected, TreeError> {
    let mut found = Collected::default();
    // The depth below which everything is taken, because a directory matched.
    let mut taken: Option<Vec<u8>> = None;
    let root = Dir::open(workspace).map_err(|e| TreeError::io(workspace, e))?;
    let whole = beneath::walk(root, LOOK_ENTRIES_MAX, |_, path, _, meta| {
        if names::check_path(path).is_err() {
            return Step::Skip;
        }
        let is_below = |dir: &Vec<u8>| path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/';
        if !taken.as_ref().is_some_and(is_below) {
            taken = None;
        }
        match meta.kind {
            Kind::Dir => {
                if taken.is_none() && globs.takes(path) {
                    taken = Some(path.to_vec());
                }
            }
            Kind::File if taken.is_some() || globs.takes(path) => {
                if found.snapshot.0.len() == ARTIFACTS_MAX {
                    return Step::Stop;
                }
                let look = (meta.size, meta.mtime_ns, meta.inode);
                if previous.0.get(path) != Some(&look) {
                    let (size, mtime_ns) = (meta.size, meta.mtime_ns);
                    found.changed.push(Found { path: path.to_vec(), size, mtime_ns });
                }
                found.snapshot.0.insert(path.to_vec(), look);
            }
            Kind::File | Kind::Symlink | Kind::Other => {}
        }
        Step::Enter
    });
    found.truncated = !whole.map_err(|e| TreeError::io(workspace, e))?;
    found.changed.sort_by(|a, b| a.path.cmp(&b.path));
    if !found.truncated {
        found.gone = previous.0.keys().filter(|path| !found.snapshot.0.contains_key(*path)).cloned().collect();
    }
    Ok(found)
}
