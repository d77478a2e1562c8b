//! A replica: all feeds that a node knows, and what they come to.
//!
//! Bundles go in, in any order and any number of times; rows on a [`Shelf`] and folds come out. Two replicas that hold the
//! same feeds hold the same folds and show the same state hash. Roles and revocations are judged here, in the fold, so a
//! bundle of a revoked author is stored and does not count; a fork rewinds its author everywhere.

mod counts;
mod docs;
mod extracts;
mod feeds;
mod ledger;
mod memory;
mod open;
mod prune;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub use feeds::{Feed, ForkProof, Tail};
pub use memory::Memory;
pub use open::FoundingWords;
pub use prune::{Checkpoint, Pruned};
pub use rows::JobRow;

use crate::Signer;
use crate::bundle::{Body, Bundle, Change};
use crate::doc::{DocId, DocKind, Key};
use crate::ids::{BundleHash, JobId, MeshId, NodeId};
use crate::job::{Job, JobState};
use crate::limits::{CLOCK_AHEAD_MS_MAX, WAITING_BUNDLES_PER_AUTHOR_MAX, WAITING_UNKNOWN_BUNDLES_MAX};
use crate::mutant::{Mutant, is_made};
use crate::roster::Roster;
use crate::shelf::{Shelf, Table};
use crate::state_hash::{StateHash, Sum};

/// What became of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingest {
    /// It, and perhaps bundles that had waited for it, are part of the replica.
    Applied(Applied),
    /// It was known.
    Duplicate,
    /// It waits: bundles of its author before it are missing from this place on.
    Gap {
        /// First missing bundle.
        from_seq: u64,
    },
    /// It waits: its author is not a member as far as is known here.
    UnknownAuthor,
    /// Its author signed two bundles with one seq and is frozen before it.
    Forked(Box<ForkProof>),
    /// It does not continue the feed that is known here: the peer may hold another branch from this place on.
    OtherBranch {
        /// Place of the last bundle that is known here.
        at_seq: u64,
    },
    /// It is of another mesh.
    ForeignMesh,
    /// Its author is frozen before this place.
    Frozen,
    /// Bodies were left out of it that no rule lets go: whoever passed it on is to send it whole.
    Incomplete,
}

/// What changed by an ingested bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bundles that became part of the replica, in order.
    pub bundles: Vec<(NodeId, u64)>,
    /// Documents whose folds may have changed.
    pub docs: BTreeSet<DocId>,
    /// Whether members, roles or revocations changed.
    pub roster: bool,
}

/// All that a node knows of its mesh. `S` holds the rows.
#[derive(Debug, Clone)]
pub struct Replica<S> {
    mesh: MeshId,
    founder: NodeId,
    shelf: S,
    feeds: BTreeMap<NodeId, Feed>,
    roster: Roster,
    roster_digest: Option<Sum>,
    jobs: BTreeMap<JobId, Box<(Job, Option<JobRow>)>>,
    counts: counts::Counts,
    history: u64,
    cursors: prune::Cursors,
    /// Jobs of which a body is missing.
    incomplete: BTreeSet<JobId>,
    /// Jobs whose seals just ceased to count.
    reopened: BTreeSet<JobId>,
    state: StateHash,
    has_extracts: bool,
    /// Feeds of which the newest bundles may come first.
    tails_wanted: BTreeSet<NodeId>,
    waiting: BTreeMap<(NodeId, u64), Bundle>,
    unknown: BTreeMap<(NodeId, u64), Bundle>,
    hlc: u64,
}

impl<S: Shelf> Replica<S> {
    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The author of the mesh's first bundle.
    #[must_use]
    pub fn founder(&self) -> NodeId {
        self.founder
    }

    /// The folded roster.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Heads of all feeds.
    #[must_use]
    pub fn feeds(&self) -> &BTreeMap<NodeId, Feed> {
        &self.feeds
    }

    /// The rows.
    #[must_use]
    pub fn shelf(&self) -> &S {
        &self.shelf
    }

    /// The rows, to be written by their owner: rows of [`Table::Peers`] and [`Table::Meta`] are no business of the replica.
    pub fn shelf_mut(&mut self) -> &mut S {
        &mut self.shelf
    }

    /// The state hash.
    #[must_use]
    pub fn state_hash(&self) -> [u8; 32] {
        self.state.root()
    }

    /// Jobs in memory with their lines in lists: all that are not finished, and those asked for recently.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.jobs.iter().map(|(id, loaded)| (id, &loaded.0))
    }

    /// How many jobs are in each state; those whose spec is not known are left out. Cost: constant.
    #[must_use]
    pub fn job_counts(&self) -> BTreeMap<JobState, u64> {
        self.counts.by_state()
    }

    /// A job in memory.
    #[must_use]
    pub fn cached_job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id).map(|loaded| &loaded.0)
    }

    /// A job, read from its rows where it is not in memory; `None` when nothing is known of it.
    pub fn job(&mut self, id: JobId) -> Option<&Job> {
        if !self.jobs.contains_key(&id) && self.shelf.get(Table::Jobs, &id.0).is_none() {
            return None;
        }
        Some(&self.load_job(id).0)
    }

    /// Drops a finished job from memory; its rows stay.
    pub fn forget(&mut self, id: &JobId) {
        if self.jobs.get(id).is_some_and(|loaded| loaded.0.state().is_some_and(JobState::is_final)) {
            self.jobs.remove(id);
        }
    }

    /// Signs `changes` as the next bundle of the signer's feed and takes it in.
    ///
    /// The caller makes the rows durable before anybody else sees the bundle.
    ///
    /// The caller asks first whether the signer's own feed is frozen ([`Feed::frozen`]): then it must not write.
    pub fn append(&mut self, signer: &dyn Signer, wall_ms: u64, changes: &[Change]) -> (Bundle, Applied) {
        let me = signer.node();
        let (seq, prev) = self.feeds.get(&me).map_or((0, BundleHash::ZERO), |feed| (feed.seq, feed.hash));
        self.hlc = (self.hlc + 1).max(wall_ms << 16);
        let mesh = if seq == 0 && me == self.founder && self.feeds.is_empty() { MeshId::ZERO } else { self.mesh };
        let bundle = Bundle::sign(signer, mesh, seq + 1, prev, self.hlc, changes);
        if let Ingest::Applied(applied) = self.ingest(bundle.clone(), wall_ms) {
            return (bundle, applied);
        }
        // Our own admission may not have come yet: what we say counts once it has.
        self.unknown.remove(&(me, seq + 1));
        let mut applied = Applied::default();
        self.apply_chain(bundle.clone(), &mut applied);
        (bundle, applied)
    }

    /// Whether these very bytes are a bundle of this replica: what is known need not be verified again.
    #[must_use]
    pub fn holds(&self, wire: &[u8]) -> bool {
        let place = Bundle::place(wire);
        place.is_some_and(|(author, seq)| {
            self.shelf.get(Table::Bundles, &rows::bundle_key(author, seq)).is_some_and(|known| known == wire)
        })
    }

    /// Takes in a bundle that was decoded and verified. `wall_ms` guards the clock against stamps from the future.
    pub fn ingest(&mut self, bundle: Bundle, wall_ms: u64) -> Ingest {
        let header = &bundle.header;
        let founding = header.seq == 1 && header.mesh == MeshId::ZERO && bundle.hash.0 == self.mesh.0;
        if header.mesh != self.mesh && !founding {
            return Ingest::ForeignMesh;
        }
        if prune::lacks_lasting(&bundle) {
            return Ingest::Incomplete;
        }
        if header.hlc >> 16 <= wall_ms + CLOCK_AHEAD_MS_MAX {
            self.hlc = self.hlc.max(header.hlc);
        }
        let (author, seq) = (header.author, header.seq);
        let feed = self.feeds.get(&author).cloned().unwrap_or_default();
        if feed.frozen && seq > feed.seq {
            return Ingest::Frozen;
        }
        if feed.holds(seq) {
            return self.check_branch(bundle);
        }
        if !self.is_known(&bundle) {
            return self.hold_unknown(bundle);
        }
        if seq > feed.seq + 1 && !self.is_of_tail(&feed, &bundle) {
            self.hold(bundle);
            return Ingest::Gap { from_seq: feed.seq + 1 };
        }
        if seq == feed.seq + 1 && bundle.header.prev != feed.hash {
            return Ingest::OtherBranch { at_seq: feed.seq };
        }
        let mut applied = Applied::default();
        self.apply_chain(bundle, &mut applied);
        Ingest::Applied(applied)
    }

    /// Applies a bundle that fits, and then what had waited for it.
    fn apply_chain(&mut self, bundle: Bundle, applied: &mut Applied) {
        let mut ready = vec![bundle];
        while let Some(bundle) = ready.pop() {
            let (author, seq) = (bundle.header.author, bundle.header.seq);
            self.apply(&bundle, applied);
            let feed = self.feeds.get(&author).cloned().unwrap_or_default();
            let (end, hash) = feed.end_at(seq);
            let place = (author, end + 1);
            let next = self.waiting.remove(&place).or_else(|| self.unknown.remove(&place));
            ready.extend(next.filter(|next| next.header.prev == hash && !feed.frozen));
            if applied.roster && ready.is_empty() {
                ready.extend(self.unknown_that_fit());
            }
        }
    }

    fn apply(&mut self, bundle: &Bundle, applied: &mut Applied) {
        let (author, seq) = (bundle.header.author, bundle.header.seq);
        if !self.store_bundle(bundle) {
            self.drop_tail(author);
        }
        let proof = self.settle_extract(bundle);
        applied.bundles.push((author, seq));
        let counts = self.counts(&author, seq);
        let mut docs: BTreeSet<DocId> = proof.iter().map(|_| DocId::ROSTER).collect();
        for (at, (change, body)) in bundle.header.changes.iter().zip(&bundle.bodies).enumerate() {
            if !counts && change.doc.kind != DocKind::Roster && *body != Body::Pruned {
                continue;
            }
            match (body, change.doc.as_job()) {
                (Body::Register { key, value }, _) => self.write_register(change.doc, author, key, seq, value),
                (Body::Notebook(bytes), _) => self.write_note(change.doc, author, seq, at, bytes),
                (Body::Pruned, Some(id)) => {
                    self.note_missing(id, author, seq);
                    continue;
                }
                (Body::Pruned, None) => continue,
            }
            docs.insert(change.doc);
        }
        if docs.contains(&DocId::ROSTER) {
            applied.roster |= self.refold_roster(&mut docs);
        }
        self.refold(&docs);
        applied.docs.extend(docs);
        if let Some(proof) = proof {
            self.ingest_fork(&proof);
            applied.roster = true;
        }
    }

    /// Whether an author's bundle counts outside the roster, whose fold judges that by itself.
    fn counts(&self, author: &NodeId, seq: u64) -> bool {
        seq <= self.roster.last_counting(author) || is_made(Mutant::CountsRevoked)
    }

    /// Whether a bundle's author may have a feed here: who was ever let in (revoked or not), the founder, or a node that the recovery
    /// key signs in with this very bundle.
    fn is_known(&self, bundle: &Bundle) -> bool {
        let author = bundle.header.author;
        let recovers = || {
            bundle.bodies.iter().any(|body| match body {
                Body::Register { key: Key::Recover(_), value } => self.roster.recovery.is_some_and(|recovery| {
                    crate::cbor::decode::<crate::roster::RecoverySigned>(value)
                        .is_ok_and(|signed| signed.verifies(self.mesh, &recovery))
                }),
                Body::Register { .. } | Body::Notebook(_) | Body::Pruned => false,
            })
        };
        author == self.founder || self.roster.authors.contains(&author) || recovers()
    }

    fn hold(&mut self, bundle: Bundle) {
        let author = bundle.header.author;
        let held = self.waiting.range((author, 0)..=(author, u64::MAX)).count();
        if held < WAITING_BUNDLES_PER_AUTHOR_MAX {
            self.waiting.insert((author, bundle.header.seq), bundle);
        }
    }

    fn hold_unknown(&mut self, bundle: Bundle) -> Ingest {
        if self.unknown.len() < WAITING_UNKNOWN_BUNDLES_MAX {
            self.unknown.insert((bundle.header.author, bundle.header.seq), bundle);
        }
        Ingest::UnknownAuthor
    }

    /// Bundles that waited for their author to be known and now continue its feed.
    fn unknown_that_fit(&mut self) -> Option<Bundle> {
        let fitting = self.unknown.iter().find(|((author, seq), bundle)| {
            let feed = self.feeds.get(author);
            let (head, hash) = feed.map_or((0, BundleHash::ZERO), |feed| (feed.seq, feed.hash));
            let frozen = feed.is_some_and(|feed| feed.frozen);
            !frozen && *seq == head + 1 && bundle.header.prev == hash && self.is_known(bundle)
        });
        let key = fitting.map(|(key, _)| *key)?;
        self.unknown.remove(&key)
    }

    /// Bundles of an author, as they travel, up to `limit` and up to the next gap.
    #[must_use]
    pub fn bundles(&self, author: NodeId, from_seq: u64, limit: usize) -> Vec<Bytes> {
        let from = rows::bundle_key(author, from_seq);
        let rows = self.shelf.scan(Table::Bundles, &author.0, &from, limit).into_iter();
        let unbroken = (from_seq..).zip(rows).take_while(|(seq, (key, _))| *key == rows::bundle_key(author, *seq));
        unbroken.map(|(_, (_, wire))| wire.into()).collect()
    }

    /// The same up to so many bytes in all, and one bundle at least; what is beyond is hardly read.
    #[must_use]
    pub fn bundles_within(&self, author: NodeId, from_seq: u64, limit: usize, bytes: usize) -> Vec<Bytes> {
        let (mut found, mut sum, mut step): (Vec<Bytes>, _, _) = (Vec::new(), 0, 1);
        while found.len() < limit {
            let asked = step.min(limit - found.len());
            let some = self.bundles(author, from_seq.saturating_add(found.len() as u64), asked);
            let is_last = some.len() < asked;
            for wire in some {
                sum += wire.len();
                if sum > bytes && !found.is_empty() {
                    return found;
                }
                found.push(wire);
            }
            if is_last {
                break;
            }
            step *= 2;
        }
        found
    }
}
