//! A mesh in one thread: cores over shelves in memory, a virtual clock, links with drawn latencies, and an executor that
//! draws how long tasks take and how they end. Everything that is drawn comes from one seed.

#![allow(dead_code, reason = "each test target uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crdt::SigningKey;
use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::{BlobHash, InviteId, JobId, NodeId};
use crdt::job::{ArtifactRef, ClaimId, Exit, JobSpec};
use crdt::replica::{FoundingWords, Replica};
use crdt::roster::{Admission, Invite, Role};
use crdt::shelf::{MemoryShelf, Shelf, Table};
use mesh::field_log::{self, NotingSigner, Record, frame};
use mesh::offer::Offer;
use mesh::{Ack, Command, Config, Core, Effect, Effects, Input, Now, Refusal, Time};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Start of the virtual wall clock, in milliseconds since 1970.
pub(crate) const WALL_MS: u64 = 1_800_000_000_000;
/// Wakes of one node without a step of its clock after which it counts as spinning.
const SPINS_MAX: u32 = 200;
/// Messages that are kept.
const SENT_MAX: usize = 1_000;

/// What happens at a time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Wake(usize, u64),
    Deliver { from: usize, to: usize, epoch: u32, gossip: bool, bytes: bytes::Bytes },
    Link(usize, usize, bool),
    Local { node: usize, epoch: u32, input: Box<Input> },
    Task { node: usize, run: u64, task: u32, started_ms: Option<u64> },
    Command(usize, Command),
    Split(BTreeSet<usize>),
    Heal,
    Crash(usize),
    Restart(usize),
}

/// A run as the executor sees it.
#[derive(Debug, Clone)]
struct Run {
    job: JobId,
    claim: ClaimId,
    spec: std::sync::Arc<JobSpec>,
    current: Option<(u32, u64)>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) core: Option<Core<MemoryShelf>>,
    pub(crate) key: SigningKey,
    offer: Offer,
    shelf: MemoryShelf,
    epoch: u32,
    mono_offset_us: u64,
    wall_skew_ms: u64,
    wake: Option<u64>,
    wake_serial: u64,
    spins: (u64, u32),
    runs: BTreeMap<u64, Run>,
}

/// A field log of a node under way.
#[derive(Debug)]
struct Recording {
    at: usize,
    signer: Arc<NotingSigner>,
    bytes: Vec<u8>,
}

/// The mesh, its links and its clock.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now_us: u64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) replies: BTreeMap<u64, (usize, Result<Ack, Refusal>)>,
    pub(crate) exits: BTreeMap<(JobId, ClaimId, u32), Exit>,
    pub(crate) starts: BTreeSet<(JobId, ClaimId)>,
    pub(crate) misbehaved: Vec<(NodeId, &'static str)>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// The first messages that left.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Bundles that went over direct streams, if they are counted.
    pub(crate) bundles_sent: Option<u64>,
    /// Whether files that a node asks for ever come.
    pub(crate) files_come: bool,
    recording: Option<Recording>,
    retention: mesh::Retention,
    queue: BTreeMap<(u64, u64), Event>,
    serial: u64,
    requests: u64,
    minority: BTreeSet<usize>,
    links: BTreeSet<(usize, usize)>,
    last_delivery: BTreeMap<(usize, usize), u64>,
    trace: blake3::Hasher,
}

impl World {
    /// A mesh of `count` members that know each other and are not connected yet.
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        Self::keeping(seed, count, mesh::Retention::default())
    }

    /// The same, whose members keep old jobs for so long.
    pub(crate) fn keeping(seed: u64, count: usize, retention: mesh::Retention) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let keys: Vec<SigningKey> = (0..count).map(|_| SigningKey::from_bytes(&rng.random())).collect();
        let shelf = found(&keys, &mut rng);
        let nodes = keys.into_iter().enumerate().map(|(at, key)| node(at, key, shelf.clone(), &mut rng)).collect();
        let mut world = Self {
            nodes,
            now_us: 0,
            rng,
            replies: BTreeMap::new(),
            exits: BTreeMap::new(),
            starts: BTreeSet::new(),
            misbehaved: Vec::new(),
            counts: BTreeMap::new(),
            sent: Vec::new(),
            bundles_sent: None,
            files_come: true,
            recording: None,
            retention,
            queue: BTreeMap::new(),
            serial: 0,
            requests: 0,
            minority: BTreeSet::new(),
            links: BTreeSet::new(),
            last_delivery: BTreeMap::new(),
            trace: blake3::Hasher::new(),
        };
        for at in 0..count {
            world.start(at);
        }
        for a in 0..count {
            for b in a + 1..count {
                let at_us = world.rng.random_range(0..1_000_000);
                world.at_us(at_us, Event::Link(a, b, true));
            }
        }
        world
    }

    /// Puts an event at a time in milliseconds.
    pub(crate) fn at_ms(&mut self, ms: u64, event: Event) {
        self.at_us(ms * 1_000, event);
    }

    fn at_us(&mut self, us: u64, event: Event) {
        self.serial += 1;
        self.queue.insert((us.max(self.now_us), self.serial), event);
    }

    /// Runs until a time; `done` is asked each virtual second whether it may end before.
    pub(crate) fn run_until_ms(&mut self, until_ms: u64, mut done: impl FnMut(&mut Self) -> bool) {
        let mut asked = 0;
        while let Some(next) = self.queue.first_entry() {
            // What comes later waits for the next call.
            if next.key().0 > until_ms * 1_000 {
                break;
            }
            let ((at, _), event) = next.remove_entry();
            self.now_us = at;
            if at / 1_000_000 > asked {
                asked = at / 1_000_000;
                if done(self) {
                    break;
                }
            }
            self.step(event);
        }
    }

    /// Hash of all effects with their times and nodes.
    pub(crate) fn trace_hash(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    /// A node's index.
    pub(crate) fn index(&self, id: &NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).expect("a member")
    }

    fn now_of(&self, at: usize) -> Now {
        let node = &self.nodes[at];
        Now {
            mono: Time(self.now_us + node.mono_offset_us),
            wall_ms: WALL_MS + node.wall_skew_ms + self.now_us / 1_000,
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Wake(at, serial) => {
                if self.nodes[at].wake_serial == serial && self.nodes[at].core.is_some() {
                    self.nodes[at].wake = None;
                    self.note_spin(at);
                    self.input(at, Input::Wake);
                }
            }
            Event::Deliver { from, to, epoch, gossip, bytes } => self.deliver(from, to, epoch, gossip, bytes),
            Event::Link(a, b, up) => self.link(a, b, up),
            Event::Local { node, epoch, input } => {
                if self.nodes[node].epoch == epoch {
                    self.input(node, *input);
                }
            }
            Event::Task { node, run, task, started_ms } => self.task(node, run, task, started_ms),
            Event::Command(at, command) => {
                self.requests += 1;
                let request = self.requests;
                self.input(at, Input::Command { request, command });
            }
            Event::Split(minority) => self.split(minority),
            Event::Heal => self.heal(),
            Event::Crash(at) => self.crash(at),
            Event::Restart(at) => self.restart(at),
        }
    }

    fn note_spin(&mut self, at: usize) {
        let now_ms = self.now_us / 1_000;
        let spins = &mut self.nodes[at].spins;
        *spins = if spins.0 == now_ms { (now_ms, spins.1 + 1) } else { (now_ms, 0) };
        assert!(spins.1 < SPINS_MAX, "node {at} wakes without end at {now_ms} ms");
    }

    /// Gives a node an input at once.
    pub(crate) fn input(&mut self, at: usize, input: Input) {
        let now = self.now_of(at);
        let mut out = Effects::new();
        let Some(core) = self.nodes[at].core.as_mut() else { return };
        let noted = self.recording.as_mut().filter(|recording| recording.at == at).map(|r| (r, input.clone()));
        core.handle(now, input, &mut out);
        if let Some((recording, input)) = noted {
            let (signatures, digest) = (recording.signer.take(), field_log::digest(core));
            let step = field_log::Step { now, inputs: vec![input], signatures, digest };
            recording.bytes.extend(frame(&Record::Step(step)));
        }
        let slots = core.offer().slots as usize;
        let running = core.held().filter(|(_, _, runs)| *runs).count();
        assert!(running <= slots, "node {at} runs {running} claims in {slots} slots");
        for effect in out {
            self.effect(at, effect);
        }
        self.schedule_wake(at);
    }

    /// Records a node that runs, from now on.
    pub(crate) fn record(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let core = node.core.as_mut().expect("it runs");
        let mut bytes = field_log::MAGIC.to_vec();
        let (mesh, version) = (core.replica().mesh(), String::new());
        bytes.extend(frame(&Record::Begin { mesh, node: node.id, version }));
        for (number, table) in (0..).zip(Table::ALL) {
            let rows = core.replica().shelf().all(table, &[]).into_iter();
            let rows = rows.map(|(key, value)| field_log::Row(number, key.into(), value.into()));
            bytes.extend(frame(&Record::Rows(rows.collect())));
        }
        bytes.extend(frame(&Record::Memory(Box::new(core.memory()))));
        let signer = Arc::new(NotingSigner::new(node.key.clone()));
        core.set_signer(signer.clone());
        self.recording = Some(Recording { at, signer, bytes });
    }

    /// The field log since [`Self::record`].
    pub(crate) fn recorded(&mut self) -> Vec<u8> {
        self.recording.take().expect("it was begun").bytes
    }

    fn schedule_wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(next) = node.core.as_ref().and_then(Core::next_wake) else { return };
        let next_us = next.0.saturating_sub(node.mono_offset_us).max(self.now_us + 1);
        if node.wake.is_none_or(|wake| wake != next_us) {
            node.wake = Some(next_us);
            node.wake_serial += 1;
            let serial = node.wake_serial;
            self.at_us(next_us, Event::Wake(at, serial));
        }
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        self.hash_effect(at, &effect);
        match effect {
            Effect::Send(to, bytes) => {
                if let Some(count) = &mut self.bundles_sent
                    && let Some(mesh::msg::Msg::Bundles { bundles, .. }) = mesh::msg::Msg::decode(&bytes)
                {
                    *count += bundles.len() as u64;
                }
                let to = self.index(&to);
                if self.links.contains(&pair(at, to)) {
                    let latency_us = self.rng.random_range(200..8_000);
                    let last = self.last_delivery.get(&(at, to)).copied().unwrap_or(0);
                    let when = (self.now_us + latency_us).max(last + 1);
                    self.last_delivery.insert((at, to), when);
                    let epoch = self.nodes[to].epoch;
                    self.at_us(when, Event::Deliver { from: at, to, epoch, gossip: false, bytes });
                }
            }
            Effect::Gossip(bytes) => self.gossip(at, bytes),
            Effect::Presence(words) => {
                for (to, bytes) in words {
                    self.effect(at, Effect::Send(to, bytes));
                }
            }
            Effect::Start { job, claim, spec, .. } => self.start_run(at, job, claim, spec),
            Effect::Kill { job, claim, exit } => self.kill(at, job, claim, exit),
            Effect::Secure { job, claim, holders, .. } => {
                let reachable = holders.iter().any(|h| self.links.contains(&pair(at, self.index(h))));
                if reachable && self.files_come {
                    let after = self.rng.random_range(1_000..50_000);
                    self.local(at, after, Input::Secured { job, claim, held: true });
                }
            }
            Effect::Reply { request, result } => {
                self.replies.insert(request, (at, result));
            }
            Effect::Misbehaved(node, why) => self.misbehaved.push((node, why)),
            Effect::Reachable(..) | Effect::RosterChanged | Effect::Changed(_) | Effect::Pruned(_) => {}
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "what is not named gets the same answer, also when kinds are added"
    )]
    fn hash_effect(&mut self, at: usize, effect: &Effect) {
        let mut line = format!("{} {at} ", self.now_us);
        let (name, bytes): (&'static str, &[u8]) = match effect {
            Effect::Send(to, bytes) => {
                write!(line, "send {to}").expect("into memory");
                ("send", bytes)
            }
            Effect::Gossip(bytes) => {
                line.push_str("gossip");
                ("gossip", bytes)
            }
            other => {
                write!(line, "{other:?}").expect("into memory");
                ("other", &[])
            }
        };
        *self.counts.entry(name).or_default() += 1;
        if !bytes.is_empty() && self.sent.len() < SENT_MAX {
            self.sent.push(bytes.to_vec());
        }
        self.trace.update(&(line.len() as u64).to_be_bytes()).update(line.as_bytes()).update(bytes);
    }

    /// Gossip reaches whoever is connected by some path; one message in fifty is lost on its way to each.
    fn gossip(&mut self, at: usize, bytes: bytes::Bytes) {
        for to in 0..self.nodes.len() {
            if to == at || self.nodes[to].core.is_none() || !self.links.contains(&pair(at, to)) {
                continue;
            }
            let latency_us = self.rng.random_range(2_000..60_000);
            if self.rng.random_range(0..50) != 0 {
                let epoch = self.nodes[to].epoch;
                let event = Event::Deliver { from: at, to, epoch, gossip: true, bytes: bytes.clone() };
                self.at_us(self.now_us + latency_us, event);
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, epoch: u32, gossip: bool, bytes: bytes::Bytes) {
        if self.nodes[to].epoch != epoch || self.is_cut(from, to) || !self.links.contains(&pair(from, to)) {
            *self.counts.entry("dropped").or_default() += 1;
            return;
        }
        let peer = self.nodes[from].id;
        let input = if gossip { Input::Gossip { via: peer, bytes } } else { Input::message(peer, bytes) };
        self.input(to, input);
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.minority.contains(&a) != self.minority.contains(&b)
    }

    fn link(&mut self, a: usize, b: usize, up: bool) {
        let alive = self.nodes[a].core.is_some() && self.nodes[b].core.is_some();
        let changed = if up {
            alive && !self.is_cut(a, b) && self.links.insert(pair(a, b))
        } else {
            self.links.remove(&pair(a, b))
        };
        if changed {
            for (me, other) in [(a, b), (b, a)] {
                let id = self.nodes[other].id;
                self.input(me, if up { Input::Connected(id) } else { Input::Disconnected(id) });
            }
        }
    }

    /// From now on nothing crosses; each link is noticed to be gone some time later.
    fn split(&mut self, minority: BTreeSet<usize>) {
        self.minority = minority;
        for (a, b) in self.links.clone() {
            if self.is_cut(a, b) {
                let after = self.rng.random_range(500_000..4_000_000);
                self.at_us(self.now_us + after, Event::Link(a, b, false));
            }
        }
    }

    fn heal(&mut self) {
        self.minority.clear();
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let after = self.rng.random_range(0..2_000_000);
                self.at_us(self.now_us + after, Event::Link(a, b, true));
            }
        }
    }

    fn start(&mut self, at: usize) {
        let now = self.now_of(at);
        let seed = self.rng.random();
        let node = &mut self.nodes[at];
        let replica = Replica::open(node.shelf.clone()).expect("the shelf holds a mesh");
        let config = Config { seed, incarnation: now.wall_ms, retention: self.retention, offer: node.offer.clone() };
        node.core = Some(Core::new(node.key.clone(), replica, config, now));
        self.input(at, Input::Wake);
    }

    /// The process is gone with everything but its rows; what it ran is gone with it.
    fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.shelf = node.core.take().expect("it runs").replica().shelf().clone();
        node.epoch += 1;
        node.runs.clear();
        node.wake = None;
        node.wake_serial += 1;
        for (a, b) in self.links.clone() {
            if a == at || b == at {
                let after = self.rng.random_range(1_000..200_000);
                self.at_us(self.now_us + after, Event::Link(a, b, false));
            }
        }
    }

    fn restart(&mut self, at: usize) {
        self.nodes[at].mono_offset_us = 3_600_000_000 + self.rng.random_range(0..1_000_000);
        self.start(at);
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let after = self.rng.random_range(10_000..500_000);
            self.at_us(self.now_us + after, Event::Link(at.min(other), at.max(other), true));
        }
    }

    fn local(&mut self, at: usize, after_us: u64, input: Input) {
        let epoch = self.nodes[at].epoch;
        self.at_us(self.now_us + after_us, Event::Local { node: at, epoch, input: Box::new(input) });
    }

    fn start_run(&mut self, at: usize, job: JobId, claim: ClaimId, spec: std::sync::Arc<JobSpec>) {
        assert_eq!(claim.owner, self.nodes[at].id, "a node starts its own claims");
        assert!(self.starts.insert((job, claim)), "{claim:?} of {job} is started twice");
        let core = self.nodes[at].core.as_ref().expect("it just acted");
        let known = core.replica().cached_job(&job).expect("a job that runs is in memory");
        assert!(known.claims().contains_key(&claim), "a claim is in the feed before it runs");
        assert!(!known.is_void(&claim), "{claim:?} of {job} is void and runs");
        self.serial += 1;
        let run = self.serial;
        self.nodes[at].runs.insert(run, Run { job, claim, spec, current: None });
        let after = self.rng.random_range(1_000..5_000);
        let first = Event::Task { node: at, run, task: claim.range.start, started_ms: None };
        self.at_us(self.now_us + after, first);
    }

    /// A task starts (`started_ms` is `None`) or ends.
    fn task(&mut self, at: usize, run_id: u64, task: u32, started_ms: Option<u64>) {
        let at_ms = self.now_of(at).wall_ms;
        let Some(run) = self.nodes[at].runs.get_mut(&run_id) else { return };
        let (job, claim, spec) = (run.job, run.claim, run.spec.clone());
        let Some(started_ms) = started_ms else {
            run.current = Some((task, at_ms));
            let mean_us: u64 = spec.command[1].parse::<u64>().expect("milliseconds") * 1_000;
            let after = self.rng.random_range(mean_us / 2..mean_us * 2);
            let end = Event::Task { node: at, run: run_id, task, started_ms: Some(at_ms) };
            self.at_us(self.now_us + after, end);
            self.input(at, Input::Started { job, claim, task, at_ms });
            return;
        };
        run.current = None;
        let exit = self.draw_exit(&spec, &claim);
        self.exits.insert((job, claim, task), exit.clone());
        self.input(at, Input::Exited { job, claim, task, started_ms, at_ms, exit });
        if task + 1 < claim.range.end {
            self.at_us(self.now_us + 500, Event::Task { node: at, run: run_id, task: task + 1, started_ms: None });
            return;
        }
        self.nodes[at].runs.remove(&run_id);
        if spec.command[0] == "make" {
            let size = self.rng.random_range(1..10_000);
            let blob = BlobHash(*blake3::hash(&claim.owner.0).as_bytes());
            let file = ArtifactRef { task, path: b"out".to_vec(), blob, size, parts: false, executable: false };
            self.input(
                at,
                Input::Progress { job, claim, artifacts: vec![file], list: None, checkpoint: None, holders: vec![] },
            );
        }
        let after = self.rng.random_range(200..20_000);
        self.local(at, after, Input::Ended { job, claim, log: None, cost_micros: 1 });
    }

    fn draw_exit(&mut self, spec: &JobSpec, claim: &ClaimId) -> Exit {
        let dice = self.rng.random_range(0..4);
        Exit::Code(match spec.command[0].as_str() {
            "fail" => 1,
            "flaky" if claim.attempt == 1 => 2,
            "dice" if dice == 0 => 3,
            _ => 0,
        })
    }

    fn kill(&mut self, at: usize, job: JobId, claim: ClaimId, exit: Exit) {
        let found = self.nodes[at].runs.iter().find(|(_, run)| run.job == job && run.claim == claim);
        let Some((run_id, run)) = found.map(|(id, run)| (*id, run.clone())) else { return };
        self.nodes[at].runs.remove(&run_id);
        let at_ms = self.now_of(at).wall_ms;
        if let Some((task, started_ms)) = run.current {
            self.local(at, 2_000, Input::Exited { job, claim, task, started_ms, at_ms, exit });
        }
        self.local(at, 4_000, Input::Ended { job, claim, log: None, cost_micros: 0 });
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// The founder's rows: the mesh, and one bundle with an invite and everybody's admission.
fn found(keys: &[SigningKey], rng: &mut ChaCha8Rng) -> MemoryShelf {
    let words = FoundingWords {
        mesh_name: "fifty".into(),
        node_name: "n0".into(),
        recovery: [7; 32],
        nonce: rng.random(),
        now_ms: WALL_MS - 60_000,
    };
    let (mut replica, _, _) = Replica::found(MemoryShelf::default(), &keys[0], &words);
    let invite = SigningKey::from_bytes(&rng.random());
    let invite_id = InviteId(invite.verifying_key().to_bytes());
    let terms = Invite { role: Role::Worker, expires_ms: u64::MAX, uses: 100, person: None };
    let mut changes = vec![Change::register(DocId::ROSTER, &Key::Invite(invite_id), &terms)];
    for (at, key) in keys.iter().enumerate().skip(1) {
        let admission = Admission::sign(replica.mesh(), key, &format!("n{at}"), &invite, WALL_MS);
        let member = NodeId(key.verifying_key().to_bytes());
        changes.push(Change::register(DocId::ROSTER, &Key::Member(member), &admission));
    }
    replica.append(&keys[0], WALL_MS - 50_000, &changes);
    assert_eq!(replica.roster().members.len(), keys.len());
    replica.shelf().clone()
}

fn node(at: usize, key: SigningKey, shelf: MemoryShelf, rng: &mut ChaCha8Rng) -> Node {
    let slots = rng.random_range(1..3);
    let offer = Offer {
        slots,
        cores: 4,
        memory_bytes: 8 << 30,
        labels: if at.is_multiple_of(5) { vec!["big".into()] } else { Vec::new() },
        price_micros_per_hour: rng.random_range(0..1_000),
        speed_percent: rng.random_range(50..200),
        os: "linux".into(),
        version: "0".into(),
        ..Offer::default()
    };
    Node {
        id: NodeId(key.verifying_key().to_bytes()),
        core: None,
        key,
        offer,
        shelf,
        epoch: 0,
        mono_offset_us: 3_600_000_000 + rng.random_range(0..1_000_000_000),
        wall_skew_ms: rng.random_range(0..30_000),
        wake: None,
        wake_serial: 0,
        spins: (0, 0),
        runs: BTreeMap::new(),
    }
}
