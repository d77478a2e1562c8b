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
    /// Address that it comes from.
    pub url: Option<String>,
    /// File that it comes from.
    pub file: Option<String>,
    /// Line of that file, from 1.
    pub line: Option<u32>,
    /// Idempotency key: the same person's idea under the same key is the same idea.
    pub key: Option<String>,
    /// Only check it, and tell whether it is there and what it is like: nothing is added.
    pub dry_run: bool,
    /// If an idea says the same already, this becomes an observation about it. For programs that report what they find.
    pub join: bool,
    /// The program that writes it on this person's behalf, under a key and a delegation of its own.
    pub program: Option<String>,
}

/// Something that is said about an idea.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EntryRequest {
    /// observation, argument, evaluation, decision, link, transfer, retraction.
    pub kind: String,
    /// The program that writes it on this person's behalf; it may observe, argue, evaluate and link.
    pub program: Option<String>,
    /// One line.
    pub title: String,
    /// `CommonMark`.
    pub body: String,
    /// Of a retraction: the entry that is taken back; the idea itself without it. Of a transfer: the offer that is taken.
    pub on: Option<String>,
    /// Of a link: how they hang together, such as `supports`.
    pub relation: Option<String>,
    /// Of a link: the idea, `job:ID` or `blob:HASH` that it leads to. Of a transfer: the person it is offered to.
    pub to: Option<String>,
    /// Of an argument: for the idea (true) or against it.
    pub is_for: Option<bool>,
    /// Of an evaluation: what the idea would be worth, 0 to 100.
    pub value: Option<u8>,
    /// Of an evaluation: what it would cost, 0 to 100.
    pub effort: Option<u8>,
    /// Of an evaluation: how sure that is, 0 to 100.
    pub confidence: Option<u8>,
    /// Of an evaluation: a vote for the idea (true) or against it.
    pub vote: Option<bool>,
    /// Of a decision: open, accepted, rejected, deferred, done.
    pub verdict: Option<String>,
}

/// What was written about an idea.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryAdded {
    /// Its name: the hash of its bytes.
    pub id: String,
    /// The idea that it is about.
    pub idea: String,
    /// Nodes that hold it durably by then, this one counted.
    pub durable_on: u32,
}

/// An entry of the ledger that is like one that was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Similar {
    /// The entry.
    pub id: String,
    /// How alike they are, 1 at most.
    pub score: f64,
    /// exact: the same but for the spelling; near: most of the same words.
    #[serde(default)]
    pub method: String,
    /// Its title.
    #[serde(default)]
    pub title: String,
}

/// What was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IdeaAdded {
    /// Its name: the hash of its bytes. Empty for what was only checked and is not there.
    pub id: String,
    /// Whether it was there before, under its key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
    /// The entry that reports it about the idea, where it was to be joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<String>,
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
    /// Retracted ones and observations of commands too.
    pub all: bool,
    /// Observations of commands too: those that jobs serve which name no idea.
    pub commands: bool,
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
    /// open, accepted, rejected, deferred, done, retracted.
    pub status: String,
    /// Entries about it.
    pub entries: u32,
}

/// What is searched for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct IdeaSearch {
    /// Words, in any spelling; `\"several words\"` in this order, `-word` without it.
    pub q: String,
    /// Rows of a page.
    pub limit: Option<u32>,
    /// Where the page before ended (`V6-Next`).
    pub cursor: Option<String>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only what stands so.
    pub status: Option<String>,
    /// Only this person's: the whole id.
    pub owner: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only in this language.
    pub language: Option<String>,
    /// Only what was written then or later, RFC 3339.
    pub since: Option<String>,
    /// Only what was written then or before, RFC 3339.
    pub until: Option<String>,
    /// Only those that a job serves, or none does.
    pub has_job: Option<bool>,
    /// Retracted ones too.
    pub all: bool,
}

/// An idea that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IdeaFound {
    /// As in lists.
    #[serde(flatten)]
    pub row: IdeaRow,
    /// How well it fits; larger is better.
    pub score: f32,
    /// The piece of its text that shows why.
    pub snippet: String,
    /// Where in it the words are: first and past the last character.
    pub highlights: Vec<(usize, usize)>,
}

/// Which ideas are worth a look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct TopQuery {
    /// How many.
    pub limit: Option<u32>,
}

/// An idea and what its rank is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IdeaRanked {
    /// As in lists.
    #[serde(flatten)]
    pub row: IdeaRow,
    /// The sum of its terms, in millionths.
    pub score: i64,
    /// Each term's part, by name.
    pub terms: Vec<(String, f64)>,
}

/// What came of entries that were brought from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdeasImported {
    /// Entries that were new here.
    pub added: u64,
    /// Entries that were here before.
    pub known: u64,
    /// Nodes that hold the new ones durably by then, this one counted.
    pub durable_on: u32,
}

/// Entries from elsewhere: the base64 of the bytes of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdeasImport {
    /// Entries, an idea before what is said about it.
    pub entries: Vec<String>,
}

/// A change of owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandoverView {
    /// The offer.
    pub offer: String,
    /// Its acceptance; none while nobody took it.
    pub acceptance: Option<String>,
    /// Person whose it was.
    pub from: String,
    /// Person whose it is from then on.
    pub to: String,
}

/// A link from or to an idea.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LinkView {
    /// The link's entry.
    pub entry: String,
    /// How they hang together, from the link's idea to its target.
    pub relation: String,
    /// The idea that it is a link of.
    pub from: String,
    /// What it leads to: an idea, `job:ID` or `blob:HASH`.
    pub to: String,
    /// Title of the idea at its other end.
    pub title: Option<String>,
    /// Person who made it.
    pub person: String,
    /// How sure that is, in thousandths, where it was found and not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u16>,
    /// How it was found: exact, near. None: somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Whether it counts: somebody said so, or the policy `duplicates` does.
    #[serde(default)]
    pub accepted: bool,
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
    /// Key that signed it: a node's or a program's.
    pub author: String,
    /// Name of the program that wrote it on the person's behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Person whose it is.
    pub person: String,
    /// When it was written.
    pub created: String,
    /// Whether it was taken back.
    #[serde(default)]
    pub retracted: bool,
    /// What it says beside its text: the link, the numbers, the verdict, the outcome.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// An idea with all that was said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdeaView {
    /// As in lists.
    #[serde(flatten)]
    pub row: IdeaRow,
    /// Name of the program that wrote it on its person's behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// `CommonMark`.
    pub body: String,
    /// Language as in BCP 47; empty where nobody said it.
    pub language: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// What was said about it, by time.
    pub about: Vec<EntryView>,
    /// How it came to its owner; the first is the earliest.
    #[serde(default)]
    pub handovers: Vec<HandoverView>,
    /// Handovers that another one had forestalled.
    #[serde(default)]
    pub forestalled: Vec<HandoverView>,
    /// Offers that nobody took yet.
    #[serde(default)]
    pub offers: Vec<HandoverView>,
    /// Links from it.
    #[serde(default)]
    pub links: Vec<LinkView>,
    /// Links to it.
    #[serde(default)]
    pub backlinks: Vec<LinkView>,
    /// Whether people write a text about it together (`/v1/notes/idea:ID`).
    #[serde(default)]
    pub has_note: bool,
    /// Jobs that serve it and whose history is still kept.
    #[serde(default)]
    pub jobs: Vec<String>,
    /// What came of the jobs that served it, each once, by time.
    #[serde(default)]
    pub outcomes: Vec<OutcomeView>,
}

/// Which part of the graph of ideas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct GraphQuery {
    /// The idea in the middle: an id, or an unambiguous part of one. Without it all ideas.
    pub idea: Option<String>,
    /// Links that are followed from it.
    pub depth: Option<u32>,
}

/// Ideas, and what they hang together with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdeaGraph {
    /// Ideas, jobs, blobs.
    pub nodes: Vec<GraphNode>,
    /// Links between them.
    pub edges: Vec<GraphEdge>,
    /// Whether that is all: a graph holds no more than 2000 nodes.
    pub complete: bool,
}

/// A thing in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphNode {
    /// An idea's id, `job:ID`, `blob:HASH`.
    pub id: String,
    /// idea, observation, issue, job, blob; missing: an idea that is not here.
    pub kind: String,
    /// One line.
    pub title: String,
    /// How an idea stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// A link in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphEdge {
    /// From which node.
    pub from: String,
    /// How they hang together.
    pub relation: String,
    /// To which node.
    pub to: String,
}

/// What came of a job that served an idea.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// The entry's name.
    pub entry: String,
    /// The job.
    pub job: String,
    /// done, failed, cancelled, skipped.
    pub state: String,
    /// Exit code; of an array that of the first task that failed.
    pub exit: Option<i32>,
    /// Tasks in all.
    pub tasks: u32,
    /// Tasks that are done.
    pub done: u32,
    /// Running time of all accepted attempts, in milliseconds.
    pub duration_ms: u64,
    /// What they cost, in micros.
    pub cost_micros: u64,
    /// Nodes that ran it.
    pub nodes: Vec<String>,
    /// Its trace.
    pub trace: String,
    /// Its artifacts; of many, the first.
    pub artifacts: Vec<OutcomeArtifact>,
    /// The node that accepted the result.
    pub author: String,
    /// When it did.
    pub created: String,
}

/// An artifact in an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeArtifact {
    /// Its path.
    pub path: String,
    /// Its bytes, by hash.
    pub blob: String,
    /// How many.
    pub size: u64,
}
