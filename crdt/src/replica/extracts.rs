//! The roster ahead of the feeds: bundles that change it, without their other bodies, out of their order.
//!
//! A joiner needs to know who is a member, itself among them, long before it has the whole history. An extract is signed like any
//! bundle; what it lacks is its place in the chain. It counts until its feed comes to its place: there it is the same bundle, or its
//! author signed two. What no feed comes to is dropped once all feeds are whole.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::rows::{bundle_key, register_key};
use super::{Applied, ForkProof, Replica};
use crate::bundle::{Body, Bundle};
use crate::doc::DocId;
use crate::ids::{MeshId, NodeId};
use crate::shelf::{Shelf, Table};

/// Rows of [`Table::Meta`] under this prefix, an author and a seq: the extract's bytes.
const EXTRACT: &[u8] = b"extract/";

impl<S: Shelf> Replica<S> {
    /// Whether the roster is known ahead of the feeds.
    #[must_use]
    pub fn has_extracts(&self) -> bool {
        self.has_extracts
    }

    /// All bundles that change the roster, without their other bodies, as they travel. Cost: linear in the roster.
    #[must_use]
    pub fn roster_extracts(&self) -> Vec<Bytes> {
        let places: BTreeSet<(NodeId, u64)> =
            self.registers(DocId::ROSTER).into_iter().map(|r| (r.author, r.seq)).collect();
        let wires = places.into_iter().filter_map(|(author, seq)| {
            let wire = self.shelf.get(Table::Bundles, &bundle_key(author, seq))?;
            Some(Bundle::without(&wire, |change| change.doc != DocId::ROSTER).unwrap_or_else(|| wire.into()))
        });
        wires.collect()
    }

    /// Takes in extracts that were decoded and verified; answers what changed.
    pub fn ingest_extracts(&mut self, extracts: impl IntoIterator<Item = Bundle>) -> Applied {
        let mut docs = BTreeSet::from([DocId::ROSTER]);
        for bundle in extracts {
            let header = &bundle.header;
            let (author, seq) = (header.author, header.seq);
            let ours = header.mesh == self.mesh || (header.mesh == MeshId::ZERO && bundle.hash.0 == self.mesh.0);
            let known = self.feeds.get(&author).is_some_and(|feed| feed.frozen || feed.holds(seq));
            let forked = !self.shelf.scan(Table::Forks, &author.0, &author.0, 1).is_empty();
            if !ours || known || forked || self.extract(author, seq).is_some() {
                continue;
            }
            self.shelf.put((Table::Meta, extract_key(author, seq), Some(bundle.wire.to_vec())));
            self.has_extracts = true;
            for (change, body) in header.changes.iter().zip(&bundle.bodies) {
                if let (DocId::ROSTER, Body::Register { key, value }) = (change.doc, body) {
                    self.write_register(DocId::ROSTER, author, key, seq, value);
                }
            }
        }
        let roster = self.refold_roster(&mut docs);
        self.refold(&docs);
        docs.insert(DocId::ROSTER);
        Applied { bundles: Vec::new(), docs, roster }
    }

    fn extract(&self, author: NodeId, seq: u64) -> Option<Vec<u8>> {
        self.shelf.get(Table::Meta, &extract_key(author, seq))
    }

    /// Whether extracts are on the shelf.
    pub(super) fn any_extracts(shelf: &S) -> bool {
        !shelf.scan(Table::Meta, EXTRACT, EXTRACT, 1).is_empty()
    }

    /// A feed came to a place: an extract of it was the same bundle, or proves a fork.
    pub(super) fn settle_extract(&mut self, bundle: &Bundle) -> Option<ForkProof> {
        if !self.has_extracts {
            return None;
        }
        let (author, seq) = (bundle.header.author, bundle.header.seq);
        let wire = self.extract(author, seq)?;
        self.shelf.put((Table::Meta, extract_key(author, seq), None));
        self.has_extracts = Self::any_extracts(&self.shelf);
        if Bundle::hash_of(&wire) == Some(bundle.hash) {
            return None;
        }
        self.drop_registers_of(author, seq);
        let mut pair = [Bundle::decode(wire.into()).ok()?, bundle.clone()];
        pair.sort_by_key(|b| b.hash);
        Some(ForkProof { author, seq, branches: pair.map(|b| b.wire) })
    }

    /// Drops extracts that no feed came to, once all feeds are whole; answers whether the roster changed by it.
    pub fn drop_extracts(&mut self) -> bool {
        if !self.has_extracts {
            return false;
        }
        for (key, _) in self.shelf.all(Table::Meta, EXTRACT) {
            let place = key.get(EXTRACT.len()..).and_then(|place| place.split_at_checked(32));
            let place = place.and_then(|(author, seq)| Some((author.try_into().ok()?, seq.try_into().ok()?)));
            if let Some((author, seq)) = place {
                self.drop_registers_of(NodeId(author), u64::from_be_bytes(seq));
            }
            self.shelf.put((Table::Meta, key, None));
        }
        self.has_extracts = false;
        let mut docs = BTreeSet::new();
        let changed = self.refold_roster(&mut docs);
        self.refold(&docs);
        changed
    }

    fn drop_registers_of(&mut self, author: NodeId, seq: u64) {
        for r in self.registers(DocId::ROSTER) {
            if r.author == author && r.seq == seq {
                let row = register_key(DocId::ROSTER, &r.key.to_string(), author);
                self.shelf.put((Table::Registers, row, None));
            }
        }
    }
}

fn extract_key(author: NodeId, seq: u64) -> Vec<u8> {
    [EXTRACT, &author.0, &seq.to_be_bytes()].concat()
}
