//! Bundles: the signed, hash-linked elements of a feed.
//!
//! The signature covers the header alone, which names each change's document, kind and hash. So a body can be dropped
//! later while the chain still verifies. Whether a bundle fits its feed is decided in [`crate::replica`].

mod packed;

use bytes::Bytes;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::Signer;
pub use packed::Packed;

use crate::cbor;
use crate::doc::{DocId, DocKind, Key, KeyError};
use crate::ids::{BundleHash, EntryId, MeshId, NodeId, NoteId};
use crate::ledger::{EntryError, Signed};
use crate::limits::{BUNDLE_BYTES_MAX, BUNDLE_CHANGES_MAX, SEAL_BYTES_MAX, VALUE_BYTES_MAX};
use crate::mutant::{Mutant, is_made};
use crate::notebook::{self, NoteRefusal};

/// First field of every header: a signature for something else can never be taken for a bundle's.
pub const DOMAIN: &str = "v6/bundle/1";

/// How a change is to be read. The number is part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ChangeKind {
    /// A register's key and value.
    Register = 1,
    /// A change of an automerge document.
    Notebook = 2,
    /// A register whose body is never dropped, which everybody sees from the header alone: a job's seal.
    Lasting = 3,
}

impl ChangeRef {
    /// Whether the body may be dropped once its job is sealed.
    #[must_use]
    pub fn may_go(&self) -> bool {
        self.doc.kind == DocKind::Job && self.kind == ChangeKind::Register
    }
}

/// One change as its author states it, before it is put into a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The document that it changes.
    pub doc: DocId,
    /// How the body is to be read.
    pub kind: ChangeKind,
    /// The encoded body.
    pub body: Bytes,
}

impl Change {
    /// A write to a register; `value` is encoded canonically.
    #[must_use]
    pub fn register<T: Serialize>(doc: DocId, key: &Key, value: &T) -> Self {
        let body = RegisterBody(key.to_string(), ByteBuf::from(cbor::encode(value)));
        let kind = if *key == Key::Seal { ChangeKind::Lasting } else { ChangeKind::Register };
        Self { doc, kind, body: cbor::encode(&body).into() }
    }

    /// An entry of the ledger.
    #[must_use]
    pub fn entry(entry: &Signed) -> Self {
        let body = RegisterBody(Key::Entry(entry.id).to_string(), ByteBuf::from(entry.bytes.clone()));
        let doc = entry.document();
        Self { doc, kind: ChangeKind::Register, body: cbor::encode(&body).into() }
    }

    /// A change of a notebook.
    #[must_use]
    pub fn notebook(doc: DocId, change: Vec<u8>) -> Self {
        Self { doc, kind: ChangeKind::Notebook, body: change.into() }
    }
}

#[derive(Serialize, Deserialize)]
struct RegisterBody(String, ByteBuf);

/// What the author signs of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRef {
    /// The document that it changes.
    pub doc: DocId,
    /// How the body is to be read.
    pub kind: ChangeKind,
    /// BLAKE3 of the body.
    pub hash: [u8; 32],
}

/// The signed part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The mesh; all zeros in the founding bundle, whose hash is the mesh's id.
    pub mesh: MeshId,
    /// Whose feed.
    pub author: NodeId,
    /// Place in the feed, from 1.
    pub seq: u64,
    /// Hash of the bundle before; zeros at seq 1.
    pub prev: BundleHash,
    /// Hybrid logical clock: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    pub hlc: u64,
    /// What it changes.
    pub changes: Vec<ChangeRef>,
}

#[derive(Serialize, Deserialize)]
struct WireHeader(String, MeshId, NodeId, u64, BundleHash, u64, Vec<(DocId, u8, ByteArray<32>)>);

#[derive(Serialize, Deserialize)]
struct WireBundle(ByteBuf, ByteArray<64>, Vec<Option<ByteBuf>>);

/// A decoded change of a bundle at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A register's key and its canonical value.
    Register {
        /// The key.
        key: Key,
        /// Canonical CBOR.
        value: Bytes,
    },
    /// A notebook's change of sound form.
    Notebook(Bytes),
    /// The body was dropped.
    Pruned,
}

/// A bundle whose signature, format and grammar hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ByteBuf", into = "ByteBuf")]
pub struct Bundle {
    /// What is signed.
    pub header: Header,
    /// BLAKE3 of the header's bytes: its name, and the next bundle's `prev`.
    pub hash: BundleHash,
    /// One per change of the header.
    pub bodies: Vec<Body>,
    /// The whole bundle as it travels.
    pub wire: Bytes,
}

/// Why bytes are not a bundle. No order of arrival changes the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Larger than a bundle may be.
    #[error("the bundle has {0} bytes, more than {BUNDLE_BYTES_MAX}")]
    TooLarge(usize),
    /// More changes than a bundle may have, or none.
    #[error("a bundle has 1 to {BUNDLE_CHANGES_MAX} changes, this one {0}")]
    Changes(usize),
    /// Not the format of a bundle.
    #[error("unreadable: {0}")]
    Format(String),
    /// The author's key did not sign this header.
    #[error("the signature is not the author's")]
    Signature,
    /// A body is not the one that the header names (under this document and kind).
    #[error("body {0} is not the one that was signed")]
    BodyHash(usize),
    /// A register's key is not allowed there.
    #[error("change {0}: {1}")]
    Key(usize, KeyError),
    /// A register's value is too large or not canonical.
    #[error("change {0}: the value is too large or not canonical")]
    Value(usize),
    /// Not one sound change of that notebook by that author.
    #[error("change {0}: {1}")]
    Note(usize, NoteRefusal),
    /// Not an entry that signs itself, under its own name.
    #[error("change {0}: {1}")]
    Entry(usize, EntryError),
}

impl From<Bundle> for ByteBuf {
    fn from(bundle: Bundle) -> Self {
        Self::from(bundle.wire.to_vec())
    }
}

impl TryFrom<ByteBuf> for Bundle {
    type Error = BundleError;

    fn try_from(wire: ByteBuf) -> Result<Self, BundleError> {
        Self::decode(wire.into_vec().into())
    }
}

impl Bundle {
    /// Signs changes as the bundle `seq` of the author's feed.
    ///
    /// The caller keeps within [`BUNDLE_CHANGES_MAX`] and [`BUNDLE_BYTES_MAX`].
    #[must_use]
    pub fn sign(signer: &dyn Signer, mesh: MeshId, seq: u64, prev: BundleHash, hlc: u64, changes: &[Change]) -> Self {
        let author = signer.node();
        let refs: Vec<ChangeRef> = changes
            .iter()
            .map(|c| ChangeRef { doc: c.doc, kind: c.kind, hash: *blake3::hash(&c.body).as_bytes() })
            .collect();
        let header = Header { mesh, author, seq, prev, hlc, changes: refs };
        let bytes = header.encode();
        let signature = signer.sign(&bytes);
        let hash = BundleHash(*blake3::hash(&bytes).as_bytes());
        let bodies = changes.iter().map(|c| Some(ByteBuf::from(c.body.to_vec()))).collect();
        let wire = cbor::encode(&WireBundle(ByteBuf::from(bytes), ByteArray::new(signature), bodies)).into();
        let bodies = changes
            .iter()
            .enumerate()
            .map(|(at, c)| read_body(at, author, c.doc, c.kind, &c.body).expect("our own change obeys the grammar"))
            .collect();
        Self { header, hash, bodies, wire }
    }

    /// Decodes and verifies a bundle.
    ///
    /// # Errors
    /// [`BundleError`]. Costs one signature verification, about 50 µs.
    pub fn decode(wire: Bytes) -> Result<Self, BundleError> {
        if wire.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge(wire.len()));
        }
        let parts = read_wire(&wire)?;
        let mut again = Vec::with_capacity(wire.len());
        ciborium::into_writer(&parts, &mut again).expect("writing to memory");
        if again != wire {
            return Err(BundleError::Format("not in canonical form".into()));
        }
        let WireBundle(header_bytes, signature, raw_bodies) = parts;
        let header = Header::decode(&header_bytes)?;
        if raw_bodies.len() != header.changes.len() {
            return Err(BundleError::Format("bodies and changes differ in number".into()));
        }
        let key = VerifyingKey::from_bytes(header.author.as_bytes()).map_err(|_| BundleError::Signature)?;
        let signed = key.verify(&header_bytes, &Signature::from_bytes(&signature)).is_ok();
        if !signed && !is_made(Mutant::TakesUnsigned) {
            return Err(BundleError::Signature);
        }
        let mut bodies = Vec::with_capacity(raw_bodies.len());
        for (at, (change, raw)) in header.changes.iter().zip(raw_bodies).enumerate() {
            bodies.push(match raw {
                None => Body::Pruned,
                Some(raw) if *blake3::hash(&raw).as_bytes() == change.hash => {
                    read_body(at, header.author, change.doc, change.kind, &raw)?
                }
                Some(_) => return Err(BundleError::BodyHash(at)),
            });
        }
        let hash = BundleHash(*blake3::hash(&header_bytes).as_bytes());
        Ok(Self { header, hash, bodies, wire })
    }

    /// The header of a bundle that was verified when it was stored. Cost: about 1 µs, linear in its changes.
    ///
    /// # Errors
    /// [`BundleError`]; the signature and the bodies are not looked at.
    pub fn header_of(wire: &[u8]) -> Result<Header, BundleError> {
        let WireBundle(header, ..) = read_wire(wire)?;
        Header::decode(&header)
    }

    /// Whose feed a bundle says that it is of, and where in it; nothing of that is verified.
    #[must_use]
    pub fn place(wire: &[u8]) -> Option<(NodeId, u64)> {
        if wire.len() > BUNDLE_BYTES_MAX {
            return None;
        }
        let WireBundle(header, ..) = read_wire(wire).ok()?;
        let WireHeader(_, _, author, seq, ..) =
            ciborium::de::from_reader_with_recursion_limit(&header[..], crate::limits::CBOR_DEPTH_MAX).ok()?;
        Some((author, seq))
    }

    /// A stored bundle without those of its bodies that `goes` names: the chain still verifies. `None` when none of them is
    /// there.
    #[must_use]
    pub fn without(wire: &[u8], goes: impl Fn(&ChangeRef) -> bool) -> Option<Bytes> {
        let (WireBundle(bytes, signature, mut bodies), header) = Self::stored(wire)?;
        let mut changed = false;
        for (change, body) in header.changes.iter().zip(&mut bodies) {
            if body.is_some() && goes(change) {
                *body = None;
                changed = true;
            }
        }
        changed.then(|| cbor::encode(&WireBundle(bytes, signature, bodies)).into())
    }

    /// A stored bundle with those bodies of this one that it lacks and `wanted` names. `None` when there are none, or when
    /// they are two bundles.
    #[must_use]
    pub fn filled(&self, wire: &[u8], wanted: impl Fn(&ChangeRef) -> bool) -> Option<Self> {
        let (WireBundle(bytes, signature, mut bodies), header) = Self::stored(wire)?;
        let WireBundle(ours, _, from) = read_wire(&self.wire).ok()?;
        if ours != bytes {
            return None;
        }
        let mut changed = false;
        for ((change, body), whole) in header.changes.iter().zip(&mut bodies).zip(from) {
            if body.is_none() && whole.is_some() && wanted(change) {
                *body = whole;
                changed = true;
            }
        }
        let wire = changed.then(|| cbor::encode(&WireBundle(bytes, signature, bodies)).into())?;
        Self::decode(wire).ok()
    }

    /// Hash of a stored bundle's header: its name.
    #[must_use]
    pub fn hash_of(wire: &[u8]) -> Option<BundleHash> {
        let WireBundle(header, ..) = read_wire(wire).ok()?;
        Some(BundleHash(*blake3::hash(&header).as_bytes()))
    }

    /// Changes of a stored bundle, each with whether its body is there.
    #[must_use]
    pub fn changes_of(wire: &[u8]) -> Vec<(ChangeRef, bool)> {
        let Some((WireBundle(_, _, bodies), header)) = Self::stored(wire) else { return Vec::new() };
        header.changes.into_iter().zip(bodies.iter().map(Option::is_some)).collect()
    }

    fn stored(wire: &[u8]) -> Option<(WireBundle, Header)> {
        let parts = read_wire(wire).ok()?;
        let header = Header::decode(&parts.0).ok()?;
        Some((parts, header))
    }

    /// The same bundle without all bodies that may ever be dropped.
    #[must_use]
    pub fn pruned(&self) -> Bytes {
        Self::without(&self.wire, ChangeRef::may_go).unwrap_or_else(|| self.wire.clone())
    }
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let changes = self.changes.iter().map(|c| (c.doc, c.kind as u8, ByteArray::new(c.hash))).collect();
        cbor::encode(&WireHeader(DOMAIN.into(), self.mesh, self.author, self.seq, self.prev, self.hlc, changes))
    }

    fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        let WireHeader(domain, mesh, author, seq, prev, hlc, wire_changes) =
            cbor::decode(bytes).map_err(|e| BundleError::Format(e.to_string()))?;
        if domain != DOMAIN || seq == 0 {
            return Err(BundleError::Format("not a bundle's header".into()));
        }
        if wire_changes.is_empty() || wire_changes.len() > BUNDLE_CHANGES_MAX {
            return Err(BundleError::Changes(wire_changes.len()));
        }
        let mut changes = Vec::with_capacity(wire_changes.len());
        for (doc, kind, hash) in wire_changes {
            let kind = match (kind, doc.kind) {
                (1, DocKind::Roster | DocKind::Job | DocKind::Feed | DocKind::Ledger) => ChangeKind::Register,
                (2, DocKind::Note) => ChangeKind::Notebook,
                (3, DocKind::Job) => ChangeKind::Lasting,
                _ => {
                    return Err(BundleError::Format("this kind of change does not fit its document".into()));
                }
            };
            changes.push(ChangeRef { doc, kind, hash: hash.into_array() });
        }
        Ok(Self { mesh, author, seq, prev, hlc, changes })
    }
}

fn read_wire(wire: &[u8]) -> Result<WireBundle, BundleError> {
    ciborium::de::from_reader_with_recursion_limit(wire, crate::limits::CBOR_DEPTH_MAX)
        .map_err(|e| BundleError::Format(e.to_string()))
}

fn read_body(at: usize, author: NodeId, doc: DocId, kind: ChangeKind, raw: &[u8]) -> Result<Body, BundleError> {
    match kind {
        ChangeKind::Notebook => {
            notebook::examine(NoteId(doc.id), author, raw).map_err(|e| BundleError::Note(at, e))?;
            Ok(Body::Notebook(Bytes::copy_from_slice(raw)))
        }
        ChangeKind::Register | ChangeKind::Lasting => {
            let RegisterBody(text, value) = cbor::decode(raw).map_err(|_| BundleError::Value(at))?;
            let key = Key::parse(doc, author, &text).map_err(|e| BundleError::Key(at, e))?;
            let lasting = key == Key::Seal;
            if lasting != (kind == ChangeKind::Lasting) {
                return Err(BundleError::Key(at, KeyError::Grammar));
            }
            let most = if lasting { SEAL_BYTES_MAX } else { VALUE_BYTES_MAX };
            if value.len() > most || cbor::check(&value).is_err() {
                return Err(BundleError::Value(at));
            }
            if let Key::Entry(id) = &key {
                examine(*id, doc, &value).map_err(|e| BundleError::Entry(at, e))?;
            }
            Ok(Body::Register { key, value: value.into_vec().into() })
        }
    }
}

/// Whether a register of the ledger is an entry that signs itself, under its own name, in its subject's document.
fn examine(id: EntryId, doc: DocId, value: &[u8]) -> Result<(), EntryError> {
    let entry = Signed::verify(value)?;
    if entry.id != id {
        return Err(EntryError::Name);
    }
    if entry.document() != doc {
        return Err(EntryError::Subject);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::ids::JobId;

    fn bundle() -> Bundle {
        let key = SigningKey::from_bytes(&[3; 32]);
        let changes = [Change::register(DocId::job(JobId([1; 16])), &Key::Control(0), &"cancel")];
        Bundle::sign(&key, MeshId([9; 32]), 1, BundleHash::ZERO, 5, &changes)
    }

    #[test]
    fn a_bundle_survives_the_wire() {
        let bundle = bundle();
        assert_eq!(Bundle::decode(bundle.wire.clone()), Ok(bundle));
    }

    #[test]
    fn a_pruned_bundle_keeps_its_hash() {
        let bundle = bundle();
        let pruned = Bundle::decode(bundle.pruned()).expect("the signature covers the header only");
        assert_eq!((pruned.hash, &pruned.bodies[..]), (bundle.hash, &[Body::Pruned][..]));
    }

    #[test]
    fn any_flipped_byte_is_refused() {
        let bundle = bundle();
        for at in 0..bundle.wire.len() {
            let mut bytes = bundle.wire.to_vec();
            bytes[at] ^= 1;
            let decoded = Bundle::decode(bytes.into());
            assert!(
                decoded.is_err()
                    || decoded
                        .as_ref()
                        .is_ok_and(|b| b.header == bundle.header && b.hash == bundle.hash && b.bodies == bundle.bodies),
                "byte {at}: {decoded:?}"
            );
        }
    }

    #[test]
    fn a_body_under_another_document_is_refused() {
        let one = bundle();
        let key = SigningKey::from_bytes(&[3; 32]);
        let other = [Change::register(DocId::job(JobId([2; 16])), &Key::Control(1), &"cancel")];
        let two = Bundle::sign(&key, MeshId([9; 32]), 1, BundleHash::ZERO, 5, &other);
        let WireBundle(header, signature, _) = ciborium::from_reader(&one.wire[..]).expect("own");
        let WireBundle(_, _, bodies) = ciborium::from_reader(&two.wire[..]).expect("own");
        let mixed = cbor::encode(&WireBundle(header, signature, bodies));
        assert_eq!(Bundle::decode(mixed.into()), Err(BundleError::BodyHash(0)));
    }

    /// A bundle as somebody signs it who does not keep to the rules.
    fn forged(doc: DocId, body: &[u8]) -> Bytes {
        let key = SigningKey::from_bytes(&[3; 32]);
        let author = NodeId(key.verifying_key().to_bytes());
        let hash = *blake3::hash(body).as_bytes();
        let changes = vec![ChangeRef { doc, kind: ChangeKind::Notebook, hash }];
        let header = Header { mesh: MeshId([9; 32]), author, seq: 1, prev: BundleHash::ZERO, hlc: 5, changes };
        let bytes = header.encode();
        let signature = ByteArray::new(Signer::sign(&key, &bytes));
        cbor::encode(&WireBundle(ByteBuf::from(bytes), signature, vec![Some(ByteBuf::from(body.to_vec()))])).into()
    }

    #[test]
    fn a_notebook_change_that_is_not_one_sound_change_of_its_author_is_refused_at_the_door() {
        let (note, author) = (NoteId([1; 16]), NodeId(SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes()));
        let doc = DocId::note(note);
        let edit = |author, text| crate::notebook::Notebook::new(note).edit(author, text, 1).ok().flatten();
        let sound = edit(author, "text").expect("an edit");
        let decoded = Bundle::decode(forged(doc, &sound)).expect("one sound change");
        assert_eq!(decoded.bodies, [Body::Notebook(sound.clone().into())]);
        let refused = |doc, body: &[u8]| match Bundle::decode(forged(doc, body)) {
            Err(BundleError::Note(0, reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(doc, b""), NoteRefusal::Truncated);
        assert_eq!(refused(doc, &[&sound[..], &sound[..]].concat()), NoteRefusal::TrailingBytes);
        assert_eq!(refused(DocId::note(NoteId([2; 16])), &sound), NoteRefusal::NotText);
        let foreign = edit(NodeId([4; 32]), "text").expect("an edit");
        assert_eq!(refused(doc, &foreign), NoteRefusal::ForeignActor);
        let mut flipped = sound.clone();
        flipped[4] ^= 1;
        assert_eq!(refused(doc, &flipped), NoteRefusal::Checksum);
    }

    #[test]
    fn the_header_of_a_stored_bundle_is_read_alone() {
        let bundle = bundle();
        assert_eq!(Bundle::header_of(&bundle.wire), Ok(bundle.header.clone()));
        assert_eq!(Bundle::header_of(&bundle.pruned()), Ok(bundle.header));
        assert!(Bundle::header_of(b"hello").is_err());
    }
}
