//! The bytes that name a tree, and the decoder that trusts nobody.
//!
//! `[1, [[path, 0, hash, size, executable] | [path, 1, target] | [path, 2], …]]`, canonical CBOR, sorted by path.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use ciborium::Value;
use crdt::ids::BlobHash;

use super::{ENTRIES_MAX, Entry, EntryKind, MANIFEST_BYTES_MAX, names};

/// The format's version.
const VERSION: u8 = 1;

/// The sorted, checked entries of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Why entries or bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More than [`MANIFEST_BYTES_MAX`] bytes or [`ENTRIES_MAX`] entries.
    #[error("the manifest is larger than a manifest may be")]
    TooLarge,
    /// Not the format.
    #[error("not a manifest: {0}")]
    Format(String),
    /// An entry that no tree may have.
    #[error("the manifest's entry {path} is refused: {why}", path = path.display())]
    Entry {
        /// Which.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
}

impl Manifest {
    /// Sorts and checks entries.
    ///
    /// # Errors
    /// [`ManifestError::Entry`] names the first entry that no tree may have.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self::checked(entries)
    }

    /// The entries, sorted by path.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            EntryKind::File { size, .. } => size,
            EntryKind::Symlink { .. } | EntryKind::Dir => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// The blobs that it names, each once, sorted.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobHash> {
        let mut hashes: Vec<BlobHash> = self.entries.iter().filter_map(Entry::blob).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// The bytes whose hash names the tree.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(Entry::to_value).collect();
        crdt::cbor::encode(&Value::Array(vec![Value::from(VERSION), Value::Array(entries)]))
    }

    /// Decodes and checks a manifest from anybody.
    ///
    /// # Errors
    /// [`ManifestError`]: nothing of such a manifest may be written.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let format = |why: &str| ManifestError::Format(why.to_owned());
        let value: Value = crdt::cbor::decode(bytes).map_err(|e| ManifestError::Format(e.to_string()))?;
        let Value::Array(parts) = value else { return Err(format("no list")) };
        let Ok([version, Value::Array(entries)]) = <[Value; 2]>::try_from(parts) else {
            return Err(format("not a version and a list"));
        };
        if version != Value::from(VERSION) {
            return Err(format("made by a later version of v6"));
        }
        if entries.len() > ENTRIES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let entries = entries.into_iter().map(Entry::from_value).collect::<Option<Vec<_>>>();
        Self::checked(entries.ok_or_else(|| format("an entry is none"))?)
    }

    fn checked(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.len() > ENTRIES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let refuse = |entry: &Entry, why| Err(ManifestError::Entry { path: names::to_system(&entry.path), why });
        for two in entries.windows(2) {
            if two[0].path >= two[1].path {
                return refuse(&two[1], "it occurs twice or out of order");
            }
        }
        let not_dirs: HashSet<&[u8]> =
            entries.iter().filter(|e| e.kind != EntryKind::Dir).map(|e| e.path.as_slice()).collect();
        let links: HashMap<&[u8], &[u8]> = entries.iter().filter_map(Entry::link).collect();
        for entry in &entries {
            if let Err(why) = names::check_path(&entry.path) {
                return refuse(entry, why);
            }
            let mut above = names::parent(&entry.path);
            while !above.is_empty() {
                if not_dirs.contains(above) {
                    return refuse(entry, "its path leads through a file or a link");
                }
                above = names::parent(above);
            }
            if let Some((path, target)) = entry.link()
                && let Err(why) = names::check_link(path, target, &links)
            {
                return refuse(entry, why);
            }
        }
        if cfg!(windows) {
            let mut folded = HashSet::new();
            for entry in &entries {
                if !folded.insert(String::from_utf8_lossy(&entry.path).to_lowercase()) {
                    return refuse(entry, "another name differs by its case only, which Windows does not tell apart");
                }
            }
        }
        Ok(Self { entries })
    }
}

impl Entry {
    /// The blob of a file.
    #[must_use]
    pub fn blob(&self) -> Option<BlobHash> {
        match self.kind {
            EntryKind::File { hash, .. } => Some(hash),
            EntryKind::Symlink { .. } | EntryKind::Dir => None,
        }
    }

    fn link(&self) -> Option<(&[u8], &[u8])> {
        match &self.kind {
            EntryKind::Symlink { target } => Some((&self.path, target)),
            EntryKind::File { .. } | EntryKind::Dir => None,
        }
    }

    fn to_value(&self) -> Value {
        let mut fields = vec![Value::Bytes(self.path.clone())];
        match &self.kind {
            EntryKind::File { hash, size, executable } => fields.extend([
                Value::from(0),
                Value::Bytes(hash.0.to_vec()),
                Value::from(*size),
                Value::Bool(*executable),
            ]),
            EntryKind::Symlink { target } => fields.extend([Value::from(1), Value::Bytes(target.clone())]),
            EntryKind::Dir => fields.push(Value::from(2)),
        }
        Value::Array(fields)
    }

    fn from_value(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?.into_iter();
        let path = fields.next()?.into_bytes().ok()?;
        let kind = match u8::try_from(fields.next()?.as_integer()?).ok()? {
            0 => EntryKind::File {
                hash: BlobHash(fields.next()?.into_bytes().ok()?.try_into().ok()?),
                size: u64::try_from(fields.next()?.as_integer()?).ok()?,
                executable: fields.next()?.as_bool()?,
            },
            1 => EntryKind::Symlink { target: fields.next()?.into_bytes().ok()? },
            2 => EntryKind::Dir,
            _ => return None,
        };
        fields.next().is_none().then_some(Self { path, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str) -> Entry {
        let kind = EntryKind::File { hash: BlobHash([1; 32]), size: 5, executable: false };
        Entry { path: path.into(), kind }
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry { path: path.into(), kind: EntryKind::Symlink { target: target.into() } }
    }

    fn dir(path: &str) -> Entry {
        Entry { path: path.into(), kind: EntryKind::Dir }
    }

    fn raw(entries: &[Entry]) -> Vec<u8> {
        let entries = entries.iter().map(Entry::to_value).collect();
        crdt::cbor::encode(&Value::Array(vec![Value::from(VERSION), Value::Array(entries)]))
    }

    #[test]
    fn a_manifest_survives_its_bytes() {
        let manifest =
            Manifest::new(vec![file("b/c"), link("b/d", "c"), dir("a"), file("b-x"), file("مرحبا")]).unwrap();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        assert_eq!(manifest.size_bytes(), 15);
        assert_eq!(manifest.blobs(), [BlobHash([1; 32])]);
    }

    #[test]
    fn hostile_entries_are_refused_with_their_name() {
        for (entries, why) in [
            (vec![file("../x")], "`..`"),
            (vec![file("/x")], "absolute"),
            (vec![file("a//x")], "empty"),
            (vec![file("a\0")], "NUL"),
            (vec![file("a"), file("a")], "twice"),
            (vec![file("b"), file("a")], "order"),
            (vec![file("a"), file("a/b")], "through"),
            (vec![link("a", "b"), file("a/b")], "through"),
            (vec![link("a", "../b")], "out of"),
            (vec![link("a", "/b")], "absolute"),
            (vec![file(".v6/home/.bashrc")], ".v6"),
        ] {
            let refused = Manifest::decode(&raw(&entries)).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        assert!(Manifest::decode(&raw(&[dir("a"), file("a/b")])).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::decode(&bytes);
        }

        #[test]
        fn a_damaged_manifest_never_panics(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = Manifest::new(vec![file("a/b"), link("c", "a/b"), dir("d")]).unwrap().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Manifest::decode(&bytes);
        }
    }
}
