//! What goes wrong, and what people do.

use bytes::Bytes;
use crdt::bundle::{Bundle, Change};
use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::replica::Replica;
use crdt::roster::Admission;
use mesh::Command;
use rand::RngExt;

use super::{Happening, World};
use crate::disk::Disk;
use crate::node::{Event, WALL_MS};
use crate::plan::Step;

impl World {
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Split(side) => {
                for (at, side) in side.into_iter().enumerate() {
                    self.net.side[at] = side;
                }
            }
            Step::Join => self.net.side.fill(0),
            Step::OneWay(a, b) => drop(self.net.one_way.insert((a, b))),
            Step::Slow(at) => drop(self.net.slow.insert(at)),
            Step::Crash(at, keep) => self.crash(at, keep),
            Step::Restart(at) => self.restart(at, false),
            Step::RestartDamaged(at) => {
                if self.core(at).is_none() && !self.burned.contains(&at) {
                    let rows = Replica::begin(Disk::new(&self.shared), self.mesh, self.founder).shelf().clone();
                    self.node_mut(at).disk = Some(rows);
                    self.checks.lost_disk(at);
                    self.restart(at, true);
                }
            }
            Step::Backup(at) => {
                let disk = match self.core(at) {
                    Some(core) => Some(core.replica().shelf().clone()),
                    None => self.node(at).disk.clone(),
                };
                self.backups.extend(disk.map(|disk| (at, disk)));
            }
            Step::RestartBackup(at) => {
                if self.core(at).is_none()
                    && !self.burned.contains(&at)
                    && let Some(disk) = self.backups.remove(&at)
                {
                    self.node_mut(at).disk = Some(disk);
                    self.checks.lost_disk(at);
                    self.restart(at, true);
                }
            }
            Step::Burn(at) => {
                self.crash(at, false);
                self.burned.insert(at);
                self.checks.lost_disk(at);
            }
            Step::DiskFull(at, ms) => self.node_mut(at).disk_state.full_until_us = self.now_us + ms * 1_000,
            Step::DiskSlow(at, ms) => self.node_mut(at).disk_state.slow_until_us = self.now_us + ms * 1_000,
            Step::Pause(at) => {
                let now_us = self.now_us;
                self.node_mut(at).pause(now_us);
            }
            Step::Resume(at, stood) => self.resume(at, stood),
            Step::Jump(at, ms) => self.node_mut(at).wall_offset_ms += ms,
            Step::Revoke(at) => self.revoke(at),
            Step::Admit(at) => self.admit_spare(at),
            Step::Offer(at) => self.change_offer(at),
            Step::Cancel(n) => {
                let Some(fate) = self.fates.get(n as usize).cloned() else { return };
                self.command(fate.submit.node, Command::Cancel(fate.id));
            }
            Step::Equivocate(at) => self.equivocate(at),
            Step::Forge(at) => self.forge(at),
            Step::Replay(at) => self.replay(at),
            Step::Flood(at) => self.flood(at),
        }
    }

    fn crash(&mut self, at: u32, keep: bool) {
        if self.core(at).is_none() {
            return;
        }
        let now_us = self.now_us;
        self.node_mut(at).crash(now_us, keep);
        self.checks.process_ended(at);
        for other in self.net.links_of(at) {
            let after = self.rng.random_range(1_000..200_000);
            self.put(now_us + after, Happening::Link(at.min(other), at.max(other), false));
        }
    }

    fn restart(&mut self, at: u32, hold: bool) {
        if self.core(at).is_some() || self.burned.contains(&at) {
            return;
        }
        for other in self.net.links_of(at) {
            self.link(at.min(other), at.max(other), false);
        }
        let now_us = self.now_us;
        self.node_mut(at).start(now_us, hold);
        self.push(now_us, at, Event::Ready);
    }

    fn resume(&mut self, at: u32, stood: bool) {
        if !self.node(at).paused {
            return;
        }
        let now_us = self.now_us;
        let events = self.node_mut(at).resume(now_us, stood);
        for (when, event) in events {
            self.push(when, at, event);
        }
    }

    fn revoke(&mut self, at: u32) {
        let id = self.node(at).id;
        let Some(admin) = self.core(0).filter(|_| !self.node(0).paused) else { return };
        let feed = admin.replica().feeds().get(&id).cloned().unwrap_or_default();
        let words = crdt::roster::Revocation {
            last_seq: feed.seq,
            last_hash: feed.hash,
            reason: "lost".into(),
            recovery: None,
        };
        let change = Change::register(DocId::ROSTER, &Key::Revoke(id), &words);
        self.revoked.insert(at);
        self.command(0, Command::Write(vec![change]));
    }

    /// A running member lets a spare node in, which starts without any rows.
    fn admit_spare(&mut self, at: u32) {
        let by = self.running().into_iter().find(|by| *by < self.plan.nodes && !self.revoked.contains(by));
        let Some(by) = by.filter(|_| self.core(at).is_none()) else { return };
        let key = self.node(at).key.clone();
        let admission = Admission::sign(self.mesh, &key, &format!("n{at}"), &self.invite, WALL_MS);
        let change = Change::register(DocId::ROSTER, &Key::Member(self.node(at).id), &admission);
        let request = self.command(by, Command::Write(vec![change]));
        self.joins.insert(request, at);
    }

    /// It was let in: it starts.
    pub(super) fn start_spare(&mut self, at: u32) {
        if self.core(at).is_some() || self.node(at).disk.is_none() || !self.node(at).died_us.is_empty() {
            return;
        }
        let rows = Replica::begin(Disk::new(&self.shared), self.mesh, self.founder).shelf().clone();
        let now_us = self.now_us;
        let node = self.node_mut(at);
        node.disk = Some(rows);
        node.start(now_us, true);
        self.push(now_us, at, Event::Ready);
        self.checks.joined(at);
    }

    fn change_offer(&mut self, at: u32) {
        let mut offer = self.node(at).offer.clone();
        offer.slots = self.rng.random_range(1..3);
        offer.price_micros_per_hour = self.rng.random_range(0..1_000);
        if self.rng.random() {
            offer.labels = vec!["big".into()];
        }
        self.node_mut(at).offer = offer.clone();
        self.command(at, Command::SetOffer(Box::new(offer)));
    }

    /// What a hostile member sends to one peer, as its own process would.
    fn inject(&mut self, from: u32, to: u32, bytes: Bytes) {
        let packet = self.packet(bytes, false);
        self.send(from, to, self.now_us, &packet);
    }

    fn equivocate(&mut self, at: u32) {
        let Some(core) = self.core(at) else { return };
        let node = self.node(at);
        let feed = core.replica().feeds().get(&node.id).cloned().unwrap_or_default();
        let key = node.key.clone();
        let id = self.fates.first().map_or(JobId([9; 16]), |fate| fate.id);
        let branches: Vec<Bytes> = (0..2u8)
            .map(|n| {
                let control = crdt::job::Control { op: crdt::job::ControlOp::Priority(i32::from(n)), at_ms: WALL_MS };
                let change = Change::register(DocId::job(id), &Key::Control(900 + u32::from(n)), &control);
                Bundle::sign(&key, self.mesh, feed.seq + 1, feed.hash, feed.hlc + 1, &[change]).wire
            })
            .collect();
        self.forked_at.entry(at).or_insert(feed.seq + 1);
        for (n, to) in self.net.links_of(at).into_iter().enumerate() {
            self.inject(at, to, bundles_msg(vec![branches[n % 2].clone()]));
        }
    }

    /// A bundle that continues another's feed, signed by who has no right to.
    fn forge(&mut self, at: u32) {
        let victim = self.rng.random_range(0..self.plan.nodes);
        let (Some(core), true) = (self.core(at), victim != at) else { return };
        let (me, name) = (self.node(at).id, self.node(victim).id);
        let Some(feed) = core.replica().feeds().get(&name).cloned() else { return };
        let job = self.fates.iter().find(|fate| fate.submit.node == victim && fate.acked_us.is_some());
        let id = job.map_or(JobId([8; 16]), |fate| fate.id);
        let cancel = crdt::job::Control { op: crdt::job::ControlOp::Cancel, at_ms: WALL_MS };
        let change = Change::register(DocId::job(id), &Key::Control(800), &cancel);
        let honest = Bundle::sign(&self.node(at).key, self.mesh, feed.seq + 1, feed.hash, feed.hlc + 1, &[change]);
        let mut wire = honest.wire.to_vec();
        let place = wire.windows(32).position(|bytes| bytes == me.0).expect("the author is in it");
        wire[place..place + 32].copy_from_slice(&name.0);
        self.forged.extend(Bundle::hash_of(&wire).map(|hash| (name, feed.seq + 1, hash)));
        for to in self.net.links_of(at) {
            self.inject(at, to, bundles_msg(vec![wire.clone().into()]));
        }
    }

    fn replay(&mut self, at: u32) {
        let peers = self.net.links_of(at);
        if peers.is_empty() || self.core(at).is_none() {
            return;
        }
        self.liars.insert(at);
        let received = self.kept.iter().filter(|(by, _)| *by == at).map(|(_, packet)| packet.clone());
        for packet in received.collect::<Vec<_>>() {
            let to = peers[self.rng.random_range(0..peers.len())];
            self.send(at, to, self.now_us, &packet);
        }
    }

    fn flood(&mut self, at: u32) {
        let peers = self.net.links_of(at);
        if peers.is_empty() || self.core(at).is_none() {
            return;
        }
        let to = peers[self.rng.random_range(0..peers.len())];
        let (me, target) = (self.node(at).id, self.node(to).id);
        for _ in 0..600 {
            let range = crdt::doc::TaskRange { start: 0, end: 1 };
            let (job, rank) = (JobId(self.rng.random()), vec![target, me]);
            let call = mesh::msg::Msg::Call { job, attempt: 1, range, rank, slices: Vec::new() };
            self.inject(at, to, call.encode());
            let mut garbage = vec![0u8; self.rng.random_range(1..200)];
            garbage.iter_mut().for_each(|byte| *byte = self.rng.random());
            self.inject(at, to, garbage.into());
        }
        let heads = (0..4_000).map(|_| (NodeId(self.rng.random()), 1_000, crdt::ids::BundleHash(self.rng.random())));
        let heads = mesh::msg::Msg::Announce(heads.collect());
        self.inject(at, to, heads.encode());
    }

    /// Everybody who can be there is there, and nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.net.side.fill(0);
        self.net.one_way.clear();
        self.net.slow.clear();
        let weather = &mut self.net.weather;
        (weather.loss_ppm, weather.double_ppm, weather.reorders) = (0, 0, false);
        for at in 0..self.plan.nodes {
            self.node_mut(at).disk_state = crate::node::DiskState::default();
            self.resume(at, false);
            self.restart(at, false);
        }
        self.last_fault_us = self.now_us;
    }
}

fn bundles_msg(bundles: Vec<Bytes>) -> Bytes {
    let bundles = bundles.into_iter().map(|wire| serde_bytes::ByteBuf::from(wire.to_vec())).collect();
    mesh::msg::Msg::Bundles { bundles, receipt: false, more: None }.encode()
}
