//! What the entries about one subject come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{Kind, Signed};
use crate::ids::{EntryId, NodeId, PersonId};
use crate::roster::Roster;
use crate::state_hash::Sum;

/// How a subject stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Status {
    /// Nothing was decided of it.
    Open = 0,
    /// Its author took it back; it stays, and is not shown in lists unless they ask for it.
    Retracted = 1,
}

impl Status {
    /// All, by number.
    pub const ALL: [Self; 2] = [Self::Open, Self::Retracted];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retracted => "retracted",
        }
    }
}

/// A subject and all that was said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its first entry.
    pub root: Signed,
    /// The entries about it, by time and name.
    pub about: Vec<Signed>,
    /// How it stands.
    pub status: Status,
    /// The person whose it is.
    pub owner: PersonId,
}

/// A subject's line in lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdeaRow {
    /// Its part in the state hash.
    #[serde(with = "serde_bytes")]
    pub digest: Sum,
    /// What there is to show; `None` while its first entry is not here.
    pub shown: Option<Shown>,
}

/// What a list shows of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub id: EntryId,
    /// What sort of entry its first one is.
    pub kind: Kind,
    /// The title.
    pub title: String,
    /// The device that signed it.
    pub node: NodeId,
    /// Whose it was first.
    pub person: PersonId,
    /// Whose it is.
    pub owner: PersonId,
    /// When it was written, in milliseconds since 1970, by its device's clock.
    pub created_ms: u64,
    /// Index in [`Status::ALL`].
    pub status: u8,
    /// Entries about it.
    pub entries: u32,
}

impl Shown {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::ALL.get(usize::from(self.status)).copied().unwrap_or(Status::Open)
    }
}

/// Folds the entries of one document: `None` while its first one is not among them. The order does not matter, nor does it
/// how often an entry comes.
#[must_use]
pub fn fold(entries: impl IntoIterator<Item = Signed>, roster: &Roster) -> Option<Subject> {
    let mut by_id: BTreeMap<EntryId, Signed> = entries.into_iter().map(|entry| (entry.id, entry)).collect();
    let root = by_id.values().find(|entry| entry.entry.about.is_none())?.id;
    let root = by_id.remove(&root)?;
    let mut about: Vec<Signed> = by_id.into_values().filter(|entry| entry.entry.about == Some(root.id)).collect();
    about.sort_by_key(|entry| (entry.entry.created_ms, entry.id));
    let owner = root.entry.person;
    let author = root.entry.node;
    let may_retract = |entry: &Signed| {
        let node = entry.entry.node;
        let is_admin = roster.role(&node).is_some_and(|role| role.may_administer());
        node == author || roster.person(&node) == Some(owner) || is_admin
    };
    let retracted = about.iter().any(|entry| entry.entry.kind == Kind::Retraction && may_retract(entry));
    let status = if retracted { Status::Retracted } else { Status::Open };
    Some(Subject { root, about, status, owner })
}

impl Subject {
    /// What a list shows of it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let entry = &self.root.entry;
        Shown {
            id: self.root.id,
            kind: entry.kind.clone(),
            title: entry.title.clone(),
            node: entry.node,
            person: entry.person,
            owner: self.owner,
            created_ms: entry.created_ms,
            status: self.status as u8,
            entries: u32::try_from(self.about.len()).unwrap_or(u32::MAX),
        }
    }
}
