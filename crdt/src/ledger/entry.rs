//! One entry: what it says, who signs it, and which bytes count.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteArray, ByteBuf};

use crate::Signer;
use crate::cbor;
use crate::ids::{EntryId, NodeId, PersonId};
use crate::limits::{ENTRY_BODY_BYTES_MAX, ENTRY_TAG_BYTES_MAX, ENTRY_TAGS_MAX, ENTRY_TITLE_BYTES_MAX};

/// What an entry's signature says that it is of.
const DOMAIN: &str = "v6/entry/1";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What sort of entry it is. One that this version does not know is kept and passed on as it is.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
            /// Of a newer version.
            Other(String),
        }

        impl Kind {
            /// Its name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for Kind {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$name,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}

kinds! {
    /// Something that was seen or measured.
    Observation = "observation",
    /// Something that might be done.
    Idea = "idea",
    /// Something that is wrong.
    Issue = "issue",
    /// For or against its subject.
    Argument = "argument",
    /// Value, effort and confidence that somebody gives its subject.
    Evaluation = "evaluation",
    /// What was decided of its subject.
    Decision = "decision",
    /// A job that serves its subject.
    Task = "task",
    /// An attempt of such a job.
    Attempt = "attempt",
    /// Something that was made.
    Artifact = "artifact",
    /// What came of it.
    Outcome = "outcome",
    /// Ties its subject to another.
    Link = "link",
    /// Hands its subject to another person.
    Transfer = "transfer",
    /// Takes something back: it is hidden, and stays.
    Retraction = "retraction",
    /// Lends a program the right to act for a person.
    KeyDelegation = "key-delegation",
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// Where an entry's content comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// An address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A line of it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Who said it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
}

/// What an entry says. A field that is missing is empty; fields of newer versions are kept in its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What sort of entry it is.
    pub kind: Kind,
    /// The entry that it is about; without one it is a subject of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<EntryId>,
    /// The device that signed it.
    pub node: NodeId,
    /// The person whose it is.
    pub person: PersonId,
    /// When it was written, by the device's clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// Makes two entries of the same words two entries.
    pub nonce: ByteArray<16>,
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
}

/// What a person or program wants to write; the device's part is added when it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What sort of entry it is.
    pub kind: Kind,
    /// The entry that it is about.
    pub about: Option<EntryId>,
    /// One line.
    pub title: String,
    /// `CommonMark`.
    pub body: String,
    /// Language as in BCP 47.
    pub language: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Where it comes from.
    pub source: Option<Source>,
}

impl Draft {
    /// A subject of its own with a title.
    #[must_use]
    pub fn new(kind: Kind, title: impl Into<String>) -> Self {
        Self {
            kind,
            about: None,
            title: title.into(),
            body: String::new(),
            language: String::new(),
            tags: Vec::new(),
            source: None,
        }
    }
}

/// Why bytes are no entry, or a draft cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Not the format of an entry.
    #[error("not an entry: {0}")]
    Format(String),
    /// The device that it names did not sign it.
    #[error("the entry's signature is not its author's")]
    Signature,
    /// Its bytes hash to another name.
    #[error("the entry's name is not the hash of its bytes")]
    Name,
    /// It belongs to another document.
    #[error("the entry is about another subject")]
    Subject,
    /// A subject of its own has no title.
    #[error("the title is empty: say in a line what it is about")]
    NoTitle,
    /// A text is larger than it may be.
    #[error("the {what} has {bytes} bytes, more than {most}{hint}")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// What it has.
        bytes: usize,
        /// What it may have.
        most: usize,
        /// What to do.
        hint: &'static str,
    },
    /// A title or tag has a character that is none of a line's.
    #[error("the {0} has a control character: write it in one line of plain text")]
    Control(&'static str),
    /// More tags than an entry may have.
    #[error("{0} tags are more than {ENTRY_TAGS_MAX}")]
    Tags(usize),
}

/// The bytes of an entry with the device's signature.
#[derive(Serialize, Deserialize)]
struct Wire(ByteBuf, ByteArray<64>);

/// An entry whose name and signature hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// BLAKE3 of its bytes.
    pub id: EntryId,
    /// What it says.
    pub entry: Entry,
    /// Entry and signature, canonical CBOR: the value of its register.
    pub bytes: Vec<u8>,
}

impl Signed {
    /// Signs a draft. `nonce` is drawn by the caller; the same draft, time and nonce give the same entry.
    ///
    /// # Errors
    /// [`EntryError`]: what a draft must not be.
    pub fn sign(
        signer: &dyn Signer,
        person: PersonId,
        created_ms: u64,
        nonce: [u8; 16],
        draft: Draft,
    ) -> Result<Self, EntryError> {
        let Draft { kind, about, title, body, language, tags, source } = draft;
        let (node, nonce) = (signer.node(), ByteArray::new(nonce));
        let entry = Entry { kind, about, node, person, created_ms, nonce, title, body, language, tags, source };
        entry.check()?;
        let says = cbor::encode(&entry);
        let signature = signer.sign(&message(&says));
        let bytes = cbor::encode(&Wire(ByteBuf::from(says), ByteArray::new(signature)));
        Ok(Self { id: EntryId(*blake3::hash(&bytes).as_bytes()), entry, bytes })
    }

    /// Reads an entry and checks its signature.
    ///
    /// # Errors
    /// [`EntryError`]. Costs one signature verification, about 50 µs.
    pub fn verify(bytes: &[u8]) -> Result<Self, EntryError> {
        let (signed, signature, says) = Self::parts(bytes)?;
        if !crate::verify(&signed.entry.node, &message(&says), &signature) {
            return Err(EntryError::Signature);
        }
        Ok(signed)
    }

    /// Reads an entry that was verified when it was stored.
    ///
    /// # Errors
    /// [`EntryError::Format`].
    pub fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::parts(bytes).map(|(signed, ..)| signed)
    }

    /// The subject that it belongs to: itself, or what it is about.
    #[must_use]
    pub fn subject(&self) -> EntryId {
        self.entry.about.unwrap_or(self.id)
    }

    fn parts(bytes: &[u8]) -> Result<(Self, [u8; 64], Vec<u8>), EntryError> {
        let format = |error: cbor::CborError| EntryError::Format(error.to_string());
        let Wire(says, signature) = cbor::decode(bytes).map_err(format)?;
        let entry: Entry = cbor::decode(&says).map_err(format)?;
        entry.check_bounds()?;
        let id = EntryId(*blake3::hash(bytes).as_bytes());
        Ok((Self { id, entry, bytes: bytes.to_vec() }, signature.into_array(), says.into_vec()))
    }
}

fn message(says: &[u8]) -> Vec<u8> {
    cbor::encode(&(DOMAIN, serde_bytes::Bytes::new(says)))
}

impl Entry {
    /// What its author's own node refuses, so that people learn of it.
    fn check(&self) -> Result<(), EntryError> {
        if self.about.is_none() && self.title.trim().is_empty() {
            return Err(EntryError::NoTitle);
        }
        for (what, text) in std::iter::once(("title", &self.title)).chain(self.tags.iter().map(|tag| ("tag", tag))) {
            if text.chars().any(char::is_control) {
                return Err(EntryError::Control(what));
            }
        }
        self.check_bounds()
    }

    /// What every node refuses.
    fn check_bounds(&self) -> Result<(), EntryError> {
        let within = |what, text: &str, most, hint| {
            if text.len() <= most {
                return Ok(());
            }
            Err(EntryError::TooLong { what, bytes: text.len(), most, hint })
        };
        within("title", &self.title, ENTRY_TITLE_BYTES_MAX, ": put the rest into its body")?;
        within("body", &self.body, ENTRY_BODY_BYTES_MAX, ": attach the rest as a file (`v6 blob add`)")?;
        within("language", &self.language, ENTRY_TAG_BYTES_MAX, "")?;
        if self.tags.len() > ENTRY_TAGS_MAX {
            return Err(EntryError::Tags(self.tags.len()));
        }
        self.tags.iter().try_for_each(|tag| within("tag", tag, ENTRY_TAG_BYTES_MAX, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn signed(draft: Draft) -> Result<Signed, EntryError> {
        Signed::sign(&SigningKey::from_bytes(&[3; 32]), PersonId([4; 16]), 1_800_000_000_000, [5; 16], draft)
    }

    #[test]
    fn an_entry_survives_its_bytes_and_any_flipped_bit_is_refused() {
        let draft = Draft { tags: vec!["أفكار".into()], ..Draft::new(Kind::Idea, "ماكو فكرة تضيع") };
        let entry = signed(draft).expect("a good draft");
        assert_eq!(Signed::verify(&entry.bytes), Ok(entry.clone()));
        for at in 0..entry.bytes.len() {
            let mut bytes = entry.bytes.clone();
            bytes[at] ^= 1;
            assert!(Signed::verify(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_a_newer_version_adds_is_kept_in_the_bytes() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let mut entry = signed(Draft::new(Kind::Idea, "x")).expect("a good draft").entry;
        entry.kind = Kind::from("mood");
        let mut fields: std::collections::BTreeMap<String, ciborium::Value> =
            ciborium::from_reader(&cbor::encode(&entry)[..]).expect("a map");
        fields.insert("colour".into(), "green".into());
        let says = cbor::encode(&fields);
        let signature = Signer::sign(&key, &message(&says));
        let bytes = cbor::encode(&Wire(ByteBuf::from(says), ByteArray::new(signature)));
        let read = Signed::verify(&bytes).expect("an entry of a newer version");
        assert_eq!((read.entry.kind.as_str(), read.bytes), ("mood", bytes));
    }

    #[test]
    fn a_draft_that_nobody_could_read_is_refused_with_the_reason() {
        assert_eq!(signed(Draft::new(Kind::Idea, "  ")), Err(EntryError::NoTitle));
        assert_eq!(signed(Draft::new(Kind::Idea, "a\u{0}b")), Err(EntryError::Control("title")));
        assert_eq!(signed(Draft::new(Kind::Idea, "a\nb")), Err(EntryError::Control("title")));
        let long = Draft { body: "x".repeat(10 << 20), ..Draft::new(Kind::Idea, "long") };
        assert!(matches!(signed(long), Err(EntryError::TooLong { what: "body", .. })));
        let tags = Draft { tags: vec!["t".into(); ENTRY_TAGS_MAX + 1], ..Draft::new(Kind::Idea, "tags") };
        assert_eq!(signed(tags), Err(EntryError::Tags(ENTRY_TAGS_MAX + 1)));
    }
}
