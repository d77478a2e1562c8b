//! What an entry says: kinds, links and the other details, and the bounds of each.
//!
//! Fields that are absent are empty. What a newer version adds is kept in the entry's bytes, and names that this version does
//! not know are kept as they are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::EntryError;
use crate::ids::{BlobHash, EntryId, JobId, NodeId, PersonId, TraceId};
use crate::limits::{
    ENTRY_ATTACHMENTS_MAX, ENTRY_BODY_BYTES_MAX, ENTRY_NAME_BYTES_MAX, ENTRY_SEEN_MAX, ENTRY_TAG_BYTES_MAX,
    ENTRY_TAGS_MAX, ENTRY_TITLE_BYTES_MAX, OUTCOME_ARTIFACTS_MAX, OUTCOME_NODES_MAX,
};

macro_rules! names {
    ($(#[$doc_of_all:meta])* $all:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc_of_all])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $all {
            $($(#[$doc])* $name,)*
            /// Of a newer version.
            Other(String),
        }

        impl $all {
            /// Those that this version knows.
            pub const KNOWN: &[&str] = &[$($text),*];

            /// Its name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for $all {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl Serialize for $all {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $all {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::from(String::deserialize(deserializer)?.as_str()))
            }
        }
    };
}

names! {
    /// What sort of entry it is. One that this version does not know is kept and passed on as it is.
    Kind {
        /// Something that was seen or measured.
        Observation = "observation",
        /// Something that might be done.
        Idea = "idea",
        /// Something that is wrong.
        Issue = "issue",
        /// For or against its subject.
        Argument = "argument",
        /// Value, effort, confidence or a vote that somebody gives its subject.
        Evaluation = "evaluation",
        /// What was decided of its subject.
        Decision = "decision",
        /// A job that serves its subject.
        Task = "task",
        /// An attempt of such a job.
        Attempt = "attempt",
        /// Something that was made.
        Artifact = "artifact",
        /// What came of a job that serves its subject.
        Outcome = "outcome",
        /// Ties its subject to another.
        Link = "link",
        /// Offers its subject to another person, or takes such an offer.
        Transfer = "transfer",
        /// Takes an entry back: it is hidden, and stays.
        Retraction = "retraction",
        /// Lends a program the right to act for a person.
        KeyDelegation = "key-delegation",
    }
}

names! {
    /// How two things hang together: from the link's subject to its target.
    Relation {
        /// The target is more general.
        Broader = "broader",
        /// The target is more special.
        Narrower = "narrower",
        /// They belong together.
        Related = "related",
        /// The subject came out of the target.
        DerivedFrom = "derived-from",
        /// The subject takes the target's place.
        Revises = "revises",
        /// Both say the same.
        Duplicates = "duplicates",
        /// The subject answers the target.
        Answers = "answers",
        /// The subject speaks for the target.
        Supports = "supports",
        /// The subject speaks against the target.
        ObjectsTo = "objects-to",
        /// The target cannot go on before the subject.
        Blocks = "blocks",
        /// The job that carries the subject out.
        ExecutedBy = "executed-by",
        /// What the subject led to.
        Produced = "produced",
        /// The subject carries the target out.
        Implements = "implements",
    }
}

impl Relation {
    /// Whether it says the same in both directions.
    #[must_use]
    pub const fn is_symmetric(&self) -> bool {
        matches!(self, Self::Related | Self::Duplicates)
    }

    /// Whether a chain of it may come back to its beginning.
    #[must_use]
    pub const fn allows_cycles(&self) -> bool {
        matches!(self, Self::Related | Self::Duplicates | Self::Supports | Self::ObjectsTo | Self::Other(_))
    }

    /// How the target speaks of it.
    #[must_use]
    pub fn inverse(&self) -> &str {
        match self {
            Self::Broader => "narrower",
            Self::Narrower => "broader",
            Self::DerivedFrom => "led to",
            Self::Revises => "revised by",
            Self::Answers => "answered by",
            Self::Supports => "supported by",
            Self::ObjectsTo => "objected to by",
            Self::Blocks => "blocked by",
            Self::ExecutedBy => "executes",
            Self::Produced => "produced by",
            Self::Implements => "implemented by",
            Self::Related | Self::Duplicates | Self::Other(_) => self.as_str(),
        }
    }

    /// Whether its target may be of that kind.
    #[must_use]
    pub const fn takes(&self, target: &Target) -> bool {
        match (self, target) {
            (Self::ExecutedBy, target) => matches!(target, Target::Job(_)),
            (Self::Produced, target) => matches!(target, Target::Blob(_) | Target::Entry(_)),
            (Self::Other(_), _) | (_, Target::Entry(_) | Target::Other(_)) => true,
            (_, Target::Job(_) | Target::Blob(_)) => false,
        }
    }
}

/// What a link leads to: `idea:<id>`, `job:<id>`, `blob:<hash>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A subject of the ledger.
    Entry(EntryId),
    /// A job.
    Job(JobId),
    /// A blob.
    Blob(BlobHash),
    /// Of a newer version.
    Other(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entry(id) => write!(f, "idea:{id}"),
            Self::Job(id) => write!(f, "job:{id}"),
            Self::Blob(hash) => write!(f, "blob:{hash}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        let known = match text.split_once(':') {
            Some(("idea", id)) => id.parse().ok().map(Self::Entry),
            Some(("job", id)) => id.parse().ok().map(Self::Job),
            Some(("blob", hash)) => hash.parse().ok().map(Self::Blob),
            _ => None,
        };
        known.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// Where an entry's content comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// An address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A line of it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Who said it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
}

/// A link's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// How they hang together.
    pub relation: Relation,
    /// What it leads to.
    pub to: Target,
    /// How sure that is, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u16>,
    /// How it was found, where no person said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// What somebody thinks of a subject, each from 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// What it would be worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<u8>,
    /// What it would cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<u8>,
    /// How sure both are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
    /// For it (true) or against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote: Option<bool>,
}

names! {
    /// What was decided.
    Verdict {
        /// It is open again.
        Open = "open",
        /// It is to be done.
        Accepted = "accepted",
        /// It is not to be done.
        Rejected = "rejected",
        /// Later.
        Deferred = "deferred",
        /// It was done.
        Done = "done",
    }
}

/// A change of owner: offered by the owner, or, in an entry `on` such an offer, taken by the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The new owner.
    pub to: PersonId,
    /// The acceptance by which whoever offers it became the owner; none: it was his from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EntryId>,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    /// The job.
    pub job: JobId,
    /// Its state in the end.
    pub state: String,
    /// Exit code of its accepted attempt; of an array of the first task that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Tasks that are done.
    pub done: u32,
    /// Tasks in all.
    pub tasks: u32,
    /// Running time of all accepted attempts, in milliseconds.
    pub duration_ms: u64,
    /// What they cost, in micros.
    pub cost_micros: u64,
    /// Nodes that ran it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeId>,
    /// The trace that it belongs to.
    pub trace: TraceId,
    /// Artifacts: path, blob, bytes. Of many, the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<(String, BlobHash, u64)>,
}

/// What a program may do for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The program's public key.
    pub key: NodeId,
    /// Its name.
    pub name: String,
    /// Kinds of entries that it may write.
    pub kinds: Vec<Kind>,
    /// Until when, in milliseconds since 1970, by the clock of whoever writes.
    pub until_ms: u64,
}

/// A file that belongs to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub blob: BlobHash,
    /// How many.
    pub bytes: u64,
    /// Whether it stays on its author's nodes, and only its hash is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What sort of entry it is.
    pub kind: Kind,
    /// The subject that it is about; without one it is a subject of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<EntryId>,
    /// The entry about the same subject that it speaks of: that it takes back, answers, or accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<EntryId>,
    /// One line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// `CommonMark`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Language as in BCP 47, where it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Files that belong to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Entries of its kind about the same subject that its author had seen: it comes after them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<EntryId>,
    /// Of a subject: the name by which its writer knows it. Written again under the same name, it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Of an argument: for its subject (true) or against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_for: Option<bool>,
    /// Of an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// Of a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Of a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// Of an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JobOutcome>,
    /// Of a delegation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation: Option<Delegation>,
}

impl Content {
    /// A subject of its own.
    #[must_use]
    pub fn new(kind: Kind, title: impl Into<String>) -> Self {
        Self {
            kind,
            about: None,
            on: None,
            title: title.into(),
            body: String::new(),
            language: String::new(),
            tags: Vec::new(),
            source: None,
            attachments: Vec::new(),
            seen: Vec::new(),
            key: None,
            link: None,
            is_for: None,
            evaluation: None,
            verdict: None,
            transfer: None,
            outcome: None,
            delegation: None,
        }
    }

    /// An entry about a subject.
    #[must_use]
    pub fn about(kind: Kind, subject: EntryId) -> Self {
        Self { about: Some(subject), ..Self::new(kind, "") }
    }

    /// What its author's own node refuses, so that people learn of it.
    ///
    /// # Errors
    /// [`EntryError`]: which part, and what to do.
    pub fn check(&self) -> Result<(), EntryError> {
        if self.about.is_none() && self.title.trim().is_empty() {
            return Err(EntryError::NoTitle);
        }
        for (what, text) in std::iter::once(("title", &self.title)).chain(self.tags.iter().map(|tag| ("tag", tag))) {
            if text.chars().any(char::is_control) {
                return Err(EntryError::Control(what));
            }
        }
        let Some(evaluation) = self.evaluation else { return self.check_bounds() };
        for (what, number) in
            [("value", evaluation.value), ("effort", evaluation.effort), ("confidence", evaluation.confidence)]
        {
            if let Some(number) = number.filter(|number| *number > 100) {
                return Err(EntryError::Range { what, number });
            }
        }
        self.check_bounds()
    }

    /// What every node refuses.
    pub(super) fn check_bounds(&self) -> Result<(), EntryError> {
        let within = |what, text: &str, most, hint| {
            if text.len() <= most {
                return Ok(());
            }
            Err(EntryError::TooLong { what, bytes: text.len(), most, hint })
        };
        let few = |what, count: usize, most| {
            if count <= most { Ok(()) } else { Err(EntryError::TooMany { what, count, most }) }
        };
        within("title", &self.title, ENTRY_TITLE_BYTES_MAX, ": put the rest into its body")?;
        within("body", &self.body, ENTRY_BODY_BYTES_MAX, ": attach the rest as a file (`v6 blob add`)")?;
        within("language", &self.language, ENTRY_TAG_BYTES_MAX, "")?;
        few("tags", self.tags.len(), ENTRY_TAGS_MAX)?;
        few("attachments", self.attachments.len(), ENTRY_ATTACHMENTS_MAX)?;
        few("entries that it comes after", self.seen.len(), ENTRY_SEEN_MAX)?;
        within("key", self.key.as_deref().unwrap_or_default(), ENTRY_NAME_BYTES_MAX, "")?;
        if let Some(outcome) = &self.outcome {
            few("artifacts of an outcome", outcome.artifacts.len(), OUTCOME_ARTIFACTS_MAX)?;
            few("nodes of an outcome", outcome.nodes.len(), OUTCOME_NODES_MAX)?;
            within("state of an outcome", &outcome.state, ENTRY_TAG_BYTES_MAX, "")?;
            let path = |(path, ..): &(String, BlobHash, u64)| within("artifact's path", path, ENTRY_NAME_BYTES_MAX, "");
            outcome.artifacts.iter().try_for_each(path)?;
        }
        self.attachments
            .iter()
            .try_for_each(|file| within("attachment's name", &file.name, ENTRY_NAME_BYTES_MAX, ""))?;
        self.tags.iter().try_for_each(|tag| within("tag", tag, ENTRY_TAG_BYTES_MAX, ""))
    }
}
