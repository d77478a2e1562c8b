//! What the store holds, in memory: sizes, last uses, pins and what is in use. Decides what a collection takes.
//!
//! It touches no disk. The store's tags are the truth about pins and its database about content; this mirrors both, so
//! that accounting and the choice of victims cost no round trip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crdt::ids::BlobHash;

use super::pin::{PinName, PinReason};

/// One blob as the store has it: a raw blob, a part, or a list of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes that it takes on disk.
    pub(super) size: u64,
    /// All of it is here.
    pub(super) complete: bool,
    /// Last use, in Unix milliseconds.
    pub(super) used_ms: u64,
}

/// The store's state in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Bytes of everything stored, partial blobs included.
    pub bytes: u64,
    /// Bytes that a pin holds.
    pub pinned_bytes: u64,
    /// Blobs stored, every part counted.
    pub blobs: u64,
    /// The quota in bytes.
    pub quota_bytes: u64,
    /// Nothing more can be stored until something is unpinned or the quota is raised.
    pub paused: bool,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<BlobHash, Entry>,
    bytes: u64,
    pins: BTreeMap<PinName, Arc<[BlobHash]>>,
    parts: BTreeMap<BlobHash, Arc<[BlobHash]>>,
    refs: BTreeMap<BlobHash, u32>,
    pinned_bytes: u64,
    held: BTreeMap<BlobHash, u32>,
    damaged: BTreeSet<BlobHash>,
    reserved: u64,
    refused: u64,
}

impl Index {
    pub(super) fn get(&self, hash: &BlobHash) -> Option<&Entry> {
        self.entries.get(hash)
    }

    pub(super) fn is_complete(&self, hash: &BlobHash) -> bool {
        self.entries.get(hash).is_some_and(|entry| entry.complete)
    }

    pub(super) fn put(&mut self, hash: BlobHash, entry: Entry) {
        self.remove(&hash);
        if entry.complete {
            self.damaged.remove(&hash);
        }
        self.bytes += entry.size;
        if self.refs.contains_key(&hash) {
            self.pinned_bytes += entry.size;
        }
        self.entries.insert(hash, entry);
    }

    pub(super) fn remove(&mut self, hash: &BlobHash) {
        if let Some(old) = self.entries.remove(hash) {
            self.bytes -= old.size;
            if self.refs.contains_key(hash) {
                self.pinned_bytes -= old.size;
            }
        }
    }

    /// What is stored of a blob does not match its hash: it counts as absent until it is stored again.
    pub(super) fn mark_damaged(&mut self, hash: BlobHash) {
        if let Some(entry) = self.entries.get_mut(&hash) {
            entry.complete = false;
            self.damaged.insert(hash);
        }
    }

    /// Which of these are damaged.
    pub(super) fn damaged_among(&self, hashes: impl Iterator<Item = BlobHash>) -> BTreeSet<BlobHash> {
        hashes.filter(|hash| self.damaged.contains(hash)).collect()
    }

    /// The damaged content has been deleted.
    pub(super) fn scrapped(&mut self, hash: &BlobHash) {
        self.remove(hash);
        self.damaged.remove(hash);
    }

    /// Pins that hold any of these.
    pub(super) fn pins_over_any(&self, hashes: &BTreeSet<BlobHash>) -> Vec<PinName> {
        let over = |all: &[BlobHash]| all.iter().any(|hash| hashes.contains(hash));
        self.pins.iter().filter(|(_, all)| over(all)).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn touch(&mut self, hash: &BlobHash, now_ms: u64) {
        if let Some(entry) = self.entries.get_mut(hash) {
            entry.used_ms = entry.used_ms.max(now_ms);
        }
    }

    /// The parts of a list that has been seen complete.
    pub(super) fn parts(&self, root: &BlobHash) -> Option<Arc<[BlobHash]>> {
        self.parts.get(root).cloned()
    }

    pub(super) fn set_parts(&mut self, root: BlobHash, parts: Arc<[BlobHash]>) {
        self.parts.insert(root, parts);
    }

    /// The root and everything below it that is known.
    pub(super) fn closure(&self, root: &BlobHash) -> Vec<BlobHash> {
        let mut all = vec![*root];
        if let Some(parts) = self.parts.get(root) {
            all.extend(parts.iter().copied());
        }
        all
    }

    /// Size of the whole blob that this hash names, as far as it is here: of a list of parts that of its parts.
    pub(super) fn total(&self, root: &BlobHash) -> Option<u64> {
        let entry = self.entries.get(root).filter(|entry| entry.complete)?;
        match self.parts.get(root) {
            None => Some(entry.size),
            Some(parts) => parts.iter().map(|part| self.entries.get(part).filter(|e| e.complete).map(|e| e.size)).sum(),
        }
    }

    pub(super) fn pin(&mut self, name: PinName) {
        if self.pins.contains_key(&name) {
            return;
        }
        let all: Arc<[BlobHash]> = self.closure(&name.hash).into();
        for hash in all.iter() {
            let count = self.refs.entry(*hash).or_default();
            *count += 1;
            if *count == 1 {
                self.pinned_bytes += self.entries.get(hash).map_or(0, |entry| entry.size);
            }
        }
        self.pins.insert(name, all);
    }

    pub(super) fn unpin(&mut self, name: &PinName) {
        let Some(all) = self.pins.remove(name) else {
            return;
        };
        for hash in all.iter() {
            let Some(count) = self.refs.get_mut(hash) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.refs.remove(hash);
                self.pinned_bytes -= self.entries.get(hash).map_or(0, |entry| entry.size);
            }
        }
    }

    pub(super) fn is_pinned(&self, hash: &BlobHash) -> bool {
        self.refs.contains_key(hash)
    }

    /// Pins of this reason, in the order of their hashes.
    pub(super) fn pins_of(&self, reason: &PinReason) -> Vec<PinName> {
        let from = PinName { reason: reason.clone(), hash: BlobHash::ZERO };
        self.pins.range(from..).map(|(name, _)| name).take_while(|name| name.reason == *reason).cloned().collect()
    }

    /// Jobs that pin something.
    pub(super) fn pinned_jobs(&self) -> BTreeSet<crdt::ids::JobId> {
        let job = |name: &PinName| if let PinReason::Job(id) = name.reason { Some(id) } else { None };
        self.pins.keys().filter_map(job).collect()
    }

    /// Pins whose time is over.
    pub(super) fn pins_over(&self, now_ms: u64) -> Vec<PinName> {
        self.pins.keys().filter(|name| name.reason.is_over(now_ms)).cloned().collect()
    }

    pub(super) fn reasons_of(&self, hash: &BlobHash) -> Vec<PinReason> {
        let reasons: BTreeSet<_> =
            self.pins.iter().filter(|(_, all)| all.contains(hash)).map(|(name, _)| &name.reason).collect();
        reasons.into_iter().cloned().collect()
    }

    pub(super) fn hold(&mut self, hash: BlobHash) {
        *self.held.entry(hash).or_default() += 1;
    }

    pub(super) fn release(&mut self, hash: &BlobHash) {
        if let Some(count) = self.held.get_mut(hash) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(hash);
            }
        }
    }

    /// Sets room aside if there is any under the quota; otherwise says how many bytes are too many.
    pub(super) fn reserve(&mut self, bytes: u64, quota: u64) -> Result<(), u64> {
        let wanted = self.bytes.saturating_add(self.reserved).saturating_add(bytes);
        if wanted > quota {
            return Err(wanted - quota);
        }
        self.reserved += bytes;
        if bytes >= self.refused {
            self.refused = 0;
        }
        Ok(())
    }

    pub(super) fn unreserve(&mut self, bytes: u64) {
        self.reserved -= bytes;
    }

    /// Remembers that this many bytes found no room, so that the pause is shown until they would.
    pub(super) fn refuse(&mut self, bytes: u64) {
        self.refused = bytes;
    }

    /// Bytes that no collection can free.
    pub(super) fn unfreeable(&self) -> u64 {
        let held: u64 = self
            .held
            .keys()
            .filter(|hash| !self.is_pinned(hash))
            .filter_map(|hash| self.entries.get(hash))
            .map(|entry| entry.size)
            .sum();
        self.pinned_bytes + self.reserved + held
    }

    pub(super) fn usage(&self, quota: u64) -> Usage {
        Usage {
            bytes: self.bytes,
            pinned_bytes: self.pinned_bytes,
            blobs: self.entries.len() as u64,
            quota_bytes: quota,
            paused: self.pinned_bytes.saturating_add(self.refused.max(1)) > quota,
        }
    }

    /// Bytes stored or about to be.
    pub(super) fn committed(&self) -> u64 {
        self.bytes.saturating_add(self.reserved)
    }

    /// What to delete to free at least this many bytes: neither pinned nor in use, oldest use first.
    pub(super) fn victims(&self, bytes: u64) -> BTreeSet<BlobHash> {
        let mut free: Vec<_> = self
            .entries
            .iter()
            .filter(|(hash, _)| !self.refs.contains_key(hash) && !self.held.contains_key(hash))
            .map(|(hash, entry)| (entry.used_ms, *hash, entry.size))
            .collect();
        free.sort_unstable();
        let mut freed = 0;
        let mut victims = BTreeSet::new();
        for (_, hash, size) in free {
            if freed >= bytes {
                break;
            }
            freed += size;
            victims.insert(hash);
        }
        victims
    }

    /// Everything that a collection must keep when these go.
    pub(super) fn keep(&self, victims: &BTreeSet<BlobHash>) -> Vec<BlobHash> {
        self.entries.keys().chain(self.held.keys()).filter(|hash| !victims.contains(hash)).copied().collect()
    }

    /// Forgets a deleted blob.
    pub(super) fn forget(&mut self, hash: &BlobHash) {
        self.remove(hash);
        self.parts.remove(hash);
    }

    /// Entries after this hash, in the order of their hashes.
    pub(super) fn page(&self, after: Option<BlobHash>, limit: usize) -> Vec<(BlobHash, Entry)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.entries
            .range((from, std::ops::Bound::Unbounded))
            .take(limit)
            .map(|(hash, entry)| (*hash, entry.clone()))
            .collect()
    }

    /// Last uses, to be kept over a restart.
    pub(super) fn ages(&self) -> Vec<(BlobHash, u64)> {
        self.entries.iter().map(|(hash, entry)| (*hash, entry.used_ms)).collect()
    }

    /// What is in use or set aside survives a reload of everything else.
    pub(super) fn keep_uses_of(&mut self, old: Self) {
        self.held = old.held;
        self.reserved = old.reserved;
        self.refused = old.refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> BlobHash {
        BlobHash([n; 32])
    }

    fn entry(size: u64, used_ms: u64) -> Entry {
        Entry { size, complete: true, used_ms }
    }

    fn name(reason: PinReason, n: u8) -> PinName {
        PinName { reason, hash: hash(n) }
    }

    #[test]
    fn the_oldest_unpinned_go_first() {
        let mut index = Index::default();
        for n in 0..6 {
            index.put(hash(n), entry(10, u64::from(10 - n)));
        }
        index.pin(name(PinReason::Ledger, 5));
        index.hold(hash(4));
        assert_eq!(index.victims(15), BTreeSet::from([hash(3), hash(2)]));
        assert_eq!(index.victims(1_000), BTreeSet::from([hash(0), hash(1), hash(2), hash(3)]));
        assert!(index.victims(0).is_empty());
    }

    #[test]
    fn a_pinned_list_pins_its_parts_once_each() {
        let mut index = Index::default();
        for n in 1..4 {
            index.put(hash(n), entry(10, 0));
        }
        index.set_parts(hash(1), vec![hash(2), hash(3), hash(2)].into());
        index.pin(name(PinReason::Ledger, 1));
        index.pin(name(PinReason::Manual, 1));
        index.pin(name(PinReason::Manual, 3));
        assert_eq!(index.usage(100).pinned_bytes, 30);
        index.unpin(&name(PinReason::Ledger, 1));
        index.unpin(&name(PinReason::Manual, 1));
        assert_eq!(index.usage(100).pinned_bytes, 10);
        index.unpin(&name(PinReason::Manual, 3));
        assert_eq!(index.usage(100).pinned_bytes, 0);
        assert_eq!(index.total(&hash(1)), Some(30));
    }

    #[test]
    fn a_pin_set_before_its_content_counts_once_the_content_is_here() {
        let mut index = Index::default();
        index.pin(name(PinReason::Ledger, 1));
        index.put(hash(1), entry(10, 0));
        index.put(hash(1), entry(12, 0));
        assert_eq!((index.usage(100).pinned_bytes, index.usage(100).bytes), (12, 12));
        index.remove(&hash(1));
        assert_eq!((index.usage(100).pinned_bytes, index.usage(100).bytes), (0, 0));
    }

    #[test]
    fn a_refusal_pauses_until_its_size_would_fit() {
        let mut index = Index::default();
        index.put(hash(1), entry(90, 0));
        index.pin(name(PinReason::Ledger, 1));
        assert!(!index.usage(100).paused);
        assert_eq!(index.reserve(20, 100), Err(10));
        index.refuse(20);
        assert!(index.usage(100).paused);
        index.unpin(&name(PinReason::Ledger, 1));
        assert!(!index.usage(100).paused);
    }

    #[test]
    fn pins_of_a_reason_are_found() {
        let mut index = Index::default();
        let job = PinReason::Job(crdt::ids::JobId([1; 16]));
        index.pin(name(job.clone(), 1));
        index.pin(name(job.clone(), 2));
        index.pin(name(PinReason::Job(crdt::ids::JobId([2; 16])), 3));
        index.pin(name(PinReason::Replica { until_ms: 5 }, 4));
        assert_eq!(index.pins_of(&job).len(), 2);
        assert_eq!(index.pins_over(4), vec![]);
        assert_eq!(index.pins_over(5), vec![name(PinReason::Replica { until_ms: 5 }, 4)]);
        assert_eq!(index.reasons_of(&hash(1)), vec![job]);
    }
}
