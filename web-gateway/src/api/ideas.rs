//! Ideas and what is said about them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An idea, an observation, or something about one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdeaRequest {
    /// One line.
    pub title: String,
    /// `CommonMark`.
    pub body: String,
    /// idea (the default), observation, issue.
    pub kind: Option<String>,
    /// Language as in BCP 47.
    pub language: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// An entry of the ledger that is like one that was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Similar {
    /// The entry.
    pub id: String,
    /// How alike they are, 1 at most.
    pub score: f64,
}

/// What was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IdeaAdded {
    /// Its name: the hash of its bytes.
    pub id: String,
    /// Nodes that hold it durably by then, this one counted.
    pub durable_on: u32,
    /// What is like it, best first. It was added all the same.
    pub similar: Vec<Similar>,
}

/// Which ideas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct IdeasQuery {
    /// Rows of a page.
    pub limit: Option<u32>,
    /// Where the page before ended (`V6-Next`).
    pub cursor: Option<String>,
    /// Retracted ones too.
    pub all: bool,
}

/// An idea in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdeaRow {
    /// Its name.
    pub id: String,
    /// idea, observation, issue, …
    pub kind: String,
    /// One line.
    pub title: String,
    /// Node that signed it.
    pub author: String,
    /// Person whose it was first.
    pub person: String,
    /// Person whose it is.
    pub owner: String,
    /// When it was written.
    pub created: String,
    /// open, retracted.
    pub status: String,
    /// Entries about it.
    pub entries: u32,
}

/// One entry about an idea.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryView {
    /// Its name.
    pub id: String,
    /// What sort of entry it is.
    pub kind: String,
    /// One line.
    pub title: String,
    /// `CommonMark`.
    pub body: String,
    /// Node that signed it.
    pub author: String,
    /// Person whose it is.
    pub person: String,
    /// When it was written.
    pub created: String,
}

/// An idea with all that was said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdeaView {
    /// As in lists.
    #[serde(flatten)]
    pub row: IdeaRow,
    /// `CommonMark`.
    pub body: String,
    /// Language as in BCP 47; empty where nobody said it.
    pub language: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What was said about it, by time.
    pub about: Vec<EntryView>,
}
