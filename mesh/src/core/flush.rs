//! Our own feed: changes gather, become one bundle, and go out on both paths; acknowledgements wait for a receipt.

use std::collections::BTreeSet;

use crdt::bundle::{Change, ChangeKind};
use crdt::doc::{DocId, DocKind, Key};
use crdt::ids::NodeId;
use crdt::job::Exit;
use crdt::limits::BUNDLE_CHANGES_MAX;
use crdt::mutant::{Mutant, is_made};
use crdt::shelf::{Shelf, Table};
use serde::Serialize;

use super::{Core, HOLD_ROW, Phase, WaitingAck};
use crate::io::{Ack, Effect, Effects};
use crate::limits::{
    FLUSH_BURST, FLUSH_EVERY_MS, GOSSIP_BYTES_MAX, GOSSIP_EVERY_MS, HOLD_FOR_TOLD_MS, HOLD_LOOK_EVERY_MS,
    HOLD_OWN_FEED_MS, RECEIPT_WAIT_MS,
};
use crate::msg::Msg;
use crate::time::Now;

/// Bytes of changes in one bundle of ours: below the bound by room for the header.
const CHANGES_BYTES_MAX: usize = crdt::limits::BUNDLE_BYTES_MAX - 160 * 1024;

impl<S: Shelf> Core<S> {
    /// Writes a register of ours with the next flush; a rewrite replaces one that has not left.
    pub(super) fn write<T: Serialize>(&mut self, doc: DocId, key: &Key, value: &T) {
        let name = [&doc.to_bytes()[..], key.to_string().as_bytes()].concat();
        let change = Change::register(doc, key, value);
        match self.pending.iter_mut().find(|(other, _)| other.as_ref() == Some(&name)) {
            Some((_, waiting)) if key.is_write_once() => drop(waiting.clone()),
            Some((_, waiting)) => *waiting = change,
            None => self.pending.push((Some(name), change)),
        }
    }

    pub(super) fn write_change(&mut self, change: Change) {
        self.pending.push((None, change));
    }

    pub(super) fn flush_if_due(&mut self, now: Now, out: &mut Effects) {
        // Also where there is nothing to write: until then it takes no work.
        if self.hold_own_feed && !self.own_feed_is_whole(now) {
            return;
        }
        if self.pending.is_empty() && self.pending_acks.is_empty() {
            return;
        }
        let earned = now.mono.ms_since(self.flush_at) / FLUSH_EVERY_MS;
        if earned > 0 {
            self.flush_credit = (self.flush_credit + earned).min(FLUSH_BURST);
            self.flush_at = now.mono;
        }
        if self.flush_credit == 0 {
            let at = self.flush_at.plus_ms(FLUSH_EVERY_MS);
            self.wake_at(at);
            return;
        }
        self.flush_credit -= 1;
        self.flush(now, out);
    }

    /// Whether all members said what they know of our feed and we have all of that. After a while those are enough that are
    /// here: what only an absent one knows would be forked. What one of them told of before it went away is waited for much
    /// longer. A node that never had a peer goes on alone.
    fn own_feed_is_whole(&mut self, now: Now) -> bool {
        let roster = self.replica.roster();
        let alone = roster.members.len() == 1;
        let founder = self.replica.founder();
        // Who belongs to the mesh is in the founder's feed for the most part.
        let knows_all = roster.is_member(&self.me)
            && self.replica.feeds().contains_key(&founder)
            && !self.peer_heads.contains_key(&founder);
        let all =
            roster.standing().filter(|(node, _)| **node != self.me).all(|(node, _)| self.heads_from.contains(node));
        let long = self.began_at.plus_ms(HOLD_OWN_FEED_MS) <= now.mono;
        let heard = self.heard_heads && knows_all && (all || long);
        let (ours, frozen) = self.replica.feeds().get(&self.me).map_or((0, false), |feed| (feed.seq, feed.frozen));
        let has_told = ours >= self.told_of_seq || self.began_at.plus_ms(HOLD_FOR_TOLD_MS) <= now.mono;
        let whole = alone || frozen || (heard && has_told && !self.peer_heads.contains_key(&self.me));
        if whole {
            self.hold_own_feed = false;
            // What nobody gave may have been a lie: presence is to tell of what is there.
            self.told_of_seq = 0;
            self.slot_freed = true;
            self.dirty.extend(self.replica.jobs().map(|(id, _)| *id));
            self.replica.shelf_mut().put((Table::Meta, HOLD_ROW.to_vec(), None));
        } else {
            self.wake_at(now.mono.plus_ms(HOLD_LOOK_EVERY_MS));
        }
        whole
    }

    fn flush(&mut self, now: Now, out: &mut Effects) {
        if self.replica.feeds().get(&self.me).is_some_and(|feed| feed.frozen) {
            self.pending.clear();
            self.reported.clear();
            self.end_claims(out);
            return;
        }
        let mut recipients = BTreeSet::new();
        while !self.pending.is_empty() {
            let (names, changes): (Vec<_>, Vec<_>) = self.next_group().into_iter().unzip();
            for (name, change) in names.iter().zip(&changes) {
                self.add_recipients(change, name.is_some(), &mut recipients);
            }
            let (_, applied) = self.replica.append(&*self.signer, now.wall_ms, &changes);
            self.after_applied(&applied, out);
            for (name, change) in names.iter().zip(&changes) {
                self.add_recipients(change, name.is_some(), &mut recipients);
            }
        }
        self.reported.clear();
        let head = self.replica.feeds().get(&self.me).map_or(0, |feed| feed.seq);
        recipients.remove(&self.me);
        // Somebody is to hold durably what is acknowledged, also where nobody takes part in it.
        if !self.pending_acks.is_empty() && !recipients.iter().any(|node| self.is_connected(node)) {
            recipients.extend(self.connected().take(1));
        }
        for to in recipients {
            let Some(peer) = self.peers.get(&to).filter(|peer| peer.connected) else { continue };
            let msg = self.bundles_msg(self.me, peer.knows_seq + 1, true);
            if let Msg::Bundles { bundles, .. } = &msg {
                let last = peer.knows_seq + bundles.len() as u64;
                self.peers.get_mut(&to).expect("just found").knows_seq = last;
            }
            out.push(Effect::Send(to, msg.encode()));
        }
        for (request, warnings) in std::mem::take(&mut self.pending_acks) {
            let deadline = now.mono.plus_ms(RECEIPT_WAIT_MS);
            self.acks.push(WaitingAck { request, seq: head, deadline, warnings });
        }
    }

    /// Ends all that we claimed: our feed is frozen, and nothing that comes of it could be said.
    pub(super) fn end_claims(&mut self, out: &mut Effects) {
        self.held.retain(|(job, claim), held| {
            if let Phase::Running { .. } = held.phase {
                out.push(Effect::Kill { job: *job, claim: *claim, exit: Exit::Returned });
                held.phase = Phase::Ending;
            }
            held.phase == Phase::Ending
        });
    }

    /// As many waiting changes as fit one bundle.
    fn next_group(&mut self) -> Vec<(Option<Vec<u8>>, Change)> {
        let (mut count, mut bytes) = (0, 0);
        for (_, change) in &self.pending {
            bytes += change.body.len() + 64;
            if count > 0 && (bytes > CHANGES_BYTES_MAX || count == BUNDLE_CHANGES_MAX) {
                break;
            }
            count += 1;
        }
        self.pending.drain(..count).collect()
    }

    /// Those who take part in what a change is about.
    fn add_recipients(&self, change: &Change, is_named: bool, to: &mut BTreeSet<NodeId>) {
        match change.doc.kind {
            DocKind::Roster => to.extend(self.connected()),
            // What the core itself writes comes with the news of a job, and goes where that goes.
            DocKind::Ledger if is_named => {}
            DocKind::Ledger => to.extend(self.connected().take(8)),
            DocKind::Note if change.kind == ChangeKind::Notebook => to.extend(self.connected().take(8)),
            DocKind::Note | DocKind::Feed => {}
            DocKind::Job => {
                let Some(id) = change.doc.as_job() else { return };
                let Some(job) = self.replica.cached_job(&id) else { return };
                if let Some((submitter, spec)) = job.spec() {
                    to.insert(*submitter);
                    if *submitter == self.me && job.claims().is_empty() {
                        to.extend(self.rank(spec, id, 0).into_iter().take(crate::limits::CALL_WIDTH));
                    }
                }
                for (id, claim) in job.claims().iter() {
                    to.insert(id.owner);
                    // Watchers are told what the next attempt has to know: what runs, its checkpoints, what was chosen. Of
                    // the rest they hear by gossip, and ask when presence tells of more than has come.
                    if job.run(id).is_some_and(|run| !run.ended) {
                        to.extend(claim.value.watchers.iter().copied());
                    }
                }
            }
        }
    }

    pub(super) fn tick_acks(&mut self, now: Now, out: &mut Effects) {
        if self.acks.is_empty() {
            return;
        }
        let lonely = self.connected().next().is_none();
        let mut waiting = Vec::new();
        for ack in std::mem::take(&mut self.acks) {
            let holds = |peer: &&super::Peer| {
                peer.receipt_seq >= ack.seq || (is_made(Mutant::AcksWithoutReceipt) && peer.connected)
            };
            let others = self.peers.values().filter(holds).count();
            if others == 0 && !lonely && ack.deadline > now.mono {
                self.wake_at(ack.deadline);
                waiting.push(ack);
                continue;
            }
            let durable_on = 1 + u32::try_from(others).unwrap_or(u32::MAX - 1);
            let result = Ok(Ack { durable_on, warnings: ack.warnings });
            out.push(Effect::Reply { request: ack.request, result });
        }
        self.acks = waiting;
    }

    /// Our bundles to everybody: at once after a quiet second, then one message a second.
    pub(super) fn tick_gossip(&mut self, now: Now, out: &mut Effects) {
        let Some(feed) = self.replica.feeds().get(&self.me) else { return };
        let (head, hash) = (feed.seq, feed.hash);
        if head <= self.gossip_seq {
            return;
        }
        if let Some(at) = self.gossip_at
            && !self.is_due(now, at.plus_ms(GOSSIP_EVERY_MS))
        {
            return;
        }
        self.gossip_at = Some(now.mono);
        let wires = self.replica.bundles(self.me, self.gossip_seq + 1, crate::limits::BUNDLES_PER_MESSAGE_MAX);
        let bytes: usize = wires.iter().map(bytes::Bytes::len).sum();
        let whole = bytes <= GOSSIP_BYTES_MAX && self.gossip_seq + wires.len() as u64 == head;
        let msg = if whole {
            let bundles = wires.into_iter().map(|w| serde_bytes::ByteBuf::from(w.to_vec())).collect();
            Msg::Bundles { bundles, receipt: false, more: None }
        } else {
            Msg::Announce(vec![(self.me, head, hash)])
        };
        self.gossip_seq = head;
        out.push(Effect::Gossip(msg.encode()));
    }
}
