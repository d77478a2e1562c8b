//! Leases: owners say each second what they hold; watchers declare lost what is silent or no longer held.
//!
//! All silence is measured on the listener's monotonic clock. A node that slept, or that lost half its peers at once,
//! suspects itself first and waits one more lease.

use std::collections::BTreeMap;

use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::job::{ClaimId, Job, Lost, Segment};
use crdt::mutant::{Mutant, is_made};
use crdt::shelf::Shelf;

use super::{CLAIM_FLOOR, Core, Phase, token};
use crate::io::{Effect, Effects};
use crate::limits::{
    GOSSIP_EVERY_MS, LEASE_MS, LEASES_UNHEARD, MOVE_BYTES_PER_MS, PRESENCE_EVERY_MS, START_BY_MS,
    START_BY_QUEUE_MS_MAX, TOKENS_PER_PRESENCE_MAX,
};
use crate::msg::Msg;
use crate::time::{Now, Time};

/// Peers up to which everybody hears everybody's presence; beyond, only watchers do.
const PRESENCE_TO_ALL_PEERS_MAX: usize = 32;

impl<S: Shelf> Core<S> {
    pub(super) fn tick_presence(&mut self, now: Now, out: &mut Effects) {
        if !self.is_due(now, self.presence_at) {
            return;
        }
        self.presence_at = now.mono.plus_ms(PRESENCE_EVERY_MS);
        self.wake_at(self.presence_at);
        // Who lost its store holds nothing of what others know that it claimed, as soon as it heard how far that went.
        let seq = self.replica.feeds().get(&self.me).map_or(0, |feed| feed.seq).max(self.told_of_seq);
        let connected: Vec<NodeId> = self.connected().collect();
        let all = connected.len() <= PRESENCE_TO_ALL_PEERS_MAX;
        let mut tokens: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        if all {
            tokens.extend(connected.iter().map(|node| (*node, Vec::new())));
        }
        for (job, claim) in self.held.keys().chain(&self.reported) {
            let value = self.replica.cached_job(job).and_then(|j| j.claims().get(claim));
            for watcher in value.iter().flat_map(|c| &c.value.watchers) {
                let list = tokens.entry(*watcher).or_default();
                if list.len() < TOKENS_PER_PRESENCE_MAX {
                    list.push(token(*job, claim));
                }
            }
        }
        let incarnation = self.config.incarnation;
        let connected = tokens.into_iter().filter(|(node, _)| self.is_connected(node));
        let words = connected.map(|(node, tokens)| (node, Msg::Presence { incarnation, seq, tokens }.encode()));
        out.push(Effect::Presence(words.collect()));
    }

    pub(super) fn on_presence(
        &mut self,
        now: Now,
        from: NodeId,
        incarnation: u64,
        seq: u64,
        tokens: &[u64],
        out: &mut Effects,
    ) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.incarnation = peer.incarnation.max(incarnation);
        }
        let (known, frozen) = self.replica.feeds().get(&from).map_or((0, false), |feed| (feed.seq, feed.frozen));
        if known < seq && !frozen {
            self.await_feed(now, from, known, seq, out);
            return;
        }
        let dropped: Vec<(JobId, ClaimId)> = self
            .watches
            .keys()
            .filter(|(_, claim)| claim.owner == from)
            .filter(|(job, claim)| {
                let written = self.replica.cached_job(job).and_then(|j| j.claims().get(claim));
                written.is_some_and(|c| c.seq <= seq) && !tokens.contains(&token(*job, claim))
            })
            .copied()
            .collect();
        for (job, claim) in dropped {
            self.declare_lost(now, job, claim);
        }
    }

    /// A peer says that it wrote more than is known here: it is asked for what does not come by gossip.
    fn await_feed(&mut self, now: Now, from: NodeId, known: u64, seq: u64, out: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        match peer.awaited {
            Some((awaited, since)) if known < awaited => {
                if now.mono.ms_since(since) >= GOSSIP_EVERY_MS {
                    self.note_head(from, seq, from);
                    self.want_missing(now, out);
                }
            }
            _ => peer.awaited = Some((seq, now.mono)),
        }
    }

    /// After a pause of this process nobody else's silence means anything yet.
    pub(super) fn after_sleep(&mut self, now: Now) {
        if now.mono.ms_since(self.turn_at) > LEASE_MS / 2 {
            for watch in self.watches.values_mut() {
                watch.since = now.mono;
            }
            for peer in self.peers.values_mut().filter(|peer| peer.connected) {
                peer.last_heard = peer.last_heard.max(self.turn_at);
            }
        }
        self.turn_at = now.mono;
    }

    pub(super) fn tick_leases(&mut self, now: Now) {
        if !self.is_due(now, self.lease_at) {
            return;
        }
        self.lost_peers_at.retain(|at| now.mono.ms_since(*at) < LEASE_MS);
        let connected = self.connected().count();
        let isolated = self.lost_peers_at.len() >= 2 && self.lost_peers_at.len() >= connected;
        let lease = match isolated {
            _ if is_made(Mutant::ShortLease) => PRESENCE_EVERY_MS * 9 / 10,
            true => 2 * LEASE_MS,
            false => LEASE_MS,
        };
        let mut lost = Vec::new();
        let mut next: Option<Time> = None;
        for ((job, claim), watch) in &self.watches {
            let heard = self.peers.get(&claim.owner).map_or(Time(0), |peer| peer.last_heard);
            let mut deadline = heard.max(watch.since).plus_ms(lease);
            let started = self.replica.cached_job(job).and_then(|j| j.run(claim)).is_some();
            if !started {
                deadline = deadline.min(watch.since.plus_ms(watch.start_by_ms));
            }
            if deadline <= now.mono {
                lost.push((*job, *claim));
            } else {
                next = Some(next.map_or(deadline, |n| n.min(deadline)));
            }
        }
        for (job, claim) in lost {
            self.declare_lost(now, job, claim);
        }
        // What is heard meanwhile only puts these deadlines off; a new watch brings this forward.
        self.lease_at = next.unwrap_or(Time(u64::MAX));
        if let Some(at) = next {
            self.wake_at(at);
        }
    }

    fn declare_lost(&mut self, _now: Now, id: JobId, claim: ClaimId) {
        self.watches.remove(&(id, claim));
        let Some(job) = self.replica.cached_job(&id) else { return };
        if job.run(&claim).is_some_and(|run| run.ended) {
            return;
        }
        let mut owners: Vec<NodeId> = job
            .claims()
            .keys()
            .filter(|c| c.attempt == claim.attempt && c.range == claim.range)
            .filter(|c| job.lost_by(c).any(|by| by == self.me))
            .map(|c| c.owner)
            .collect();
        if !owners.contains(&claim.owner) {
            owners.push(claim.owner);
        }
        owners.sort();
        let key = Key::Lost(claim.attempt, claim.range, self.me);
        self.write(DocId::job(id), &key, &Lost { owners });
        self.dirty.insert(id);
    }

    /// Whether a peer is heard at present.
    pub(super) fn is_heard(&self, now: Now, node: &NodeId, within_ms: u64) -> bool {
        let heard = self.peers.get(node).filter(|p| p.connected).map(|p| p.last_heard.plus_ms(within_ms));
        *node == self.me
            || heard.is_some_and(|until| until > now.mono)
            || (heard.is_some() && self.offered_until(node).is_some_and(|until| until.plus_ms(within_ms) > now.mono))
    }

    /// When the next offer of a node is due at the latest. Where there are too many peers for everybody to hear
    /// everybody's presence, the offers tell that a node lives.
    fn offered_until(&self, node: &NodeId) -> Option<Time> {
        self.offers.get(node).map(|known| known.heard.plus_ms(self.offer_every_ms()))
    }

    /// Watchers of the attempt before that are not heard.
    pub(super) fn unheard_watchers(&self, now: Now, job: &Job, segment: &Segment, attempt: u32) -> Vec<NodeId> {
        let before =
            job.claims().iter().find(|(id, _)| id.attempt == attempt && id.range.contains(segment.range.start));
        let watchers = before.map(|(_, claim)| claim.value.watchers.clone()).unwrap_or_default();
        watchers.into_iter().filter(|w| !self.can_declare(now, w)).collect()
    }

    /// Whether a watcher is heard, and may and can still write that an owner is lost.
    fn can_declare(&self, now: Now, watcher: &NodeId) -> bool {
        self.may_declare(watcher) && self.is_heard(now, watcher, LEASE_MS)
    }

    /// Whether what a watcher writes counts.
    fn may_declare(&self, watcher: &NodeId) -> bool {
        let frozen = self.replica.feeds().get(watcher).is_some_and(|feed| feed.frozen);
        !frozen && self.replica.roster().is_member(watcher)
    }

    /// A claim whose loss is declared by most of those watchers that are heard, or whose watchers and owner have all been
    /// silent for three leases, or that names no watcher whose word counts and does not start: the watchers that are not heard.
    pub(super) fn lost_by_those_heard(&self, now: Now, job: &Job, claim: &ClaimId) -> Option<Vec<NodeId>> {
        if claim.owner == self.me {
            return None;
        }
        let watchers = &job.claims().get(claim)?.value.watchers;
        let unheard: Vec<NodeId> = watchers.iter().filter(|w| !self.can_declare(now, w)).copied().collect();
        let heard = watchers.len() - unheard.len();
        if heard > 0 {
            let by = job.lost_by(claim).filter(|by| watchers.contains(by)).count();
            return (by * 2 > heard).then_some(unheard);
        }
        let long = LEASE_MS * LEASES_UNHEARD;
        let silent = |node: &NodeId| {
            let heard = self.peers.get(node).map_or(Time(0), |p| p.last_heard);
            let offered = self.offered_until(node).unwrap_or(Time(0));
            heard.max(offered).plus_ms(long) <= now.mono
        };
        let known_since = self.first_seen.get(&(job.id, claim.attempt)).copied().unwrap_or(now.mono);
        let started = job.run(claim).is_some_and(|run| !run.tasks.is_empty());
        let able = || watchers.iter().filter(|w| self.may_declare(w));
        if able().next().is_none() && !started && known_since.plus_ms(START_BY_MS + START_BY_QUEUE_MS_MAX) <= now.mono {
            return Some(unheard);
        }
        let all = able().chain([&claim.owner]).all(silent) && known_since.plus_ms(long) <= now.mono;
        all.then_some(unheard)
    }

    /// Watches the claims that name us, and stops watching those that are over.
    pub(super) fn update_watches(&mut self, now: Now, id: JobId) {
        let Some(job) = self.replica.cached_job(&id) else { return };
        let moving_ms = job.spec().map_or(0, |(_, spec)| spec.input_bytes / MOVE_BYTES_PER_MS * 10);
        // An owner that states a longer time would hold the task for as long as it likes.
        let most_ms = START_BY_MS + START_BY_QUEUE_MS_MAX + moving_ms;
        let mut wanted = BTreeMap::new();
        for (claim, written) in job.claims().iter() {
            let watching = claim.owner != self.me && written.value.watchers.contains(&self.me);
            let over = job.is_void(claim)
                || job.run(claim).is_some_and(|run| run.ended)
                || job.lost_by(claim).any(|by| by == self.me)
                || job.is_over(claim.range);
            if watching && !over {
                wanted.insert(*claim, written.value.start_by_ms.min(most_ms));
            }
        }
        let of_job = self.watches.range((id, CLAIM_FLOOR)..).take_while(|((job, _), _)| *job == id);
        let gone: Vec<_> = of_job.map(|(key, _)| *key).filter(|(_, claim)| !wanted.contains_key(claim)).collect();
        for key in gone {
            self.watches.remove(&key);
        }
        for (claim, start_by_ms) in wanted {
            self.watches.entry((id, claim)).or_insert(super::Watch { since: now.mono, start_by_ms });
            self.lease_at = self.lease_at.min(now.mono.plus_ms(start_by_ms.min(LEASE_MS)));
        }
    }

    /// Slots in which something runs.
    pub(super) fn slots_used(&self) -> u32 {
        let running = self.held.values().filter(|held| held.phase != Phase::Waiting).count();
        u32::try_from(running).unwrap_or(u32::MAX)
    }
}
