//! What a mirror needs of a node, and what it tells of itself.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A bundle of a feed as it is stored, with what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorBundle {
    /// Its place in the feed.
    pub seq: u64,
    /// Its name.
    pub hash: String,
    /// When, by its author's clock.
    pub at: String,
    /// The whole bundle as it travels.
    pub wire: Bytes,
    /// What each of its changes is about, in their order.
    pub touches: Vec<Touched>,
}

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// The roster.
    Roster,
    /// A job, by its whole id.
    Job(String),
    /// A subject of the ledger, by the beginning of its id.
    Idea(String),
    /// A text that people write together.
    Note(String),
    /// What an author says of its own feed.
    Feed(String),
}

impl Touched {
    /// Its kind and id in words.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Roster => ("roster", ""),
            Self::Job(id) => ("job", id),
            Self::Idea(id) => ("idea", id),
            Self::Note(id) => ("note", id),
            Self::Feed(id) => ("feed", id),
        }
    }
}

/// How a mirror stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorView {
    /// postgres, s3 or nats.
    pub kind: String,
    /// How old the oldest bundle is that it does not hold yet; 0: it holds all.
    pub lag_ms: u64,
    /// Bundles that it does not hold yet.
    pub pending: u64,
    /// What keeps it from going on at the moment.
    pub error: Option<String>,
}

/// How a mirror compares with the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorCheck {
    /// postgres, s3 or nats.
    pub kind: String,
    /// Whether both hold the same.
    pub ok: bool,
    /// Jobs compared.
    pub jobs: u64,
    /// Ideas compared.
    pub ideas: u64,
    /// What differs, 100 at most.
    pub differences: Vec<String>,
}
