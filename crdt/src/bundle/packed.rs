//! Bundles as they travel together: what follows from the bundle before it, or from a body, is left out.
//!
//! Of a bundle stay the clock, the signature, and of each change the document, the kind and the body: some 100 bytes beside
//! the bodies instead of 250. Everything else is computed again, to the same bytes, or the signature would not fit.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{DOMAIN, WireBundle, WireHeader, read_wire};
use crate::cbor;
use crate::doc::DocId;
use crate::ids::{BundleHash, MeshId, NodeId};

/// Bundles in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed(Vec<Run>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Run {
    /// Bundles of one author that follow each other: place of the first, and hash of the one before.
    Chain(MeshId, NodeId, u64, BundleHash, Vec<Item>),
    /// What is no bundle that can be put together again.
    Raw(ByteBuf),
}

/// Clock, signature and changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Item(u64, ByteArray<64>, Vec<Part>);

/// Document, kind, whether the body is there, and the body or its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part(DocId, u8, bool, ByteBuf);

/// Where the next bundle of a chain belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(MeshId, NodeId, u64, BundleHash);

impl Packed {
    /// Packs bundles as they travel one by one. Each is put together again and compared.
    pub fn pack<'a>(wires: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut end = None;
        for wire in wires {
            let Some((place, item, next)) = take_apart(wire) else {
                runs.push(Run::Raw(ByteBuf::from(wire)));
                end = None;
                continue;
            };
            match runs.last_mut() {
                Some(Run::Chain(.., items)) if end == Some(place) => items.push(item),
                _ => runs.push(Run::Chain(place.0, place.1, place.2, place.3, vec![item])),
            }
            end = Some(next);
        }
        Self(runs)
    }

    /// The bundles as they travel one by one; nothing of them is verified.
    #[must_use]
    pub fn unpack(self) -> Vec<Bytes> {
        let mut wires = Vec::new();
        for run in self.0 {
            match run {
                Run::Raw(wire) => wires.push(wire.into_vec().into()),
                Run::Chain(mesh, author, seq, prev, items) => {
                    let mut place = Place(mesh, author, seq, prev);
                    for item in items {
                        let (wire, next) = put_together(place, item);
                        wires.push(wire.into());
                        place = next;
                    }
                }
            }
        }
        wires
    }
}

/// A bundle's place, what cannot be computed of it, and the place after it. `None`: it would not become the same again.
fn take_apart(wire: &[u8]) -> Option<(Place, Item, Place)> {
    let WireBundle(header, signature, bodies) = read_wire(wire).ok()?;
    let WireHeader(_, mesh, author, seq, prev, hlc, changes) = cbor::decode(&header).ok()?;
    if changes.len() != bodies.len() {
        return None;
    }
    let part = |((doc, kind, hash), body): ((DocId, u8, ByteArray<32>), Option<ByteBuf>)| match body {
        Some(body) => Part(doc, kind, true, body),
        None => Part(doc, kind, false, ByteBuf::from(hash.to_vec())),
    };
    let item = Item(hlc, signature, changes.into_iter().zip(bodies).map(part).collect());
    let place = Place(mesh, author, seq, prev);
    let (again, next) = put_together(place, item.clone());
    (again == wire).then_some((place, item, next))
}

fn put_together(place: Place, Item(hlc, signature, parts): Item) -> (Vec<u8>, Place) {
    let Place(mesh, author, seq, prev) = place;
    let mut changes = Vec::with_capacity(parts.len());
    let mut bodies = Vec::with_capacity(parts.len());
    for Part(doc, kind, is_whole, bytes) in parts {
        let hash = if is_whole {
            *blake3::hash(&bytes).as_bytes()
        } else {
            <[u8; 32]>::try_from(bytes.as_slice()).unwrap_or_default()
        };
        changes.push((doc, kind, ByteArray::new(hash)));
        bodies.push(is_whole.then_some(bytes));
    }
    let header = cbor::encode(&WireHeader(DOMAIN.into(), mesh, author, seq, prev, hlc, changes));
    let hash = BundleHash(*blake3::hash(&header).as_bytes());
    let wire = cbor::encode(&WireBundle(ByteBuf::from(header), signature, bodies));
    (wire, Place(mesh, author, seq.wrapping_add(1), hash))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::bundle::{Bundle, Change};
    use crate::doc::Key;
    use crate::ids::JobId;

    fn feed(key: u8, length: u64) -> Vec<Bytes> {
        let key = SigningKey::from_bytes(&[key; 32]);
        let (mut prev, mut wires) = (BundleHash::ZERO, Vec::new());
        for seq in 1..=length {
            let change = |n: u8| Change::register(DocId::job(JobId([n; 16])), &Key::Control(u32::from(n)), &"cancel");
            let changes: Vec<Change> = (0..=u8::try_from(seq % 3).expect("small")).map(change).collect();
            let bundle = Bundle::sign(&key, MeshId([9; 32]), seq, prev, seq << 16, &changes);
            prev = bundle.hash;
            wires.push(bundle.wire);
        }
        wires
    }

    fn packed(wires: &[Bytes]) -> Vec<u8> {
        cbor::encode(&Packed::pack(wires.iter().map(|wire| &wire[..])))
    }

    fn same_again(wires: &[Bytes]) {
        let packed: Packed = cbor::decode(&packed(wires)).expect("our own form");
        assert_eq!(packed.unpack(), wires);
    }

    #[test]
    fn bundles_come_out_as_they_went_in() {
        let (ours, theirs) = (feed(3, 6), feed(4, 3));
        same_again(&[]);
        same_again(&ours);
        same_again(&[&ours[2..4], &theirs[..], &ours[..1], &ours[5..]].concat());
        let pruned = Bundle::decode(ours[1].clone()).expect("sound").pruned();
        assert_ne!(pruned, ours[1]);
        same_again(&[ours[0].clone(), pruned, ours[2].clone()]);
    }

    #[test]
    fn what_is_no_bundle_comes_out_as_it_went_in() {
        let ours = feed(3, 2);
        let mut other_body = ours[1].to_vec();
        let end = other_body.len() - 1;
        other_body[end] ^= 1;
        let mut longer = ours[1].to_vec();
        longer.push(0);
        same_again(&[
            Bytes::new(),
            ours[0].clone(),
            other_body.into(),
            longer.into(),
            Bytes::from_static(b"\xa1"),
            ours[1].clone(),
        ]);
    }

    #[test]
    fn a_chain_takes_little_more_than_its_bodies() {
        let wires = feed(3, 20);
        let (before, after) = (wires.iter().map(Bytes::len).sum::<usize>(), packed(&wires).len());
        assert!(after * 2 < before, "{after} of {before} bytes");
    }
}
