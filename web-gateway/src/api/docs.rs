//! Feeds, documents and notebooks as they are shown: what the CRDTs hold and who wrote it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedView {
    /// Its author's node id.
    pub author: String,
    /// The author's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Number of its last bundle.
    pub seq: u64,
    /// Hash of that bundle.
    pub hash: String,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Why, where it is.
    #[serde(default)]
    pub reason: Option<String>,
    /// Bodies up to this bundle may be dropped (last checkpoint).
    #[serde(default)]
    pub checkpoint: Option<u64>,
}

/// What a check of all feeds found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedCheck {
    /// Whether every feed is whole.
    pub ok: bool,
    /// One row per feed.
    pub feeds: Vec<FeedCheckRow>,
}

/// What a check of one feed found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedCheckRow {
    /// Its author's node id.
    pub author: String,
    /// Bundles read.
    pub bundles: u64,
    /// Whether hashes, links and signatures hold.
    pub ok: bool,
    /// The first problem, with the bundle's number.
    #[serde(default)]
    pub problem: Option<String>,
}

/// A document in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocRow {
    /// Its identifier, as `v6 doc show` takes it.
    pub id: String,
    /// roster, ledger, job, note, policy, budget.
    pub kind: String,
    /// What it is about, for people.
    #[serde(default)]
    pub title: Option<String>,
    /// Number of changes.
    pub changes: u64,
    /// Authors who wrote to it.
    pub authors: u32,
}

/// A document with its registers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DocDetail {
    /// Its identifier.
    pub id: String,
    /// roster, ledger, job, note, policy, budget.
    pub kind: String,
    /// Its registers by key, then author; of a notebook none.
    pub registers: Vec<RegisterView>,
    /// A notebook's text.
    #[serde(default)]
    pub text: Option<String>,
}

/// One register.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisterView {
    /// Its key.
    pub key: String,
    /// Who wrote it.
    pub author: String,
    /// Bundle that set it.
    pub seq: u64,
    /// When, by the author's clock.
    pub at: String,
    /// Its value.
    #[schema(value_type = Object)]
    pub value: serde_json::Value,
    /// Why the fold ignores it, where it does.
    #[serde(default)]
    pub ignored: Option<String>,
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// Who made it.
    pub author: String,
    /// Bundle that holds it.
    pub seq: u64,
    /// When, by the author's clock.
    pub at: String,
    /// Hash of the change.
    pub hash: String,
    /// Key that it sets; of a notebook none.
    #[serde(default)]
    pub key: Option<String>,
    /// Value that it sets, where its body is still there.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub value: Option<serde_json::Value>,
    /// What it does, in words.
    #[serde(default)]
    pub summary: Option<String>,
}

/// A notebook's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoteView {
    /// Its identifier.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Its version: send it back as the base of an edit.
    pub heads: Vec<String>,
    /// Nodes that wrote to it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// Nodes that hold the last edit durably, after an edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_on: Option<u32>,
}

/// An edit of a notebook: the whole text wanted, and the version that it was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoteEdit {
    /// The text as it shall read.
    pub text: String,
    /// Heads of the version that was edited; without them the newest.
    #[serde(default)]
    pub base: Option<Vec<String>>,
}
