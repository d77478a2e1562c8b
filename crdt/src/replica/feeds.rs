//! Heads of feeds, branches, and what a fork does.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::bundle_key;
use super::{Ingest, Replica};
use crate::bundle::Bundle;
use crate::cbor;
use crate::ids::{BundleHash, NodeId};
use crate::mutant::{Mutant, is_made};
use crate::shelf::{Shelf, Table};

/// What is known of a feed. Written with each bundle: the fields are in their canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Its stamp.
    pub hlc: u64,
    /// Place of the last bundle; 0: none.
    pub seq: u64,
    /// Its hash.
    pub hash: BundleHash,
    /// Newer bundles that were taken in before those between ([`Replica::want_tail`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
    /// Its author signed two different bundles for the place after `seq`: nothing more is taken in.
    pub frozen: bool,
}

/// An unbroken stretch of a feed behind a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Place of its first bundle.
    pub from_seq: u64,
    /// What its first bundle names as the one before.
    pub prev: BundleHash,
    /// Place of its last bundle.
    pub seq: u64,
    /// Hash of its last bundle.
    pub hash: BundleHash,
    /// Stamp of its last bundle.
    pub hlc: u64,
}

impl Feed {
    /// Place up to which bundles are known, be it behind a gap.
    #[must_use]
    pub fn known_seq(&self) -> u64 {
        self.tail.map_or(self.seq, |tail| tail.seq)
    }

    /// Whether the bundle of a place is held.
    #[must_use]
    pub fn holds(&self, seq: u64) -> bool {
        seq <= self.seq || self.tail.is_some_and(|tail| (tail.from_seq..=tail.seq).contains(&seq))
    }

    /// Place and hash that the next bundle of the stretch with this place goes on from.
    pub(super) fn end_at(&self, seq: u64) -> (u64, BundleHash) {
        match self.tail {
            Some(tail) if seq >= tail.from_seq => (tail.seq, tail.hash),
            Some(_) | None => (self.seq, self.hash),
        }
    }

    /// Adds the next bundle, of the beginning or of the tail. When both meet they are one, or the tail is answered, which does
    /// not go on from the beginning.
    fn push(&mut self, bundle: &Bundle) -> bool {
        let header = &bundle.header;
        if header.seq != self.seq + 1 {
            let (from_seq, prev) = self.tail.map_or((header.seq, header.prev), |tail| (tail.from_seq, tail.prev));
            self.tail = Some(Tail { from_seq, prev, seq: header.seq, hash: bundle.hash, hlc: header.hlc });
            return true;
        }
        (self.seq, self.hash, self.hlc) = (header.seq, bundle.hash, header.hlc);
        match self.tail {
            Some(tail) if tail.from_seq == self.seq + 1 && tail.prev == self.hash => {
                (self.seq, self.hash, self.hlc, self.tail) = (tail.seq, tail.hash, tail.hlc, None);
                true
            }
            Some(tail) => tail.from_seq != self.seq + 1,
            None => true,
        }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self { seq: 0, hash: BundleHash::ZERO, hlc: 0, frozen: false, tail: None }
    }
}

/// Two bundles of one author with one seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    /// The author.
    pub author: NodeId,
    /// The place.
    pub seq: u64,
    /// Both bundles as they travel, the one with the lower hash first.
    pub branches: [Bytes; 2],
}

impl<S: Shelf> Replica<S> {
    /// Stores the next bundle of a feed; answers whether its tail still goes on from its beginning.
    pub(super) fn store_bundle(&mut self, bundle: &Bundle) -> bool {
        let header = &bundle.header;
        let mut feed = self.feeds.get(&header.author).cloned().unwrap_or_default();
        let (before, had_tail) = (feed.seq, feed.tail.is_some());
        let fits = feed.push(bundle);
        if feed.seq > before {
            feed.frozen = self.shelf.get(Table::Forks, &bundle_key(header.author, feed.seq + 1)).is_some();
        }
        if had_tail || feed.tail.is_some() {
            let held: Vec<_> =
                self.waiting.range((header.author, 0)..=(header.author, u64::MAX)).map(|(k, _)| *k).collect();
            held.iter().filter(|(_, seq)| feed.holds(*seq)).for_each(|key| drop(self.waiting.remove(key)));
        }
        self.put_new_bundle(header.author, header.seq, Some(bundle.wire.to_vec()));
        self.put_feed(header.author, feed);
        fits
    }

    /// Lets the newest bundles of a feed be taken in before those between: a joiner takes part before it has all of the history.
    /// The next bundle behind the gap begins the tail.
    pub fn want_tail(&mut self, author: NodeId) {
        let known = self.feeds.get(&author);
        if known.is_none_or(|feed| feed.tail.is_none() && !feed.frozen) {
            self.tails_wanted.insert(author);
        }
    }

    /// Whether a bundle behind a gap begins or continues its feed's tail.
    pub(super) fn is_of_tail(&mut self, feed: &Feed, bundle: &Bundle) -> bool {
        let header = &bundle.header;
        match feed.tail {
            Some(tail) => header.seq == tail.seq + 1 && header.prev == tail.hash,
            // Where a fork is known, the places behind it never count.
            None => {
                self.tails_wanted.remove(&header.author)
                    && self.shelf.scan(Table::Forks, &header.author.0, &header.author.0, 1).is_empty()
            }
        }
    }

    /// Takes a feed's tail away with all that came of it.
    pub fn drop_tail(&mut self, author: NodeId) {
        self.tails_wanted.remove(&author);
        let Some(mut feed) = self.feeds.get(&author).cloned() else { return };
        let Some(tail) = feed.tail.take() else { return };
        let docs = self.docs_touched(author, tail.from_seq);
        for seq in tail.from_seq..=tail.seq {
            self.put_bundle(author, seq, None);
        }
        self.put_feed(author, feed);
        self.rebuild_author(author, docs);
    }

    fn put_feed(&mut self, author: NodeId, feed: Feed) {
        self.shelf.put((Table::Feeds, author.0.to_vec(), Some(cbor::encode(&feed))));
        self.feeds.insert(author, feed);
    }

    /// A bundle for a place that is taken: the same, or a fork.
    pub(super) fn check_branch(&mut self, bundle: Bundle) -> Ingest {
        let (author, seq) = (bundle.header.author, bundle.header.seq);
        let known = self.shelf.get(Table::Bundles, &bundle_key(author, seq)).filter(|wire| *wire != bundle.wire);
        match known.and_then(|wire| Bundle::decode(wire.into()).ok()) {
            Some(known) if known.hash != bundle.hash => {
                let mut pair = [known, bundle];
                pair.sort_by_key(|b| b.hash);
                let branches = pair.map(|b| b.wire);
                let proof = ForkProof { author, seq, branches };
                self.freeze(&proof);
                Ingest::Forked(Box::new(proof))
            }
            Some(_) => self.restore(&bundle),
            None => Ingest::Duplicate,
        }
    }

    /// Takes in a proof of a fork that a peer sent; both branches must verify. Answers whether anything changed.
    pub fn ingest_fork(&mut self, proof: &ForkProof) -> bool {
        let pair: Vec<Bundle> = proof.branches.iter().filter_map(|w| Bundle::decode(w.clone()).ok()).collect();
        let [one, two] = &pair[..] else { return false };
        let same_place = (one.header.author, one.header.seq) == (two.header.author, two.header.seq);
        let ours = [one, two].iter().all(|b| b.header.mesh == self.mesh || b.hash.0 == self.mesh.0);
        if !same_place
            || !ours
            || one.hash == two.hash
            || one.header.author != proof.author
            || one.header.seq != proof.seq
        {
            return false;
        }
        let feed = self.feeds.get(&proof.author).cloned().unwrap_or_default();
        let known = self.shelf.get(Table::Forks, &bundle_key(proof.author, proof.seq)).is_some();
        if (feed.frozen || known) && feed.seq < proof.seq {
            return false;
        }
        self.freeze(proof);
        true
    }

    /// The proof of an author's first fork, if one is known.
    #[must_use]
    pub fn fork_of(&self, author: &NodeId) -> Option<ForkProof> {
        self.shelf.scan(Table::Forks, &author.0, &author.0, 1).first().and_then(|(_, row)| fork_of_row(row))
    }

    /// The proofs that are known.
    #[must_use]
    pub fn forks(&self) -> Vec<ForkProof> {
        self.shelf.all(Table::Forks, &[]).iter().filter_map(|(_, row)| fork_of_row(row)).collect()
    }

    /// Rewinds a feed to before its fork. Both branches stay as evidence; nothing after them counts anywhere.
    fn freeze(&mut self, proof: &ForkProof) {
        let (author, fork_seq) = (proof.author, proof.seq);
        self.drop_tail(author);
        let branches: Vec<_> = proof.branches.iter().map(|b| serde_bytes::ByteBuf::from(b.to_vec())).collect();
        let row = cbor::encode(&(author, fork_seq, branches));
        self.shelf.put((Table::Forks, bundle_key(author, fork_seq), Some(row)));
        let head = self.feeds.get(&author).map_or(0, |feed| feed.seq);
        let keep = if is_made(Mutant::RewindsWholly) { 0 } else { fork_seq - 1 };
        if head <= keep {
            let mut feed = self.feeds.get(&author).cloned().unwrap_or_default();
            feed.frozen = head == keep;
            if feed.frozen {
                self.put_feed(author, feed);
            }
            return;
        }
        let docs = self.docs_touched(author, keep + 1);
        for seq in keep + 1..=head {
            self.put_bundle(author, seq, None);
        }
        let last =
            self.shelf.get(Table::Bundles, &bundle_key(author, keep)).and_then(|w| Bundle::decode(w.into()).ok());
        let feed = last.map_or(Feed { frozen: true, ..Feed::default() }, |b| Feed {
            seq: keep,
            hash: b.hash,
            hlc: b.header.hlc,
            frozen: true,
            tail: None,
        });
        self.put_feed(author, feed);
        self.waiting.retain(|(a, _), _| *a != author);
        self.rebuild_author(author, docs);
    }
}

fn fork_of_row(row: &[u8]) -> Option<ForkProof> {
    let (author, seq, branches): (NodeId, u64, Vec<serde_bytes::ByteBuf>) = cbor::decode(row).ok()?;
    let branches: Vec<Bytes> = branches.into_iter().map(|b| b.into_vec().into()).collect();
    Some(ForkProof { author, seq, branches: branches.try_into().ok()? })
}
