//! How bundles travel: by direct stream, by gossip, and by repair.
//!
//! On connect and then periodically with a random peer, a digest of all heads is exchanged; where it differs the heads,
//! and then the missing ranges. The cost grows with authors, not with jobs.

use bytes::Bytes;
use crdt::bundle::Bundle;
use crdt::doc::DocKind;
use crdt::ids::{BundleHash, NodeId};
use crdt::replica::{Applied, Feed, ForkProof, Ingest};
use crdt::shelf::{Shelf, Table};
use rand::RngExt;
use serde_bytes::ByteBuf;

use super::Core;
use crate::io::{Content, Effect, Effects, Verified};
use crate::limits::{
    BUNDLES_MESSAGE_BYTES_MAX, BUNDLES_PER_MESSAGE_MAX, FEED_BEHIND_MAX, FEED_FAR_BEHIND, FEED_TAIL,
    HEADS_PER_MESSAGE_MAX, REPAIR_EVERY_MS, ROSTER_AGAIN_MS, STALE_TAIL_ROUNDS, STRANGE_HEADS_MAX, WANT_AGAIN_MS,
    WANT_TIMES_MAX,
};
use crate::msg::Msg;
use crate::time::{Now, Time};

impl<S: Shelf> Core<S> {
    pub(super) fn on_connected(&mut self, now: Now, node: NodeId, out: &mut Effects) {
        let peer = self.peers.entry(node).or_default();
        peer.connected = true;
        peer.since = now.mono;
        peer.last_heard = now.mono;
        self.send(node, &self.hello(), out);
        for fork in self.replica.forks() {
            self.send(node, &fork_msg(&fork), out);
        }
        if !self.replica.roster().is_member(&self.me) {
            self.roster_asked = true;
            self.send(node, &Msg::AskRoster, out);
        }
        self.send_offer(node, out);
        self.presence_at = Time(0);
    }

    pub(super) fn on_disconnected(&mut self, now: Now, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.connected = false;
        }
        if !self.replica.roster().revoked.is_empty() {
            // An admin who is gone adopts no jobs any more: another one looks at them.
            self.dirty.extend(self.open.iter().copied());
        }
        self.lost_peers_at.push(now.mono);
        self.offers_version += 1;
    }

    pub(super) fn send(&self, to: NodeId, msg: &Msg, out: &mut Effects) {
        if self.is_connected(&to) {
            out.push(Effect::Send(to, msg.encode()));
        }
    }

    pub(super) fn on_message(&mut self, now: Now, from: NodeId, bytes: &Bytes, out: &mut Effects) {
        let Some(msg) = Msg::decode(bytes) else {
            out.push(Effect::Misbehaved(from, "a message that cannot be read"));
            return;
        };
        let peer = self.peers.entry(from).or_default();
        peer.last_heard = now.mono;
        match msg {
            Msg::Hello { incarnation, heads } => self.on_hello(now, from, incarnation, &heads, out),
            Msg::Heads(heads) => self.on_heads(now, from, &heads, out),
            Msg::Want { author, from_seq } => self.on_want(from, author, from_seq, out),
            Msg::Bundles { bundles, receipt, more } => {
                self.on_bundles(now, from, bundles, out);
                self.after_bundles(now, from, receipt, more, out);
            }
            Msg::Announce(heads) => self.on_announce(now, from, &heads, out),
            Msg::Receipt { seq } => {
                let head = self.replica.feeds().get(&self.me).map_or(0, |feed| feed.seq);
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.receipt_seq = peer.receipt_seq.max(seq.min(head));
                    peer.knows_seq = peer.knows_seq.max(seq.min(head));
                }
            }
            Msg::AskRoster => self.on_ask_roster(now, from, out),
            Msg::Roster(extracts) => self.on_roster(from, extracts, out),
            Msg::Fork { author, seq, branches } => self.on_fork(author, seq, branches, out),
            Msg::Offer(signed) => self.on_offer(now, from, &signed, out),
            Msg::Call { job, attempt, range, rank, slices } => {
                self.on_call(now, from, job, attempt, range, (rank, slices), out);
            }
            Msg::Taken { job, attempt, start } => self.on_taken(from, (job, attempt, start)),
            Msg::Decline { job, attempt, start, lack } => self.on_decline(now, from, job, attempt, start, lack),
            Msg::Prepare { job, task, ballot } => self.on_prepare(now, from, (job, task), ballot, out),
            Msg::Promise { job, task, ballot, accepted } => {
                self.on_promise(now, from, (job, task), (ballot, accepted), out);
            }
            Msg::Propose { job, task, ballot, choice } => {
                self.on_propose(now, from, (job, task), (ballot, choice), out);
            }
            Msg::Vote { job, task, ballot } => self.on_vote(now, from, (job, task), ballot),
            Msg::Outvoted { job, task, promised } => self.on_outvoted((job, task), promised),
            Msg::Presence { incarnation, seq, tokens } => self.on_presence(now, from, incarnation, seq, &tokens, out),
        }
    }

    /// Bundles that the driver has verified, as many of a long history.
    pub(super) fn on_verified(&mut self, now: Now, from: NodeId, verified: Verified, out: &mut Effects) {
        self.peers.entry(from).or_default().last_heard = now.mono;
        match verified.0 {
            Content::Offer(node, offer) => self.take_offer(now, node, offer, out),
            Content::Bundles { bundles, refused, receipt, more } => {
                for _ in 0..refused {
                    out.push(Effect::Misbehaved(from, "a bundle that does not verify"));
                }
                for bundle in bundles.iter() {
                    self.take_in(now, from, bundle.clone(), out);
                }
                self.want_missing(now, out);
                self.after_bundles(now, from, receipt, more, out);
            }
        }
    }

    fn after_bundles(&mut self, now: Now, from: NodeId, receipt: bool, more: Option<(NodeId, u64)>, out: &mut Effects) {
        if receipt {
            let seq = self.replica.feeds().get(&from).map_or(0, |feed| feed.seq);
            self.send(from, &Msg::Receipt { seq }, out);
        }
        if let Some((author, seq)) = more {
            // What was asked for meanwhile is not asked for again: each answer would double the questions.
            self.note_head(author, seq, from);
            self.want_missing(now, out);
        }
    }

    pub(super) fn on_gossip(&mut self, now: Now, via: NodeId, bytes: &Bytes, out: &mut Effects) {
        match Msg::decode(bytes) {
            Some(Msg::Bundles { bundles, .. }) => self.on_bundles(now, via, bundles, out),
            Some(Msg::Announce(heads)) => self.on_announce(now, via, &heads, out),
            Some(Msg::Offer(signed)) => self.on_offer(now, via, &signed, out),
            Some(Msg::Fork { author, seq, branches }) => self.on_fork(author, seq, branches, out),
            Some(
                Msg::Hello { .. }
                | Msg::Heads(_)
                | Msg::Want { .. }
                | Msg::AskRoster
                | Msg::Roster(_)
                | Msg::Receipt { .. }
                | Msg::Call { .. }
                | Msg::Taken { .. }
                | Msg::Prepare { .. }
                | Msg::Promise { .. }
                | Msg::Propose { .. }
                | Msg::Vote { .. }
                | Msg::Outvoted { .. }
                | Msg::Decline { .. }
                | Msg::Presence { .. },
            )
            | None => out.push(Effect::Misbehaved(via, "a gossip message that is none")),
        }
    }

    fn hello(&self) -> Msg {
        Msg::Hello { incarnation: self.config.incarnation, heads: ByteBuf::from(self.heads_digest()) }
    }

    fn heads_digest(&self) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        for (author, feed) in self.replica.feeds() {
            hasher.update(&author.0).update(&feed.seq.to_be_bytes()).update(&told(feed).0);
        }
        hasher.finalize().as_bytes()[..16].to_vec()
    }

    fn on_hello(&mut self, now: Now, from: NodeId, incarnation: u64, heads: &[u8], out: &mut Effects) {
        if let Some(peer) = self.peers.get_mut(&from)
            && peer.incarnation != incarnation
        {
            peer.incarnation = incarnation;
            peer.knows_seq = 0;
            peer.receipt_seq = 0;
            peer.last_heard = now.mono;
        }
        if heads == self.heads_digest() {
            self.heard_heads = true;
            self.heads_from.insert(from);
        } else {
            let heads: Vec<_> = self.replica.feeds().iter().map(|(a, f)| (*a, f.seq, told(f))).collect();
            for part in heads.chunks(HEADS_PER_MESSAGE_MAX) {
                self.send(from, &Msg::Heads(part.to_vec()), out);
            }
        }
    }

    /// The peer's heads: ask for what it has more of, and give it what we have more of.
    fn on_heads(&mut self, now: Now, from: NodeId, heads: &[(NodeId, u64, BundleHash)], out: &mut Effects) {
        for (author, seq, hash) in heads {
            if *author == self.me
                && let Some(peer) = self.peers.get_mut(&from)
            {
                peer.knows_seq = *seq;
            }
            let ours = self.replica.feeds().get(author).cloned().unwrap_or_default();
            if ours.frozen {
                if (*seq, *hash) != (ours.seq, told(&ours)) {
                    self.tell_fork(*author, from, out);
                }
            } else if *seq > ours.seq {
                self.note_head(*author, *seq, from);
            } else if *seq == ours.seq && *hash != ours.hash {
                self.send(from, &Msg::Want { author: *author, from_seq: *seq }, out);
            }
        }
        self.heard_heads = true;
        self.heads_from.insert(from);
        self.want_missing(now, out);
        let theirs: std::collections::BTreeMap<NodeId, u64> = heads.iter().map(|(a, s, _)| (*a, *s)).collect();
        let behind: Vec<NodeId> = self
            .replica
            .feeds()
            .iter()
            .filter(|(author, feed)| theirs.get(author).copied().unwrap_or(0) < feed.seq)
            .map(|(author, _)| *author)
            .collect();
        if !behind.is_empty() {
            let list: Vec<_> = behind
                .iter()
                .filter_map(|a| self.replica.feeds().get(a).map(|f| (*a, f.seq, f.hash)))
                .take(HEADS_PER_MESSAGE_MAX)
                .collect();
            self.send(from, &Msg::Announce(list), out);
        }
    }

    fn on_announce(&mut self, now: Now, from: NodeId, heads: &[(NodeId, u64, BundleHash)], out: &mut Effects) {
        for (author, seq, _) in heads {
            if self.replica.feeds().get(author).is_some_and(|ours| ours.frozen && ours.seq < *seq) {
                self.tell_fork(*author, from, out);
            }
            self.note_head(*author, *seq, from);
        }
        self.want_missing(now, out);
    }

    /// Who goes on from a place where an author forked is told so: the proof that went by gossip was lost to it.
    fn tell_fork(&self, author: NodeId, to: NodeId, out: &mut Effects) {
        if let Some(proof) = self.replica.fork_of(&author) {
            self.send(to, &fork_msg(&proof), out);
        }
    }

    pub(super) fn note_head(&mut self, author: NodeId, seq: u64, at: NodeId) {
        let ours = self.replica.feeds().get(&author).map_or(0, |feed| feed.seq);
        let roster = self.replica.roster();
        if seq > ours && author != self.replica.founder() && !roster.authors.contains(&author) {
            if self.strange_heads.len() >= STRANGE_HEADS_MAX && !self.strange_heads.contains(&author) {
                return;
            }
            self.strange_heads.insert(author);
        }
        if self.hold_own_feed && author == self.me && seq > self.told_of_seq {
            self.told_of_seq = seq;
            self.replica.shelf_mut().put((Table::Meta, super::HOLD_ROW.to_vec(), Some(seq.to_be_bytes().to_vec())));
        }
        if seq > ours {
            let entry = self.peer_heads.entry(author).or_insert((seq, at));
            if seq >= entry.0 || !self.peers.get(&entry.1).is_some_and(|p| p.connected) {
                *entry = (seq, at);
            }
        }
    }

    /// Whether much of an author's feed is known to be missing here: what looks open may long be over.
    pub(super) fn is_behind(&self, author: &NodeId) -> bool {
        let ours = self.replica.feeds().get(author).map_or(0, crdt::replica::Feed::known_seq);
        self.peer_heads.get(author).is_some_and(|(seq, _)| *seq > ours + FEED_BEHIND_MAX)
    }

    /// Asks for what others are known to have and we have not, one range per author at a time.
    pub(super) fn want_missing(&mut self, now: Now, out: &mut Effects) {
        let (mut asks, mut tails) = (Vec::new(), Vec::new());
        let feeds = self.replica.feeds();
        let (peers, me) = (&self.peers, self.me);
        self.peer_heads.retain(|author, (seq, at)| {
            let ours = feeds.get(author).cloned().unwrap_or_default();
            if ours.seq >= *seq || ours.frozen || !peers.get(at).is_some_and(|p| p.connected) {
                return false;
            }
            asks.push((*author, ours.seq + 1, *at));
            // Of a long history the newest comes first: what happens now is in it.
            let far = *author != me && *seq > ours.seq + FEED_FAR_BEHIND;
            match ours.tail {
                Some(tail) if tail.seq < *seq => tails.push((*author, tail.seq + 1, *at)),
                None if far => tails.push((*author, *seq - FEED_TAIL + 1, *at)),
                Some(_) | None => {}
            }
            true
        });
        let heads = &self.peer_heads;
        self.strange_heads.retain(|author| heads.contains_key(author));
        self.wants.retain(|(author, _), _| heads.contains_key(author));
        for (author, from_seq, at) in tails {
            if self.is_to_ask((author, true), from_seq, now) {
                self.replica.want_tail(author);
                self.send(at, &Msg::Want { author, from_seq }, out);
            }
        }
        // Until it is known here that we are a member, nothing of ours counts: the founder's feed goes first, in which most
        // of the roster is.
        let founder = self.replica.founder();
        if !self.replica.roster().is_member(&self.me) && asks.iter().any(|(author, ..)| *author == founder) {
            asks.retain(|(author, ..)| *author == founder);
        }
        for (author, from_seq, at) in asks {
            if self.is_to_ask((author, false), from_seq, now) {
                self.send(at, &Msg::Want { author, from_seq }, out);
            }
        }
    }

    /// Whether a range was not asked for a short time ago; then it is now.
    fn is_to_ask(&mut self, key: (NodeId, bool), from_seq: u64, now: Now) -> bool {
        let same = self.wants.get(&key).copied().filter(|(seq, ..)| *seq == from_seq);
        if same.is_some_and(|(_, when, _)| when.plus_ms(WANT_AGAIN_MS) > now.mono) {
            return false;
        }
        let times = same.map_or(1, |(_, _, times)| times + 1);
        self.wants.insert(key, (from_seq, now.mono, times));
        if times > WANT_TIMES_MAX {
            // Who was said to have it does not give it: it may be a lie.
            self.peer_heads.remove(&key.0);
            self.wants.remove(&key);
            return false;
        }
        true
    }

    /// Gives a joiner the roster ahead of the feeds.
    fn on_ask_roster(&mut self, now: Now, from: NodeId, out: &mut Effects) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if peer.roster_at.is_some_and(|at| at.plus_ms(ROSTER_AGAIN_MS) > now.mono) {
            return;
        }
        peer.roster_at = Some(now.mono);
        let (mut part, mut bytes) = (Vec::new(), 0);
        for wire in self.replica.roster_extracts() {
            let full = bytes + wire.len() > BUNDLES_MESSAGE_BYTES_MAX || part.len() == BUNDLES_PER_MESSAGE_MAX;
            if full && !part.is_empty() {
                self.send(from, &Msg::Roster(std::mem::take(&mut part)), out);
                bytes = 0;
            }
            bytes += wire.len();
            part.push(ByteBuf::from(wire.to_vec()));
        }
        self.send(from, &Msg::Roster(part), out);
    }

    fn on_roster(&mut self, from: NodeId, extracts: Vec<ByteBuf>, out: &mut Effects) {
        if !self.roster_asked {
            return;
        }
        let count = extracts.len();
        let bundles = extracts.into_iter().filter_map(|wire| Bundle::decode(wire.into_vec().into()).ok());
        let bundles: Vec<Bundle> = bundles.collect();
        if bundles.len() < count {
            out.push(Effect::Misbehaved(from, "an extract that does not verify"));
        }
        let applied = self.replica.ingest_extracts(bundles);
        self.after_applied(&applied, out);
    }

    /// Once all feeds are whole nothing is ahead of them any more; a tail that nobody's feed leads to goes after a while.
    fn settle_ahead(&mut self, out: &mut Effects) {
        let tails: Vec<NodeId> =
            self.replica.feeds().iter().filter(|(_, f)| f.tail.is_some()).map(|(a, _)| *a).collect();
        self.stale_tails.retain(|author, _| tails.contains(author));
        for author in &tails {
            let rounds = self.stale_tails.entry(*author).or_default();
            *rounds = if self.peer_heads.contains_key(author) { 0 } else { *rounds + 1 };
            if *rounds > STALE_TAIL_ROUNDS {
                self.replica.drop_tail(*author);
                self.dirty.extend(self.replica.jobs().map(|(id, _)| *id));
            }
        }
        if self.heard_heads
            && tails.is_empty()
            && self.peer_heads.is_empty()
            && self.replica.feeds().contains_key(&self.replica.founder())
            && self.replica.roster().is_member(&self.me)
        {
            self.roster_asked = false;
            if self.replica.drop_extracts() {
                self.dirty.extend(self.replica.jobs().map(|(id, _)| *id));
                out.push(Effect::RosterChanged);
            }
        }
    }

    fn on_want(&mut self, from: NodeId, author: NodeId, from_seq: u64, out: &mut Effects) {
        let known = self.replica.feeds().get(&author).cloned().unwrap_or_default();
        let head = known.seq;
        if known.frozen && from_seq >= head {
            self.tell_fork(author, from, out);
        }
        let msg = self.bundles_msg(author, from_seq, author == self.me);
        if author == self.me
            && let (Msg::Bundles { bundles, .. }, Some(peer)) = (&msg, self.peers.get_mut(&from))
        {
            let last = from_seq.saturating_add(bundles.len() as u64).saturating_sub(1);
            peer.knows_seq = peer.knows_seq.max(last.min(head));
        }
        self.send(from, &msg, out);
    }

    /// As many bundles from a place on as one message takes.
    pub(super) fn bundles_msg(&self, author: NodeId, from_seq: u64, receipt: bool) -> Msg {
        let head = self.replica.feeds().get(&author).map_or(0, |feed| feed.seq);
        let wires = self.replica.bundles_within(author, from_seq, BUNDLES_PER_MESSAGE_MAX, BUNDLES_MESSAGE_BYTES_MAX);
        let bundles: Vec<ByteBuf> = wires.iter().map(|wire| ByteBuf::from(wire.to_vec())).collect();
        let last = from_seq.saturating_add(bundles.len() as u64).saturating_sub(1);
        Msg::Bundles { bundles, receipt, more: (last < head).then_some((author, head)) }
    }

    fn on_bundles(&mut self, now: Now, from: NodeId, bundles: Vec<ByteBuf>, out: &mut Effects) {
        for wire in bundles {
            if self.replica.holds(&wire) {
                continue;
            }
            match Bundle::decode(wire.into_vec().into()) {
                Ok(bundle) => self.take_in(now, from, bundle, out),
                Err(_) => out.push(Effect::Misbehaved(from, "a bundle that does not verify")),
            }
        }
        self.want_missing(now, out);
    }

    fn take_in(&mut self, now: Now, from: NodeId, bundle: Bundle, out: &mut Effects) {
        let (author, seq) = (bundle.header.author, bundle.header.seq);
        match self.replica.ingest(bundle, now.wall_ms) {
            Ingest::Applied(applied) => self.after_applied(&applied, out),
            Ingest::Duplicate | Ingest::Frozen => {}
            Ingest::Gap { .. } => self.note_head(author, seq, from),
            Ingest::UnknownAuthor => self.note_head(author, seq, from),
            Ingest::OtherBranch { at_seq } => {
                self.send(from, &Msg::Want { author, from_seq: at_seq }, out);
            }
            Ingest::Forked(proof) => self.spread_fork(&proof, out),
            Ingest::Incomplete => out.push(Effect::Misbehaved(from, "a bundle without its bodies")),
            Ingest::ForeignMesh => out.push(Effect::Misbehaved(from, "a bundle of another mesh")),
        }
    }

    /// What follows from bundles that became part of the replica.
    pub(super) fn after_applied(&mut self, applied: &Applied, out: &mut Effects) {
        for (author, seq) in &applied.bundles {
            // The beginning of a feed and its tail are asked for by themselves.
            let is_of_tail = self.replica.feeds().get(author).is_some_and(|feed| feed.seq < *seq);
            self.wants.remove(&(*author, is_of_tail));
        }
        for doc in &applied.docs {
            if let Some(id) = doc.as_job() {
                self.dirty.insert(id);
            }
            match doc.kind {
                DocKind::Roster => self.offer_dirty = true,
                DocKind::Ledger => {
                    let waited = self.lacks_idea.iter().filter(|(_, idea)| *idea == doc);
                    let waited: Vec<_> = waited.map(|(id, _)| *id).collect();
                    self.slot_freed |= !waited.is_empty();
                    self.dirty.extend(waited);
                }
                DocKind::Job | DocKind::Note | DocKind::Feed => {}
            }
        }
        self.changed.extend(applied.docs.iter().copied());
        if applied.roster {
            self.dirty.extend(self.replica.jobs().map(|(id, _)| *id));
            out.push(Effect::RosterChanged);
        }
    }

    fn on_fork(&mut self, author: NodeId, seq: u64, branches: Vec<ByteBuf>, out: &mut Effects) {
        let branches: Vec<Bytes> = branches.into_iter().map(|b| b.into_vec().into()).collect();
        let Ok(branches) = branches.try_into() else { return };
        let proof = ForkProof { author, seq, branches };
        if self.replica.ingest_fork(&proof) {
            self.spread_fork(&proof, out);
        }
    }

    fn spread_fork(&mut self, proof: &ForkProof, out: &mut Effects) {
        self.dirty.extend(self.replica.jobs().map(|(id, _)| *id));
        if proof.author == self.me {
            self.end_claims(out);
        }
        self.changed.insert(crdt::doc::DocId::ROSTER);
        out.push(Effect::Gossip(fork_msg(proof).encode()));
        out.push(Effect::RosterChanged);
    }

    pub(super) fn tick_repair(&mut self, now: Now, out: &mut Effects) {
        if !self.is_due(now, self.repair_at) {
            return;
        }
        self.repair_at = now.mono.plus_ms(REPAIR_EVERY_MS / 2 + self.rng.random_range(0..REPAIR_EVERY_MS));
        self.wake_at(self.repair_at);
        let connected: Vec<NodeId> = self.connected().collect();
        if !connected.is_empty() {
            let at = self.rng.random_range(0..connected.len());
            self.send(connected[at], &self.hello(), out);
            self.want_missing_body(connected[at], out);
            self.settle_ahead(out);
        }
        self.want_missing(now, out);
    }
}

/// The hash by which a head is told: of a frozen feed another one, so that who does not know the fork finds a difference.
fn told(feed: &Feed) -> BundleHash {
    if feed.frozen { BundleHash(*blake3::keyed_hash(&feed.hash.0, b"frozen").as_bytes()) } else { feed.hash }
}

fn fork_msg(proof: &ForkProof) -> Msg {
    let branches = proof.branches.iter().map(|b| ByteBuf::from(b.to_vec())).collect();
    Msg::Fork { author: proof.author, seq: proof.seq, branches }
}
