//! One entry: who signs it, and which bytes count.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::content::{Content, Kind};
use crate::Signer;
use crate::cbor;
use crate::doc::DocId;
use crate::ids::{EntryId, NodeId, PersonId};
use crate::limits::ENTRY_MANDATE_BYTES_MAX;

/// What an entry's signature says that it is of.
const DOMAIN: &str = "v6/entry/1";

/// Who wrote an entry, when, and by what right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The key that signed it: a device's, or a program's that has a mandate.
    pub node: NodeId,
    /// The person whose it is.
    pub person: PersonId,
    /// When it was written, by the signer's clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// Makes two entries of the same words two entries.
    pub nonce: ByteArray<16>,
    /// The bytes of the delegation under which a program wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<ByteBuf>,
}

/// Why bytes are no entry, or what was wanted cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Not the format of an entry.
    #[error("not an entry: {0}")]
    Format(String),
    /// The key that it names did not sign it.
    #[error("the entry's signature is not its author's")]
    Signature,
    /// Its bytes hash to another name.
    #[error("the entry's name is not the hash of its bytes")]
    Name,
    /// It belongs to another document.
    #[error("the entry is about another subject")]
    Subject,
    /// The delegation under which it was written does not cover it.
    #[error("the delegation {0}")]
    Mandate(&'static str),
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
    /// More of something than an entry may have.
    #[error("{count} {what} are more than {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// What it has.
        count: usize,
        /// What it may have.
        most: usize,
    },
    /// A number outside its range.
    #[error("the {what} {number} is not between 0 and 100")]
    Range {
        /// Which.
        what: &'static str,
        /// The number.
        number: u8,
    },
}

/// An entry's bytes with the signature.
#[derive(Serialize, Deserialize)]
struct Wire(ByteBuf, ByteArray<64>);

/// An entry whose name and signature hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// BLAKE3 of its bytes.
    pub id: EntryId,
    /// Who wrote it.
    pub by: By,
    /// What it says.
    pub says: Content,
    /// Entry and signature, canonical CBOR: the value of its register.
    pub bytes: Vec<u8>,
}

impl Signed {
    /// Signs an entry. `nonce` is drawn by the caller; the same content, time and nonce give the same entry.
    ///
    /// # Errors
    /// [`EntryError`]: what an entry must not be.
    pub fn sign(
        signer: &dyn Signer,
        person: PersonId,
        created_ms: u64,
        nonce: [u8; 16],
        says: Content,
    ) -> Result<Self, EntryError> {
        let by = By { node: signer.node(), person, created_ms, nonce: ByteArray::new(nonce), mandate: None };
        Self::sign_by(signer, by, says)
    }

    /// Signs an entry with a program's key, under the delegation that names it.
    ///
    /// # Errors
    /// [`EntryError`]: also where the delegation does not cover it.
    pub fn sign_under(
        signer: &dyn Signer,
        mandate: &Self,
        created_ms: u64,
        nonce: [u8; 16],
        says: Content,
    ) -> Result<Self, EntryError> {
        let (node, nonce) = (signer.node(), ByteArray::new(nonce));
        let bytes = ByteBuf::from(mandate.bytes.clone());
        let by = By { node, person: mandate.by.person, created_ms, nonce, mandate: Some(bytes) };
        covers(mandate, &by, &says)?;
        Self::sign_by(signer, by, says)
    }

    fn sign_by(signer: &dyn Signer, by: By, says: Content) -> Result<Self, EntryError> {
        says.check()?;
        let entry = cbor::encode(&(&by, &says));
        let signature = signer.sign(&message(&entry));
        let bytes = cbor::encode(&Wire(ByteBuf::from(entry), ByteArray::new(signature)));
        Ok(Self { id: EntryId(*blake3::hash(&bytes).as_bytes()), by, says, bytes })
    }

    /// Reads an entry and checks its signature, and that of its mandate.
    ///
    /// # Errors
    /// [`EntryError`]. Costs one or two signature verifications, about 50 µs each.
    pub fn verify(bytes: &[u8]) -> Result<Self, EntryError> {
        let (signed, signature, entry) = Self::parts(bytes)?;
        if !crate::verify(&signed.by.node, &message(&entry), &signature) {
            return Err(EntryError::Signature);
        }
        if let Some(mandate) = &signed.by.mandate {
            let (mandate, signature, entry) = Self::parts(mandate)?;
            if mandate.by.mandate.is_some() {
                return Err(EntryError::Mandate("was itself given under a delegation"));
            }
            if !crate::verify(&mandate.by.node, &message(&entry), &signature) {
                return Err(EntryError::Signature);
            }
            covers(&mandate, &signed.by, &signed.says)?;
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
        self.says.about.unwrap_or(self.id)
    }

    /// The document that it belongs to: its subject's. What came of a job has one of its own, so that an idea that a job serves
    /// every night is not folded again with each.
    #[must_use]
    pub fn document(&self) -> DocId {
        DocId::ledger(if self.says.kind == Kind::Outcome { self.id } else { self.subject() })
    }

    /// The delegation under which a program wrote it.
    #[must_use]
    pub fn mandate(&self) -> Option<Self> {
        self.by.mandate.as_ref().and_then(|bytes| Self::read(bytes).ok())
    }

    fn parts(bytes: &[u8]) -> Result<(Self, [u8; 64], Vec<u8>), EntryError> {
        let format = |error: cbor::CborError| EntryError::Format(error.to_string());
        let Wire(entry, signature) = cbor::decode(bytes).map_err(format)?;
        let (by, says): (By, Content) = cbor::decode(&entry).map_err(format)?;
        says.check_bounds()?;
        if let Some(mandate) = by.mandate.as_ref().filter(|mandate| mandate.len() > ENTRY_MANDATE_BYTES_MAX) {
            let (what, most) = ("delegation", ENTRY_MANDATE_BYTES_MAX);
            return Err(EntryError::TooLong { what, bytes: mandate.len(), most, hint: "" });
        }
        let id = EntryId(*blake3::hash(bytes).as_bytes());
        Ok((Self { id, by, says, bytes: bytes.to_vec() }, signature.into_array(), entry.into_vec()))
    }
}

/// Whether a delegation lets a program write that, by what both say.
fn covers(mandate: &Signed, by: &By, says: &Content) -> Result<(), EntryError> {
    let delegation = mandate.says.delegation.as_ref().filter(|_| mandate.says.kind == Kind::KeyDelegation);
    let delegation = delegation.ok_or(EntryError::Mandate("is none"))?;
    let reason = if delegation.key != by.node {
        "is another program's"
    } else if mandate.by.person != by.person {
        "is another person's"
    } else if by.created_ms > delegation.until_ms {
        "has expired"
    } else if !delegation.kinds.contains(&says.kind) || says.kind == Kind::KeyDelegation {
        "does not cover entries of this kind"
    } else {
        return Ok(());
    };
    Err(EntryError::Mandate(reason))
}

fn message(entry: &[u8]) -> Vec<u8> {
    cbor::encode(&(DOMAIN, serde_bytes::Bytes::new(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;
    use crate::ledger::Delegation;
    use crate::limits::ENTRY_TAGS_MAX;

    const NOW_MS: u64 = 1_800_000_000_000;
    const PERSON: PersonId = PersonId([4; 16]);

    fn signed(says: Content) -> Result<Signed, EntryError> {
        Signed::sign(&SigningKey::from_bytes(&[3; 32]), PERSON, NOW_MS, [5; 16], says)
    }

    #[test]
    fn an_entry_survives_its_bytes_and_any_flipped_bit_is_refused() {
        let says =
            Content { tags: vec!["أفكار".into()], ..Content::new(Kind::Idea, "ماكو فكرة تضيع") };
        let entry = signed(says).expect("a good entry");
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
        let mut entry = signed(Content::new(Kind::Idea, "x")).expect("a good entry");
        entry.says.kind = Kind::from("mood");
        let mut fields: std::collections::BTreeMap<String, ciborium::Value> =
            ciborium::from_reader(&cbor::encode(&entry.says)[..]).expect("a map");
        fields.insert("colour".into(), "green".into());
        let says = cbor::encode(&(&entry.by, fields));
        let signature = Signer::sign(&key, &message(&says));
        let bytes = cbor::encode(&Wire(ByteBuf::from(says), ByteArray::new(signature)));
        let read = Signed::verify(&bytes).expect("an entry of a newer version");
        assert_eq!((read.says.kind.as_str(), read.bytes), ("mood", bytes));
    }

    #[test]
    fn what_nobody_could_read_is_refused_with_the_reason() {
        assert_eq!(signed(Content::new(Kind::Idea, "  ")), Err(EntryError::NoTitle));
        assert_eq!(signed(Content::new(Kind::Idea, "a\u{0}b")), Err(EntryError::Control("title")));
        assert_eq!(signed(Content::new(Kind::Idea, "a\nb")), Err(EntryError::Control("title")));
        let long = Content { body: "x".repeat(10 << 20), ..Content::new(Kind::Idea, "long") };
        assert!(matches!(signed(long), Err(EntryError::TooLong { what: "body", .. })));
        let tags = Content { tags: vec!["t".into(); ENTRY_TAGS_MAX + 1], ..Content::new(Kind::Idea, "tags") };
        assert!(matches!(signed(tags), Err(EntryError::TooMany { what: "tags", .. })));
    }

    #[test]
    fn a_program_writes_what_its_delegation_covers_and_nothing_else() {
        let program = SigningKey::from_bytes(&[9; 32]);
        let give = |key, until_ms| {
            let kinds = vec![Kind::Observation];
            let delegation = Some(Delegation { key, name: "scout".into(), kinds, until_ms });
            signed(Content { delegation, ..Content::new(Kind::KeyDelegation, "scout") }).expect("a delegation")
        };
        let mandate = give(program.node(), NOW_MS + 1);
        let write =
            |mandate: &Signed, kind, at| Signed::sign_under(&program, mandate, at, [6; 16], Content::new(kind, "seen"));
        let seen = write(&mandate, Kind::Observation, NOW_MS).expect("covered");
        assert_eq!(Signed::verify(&seen.bytes).map(|seen| seen.by.person), Ok(PERSON));
        let refused = |result: Result<Signed, EntryError>| matches!(result, Err(EntryError::Mandate(_)));
        assert!(refused(write(&mandate, Kind::Transfer, NOW_MS)));
        assert!(refused(write(&mandate, Kind::Observation, NOW_MS + 2)));
        assert!(refused(write(&give(PERSON_S_OTHER, NOW_MS + 1), Kind::Observation, NOW_MS)));
        // One that signs all the same is found out by everybody.
        let by = By { created_ms: NOW_MS + 2, ..seen.by };
        let late = Signed::sign_by(&program, by, Content::new(Kind::Observation, "late")).expect("signed");
        assert!(refused(Signed::verify(&late.bytes)));
    }

    const PERSON_S_OTHER: NodeId = NodeId([8; 32]);
}
