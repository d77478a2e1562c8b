//! Heads of feeds, branches, and what a fork does.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::bundle_key;
use super::{Ingest, Replica};
use crate::bundle::Bundle;
use crate::cbor;
use crate::ids::{BundleHash, NodeId};
use crate::shelf::{Shelf, Table};

/// What is known of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Place of the last bundle; 0: none.
    pub seq: u64,
    /// Its hash.
    pub hash: BundleHash,
    /// Its stamp.
    pub hlc: u64,
    /// Its author signed two different bundles for the place after `seq`: nothing more is taken in.
    pub frozen: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Self { seq: 0, hash: BundleHash::ZERO, hlc: 0, frozen: false }
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
    pub(super) fn store_bundle(&mut self, bundle: &Bundle) {
        let header = &bundle.header;
        let frozen = self.shelf.get(Table::Forks, &bundle_key(header.author, header.seq + 1)).is_some();
        let feed = Feed { seq: header.seq, hash: bundle.hash, hlc: header.hlc, frozen };
        self.put_bundle(header.author, header.seq, Some(bundle.wire.to_vec()));
        self.put_feed(header.author, feed);
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
        if feed.frozen && feed.seq < proof.seq {
            return false;
        }
        self.freeze(proof);
        true
    }

    /// The proofs that are known.
    #[must_use]
    pub fn forks(&self) -> Vec<ForkProof> {
        let rows = self.shelf.all(Table::Forks, &[]);
        rows.iter()
            .filter_map(|(_, row)| cbor::decode::<(NodeId, u64, Vec<serde_bytes::ByteBuf>)>(row).ok())
            .filter_map(|(author, seq, branches)| {
                let branches: Vec<Bytes> = branches.into_iter().map(|b| b.into_vec().into()).collect();
                Some(ForkProof { author, seq, branches: branches.try_into().ok()? })
            })
            .collect()
    }

    /// Rewinds a feed to before its fork. Both branches stay as evidence; nothing after them counts anywhere.
    fn freeze(&mut self, proof: &ForkProof) {
        let (author, fork_seq) = (proof.author, proof.seq);
        let branches: Vec<_> = proof.branches.iter().map(|b| serde_bytes::ByteBuf::from(b.to_vec())).collect();
        let row = cbor::encode(&(author, fork_seq, branches));
        self.shelf.put((Table::Forks, bundle_key(author, fork_seq), Some(row)));
        let head = self.feeds.get(&author).map_or(0, |feed| feed.seq);
        let keep = fork_seq - 1;
        if head <= keep {
            let mut feed = self.feeds.get(&author).cloned().unwrap_or_default();
            feed.frozen = head == keep;
            if feed.frozen {
                self.put_feed(author, feed);
            }
            return;
        }
        let docs = self.docs_touched(author, fork_seq);
        for seq in fork_seq..=head {
            self.put_bundle(author, seq, None);
        }
        let last =
            self.shelf.get(Table::Bundles, &bundle_key(author, keep)).and_then(|w| Bundle::decode(w.into()).ok());
        let feed = last.map_or(Feed { frozen: true, ..Feed::default() }, |b| Feed {
            seq: keep,
            hash: b.hash,
            hlc: b.header.hlc,
            frozen: true,
        });
        self.put_feed(author, feed);
        self.waiting.retain(|(a, _), _| *a != author);
        self.rebuild_author(author, docs);
    }
}
