//! Dropping the bodies of sealed jobs, and getting back those that should not be missing.
//!
//! A body may be dropped when its job is sealed and a checkpoint of its feed covers its place. Whoever joins later gets such
//! bundles as they are left; until the seal and the checkpoint are known here too, their places stand on a list. What stays
//! on it is not dropped but withheld, or belongs to a job whose seal a revocation took back: others are asked for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rows::{bundle_key, read_register_key, read_register_value, register_key};
use super::{Applied, Ingest, Replica};
use crate::bundle::{Body, Bundle, ChangeKind, ChangeRef};
use crate::cbor;
use crate::doc::{DocId, DocKind, Key};
use crate::ids::{BundleHash, JobId, NodeId};
use crate::shelf::{Shelf, Table};

/// Rows of [`Table::Meta`] under this prefix, a job, an author and a seq: a body of that bundle is missing here.
const MISSING: &[u8] = b"missing/";
/// Row of [`Table::Buckets`]: bytes of all bundles.
const HISTORY: &[u8] = b"history-bytes";

/// `checkpoint/<node>`: up to this place the bodies of sealed jobs may go from a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The place.
    pub seq: u64,
    /// Hash of the bundle there.
    pub hash: BundleHash,
}

/// What one step of [`Replica::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs of which bodies were dropped.
    pub jobs: BTreeSet<JobId>,
    /// Feeds that hold bodies of sealed jobs beyond their checkpoint.
    pub uncovered: BTreeSet<NodeId>,
    /// Whether this step came to the end of all feeds: the next begins anew.
    pub end: bool,
}

/// Where the next steps of the two walks over all rows begin.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Cursors {
    prune: Vec<u8>,
    missing: Vec<u8>,
}

impl<S: Shelf> Replica<S> {
    /// Bytes of all bundles that are held, as they travel.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        self.history
    }

    pub(super) fn load_history(shelf: &mut S) -> u64 {
        let known = shelf.get(Table::Buckets, HISTORY).and_then(|row| Some(u64::from_be_bytes(row.try_into().ok()?)));
        known.unwrap_or_else(|| {
            let sizes = shelf.all(Table::Bundles, &[]).into_iter().map(|(_, wire)| wire.len() as u64);
            let bytes = sizes.sum();
            shelf.put((Table::Buckets, HISTORY.to_vec(), Some(u64::to_be_bytes(bytes).to_vec())));
            bytes
        })
    }

    /// Writes a bundle's row, or takes it away.
    pub(super) fn put_bundle(&mut self, author: NodeId, seq: u64, wire: Option<Vec<u8>>) {
        let key = bundle_key(author, seq);
        let before = self.shelf.get(Table::Bundles, &key).map_or(0, |wire| wire.len() as u64);
        self.history = self.history.saturating_sub(before);
        self.put_new_bundle(author, seq, wire);
    }

    /// The same for a place that holds none.
    pub(super) fn put_new_bundle(&mut self, author: NodeId, seq: u64, wire: Option<Vec<u8>>) {
        let key = bundle_key(author, seq);
        self.history += wire.as_ref().map_or(0, |wire| wire.len() as u64);
        self.shelf.put((Table::Bundles, key, wire));
        self.shelf.put((Table::Buckets, HISTORY.to_vec(), Some(self.history.to_be_bytes().to_vec())));
    }

    /// The place up to which bodies of sealed jobs may go from a feed: that of the highest checkpoint that its author, or an
    /// admin, wrote for the branch that is held here; 0 without any. Cost: linear in the members.
    #[must_use]
    pub fn checkpoint(&self, node: NodeId) -> u64 {
        let key = Key::Checkpoint(node).to_string();
        let mut prefix = register_key(DocId::FEED, &key, NodeId::ZERO);
        prefix.truncate(prefix.len() - 32);
        let rows = self.shelf.all(Table::Registers, &prefix);
        let counting = rows.iter().filter_map(|(row, value)| {
            let (_, writer, _) = read_register_key(row)?;
            let (seq, value) = read_register_value(value)?;
            let admin = || self.roster.role_at(&writer, seq).is_some_and(|role| role.may_administer());
            if writer != node && !admin() {
                return None;
            }
            let checkpoint: Checkpoint = cbor::decode(value).ok()?;
            let there = self.shelf.get(Table::Bundles, &bundle_key(node, checkpoint.seq))?;
            (Bundle::hash_of(&there)? == checkpoint.hash).then_some(checkpoint.seq)
        });
        counting.max().unwrap_or(0)
    }

    /// Looks at up to `limit` bundles and drops the bodies of jobs that were sealed before `sealed_before_ms`. Call it again
    /// until it is at the end. Cost: about 3 µs per bundle; constant while no job is sealed.
    pub fn prune(&mut self, limit: usize, sealed_before_ms: u64) -> Pruned {
        if self.counts.sealed() == 0 {
            self.cursors.prune.clear();
            return Pruned { end: true, ..Pruned::default() };
        }
        let from = std::mem::take(&mut self.cursors.prune);
        let rows = self.shelf.scan(Table::Bundles, &[], &from, limit);
        let mut pruned = Pruned { end: rows.len() < limit, ..Pruned::default() };
        let mut checkpoints = BTreeMap::new();
        let mut sealed = BTreeMap::new();
        for (key, wire) in rows {
            let place = key.split_at_checked(32).and_then(|(author, seq)| {
                Some((NodeId(author.try_into().ok()?), u64::from_be_bytes(seq.try_into().ok()?)))
            });
            self.cursors.prune = [&key[..], &[0]].concat();
            let Some((author, seq)) = place else { continue };
            let mut goes = |change: &ChangeRef| {
                change.may_go()
                    && *sealed.entry(change.doc).or_insert_with(|| self.is_sealed(change.doc, sealed_before_ms))
            };
            let going: BTreeSet<JobId> = Bundle::changes_of(&wire)
                .iter()
                .filter(|(change, here)| *here && goes(change))
                .filter_map(|(change, _)| change.doc.as_job())
                .collect();
            if going.is_empty() {
                continue;
            }
            let covered = *checkpoints.entry(author).or_insert_with(|| self.checkpoint(author));
            if seq > covered {
                pruned.uncovered.insert(author);
                continue;
            }
            self.drop_bodies(author, seq, &wire, &going);
            pruned.jobs.extend(going);
        }
        if pruned.end {
            self.cursors.prune.clear();
        }
        pruned
    }

    fn is_sealed(&self, doc: DocId, before_ms: u64) -> bool {
        let row = doc.as_job().and_then(|id| self.job_row(id));
        row.and_then(|row| row.sealed_ms).is_some_and(|at_ms| at_ms <= before_ms)
    }

    fn drop_bodies(&mut self, author: NodeId, seq: u64, wire: &[u8], jobs: &BTreeSet<JobId>) {
        let goes = |change: &ChangeRef| change.may_go() && change.doc.as_job().is_some_and(|id| jobs.contains(&id));
        let Some(left) = Bundle::without(wire, goes) else { return };
        self.put_bundle(author, seq, Some(left.to_vec()));
        for id in jobs {
            for r in self.registers(DocId::job(*id)) {
                if r.author == author && r.seq == seq && r.key != Key::Seal {
                    let row = register_key(DocId::job(*id), &r.key.to_string(), author);
                    self.shelf.put((Table::Registers, row, None));
                }
            }
            self.jobs.remove(id);
        }
    }

    /// Whether a sealed job's history is gone here: nothing is left of it but its record.
    #[must_use]
    pub fn is_dropped(&self, id: JobId) -> bool {
        let doc = DocId::job(id);
        self.is_sealed(doc, u64::MAX) && self.registers(doc).iter().all(|r| r.key == Key::Seal)
    }

    /// Notes that a body did not come with its bundle.
    pub(super) fn note_missing(&mut self, id: JobId, author: NodeId, seq: u64) {
        self.shelf.put((Table::Meta, missing_key(id, author, seq), Some(Vec::new())));
        self.incomplete.insert(id);
    }

    fn unnote_missing(&mut self, id: JobId, author: NodeId, seq: u64) {
        self.shelf.put((Table::Meta, missing_key(id, author, seq), None));
        let prefix = [MISSING, &id.0].concat();
        if self.shelf.scan(Table::Meta, &prefix, &prefix, 1).is_empty() {
            self.incomplete.remove(&id);
        }
    }

    /// Jobs of which a body is missing, as the rows say.
    pub(super) fn load_incomplete(shelf: &S) -> BTreeSet<JobId> {
        let rows = shelf.all(Table::Meta, MISSING);
        rows.iter().filter_map(|(key, _)| Some(read_missing_key(key)?.0)).collect()
    }

    /// Whether a body of a job is missing here that was not (as far as is known) dropped by the rules: nobody is to act on
    /// what the job seems to be.
    #[must_use]
    pub fn is_incomplete(&self, id: JobId) -> bool {
        self.incomplete.contains(&id)
    }

    /// Goes on through the list of missing bodies, by up to `limit`: takes off it what was dropped by the rules or is gone with
    /// a fork, and answers the first bundle that others are to be asked for.
    pub fn review_missing(&mut self, limit: usize) -> Option<(NodeId, u64)> {
        let from = std::mem::take(&mut self.cursors.missing);
        let from = if from.is_empty() { MISSING.to_vec() } else { from };
        let rows = self.shelf.scan(Table::Meta, MISSING, &from, limit);
        let end = rows.len() < limit;
        let mut wanted = None;
        let mut checkpoints = BTreeMap::new();
        for (key, _) in rows {
            let Some((id, author, seq)) = read_missing_key(&key) else { continue };
            let covered = *checkpoints.entry(author).or_insert_with(|| self.checkpoint(author));
            let dropped = seq <= covered && self.is_sealed(DocId::job(id), u64::MAX);
            // What lay beyond a fork went with it.
            if dropped || self.shelf.get(Table::Bundles, &bundle_key(author, seq)).is_none() {
                self.unnote_missing(id, author, seq);
            } else if wanted.is_none() {
                wanted = Some((author, seq));
            }
            self.cursors.missing = [&missing_key(id, author, seq)[..], &[0]].concat();
        }
        if end {
            self.cursors.missing.clear();
        }
        wanted
    }

    /// Takes bodies that are missing here from a bundle that has them.
    pub(super) fn restore(&mut self, bundle: &Bundle) -> Ingest {
        let (author, seq) = (bundle.header.author, bundle.header.seq);
        let missing = |doc: DocId| {
            let key = doc.as_job().map(|id| missing_key(id, author, seq));
            key.is_some_and(|key| self.shelf.get(Table::Meta, &key).is_some())
        };
        let stored = self.shelf.get(Table::Bundles, &bundle_key(author, seq));
        let Some(filled) = stored.and_then(|wire| bundle.filled(&wire, |change| missing(change.doc))) else {
            return Ingest::Duplicate;
        };
        self.put_bundle(author, seq, Some(filled.wire.to_vec()));
        let mut docs = BTreeSet::new();
        for (change, body) in filled.header.changes.iter().zip(&filled.bodies) {
            if let (Some(id), false) = (change.doc.as_job(), *body == Body::Pruned) {
                self.unnote_missing(id, author, seq);
                docs.insert(change.doc);
            }
        }
        self.rewrite_author(author, &docs);
        self.refold(&docs);
        Ingest::Applied(Applied { docs, ..Applied::default() })
    }

    /// Jobs whose seals count no more: what was dropped of them is missing now. Cost: linear in all bundles; it takes the
    /// revocation of a submitter from a place before its seals.
    pub(super) fn look_for_missing(&mut self) {
        let reopened = std::mem::take(&mut self.reopened);
        if reopened.is_empty() {
            return;
        }
        for (key, wire) in self.shelf.all(Table::Bundles, &[]) {
            let Some((author, seq)) = key.split_at_checked(32) else { continue };
            let (Ok(author), Ok(seq)) = (author.try_into(), seq.try_into()) else { continue };
            for (change, here) in Bundle::changes_of(&wire) {
                let id = change.doc.as_job().filter(|id| !here && reopened.contains(id));
                if let Some(id) = id {
                    self.note_missing(id, NodeId(author), u64::from_be_bytes(seq));
                }
            }
        }
    }
}

/// Whether a bundle lacks a body that no rule lets go.
pub(super) fn lacks_lasting(bundle: &Bundle) -> bool {
    let mut changes = bundle.header.changes.iter().zip(&bundle.bodies);
    changes.any(|(change, body)| {
        *body == Body::Pruned && (change.doc.kind != DocKind::Job || change.kind != ChangeKind::Register)
    })
}

fn missing_key(id: JobId, author: NodeId, seq: u64) -> Vec<u8> {
    [MISSING, &id.0, &author.0, &seq.to_be_bytes()].concat()
}

fn read_missing_key(key: &[u8]) -> Option<(JobId, NodeId, u64)> {
    let key = key.get(MISSING.len()..)?;
    let (id, rest) = key.split_at_checked(16)?;
    let (author, seq) = rest.split_at_checked(32)?;
    Some((JobId(id.try_into().ok()?), NodeId(author.try_into().ok()?), u64::from_be_bytes(seq.try_into().ok()?)))
}
