//! Documents and the grammar of their registers' keys.
//!
//! A document is a set of registers `(author, key) → value` or a notebook. What may be written is decided here from the
//! bytes alone, so that no order of arrival can change the answer; what a value *means* is the folds' business.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{EntryId, InviteId, JobId, NodeId, NoteId, PersonId};
use crate::limits::{ATTEMPTS_MAX, KEY_BYTES_MAX, POLICY_NAME_BYTES_MAX, TASKS_PER_JOB_MAX};

/// What kind of document it is. The number is part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DocKind {
    /// Who belongs to the mesh.
    Roster = 1,
    /// One job.
    Job = 2,
    /// What an author says of its own feed: checkpoints.
    Feed = 3,
    /// A text that people write together.
    Note = 4,
    /// The entries about one subject of the ledger.
    Ledger = 5,
}

/// A document's name: its kind and 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId {
    /// What kind of document it is.
    pub kind: DocKind,
    /// Which one of its kind; zero where there is only one.
    pub id: [u8; 16],
}

impl DocId {
    /// Bytes of a document's name on the wire.
    pub const LEN: usize = 17;
    /// The one roster.
    pub const ROSTER: Self = Self { kind: DocKind::Roster, id: [0; 16] };
    /// The one document of feeds' statements about themselves.
    pub const FEED: Self = Self { kind: DocKind::Feed, id: [0; 16] };

    /// The document of a job.
    #[must_use]
    pub const fn job(id: JobId) -> Self {
        Self { kind: DocKind::Job, id: id.0 }
    }

    /// The document of a notebook.
    #[must_use]
    pub const fn note(id: NoteId) -> Self {
        Self { kind: DocKind::Note, id: id.0 }
    }

    /// The document of all entries about a subject: named by the first half of the subject's name.
    #[must_use]
    pub fn ledger(subject: EntryId) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&subject.0[..16]);
        Self { kind: DocKind::Ledger, id }
    }

    /// The name's bytes: kind, then id.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.kind as u8;
        bytes[1..].copy_from_slice(&self.id);
        bytes
    }

    /// Reads a name; `None` for an unknown kind, a wrong length, or an id where there is only one document.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let kind = match bytes[0] {
            1 => DocKind::Roster,
            2 => DocKind::Job,
            3 => DocKind::Feed,
            4 => DocKind::Note,
            5 => DocKind::Ledger,
            _ => return None,
        };
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[1..]);
        let singleton = matches!(kind, DocKind::Roster | DocKind::Feed);
        (!singleton || id == [0; 16]).then_some(Self { kind, id })
    }

    /// The job that this document is of, if it is one.
    #[must_use]
    pub fn as_job(&self) -> Option<JobId> {
        (self.kind == DocKind::Job).then_some(JobId(self.id))
    }
}

impl std::fmt::Display for DocId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DocKind::Roster => f.write_str("roster"),
            DocKind::Feed => f.write_str("feed"),
            DocKind::Job => write!(f, "job/{}", JobId(self.id)),
            DocKind::Note => write!(f, "note/{}", NoteId(self.id)),
            DocKind::Ledger => write!(f, "ledger/{}", data_encoding::HEXLOWER.encode(&self.id)),
        }
    }
}

impl std::str::FromStr for DocId {
    type Err = crate::ids::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            None if text == "roster" => Ok(Self::ROSTER),
            None if text == "feed" => Ok(Self::FEED),
            Some(("note", id)) => Ok(Self::note(id.parse()?)),
            Some(("job", id)) => Ok(Self::job(id.parse()?)),
            // An entry's document has an id of a note's form.
            Some(("ledger", id)) => Ok(Self { kind: DocKind::Ledger, id: id.parse::<NoteId>()?.0 }),
            _ => Ok(Self::job(text.parse()?)),
        }
    }
}

impl Serialize for DocId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for DocId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("no such kind of document"))
    }
}

/// A half-open range of task indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskRange {
    /// First task.
    pub start: u32,
    /// One past the last task; above `start`.
    pub end: u32,
}

impl TaskRange {
    /// Tasks in the range.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.end - self.start
    }

    /// Whether no task is in it: never true for a range that was parsed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Whether a task is in it.
    #[must_use]
    pub const fn contains(&self, task: u32) -> bool {
        self.start <= task && task < self.end
    }

    /// Whether two ranges share a task.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn parse(text: &str) -> Option<Self> {
        let (start, end) = text.split_once('-')?;
        let range = Self { start: number(start)?, end: number(end)? };
        (range.start < range.end && range.end <= TASKS_PER_JOB_MAX).then_some(range)
    }
}

impl std::fmt::Display for TaskRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// A register's key, read by the grammar of its document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `mesh`: the founding.
    Mesh,
    /// `person/<person>/<n>`.
    Person(PersonId, u32),
    /// `invite/<invite>`.
    Invite(InviteId),
    /// `member/<node>`: an admission.
    Member(NodeId),
    /// `role/<node>/<n>`.
    Role(NodeId, u32),
    /// `revoke/<node>`.
    Revoke(NodeId),
    /// `recover/<self>`: a node signed in by the recovery key.
    Recover(NodeId),
    /// `policy/<name>/<n>`: what the mesh as a whole wants; of several the highest number counts.
    Policy(String, u32),
    /// `spec`.
    Spec,
    /// `control/<n>`.
    Control(u32),
    /// `claim/<attempt>/<start>-<end>`.
    Claim(u32, TaskRange),
    /// `run/<attempt>/<start>-<end>`.
    Run(u32, TaskRange),
    /// `lost/<attempt>/<start>-<end>/<self>`: the watcher that writes it.
    Lost(u32, TaskRange, NodeId),
    /// `accept/<start>-<end>`.
    Accept(TaskRange),
    /// `seal`.
    Seal,
    /// `entry/<hash of its value>`.
    Entry(EntryId),
    /// `checkpoint/<node>`: of the feed of its writer, or of one who is gone by an admin.
    Checkpoint(NodeId),
}

/// Why a key may not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No such key in this kind of document.
    #[error("no such key in this kind of document")]
    Grammar,
    /// The key names a member, and another member's feed writes it.
    #[error("the key belongs to another member")]
    Foreign,
}

impl Key {
    /// Reads a key of `doc` that `author` writes.
    ///
    /// # Errors
    /// [`KeyError`]: not in the grammar, or another member's.
    pub fn parse(doc: DocId, author: NodeId, text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::Grammar);
        }
        let mut parts = text.split('/');
        let head = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let key = match doc.kind {
            DocKind::Roster => roster_key(head, &rest),
            DocKind::Job => job_key(head, &rest),
            DocKind::Feed => match (head, &rest[..]) {
                ("checkpoint", [node]) => node.parse().ok().map(Self::Checkpoint),
                _ => None,
            },
            DocKind::Ledger => match (head, &rest[..]) {
                ("entry", [id]) => id.parse().ok().map(Self::Entry),
                _ => None,
            },
            DocKind::Note => None,
        }
        .ok_or(KeyError::Grammar)?;
        if let Self::Lost(_, _, node) | Self::Recover(node) = &key
            && *node != author
        {
            return Err(KeyError::Foreign);
        }
        Ok(key)
    }

    /// Whether a second write of the same author to this key has no effect.
    #[must_use]
    pub const fn is_write_once(&self) -> bool {
        !matches!(self, Self::Run(..) | Self::Lost(..) | Self::Checkpoint(_))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Person(id, n) => write!(f, "person/{id}/{n}"),
            Self::Invite(id) => write!(f, "invite/{id}"),
            Self::Member(id) => write!(f, "member/{id}"),
            Self::Role(id, n) => write!(f, "role/{id}/{n}"),
            Self::Revoke(id) => write!(f, "revoke/{id}"),
            Self::Recover(id) => write!(f, "recover/{id}"),
            Self::Policy(name, n) => write!(f, "policy/{name}/{n}"),
            Self::Spec => f.write_str("spec"),
            Self::Control(n) => write!(f, "control/{n}"),
            Self::Claim(attempt, range) => write!(f, "claim/{attempt}/{range}"),
            Self::Run(attempt, range) => write!(f, "run/{attempt}/{range}"),
            Self::Lost(attempt, range, node) => write!(f, "lost/{attempt}/{range}/{node}"),
            Self::Accept(range) => write!(f, "accept/{range}"),
            Self::Seal => f.write_str("seal"),
            Self::Entry(id) => write!(f, "entry/{id}"),
            Self::Checkpoint(node) => write!(f, "checkpoint/{node}"),
        }
    }
}

fn roster_key(head: &str, rest: &[&str]) -> Option<Key> {
    Some(match (head, rest) {
        ("mesh", []) => Key::Mesh,
        ("person", [id, n]) => Key::Person(id.parse().ok()?, number(n)?),
        ("invite", [id]) => Key::Invite(id.parse().ok()?),
        ("member", [id]) => Key::Member(id.parse().ok()?),
        ("role", [id, n]) => Key::Role(id.parse().ok()?, number(n)?),
        ("revoke", [id]) => Key::Revoke(id.parse().ok()?),
        ("recover", [id]) => Key::Recover(id.parse().ok()?),
        ("policy", [name, n]) if is_policy_name(name) => Key::Policy((*name).to_owned(), number(n)?),
        _ => return None,
    })
}

/// A policy's name: small letters and dashes.
fn is_policy_name(name: &str) -> bool {
    (1..=POLICY_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
}

fn job_key(head: &str, rest: &[&str]) -> Option<Key> {
    Some(match (head, rest) {
        ("spec", []) => Key::Spec,
        ("seal", []) => Key::Seal,
        ("control", [n]) => Key::Control(number(n)?),
        ("claim", [n, range]) => Key::Claim(attempt(n)?, TaskRange::parse(range)?),
        ("run", [n, range]) => Key::Run(attempt(n)?, TaskRange::parse(range)?),
        ("lost", [n, range, node]) => Key::Lost(attempt(n)?, TaskRange::parse(range)?, node.parse().ok()?),
        ("accept", [range]) => Key::Accept(TaskRange::parse(range)?),
        _ => return None,
    })
}

fn attempt(text: &str) -> Option<u32> {
    number(text).filter(|n| (1..=ATTEMPTS_MAX).contains(n))
}

/// A decimal number in its one spelling: no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([1; 32]);
    const YOU: NodeId = NodeId([2; 32]);
    const JOB: DocId = DocId::job(JobId([7; 16]));

    #[test]
    fn a_key_has_one_spelling() {
        let range = TaskRange { start: 0, end: 10 };
        for key in [Key::Claim(1, range), Key::Lost(2, range, ME), Key::Accept(range), Key::Spec, Key::Control(0)] {
            assert_eq!(Key::parse(JOB, ME, &key.to_string()), Ok(key));
        }
        for text in ["claim/01/0-1", "claim/1/1-1", "claim/0/0-1", "claim/1/0-01", "claim/+1/0-1", "spec/", "", "claim"]
        {
            assert_eq!(Key::parse(JOB, ME, text), Err(KeyError::Grammar), "{text}");
        }
    }

    #[test]
    fn a_key_that_names_a_member_is_that_members_alone() {
        let key = Key::Lost(1, TaskRange { start: 0, end: 1 }, YOU).to_string();
        assert_eq!(Key::parse(JOB, ME, &key), Err(KeyError::Foreign));
    }

    #[test]
    fn a_key_of_another_kind_of_document_is_refused() {
        assert_eq!(Key::parse(DocId::ROSTER, ME, "spec"), Err(KeyError::Grammar));
        assert_eq!(Key::parse(JOB, ME, "mesh"), Err(KeyError::Grammar));
    }
}
