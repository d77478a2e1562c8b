//! The mesh, its links and its clock.
//!
//! Time goes forward in windows that are shorter than any latency, so that the nodes of a window cannot hear each other within
//! it: they run side by side on all cores, and what they did is merged in one order. One seed gives one trace, whatever the
//! number of threads.

pub(crate) mod founding;
mod steps;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use crdt::SigningKey;
use crdt::bundle::Bundle;
use crdt::ids::{EntryId, JobId, MeshId, NodeId};
use crdt::job::{ClaimId, Exit, JobSpec, job_id_of_nonce};
use crdt::replica::Replica;
use mesh::{Ack, Command, Core, Input, Refusal, Verified};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::checks::Checks;
use crate::disk::{Disk, Shared};
use crate::ledger::Said;
use crate::network::Network;
use crate::node::{Event, Node, Out, Packet, WALL_MS};
use crate::plan::{Plan, Submit};

/// Packets that are kept, with who received them, to be sent again by those who replay.
const KEPT_PACKETS_MAX: usize = 1_000;
/// Verified bundles that are remembered. More: all are forgotten and verified anew.
const VERIFIED_MAX: usize = 100_000;
/// Turns of one window from which on nodes run on several threads.
const SIDE_BY_SIDE_MIN: usize = 8;
/// Interval in which links are mended and everything is looked at.
const TICK_US: u64 = 1_000_000;

/// Time after which what a node gossips is held until then, where nothing goes wrong.
const GOSSIP_AHEAD_US: u64 = 20_000;

/// Something that happens to the mesh as a whole.
#[derive(Debug, Clone)]
enum Happening {
    Link(u32, u32, bool),
    Submit(usize),
    Say(usize),
    Step(usize),
    Reply {
        node: u32,
        epoch: u32,
        request: u64,
        result: Result<Ack, Refusal>,
    },
    /// A node gossips what waited for its disk, if it still lives.
    Gossip {
        node: u32,
        epoch: u32,
        bytes: Bytes,
    },
    Heal,
    Tick,
}

/// A node and what happens to it in a window.
type Active = (Box<Node>, Vec<(u64, Event)>);

#[derive(Debug)]
struct Item {
    at_us: u64,
    serial: u64,
    node: u32,
    epoch: u32,
    from_epoch: u32,
    event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.serial) == (other.at_us, other.serial)
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.serial).cmp(&(other.at_us, other.serial))
    }
}

/// What became of a job of the plan.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    pub(crate) id: JobId,
    pub(crate) submit: Submit,
    pub(crate) submitted_us: Option<u64>,
    /// When it was acknowledged.
    pub(crate) acked_us: Option<u64>,
    /// When its first task started.
    pub(crate) started_us: Option<u64>,
}

/// The mesh.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Option<Box<Node>>>,
    pub(crate) net: Network,
    pub(crate) now_us: u64,
    pub(crate) fates: Vec<Fate>,
    pub(crate) checks: Checks,
    /// Nodes that are gone with their disks.
    pub(crate) burned: BTreeSet<u32>,
    /// Members that were revoked.
    pub(crate) revoked: BTreeSet<u32>,
    /// Members that signed two versions of one bundle, and of which.
    pub(crate) forked_at: BTreeMap<u32, u64>,
    /// Members that sent as their own what others had sent.
    pub(crate) liars: BTreeSet<u32>,
    /// Bundles that were forged: in whose name, for which place, and their hashes.
    pub(crate) forged: Vec<(NodeId, u64, crdt::ids::BundleHash)>,
    pub(crate) index: HashMap<NodeId, u32>,
    /// Starts of each task: of which claim, and when.
    pub(crate) starts: BTreeMap<(JobId, u32), Vec<(ClaimId, u64)>>,
    /// What was said in the ledger, by its place in the plan.
    pub(crate) said: BTreeMap<usize, Said>,
    pub(crate) words_of: BTreeMap<u64, usize>,
    /// The ideas that jobs serve.
    pub(crate) served: BTreeMap<JobId, EntryId>,
    pub(crate) exits: BTreeMap<(JobId, ClaimId, u32), Exit>,
    pub(crate) events: u64,
    /// When something last went wrong.
    pub(crate) last_fault_us: u64,
    pub(crate) rng: ChaCha8Rng,
    mesh: MeshId,
    founder: NodeId,
    invite: SigningKey,
    shared: Shared,
    heap: BinaryHeap<Reverse<Item>>,
    story: BTreeMap<(u64, u64), Happening>,
    serial: u64,
    requests: BTreeMap<u64, usize>,
    /// Spare nodes whose admission is not acknowledged yet.
    joins: BTreeMap<u64, u32>,
    request: u64,
    backups: BTreeMap<u32, Disk>,
    blocked_since_us: BTreeMap<(u32, u32), u64>,
    kept: VecDeque<(u32, Arc<Packet>)>,
    verified: HashMap<Bytes, Option<Bundle>, foldhash::fast::FixedState>,
    trace: blake3::Hasher,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).field("now_us", &self.now_us).finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let members = plan.nodes as usize;
        let count = members + plan.spares as usize;
        let keys: Vec<SigningKey> = (0..count).map(|_| SigningKey::from_bytes(&rng.random())).collect();
        let shared = Shared::default();
        let (founded, invite) = founding::found(&keys[..members], &shared, &mut rng);
        let replica = Replica::open(founded.clone()).expect("just founded");
        let (mesh, founder) = (replica.mesh(), replica.founder());
        let mut nodes = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let node_rng = ChaCha8Rng::from_seed(rng.random());
            let offer = founding::draw_offer(at, &plan, &mut rng);
            let disk = if at < members { founded.clone() } else { Disk::new(&shared) };
            let at = u32::try_from(at).expect("few nodes");
            let mut node = Node::new(at, key.clone(), disk, offer, node_rng);
            node.is_idler = plan.idlers.contains(&at);
            if plan.skewed {
                node.wall_offset_ms = rng.random_range(-7_200_000..7_200_000);
            }
            nodes.push(Some(Box::new(node)));
        }
        let index = keys.iter().map(|key| NodeId(key.verifying_key().to_bytes())).zip(0..).collect();
        let mut net = Network::new(count, ChaCha8Rng::from_seed(rng.random()));
        net.weather = crate::network::Weather {
            sites: plan.sites,
            satellite: plan.satellite,
            loss_ppm: plan.loss_ppm,
            double_ppm: plan.double_ppm,
            reorders: plan.reorders,
        };
        let mut world = Self {
            nodes,
            net,
            now_us: 0,
            fates: Vec::new(),
            checks: Checks::new(members),
            burned: BTreeSet::new(),
            revoked: BTreeSet::new(),
            forked_at: BTreeMap::new(),
            liars: BTreeSet::new(),
            forged: Vec::new(),
            index,
            starts: BTreeMap::new(),
            said: BTreeMap::new(),
            words_of: BTreeMap::new(),
            served: BTreeMap::new(),
            exits: BTreeMap::new(),
            events: 0,
            last_fault_us: 0,
            rng,
            mesh,
            founder,
            invite,
            shared,
            heap: BinaryHeap::new(),
            story: BTreeMap::new(),
            serial: 0,
            requests: BTreeMap::new(),
            joins: BTreeMap::new(),
            request: 0,
            backups: BTreeMap::new(),
            blocked_since_us: BTreeMap::new(),
            kept: VecDeque::new(),
            verified: HashMap::default(),
            trace: blake3::Hasher::new(),
            plan,
        };
        world.begin();
        world
    }

    /// Starts all members and writes the plan into the story.
    fn begin(&mut self) {
        // All begin with the same rows: they are read once.
        let founded = self.node(0).disk.clone().expect("nobody runs yet");
        let replica = Replica::open(founded).expect("just founded");
        for at in 0..self.plan.nodes {
            self.node_mut(at).start_with(0, replica.clone());
            self.push(0, at, Event::Ready);
        }
        for (a, b) in self.net.pairs() {
            if a < self.plan.nodes && b < self.plan.nodes {
                let at = self.rng.random_range(0..1_500_000);
                self.put(at, Happening::Link(a, b, true));
            }
        }
        for n in 0..self.plan.submits.len() {
            let submit = self.plan.submits[n].clone();
            let nonce = nonce_of(n);
            let id = job_id_of_nonce(self.node(submit.node).id, &nonce);
            self.put(submit.at_ms * 1_000, Happening::Submit(n));
            self.checks.remember(id, n);
            self.fates.push(Fate { id, submit, submitted_us: None, acked_us: None, started_us: None });
        }
        for n in 0..self.plan.says.len() {
            self.put(self.plan.says[n].at_ms * 1_000, Happening::Say(n));
        }
        for n in 0..self.plan.steps.len() {
            self.put(self.plan.steps[n].0 * 1_000, Happening::Step(n));
        }
        self.put(self.plan.heal_ms * 1_000, Happening::Heal);
        self.put(TICK_US, Happening::Tick);
    }

    pub(crate) fn node(&self, at: u32) -> &Node {
        self.nodes[at as usize].as_deref().expect("between windows every node is at its place")
    }

    pub(crate) fn node_mut(&mut self, at: u32) -> &mut Node {
        self.nodes[at as usize].as_deref_mut().expect("between windows every node is at its place")
    }

    pub(crate) fn core(&self, at: u32) -> Option<&Core<Disk>> {
        self.node(at).core.as_ref()
    }

    /// Nodes that run.
    pub(crate) fn running(&self) -> Vec<u32> {
        (0..u32::try_from(self.nodes.len()).expect("few nodes")).filter(|at| self.core(*at).is_some()).collect()
    }

    /// A hash of everything that happened, in order.
    pub(crate) fn trace_hash(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    fn put(&mut self, at_us: u64, what: Happening) {
        self.serial += 1;
        self.story.insert((at_us.max(self.now_us), self.serial), what);
    }

    fn push(&mut self, at_us: u64, node: u32, event: Event) {
        self.serial += 1;
        let epoch = self.node(node).epoch;
        self.heap.push(Reverse(Item { at_us, serial: self.serial, node, epoch, from_epoch: 0, event }));
    }

    /// Runs to the end of the plan, or until everything is settled after it was healed.
    pub(crate) fn run(&mut self) {
        let end_us = self.plan.end_ms * 1_000;
        loop {
            let next = self.heap.peek().map(|Reverse(item)| item.at_us);
            let told = self.story.first_key_value().map(|((at, _), _)| *at);
            match (next, told) {
                (_, Some(told)) if next.is_none_or(|next| told <= next) => {
                    let ((at, _), what) = self.story.pop_first().expect("just seen");
                    self.now_us = self.now_us.max(at);
                    if at > end_us {
                        return;
                    }
                    let is_tick = matches!(what, Happening::Tick);
                    self.happen(what);
                    if self.checks.is_enough() || (is_tick && self.is_settled()) {
                        return;
                    }
                }
                (Some(next), told) => {
                    let end = (next + self.net.latency_us_min()).min(told.unwrap_or(u64::MAX));
                    self.window(next, end);
                }
                (None, None) => return,
                (None, Some(_)) => unreachable!("the first arm takes it"),
            }
        }
    }

    /// Takes in everything of a window.
    fn window(&mut self, start_us: u64, end_us: u64) {
        self.now_us = start_us;
        let mut batches: BTreeMap<u32, Vec<(u64, Event)>> = BTreeMap::new();
        let mut turns = 0;
        while self.heap.peek().is_some_and(|Reverse(item)| item.at_us < end_us) {
            let Reverse(item) = self.heap.pop().expect("just seen");
            if let Some(event) = self.admit(item) {
                turns += usize::from(!event.2.only_waits());
                batches.entry(event.0).or_default().push((event.1, event.2));
            }
        }
        let mut active: Vec<Active> = batches
            .into_iter()
            .map(|(at, events)| (self.nodes[at as usize].take().expect("at its place"), events))
            .collect();
        let work = |(node, events): &mut Active| node.run(std::mem::take(events), end_us);
        let outs: Vec<Vec<(u64, Out)>> = if turns >= SIDE_BY_SIDE_MIN && self.plan.nodes > 64 {
            active.par_iter_mut().with_min_len(SIDE_BY_SIDE_MIN / 2).map(work).collect()
        } else {
            active.iter_mut().map(work).collect()
        };
        let order: Vec<u32> = active.iter().map(|(node, _)| node.at).collect();
        for (node, _) in active {
            let at = node.at as usize;
            self.nodes[at] = Some(node);
        }
        for (at, outs) in order.into_iter().zip(outs) {
            for (when, out) in outs {
                self.route(at, when, out);
            }
        }
    }

    /// Whether an event still comes to pass; it is part of the trace.
    fn admit(&mut self, item: Item) -> Option<(u32, u64, Event)> {
        let node = self.node(item.node);
        if node.core.is_none() || node.epoch != item.epoch {
            return None;
        }
        let mut weight = 0;
        if let Event::Deliver { from, sent_us, packet, .. } = &item.event {
            let sender = self.node(*from);
            let died = sender.died_us.get(item.from_epoch as usize).is_some_and(|died| died < sent_us);
            let linked = packet.gossip || self.net.is_linked(*from, item.node);
            if died || !linked || !self.net.passes(*from, item.node) {
                return None;
            }
            weight = packet.bytes.len() as u64;
            let (from, packet) = (*from, Arc::clone(packet));
            if !self.plan.steps.is_empty() {
                self.kept.push_back((item.node, packet));
                if self.kept.len() > KEPT_PACKETS_MAX {
                    self.kept.pop_front();
                }
            }
            self.checks.heard(from, item.node, item.at_us);
            if !matches!(&item.event, Event::Deliver { packet, .. } if packet.gossip) {
                let received = &mut self.node_mut(item.node).received;
                *received = (received.0 + weight, received.1 + 1);
            }
        }
        self.events += 1;
        let mut line = [0; 24];
        line[..8].copy_from_slice(&item.at_us.to_le_bytes());
        line[8..16].copy_from_slice(&u64::from(item.node).to_le_bytes());
        line[16..].copy_from_slice(&weight.to_le_bytes());
        self.trace.update(&line);
        Some((item.node, item.at_us, item.event))
    }

    fn route(&mut self, from: u32, at_us: u64, out: Out) {
        match out {
            Out::Send(to, bytes) => {
                let Some(to) = self.index.get(&to).copied() else { return };
                self.checks.bound(bytes.len() <= 1 << 20, || format!("node {from} sends {} bytes", bytes.len()));
                let packet = self.packet(bytes, false);
                self.send(from, to, at_us, &packet);
            }
            // Copies go on from others: what waits for a disk must not have left before, where its node may crash meanwhile.
            Out::Gossip(bytes) if !self.plan.steps.is_empty() || at_us > self.now_us + GOSSIP_AHEAD_US => {
                let epoch = self.node(from).epoch;
                self.put(at_us, Happening::Gossip { node: from, epoch, bytes });
            }
            Out::Gossip(bytes) => self.gossip(from, at_us, bytes),
            Out::Later(event) => self.push(at_us, from, event),
            Out::Reply(request, result) => {
                let epoch = self.node(from).epoch;
                self.put(at_us, Happening::Reply { node: from, epoch, request, result });
            }
            Out::Secure { job, claim, holders } => {
                let reachable = holders.iter().filter_map(|h| self.index.get(h)).any(|h| self.net.is_linked(from, *h));
                if reachable {
                    let after = self.rng.random_range(1_000..50_000);
                    self.push(at_us + after, from, Event::Local(Box::new(Input::Secured { job, claim, held: true })));
                }
            }
            Out::Started(job, claim, task) => {
                self.check_registered(from, job, at_us);
                self.note_start(job, claim, task, at_us);
            }
            Out::Ended(job, claim, task, exit) => drop(self.exits.insert((job, claim, task), exit)),
            Out::Violation(invariant, detail) => self.checks.violated(invariant, at_us, detail),
        }
    }

    fn send(&mut self, from: u32, to: u32, at_us: u64, packet: &Arc<Packet>) {
        let peer = self.node(from).id;
        let (epoch, from_epoch) = (self.node(to).epoch, self.node(from).epoch);
        for when in self.net.deliver_at(from, to, at_us) {
            self.serial += 1;
            let event = Event::Deliver { from, peer, sent_us: at_us, packet: Arc::clone(packet) };
            self.heap.push(Reverse(Item { at_us: when, serial: self.serial, node: to, epoch, from_epoch, event }));
        }
    }

    fn gossip(&mut self, from: u32, at_us: u64, bytes: Bytes) {
        self.checks.bound(bytes.len() <= 64 << 10, || format!("node {from} gossips {} bytes", bytes.len()));
        let nodes = &self.nodes;
        let is_up = |at: u32| nodes[at as usize].as_ref().is_some_and(|node| node.core.is_some() && !node.paused);
        let heard = self.net.spread(from, is_up);
        let packet = self.packet(bytes, true);
        for ear in heard {
            let size = packet.bytes.len() as u64 * u64::from(ear.copies);
            let received = &mut self.node_mut(ear.to).received;
            *received = (received.0 + size, received.1 + u64::from(ear.copies));
            self.serial += 1;
            let (epoch, from_epoch) = (self.node(ear.to).epoch, self.node(ear.via).epoch);
            let event = Event::Deliver {
                from: ear.via,
                peer: self.node(ear.via).id,
                sent_us: at_us,
                packet: Arc::clone(&packet),
            };
            let at_us = at_us + ear.after_us;
            self.heap.push(Reverse(Item { at_us, serial: self.serial, node: ear.to, epoch, from_epoch, event }));
        }
    }

    /// A packet with what its signatures say: each is verified once, however many receive it.
    fn packet(&mut self, bytes: Bytes, gossip: bool) -> Arc<Packet> {
        let kind = bytes.get(2..9).unwrap_or_default();
        let verified = if kind == b"Bundles" {
            if self.verified.len() > VERIFIED_MAX {
                self.verified.clear();
            }
            let known = &mut self.verified;
            Verified::read(&bytes, |wire| {
                known.entry(wire).or_insert_with_key(|wire| Bundle::decode(wire.clone()).ok()).clone()
            })
        } else if kind.starts_with(b"Offer") {
            Verified::offer(&bytes, self.mesh)
        } else {
            None
        };
        self.trace.update(&bytes);
        Arc::new(Packet { bytes, verified, gossip })
    }

    fn note_start(&mut self, job: JobId, claim: ClaimId, task: u32, at_us: u64) {
        let starts = self.starts.entry((job, task)).or_default();
        starts.push((claim, at_us));
        let count = starts.len();
        let Some(fate) = self.checks.fate_of(&job).and_then(|n| self.fates.get_mut(n)) else { return };
        fate.started_us.get_or_insert(at_us);
        if fate.submit.at_most_once && count > 1 {
            let detail = format!("task {task} of {job} is started {count} times, now by {claim:?}");
            self.checks.violated("at-most-once", at_us, detail);
        }
    }

    fn happen(&mut self, what: Happening) {
        self.trace.update(&self.now_us.to_le_bytes());
        match what {
            Happening::Link(a, b, up) => self.link(a, b, up),
            Happening::Submit(n) => self.submit(n),
            Happening::Say(n) => self.say(n),
            Happening::Step(n) => {
                let step = self.plan.steps[n].1.clone();
                self.last_fault_us = self.now_us;
                self.step(step);
            }
            Happening::Gossip { node, epoch, bytes } => {
                if self.core(node).is_some() && self.node(node).epoch == epoch {
                    self.gossip(node, self.now_us, bytes);
                }
            }
            Happening::Reply { node, epoch, request, result } => {
                if self.node(node).epoch == epoch {
                    self.reply(node, request, result);
                }
            }
            Happening::Heal => self.heal(),
            Happening::Tick => self.tick(),
        }
    }

    /// Bytes and messages that a node received on average, of those that neither submitted nor ran anything if there are such.
    pub(crate) fn bystander(&self) -> (u64, u64) {
        let submits: BTreeSet<u32> = self.fates.iter().map(|fate| fate.submit.node).collect();
        let ran: BTreeSet<u32> =
            self.starts.values().flatten().filter_map(|claim| self.index.get(&claim.0.owner).copied()).collect();
        let all: Vec<u32> = (0..self.plan.nodes).filter(|at| !submits.contains(at)).collect();
        let apart: Vec<u32> = all.iter().copied().filter(|at| !ran.contains(at)).collect();
        let counted = if apart.is_empty() { all } else { apart };
        let sum = counted.iter().map(|at| self.node(*at).received).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let count = counted.len().max(1) as u64;
        (sum.0 / count, sum.1 / count)
    }

    fn link(&mut self, a: u32, b: u32, up: bool) {
        let alive = |at: u32| self.core(at).is_some() && !self.node(at).paused;
        let fits = !up || (alive(a) && alive(b) && self.net.passes(a, b) && self.net.passes(b, a));
        if !fits || !self.net.set_link(a, b, up) {
            return;
        }
        for (me, other) in [(a, b), (b, a)] {
            let id = self.node(other).id;
            let input = if up { Input::Connected(id) } else { Input::Disconnected(id) };
            self.push(self.now_us, me, Event::Local(Box::new(input)));
        }
    }

    fn submit(&mut self, n: usize) {
        let fate = &self.fates[n];
        let (id, submit) = (fate.id, fate.submit.clone());
        let Some(core) = self.core(submit.node) else { return };
        let me = self.node(submit.node);
        let Some(person) = core.replica().roster().person(&me.id) else { return };
        let idea = submit.idea.and_then(|at| self.idea(at));
        self.served.extend(idea.map(|idea| (id, idea)));
        let me = self.node(submit.node);
        let spec = JobSpec {
            idea,
            command: vec![submit.program.clone(), submit.mean_ms.to_string()],
            labels: submit.labels.clone(),
            array: submit.array,
            retries: submit.retries,
            priority: submit.priority,
            at_most_once: submit.at_most_once,
            after: submit.after.iter().map(|up| self.fates[*up as usize].id).collect(),
            nonce: Some(serde_bytes::ByteArray::new(nonce_of(n))),
            person,
            created_ms: (WALL_MS + self.now_us / 1_000).saturating_add_signed(me.wall_offset_ms),
            ..JobSpec::default()
        };
        self.fates[n].submitted_us = Some(self.now_us);
        let request = self.command(submit.node, Command::Submit(vec![(id, spec)], Vec::new()));
        self.requests.insert(request, n);
    }

    pub(crate) fn command(&mut self, at: u32, command: Command) -> u64 {
        self.request += 1;
        let request = self.request;
        self.push(self.now_us, at, Event::Local(Box::new(Input::Command { request, command })));
        request
    }

    fn reply(&mut self, node: u32, request: u64, result: Result<Ack, Refusal>) {
        if let Some(spare) = self.joins.remove(&request).filter(|_| result.is_ok()) {
            self.start_spare(spare);
        }
        if let Some(n) = self.words_of.remove(&request).filter(|_| result.is_ok()) {
            self.acknowledge(n);
        }
        let Some(n) = self.requests.remove(&request) else { return };
        if let Ok(ack) = result {
            self.fates[n].acked_us = Some(self.now_us);
            self.check_ack(node, n, ack.durable_on);
        }
    }

    fn tick(&mut self) {
        self.drop_dead_links();
        self.dial();
        self.check_tick();
        self.put(self.now_us + TICK_US, Happening::Tick);
    }

    /// Who has not answered for some seconds is no longer connected.
    fn drop_dead_links(&mut self) {
        let count = u32::try_from(self.nodes.len()).expect("few nodes");
        let quiet = self.plan.steps.is_empty();
        for a in 0..if quiet { 0 } else { count } {
            for b in self.net.links_of(a).into_iter().filter(|b| a < *b) {
                if !self.knows(a, b) || !self.knows(b, a) {
                    self.link(a, b, false);
                    continue;
                }
                let dead = |at: u32| self.core(at).is_none() || self.node(at).paused;
                let blocked = !self.net.passes(a, b) || !self.net.passes(b, a) || dead(a) || dead(b);
                if !blocked {
                    self.blocked_since_us.remove(&(a, b));
                    continue;
                }
                let since = *self.blocked_since_us.entry((a, b)).or_insert(self.now_us);
                if self.now_us - since > 5_000_000 && self.rng.random_range(0..4) == 0 {
                    self.blocked_since_us.remove(&(a, b));
                    self.link(a, b, false);
                }
            }
        }
    }

    /// Whether a node would speak with another: with members, and with anybody while it does not know the roster.
    fn knows(&self, at: u32, other: u32) -> bool {
        let Some(core) = self.core(at) else { return true };
        let (roster, id) = (core.replica().roster(), self.node(other).id);
        roster.members.is_empty() || roster.is_member(&id)
    }

    /// Members dial each other again.
    fn dial(&mut self) {
        let running = self.running();
        let full = running.len() <= crate::network::FULL_MESH_MAX;
        for a in &running {
            let linked = self.net.links_of(*a);
            if full && linked.len() + 1 >= running.len() || !full && linked.len() >= 12 {
                continue;
            }
            let picks = if full { running.clone() } else { vec![running[self.rng.random_range(0..running.len())]] };
            for b in picks {
                let may = self.knows(*a, b) && self.knows(b, *a);
                if b != *a && may && !self.net.is_linked(*a, b) && self.rng.random_range(0..3) > 0 {
                    let after = self.rng.random_range(10_000..900_000);
                    self.put(self.now_us + after, Happening::Link(*a.min(&b), *a.max(&b), true));
                }
            }
        }
    }
}

fn nonce_of(n: usize) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&(n as u64).to_be_bytes());
    nonce
}
