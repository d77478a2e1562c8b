//! Checkpoints: directories that a task moved into its checkpoint directory.
//!
//! A task writes elsewhere (or under a name that starts with a dot or ends in `.tmp`) and renames, so that what appears
//! under another name is complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::beneath::{Dir, Kind};
use super::{TreeError, names};

/// Checkpoints looked at; further ones wait until earlier ones are removed.
const CHECKPOINTS_MAX: usize = 10_000;

/// A checkpoint that has appeared. Its order is its number, then its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// The number at the end of its name, 0 where there is none: `12`, `step-000012` and `epoch12` are all 12.
    pub number: u64,
    /// Its directory's name.
    pub name: Vec<u8>,
}

impl Checkpoint {
    /// Its directory below the checkpoint directory.
    #[must_use]
    pub fn dir(&self, checkpoints: &Path) -> PathBuf {
        checkpoints.join(names::to_system(&self.name))
    }
}

/// The checkpoints that have appeared beside those seen, in order. Links and files are passed over.
///
/// # Errors
/// [`TreeError::Io`] where the directory cannot be read.
pub fn new_checkpoints(dir: &Path, seen: &BTreeSet<Vec<u8>>) -> Result<Vec<Checkpoint>, TreeError> {
    let open = Dir::open(dir).map_err(|e| TreeError::io(dir, e))?;
    let (names, _) = open.names(CHECKPOINTS_MAX).map_err(|e| TreeError::io(dir, e))?;
    let complete = names.into_iter().filter(|name| !name.starts_with(b".") && !name.ends_with(b".tmp"));
    let fresh = complete.filter(|name| !seen.contains(name));
    let dirs = fresh.filter(|name| open.meta(name).is_ok_and(|meta| meta.kind == Kind::Dir));
    let mut checkpoints: Vec<_> = dirs.map(|name| Checkpoint { number: number(&name), name }).collect();
    checkpoints.sort();
    Ok(checkpoints)
}

fn number(name: &[u8]) -> u64 {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let digits = std::str::from_utf8(&name[name.len() - digits..]).unwrap_or_default();
    digits.parse().unwrap_or(if digits.is_empty() { 0 } else { u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_in_the_order_of_their_numbers_once_they_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["step-10", "step-9", ".step-11", "12.tmp", "final"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("20"), "a file").unwrap();
        let found = new_checkpoints(dir.path(), &BTreeSet::from([b"step-9".to_vec()])).unwrap();
        let names: Vec<_> = found.iter().map(|c| (c.number, c.name.as_slice())).collect();
        assert_eq!(names, [(0, &b"final"[..]), (10, b"step-10")]);
        std::fs::rename(dir.path().join(".step-11"), dir.path().join("step-11")).unwrap();
        let seen = found.into_iter().map(|c| c.name).chain([b"step-9".to_vec()]).collect();
        assert_eq!(new_checkpoints(dir.path(), &seen).unwrap()[0].number, 11);
    }
}
