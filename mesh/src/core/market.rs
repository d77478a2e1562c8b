//! The market: offers that are known, the rank of nodes for a job, and calls to the best of them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crdt::doc::TaskRange;
use crdt::ids::{JobId, NodeId};
use crdt::job::{ClaimId, JobSpec, rendezvous};
use crdt::shelf::Shelf;

use super::{Call, Core, KnownOffer};
use crate::io::{Effect, Effects};
use crate::limits::{
    CALL_SLACK_MS, CALL_WIDTH, DECLINES_KEPT_MAX, LEASE_MS, OFFER_CHANGE_EVERY_MS, OFFER_EVERY_MS,
    OFFER_EVERY_MS_PER_MEMBER, RETRY_BACKOFF_MS, RETRY_BACKOFF_MS_MAX, STAGGER_MS,
};
use crate::msg::Msg;
use crate::offer::{Lack, Offer, SignedOffer, bid_micros, lacks};
use crate::time::Now;

/// Waiting that a bid assumes for a node without a free slot.
const BUSY_WAITING_MS: u64 = 5_000;

impl<S: Shelf> Core<S> {
    pub(super) fn send_offer(&self, to: NodeId, out: &mut Effects) {
        let signed = SignedOffer::sign(self.replica.mesh(), &*self.signer, &self.offer);
        self.send(to, &Msg::Offer(signed), out);
    }

    pub(super) fn on_offer(&mut self, now: Now, via: NodeId, signed: &SignedOffer, out: &mut Effects) {
        if signed.node == self.me || !self.replica.roster().is_member(&signed.node) {
            return;
        }
        match signed.open(self.replica.mesh()) {
            Some(offer) => self.take_offer(now, signed.node, Arc::new(offer), out),
            None => out.push(Effect::Misbehaved(via, "an offer that does not verify")),
        }
    }

    /// An offer that its node signed.
    pub(super) fn take_offer(&mut self, now: Now, node: NodeId, offer: Arc<Offer>, out: &mut Effects) {
        let order = (offer.incarnation, offer.number);
        let known = self.offers.get(&node).map(|k| (k.offer.incarnation, k.offer.number));
        let is_newer = known.is_none_or(|known| known < order);
        if node == self.me || !is_newer || !self.replica.roster().is_member(&node) {
            return;
        }
        let moved = self.offers.get(&node).is_none_or(|k| k.offer.addrs != offer.addrs);
        if moved || !self.is_connected(&node) {
            out.push(Effect::Reachable(node, offer.addrs.clone()));
        }
        self.offers.insert(node, KnownOffer { offer, heard: now.mono });
        self.offers_version += 1;
    }

    /// Interval of offers that did not change.
    pub(super) fn offer_every_ms(&self) -> u64 {
        OFFER_EVERY_MS.max(OFFER_EVERY_MS_PER_MEMBER * self.replica.roster().members.len() as u64)
    }

    pub(super) fn tick_offer(&mut self, now: Now, out: &mut Effects) {
        let free = if self.draining { 0 } else { self.offer.slots.saturating_sub(self.slots_used()) };
        // Others count our claims: how many slots are free is no reason for another offer.
        self.offer.free = free;
        let every = self.offer_every_ms();
        let waiting = self.count_waiting(now);
        let (less, more) = (waiting.min(self.offer.waiting), waiting.max(self.offer.waiting));
        if (less == 0) != (more == 0) || less < more / 4 {
            self.offer.waiting = waiting;
            self.offer_dirty = true;
        }
        let due = self.offer_at.map(|at| at.plus_ms(if self.offer_dirty { OFFER_CHANGE_EVERY_MS } else { every }));
        if due.is_some_and(|at| !self.is_due(now, at)) {
            return;
        }
        self.offer_at = Some(now.mono);
        self.offer_dirty = false;
        self.offer.number += 1;
        self.wake_at(now.mono.plus_ms(every));
        let signed = SignedOffer::sign(self.replica.mesh(), &*self.signer, &self.offer);
        out.push(Effect::Gossip(Msg::Offer(signed).encode()));
    }

    /// Offers on which something can be built: of members that may run jobs, are connected and heard, and our own.
    pub(super) fn live_offers(&self) -> impl Iterator<Item = (NodeId, &Offer)> {
        let may_run = |node: &NodeId| self.replica.roster().role(node).is_some_and(|role| role.may_run());
        // A connection outlives a pulled cable for a while.
        let now = Now { mono: self.turn_at, wall_ms: 0 };
        let is_here = move |node: &NodeId| self.is_connected(node) && self.is_heard(now, node, 2 * LEASE_MS);
        let others = self.offers.iter().filter(move |(node, _)| is_here(node)).map(|(n, k)| (*n, &*k.offer));
        others.chain([(self.me, &self.offer)]).filter(move |(node, _)| may_run(node))
    }

    /// Free slots of a node, as far as is known: those that it sells less the claims that it holds.
    #[must_use]
    pub fn free_slots(&self, node: &NodeId) -> u32 {
        if *node == self.me {
            return self.offer.free;
        }
        self.offer_of(node).map_or(0, |offer| offer.slots.saturating_sub(self.load(*node)))
    }

    /// Claims that a node holds, as far as is known.
    fn load(&self, node: NodeId) -> u32 {
        if node == self.me {
            return u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        }
        self.loads.get(&node).copied().unwrap_or(0)
    }

    /// Counts the claims of a job that changed anew.
    pub(super) fn update_loads(&mut self, id: JobId) {
        let job = self.replica.cached_job(&id).filter(|job| !job.state().is_some_and(crdt::job::JobState::is_final));
        let active =
            job.iter().flat_map(|job| job.claims().keys().filter(|id| job.run(id).is_none_or(|run| !run.ended)));
        let owners: Vec<NodeId> = active.map(|id| id.owner).collect();
        for owner in &owners {
            *self.loads.entry(*owner).or_default() += 1;
        }
        let before = if owners.is_empty() { self.busy.remove(&id) } else { self.busy.insert(id, owners) };
        for owner in before.unwrap_or_default() {
            if let Some(load) = self.loads.get_mut(&owner) {
                *load = load.saturating_sub(1);
            }
        }
    }

    /// Nodes that fit a job, best bid first; ties by rendezvous hash.
    pub(super) fn rank(&self, spec: &JobSpec, id: JobId, task: u32) -> Vec<NodeId> {
        let estimate_ms = self.durations.of(spec).map(|us| us / 1_000);
        let mut ranked: Vec<_> = self
            .live_offers()
            .filter(|(_, offer)| lacks(offer, spec).is_empty())
            .map(|(node, offer)| {
                let waiting = if self.load(node) < offer.slots { 0 } else { BUSY_WAITING_MS };
                (bid_micros(offer, spec, estimate_ms, waiting), rendezvous(id, task, node), node)
            })
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, node)| node).collect()
    }

    /// Begins a call for open tasks of our own single job, unless one is under way.
    pub(super) fn ensure_call(&mut self, now: Now, id: JobId, range: TaskRange, attempt: u32, retry: bool) {
        let current = self.calls.get(&(id, range.start));
        if current.is_some_and(|call| call.attempt == attempt) {
            return;
        }
        let backoff = RETRY_BACKOFF_MS << attempt.saturating_sub(2).min(16);
        let not_before = if retry { now.mono.plus_ms(backoff.min(RETRY_BACKOFF_MS_MAX)) } else { now.mono };
        let call = Call {
            attempt,
            range,
            rank: Vec::new(),
            called: 0,
            at: now.mono,
            not_before,
            declines: Default::default(),
            exhausted: false,
            offers_version: 0,
        };
        self.calls.insert((id, range.start), call);
    }

    pub(super) fn tick_calls(&mut self, now: Now, out: &mut Effects) {
        for (id, start) in self.calls_to_drive(now) {
            let open = self.open_ranges(now, &id);
            let call = self.calls.get(&(id, start)).expect("just listed").clone();
            if !open.iter().any(|(range, attempt, _)| range.contains(start) && *attempt == call.attempt) {
                self.end_call(id, start, out);
                continue;
            }
            self.drive_call(now, id, call, out);
        }
    }

    /// Calls under way, those that wait for a backoff, and as many more as there are free slots in the mesh: further ones
    /// would only be declined. They wait, or are drawn.
    fn calls_to_drive(&self, now: Now) -> Vec<(JobId, u32)> {
        // Who is busy draws when a slot of its is free: a call that nobody took waits for an offer with a free slot.
        if self.calls.is_empty() {
            return Vec::new();
        }
        let version = self.offers_version;
        let some_free = self.live_offers().any(|(_, offer)| offer.free > 0);
        let free = |(node, offer): (NodeId, &Offer)| offer.slots.saturating_sub(self.load(node)) as usize;
        let free: usize = self.live_offers().map(free).sum();
        let under_way = |call: &Call| call.called > 0 && !call.exhausted;
        let more = free.saturating_sub(self.calls.values().filter(|call| under_way(call)).count());
        let (mut keys, mut waiting) = (Vec::new(), Vec::new());
        for (key, call) in &self.calls {
            if call.exhausted && (call.offers_version == version || !some_free) {
                continue;
            }
            let begins = !under_way(call) && call.not_before <= now.mono;
            if begins { waiting.push(*key) } else { keys.push(*key) }
        }
        if more < waiting.len() {
            // Those of the highest priority, then the oldest.
            let order = |id: &JobId| {
                let job = self.replica.cached_job(id);
                job.map(|job| (Reverse(job.priority()), job.spec().map(|(_, spec)| spec.created_ms)))
            };
            if more > 0 {
                waiting.sort_by_cached_key(|(id, _)| order(id));
            }
            waiting.truncate(more);
        }
        keys.append(&mut waiting);
        keys
    }

    fn drive_call(&mut self, now: Now, id: JobId, mut call: Call, out: &mut Effects) {
        if !self.is_due(now, call.not_before) {
            return;
        }
        let window = STAGGER_MS * (CALL_WIDTH as u64) + CALL_SLACK_MS;
        if call.exhausted {
            if call.offers_version == self.offers_version || !self.is_due(now, call.at.plus_ms(window)) {
                return;
            }
            call.exhausted = false;
            call.rank.clear();
            call.called = 0;
        }
        let batch = &call.rank[call.called.saturating_sub(CALL_WIDTH).min(call.called)..call.called];
        let answered = batch.iter().all(|node| call.declines.contains_key(node));
        if call.called > 0 && !answered && !self.is_due(now, call.at.plus_ms(window)) {
            return;
        }
        if call.rank.is_empty() {
            let Some(spec) = self.replica.cached_job(&id).and_then(|j| j.spec()).map(|(_, spec)| spec.clone()) else {
                return;
            };
            call.rank = self.rank(&spec, id, call.range.start);
            call.declines.clear();
        }
        call.at = now.mono;
        let next: Vec<NodeId> = call.rank.iter().skip(call.called).take(CALL_WIDTH).copied().collect();
        if next.is_empty() {
            call.exhausted = true;
            call.offers_version = self.offers_version;
        } else {
            call.called += next.len();
            let msg =
                Msg::Call { job: id, attempt: call.attempt, range: call.range, rank: next.clone(), slices: Vec::new() };
            for node in &next {
                if *node == self.me {
                    self.on_call(now, self.me, id, call.attempt, call.range, (next.clone(), Vec::new()), out);
                } else {
                    self.push_feed(*node, out);
                    self.push_earlier_runs(*node, id, call.attempt, out);
                    self.send(*node, &msg, out);
                }
            }
            self.wake_at(now.mono.plus_ms(window));
        }
        self.calls.insert((id, call.range.start), call);
    }

    /// Ends a call: those who were called and wait for their turn are told that it will not come.
    pub(super) fn end_call(&mut self, id: JobId, start: u32, out: &mut Effects) {
        let Some(call) = self.calls.remove(&(id, start)) else { return };
        let claims = self.replica.cached_job(&id).map(|job| job.claims().keys().copied().collect::<Vec<_>>());
        let claims = claims.unwrap_or_default();
        let claimed = |node: &NodeId| claims.iter().any(|claim| claim.owner == *node);
        let msg = Msg::Taken { job: id, attempt: call.attempt, start };
        for node in call.rank.iter().take(call.called) {
            if *node == self.me {
                self.called.remove(&(id, call.attempt, start));
            } else if !call.declines.contains_key(node) && !claimed(node) {
                self.send(*node, &msg, out);
            }
        }
    }

    pub(super) fn on_taken(&mut self, from: NodeId, key: (JobId, u32, u32)) {
        if self.called.get(&key).is_some_and(|called| called.by == from) {
            self.called.remove(&key);
        }
    }

    /// Single tasks of ours that wait without being called for: there are more than free slots.
    pub(super) fn count_waiting(&self, now: Now) -> u32 {
        let waits = |call: &&Call| (call.called == 0 || call.exhausted) && call.not_before <= now.mono;
        u32::try_from(self.calls.values().filter(waits).count()).unwrap_or(u32::MAX)
    }

    /// Sends a peer what it lacks of our feed, so that a call finds its job there.
    fn push_feed(&mut self, to: NodeId, out: &mut Effects) {
        let head = self.replica.feeds().get(&self.me).map_or(0, |feed| feed.seq);
        let Some(peer) = self.peers.get(&to).filter(|peer| peer.connected && peer.knows_seq < head) else { return };
        let msg = self.bundles_msg(self.me, peer.knows_seq + 1, true);
        if let Msg::Bundles { bundles, .. } = &msg {
            let last = peer.knows_seq + bundles.len() as u64;
            self.peers.get_mut(&to).expect("just found").knows_seq = last;
        }
        out.push(Effect::Send(to, msg.encode()));
    }

    /// Sends a peer what lost owners of earlier attempts had written since their claims: their last words may have
    /// reached us only, and among them is the checkpoint to go on from.
    fn push_earlier_runs(&self, to: NodeId, id: JobId, attempt: u32, out: &mut Effects) {
        let Some(job) = self.replica.cached_job(&id) else { return };
        let is_gone = |claim: &ClaimId| claim.attempt < attempt && job.lost_by(claim).next().is_some();
        let earlier = job.claims().iter().filter(|(claim, _)| claim.owner != to && is_gone(claim));
        let from: BTreeMap<NodeId, u64> = earlier.map(|(claim, written)| (claim.owner, written.seq + 1)).collect();
        for (owner, seq) in from {
            let known = self.replica.feeds().get(&owner).is_some_and(|feed| feed.seq >= seq);
            if owner != self.me && known {
                self.send(to, &self.bundles_msg(owner, seq, false), out);
            }
        }
    }

    pub(super) fn on_decline(&mut self, _now: Now, from: NodeId, id: JobId, attempt: u32, start: u32, lack: Lack) {
        if let Some(call) = self.calls.get_mut(&(id, start)).filter(|call| call.attempt == attempt)
            && call.declines.len() < DECLINES_KEPT_MAX
        {
            call.declines.insert(from, lack);
        }
        if let Some(called) = self.called.get_mut(&(id, attempt, start)) {
            called.declined.insert(from);
        }
    }
}
