//! One node: the real core on a disk, a clock and an executor that are not real.
//!
//! It is driven as `node` drives it: inputs that arrive while a commit is under way are taken in together after it, and
//! effects leave only when their rows are durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use crdt::SigningKey;
use crdt::ids::{BlobHash, JobId, NodeId};
use crdt::job::{ArtifactRef, ClaimId, Exit, JobSpec};
use crdt::replica::Replica;
use mesh::msg::Msg;
use mesh::offer::Offer;
use mesh::{Ack, Config, Core, Effect, Effects, Input, Now, Refusal, Retention, Time, Verified};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::disk::Disk;

/// Start of the virtual wall clock, in milliseconds since 1970.
pub(crate) const WALL_MS: u64 = 1_800_000_000_000;
/// Inputs of one turn, as in `node`.
const BATCH_MAX: usize = 512;
/// Inputs that wait. More are dropped, as full queues of the transport would.
const INBOX_MAX: usize = 65_536;
/// Resolution of the timer of what waits.
const TIMER_US: u64 = 5_000;
/// Time after which the core's last words are repeated, as in `node`.
const REPEAT_US: u64 = 1_300_000;
/// Durable commit of a few rows (measured: 0.44 ms for one row).
const COMMIT_US: u64 = 450;
/// Time of the processor for one input beside its bundles, and for a bundle with its signature.
const INPUT_US: u64 = 20;
const BUNDLE_US: u64 = 80;
/// Wakes without a step of the clock after which a node counts as spinning.
const SPINS_MAX: u32 = 300;

/// What travels, with what its signatures say, verified once for all who receive it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Bytes,
    pub(crate) verified: Option<Verified>,
    pub(crate) gossip: bool,
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Wake(u64),
    /// A commit ends.
    Ready,
    Deliver {
        from: u32,
        peer: NodeId,
        sent_us: u64,
        packet: Arc<Packet>,
    },
    Local(Box<Input>),
    /// A task starts (`None`) or ends.
    Task {
        run: u64,
        task: u32,
        started_ms: Option<u64>,
    },
    /// Gossip has waited for more of it.
    Gathered(u64),
    /// The thread of presence says again that the node is here.
    Say {
        since: u32,
        round: u32,
    },
}

impl Event {
    /// Whether it is put to what waits, and nothing else follows at once.
    pub(crate) fn only_waits(&self) -> bool {
        match self {
            Self::Deliver { packet, .. } => packet.gossip || Msg::is_presence(&packet.bytes),
            Self::Wake(_) | Self::Ready | Self::Local(_) | Self::Task { .. } | Self::Gathered(_) | Self::Say { .. } => {
                false
            }
        }
    }
}

/// What a node does to others.
#[derive(Debug)]
pub(crate) enum Out {
    Send(NodeId, Bytes),
    Gossip(Bytes),
    /// An event of its own, at the time.
    Later(Event),
    Reply(u64, Result<Ack, Refusal>),
    Secure {
        job: JobId,
        claim: ClaimId,
        holders: Vec<NodeId>,
    },
    Started(JobId, ClaimId, u32),
    Ended(JobId, ClaimId, u32, Exit),
    Violation(&'static str, String),
}

#[derive(Debug, Clone)]
struct Run {
    job: JobId,
    claim: ClaimId,
    spec: Arc<JobSpec>,
    current: Option<(u32, u64)>,
}

/// What the disk does at present.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskState {
    /// Until when nothing can be written.
    pub(crate) full_until_us: u64,
    /// Until when each commit takes up to half a second.
    pub(crate) slow_until_us: u64,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: u32,
    pub(crate) id: NodeId,
    pub(crate) key: SigningKey,
    pub(crate) core: Option<Core<Disk>>,
    /// Its rows while it does not run.
    pub(crate) disk: Option<Disk>,
    pub(crate) offer: Offer,
    pub(crate) retention: Retention,
    /// Whether it takes work and never does it.
    pub(crate) is_idler: bool,
    pub(crate) epoch: u32,
    /// When each of its processes ended.
    pub(crate) died_us: Vec<u64>,
    pub(crate) disk_state: DiskState,
    pub(crate) paused: bool,
    paused_us: u64,
    pub(crate) mono_offset_us: u64,
    pub(crate) wall_offset_ms: i64,
    pub(crate) received: (u64, u64),
    rng: ChaCha8Rng,
    now_us: u64,
    inbox: VecDeque<Input>,
    /// Whether something in the inbox is to be handled at once.
    is_urgent: bool,
    /// Counts the times that gossip waited.
    gathering: u64,
    /// When it has waited long enough.
    gather_until_us: u64,
    deferred: Vec<Event>,
    busy_until_us: u64,
    ready: bool,
    wake: Option<u64>,
    wake_serial: u64,
    spins: (u64, u32),
    runs: BTreeMap<u64, Run>,
    run_serial: u64,
    /// Most slots that it ever sold: what runs goes on when it sells fewer.
    slots_most: usize,
    words: Vec<(NodeId, Bytes)>,
    said: u32,
    later: Vec<(u64, Event)>,
    out: Vec<(u64, Out)>,
}

impl Node {
    pub(crate) fn new(at: u32, key: SigningKey, disk: Disk, offer: Offer, mut rng: ChaCha8Rng) -> Self {
        Self {
            at,
            id: NodeId(key.verifying_key().to_bytes()),
            key,
            core: None,
            disk: Some(disk),
            offer,
            retention: Retention::default(),
            is_idler: false,
            epoch: 0,
            died_us: Vec::new(),
            disk_state: DiskState::default(),
            paused: false,
            paused_us: 0,
            mono_offset_us: 3_600_000_000 + rng.random_range(0..1_000_000_000),
            wall_offset_ms: rng.random_range(0..30_000),
            received: (0, 0),
            rng,
            now_us: 0,
            inbox: VecDeque::new(),
            is_urgent: false,
            gathering: 0,
            gather_until_us: 0,
            deferred: Vec::new(),
            busy_until_us: 0,
            ready: false,
            wake: None,
            wake_serial: 0,
            spins: (0, 0),
            runs: BTreeMap::new(),
            run_serial: 0,
            slots_most: 0,
            words: Vec::new(),
            said: 0,
            later: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Whether what its core holds is not durable yet: nobody can have seen it.
    pub(crate) fn is_writing(&self, at_us: u64) -> bool {
        self.busy_until_us > at_us && self.core.as_ref().is_some_and(|core| core.replica().shelf().is_dirty())
    }

    fn clock(&self, at_us: u64) -> Now {
        let wall_ms = (WALL_MS + at_us / 1_000).saturating_add_signed(self.wall_offset_ms);
        Now { mono: Time(at_us + self.mono_offset_us), wall_ms }
    }

    /// Starts a process over the rows that are there; `hold` if they may lack something of its own feed.
    pub(crate) fn start(&mut self, at_us: u64, hold: bool) {
        let disk = self.disk.take().expect("it does not run");
        let mut replica = Replica::open(disk).expect("its rows hold a mesh");
        if hold {
            mesh::core::hold_own_feed(&mut replica);
        }
        self.start_with(at_us, replica);
    }

    /// The same over rows that were read already.
    pub(crate) fn start_with(&mut self, at_us: u64, replica: Replica<Disk>) {
        self.disk = None;
        let now = self.clock(at_us);
        let config = Config {
            seed: self.rng.random(),
            incarnation: now.wall_ms.max(WALL_MS) + u64::from(self.epoch),
            retention: self.retention,
            offer: self.offer.clone(),
        };
        self.core = Some(Core::new(self.key.clone(), replica, config, now));
        (self.now_us, self.busy_until_us) = (at_us, at_us);
        self.put(Input::Wake);
    }

    /// Ends the process at once. `keep`: what was being written is durable all the same.
    pub(crate) fn crash(&mut self, at_us: u64, keep: bool) {
        let Some(mut core) = self.core.take() else { return };
        let disk = core.replica_mut().shelf_mut();
        if self.busy_until_us <= at_us || keep {
            disk.commit()
        } else {
            disk.roll_back()
        }
        self.disk = Some(core.replica().shelf().clone());
        self.epoch += 1;
        self.died_us.push(at_us);
        self.paused = false;
        self.inbox.clear();
        self.is_urgent = false;
        self.deferred.clear();
        self.runs.clear();
        self.words.clear();
        self.ready = false;
        self.wake = None;
        self.wake_serial += 1;
    }

    /// Takes in events of one window in their order; what follows within it is taken in too.
    pub(crate) fn run(&mut self, events: Vec<(u64, Event)>, end_us: u64) -> Vec<(u64, Out)> {
        let mut queue: BTreeMap<(u64, u64), Event> = BTreeMap::new();
        let mut serial = 0;
        for (at, event) in events {
            serial += 1;
            queue.insert((at, serial), event);
        }
        while let Some(((at, _), event)) = queue.pop_first() {
            self.now_us = at;
            self.take(event);
            if self.core.is_some() && !self.paused && self.is_urgent {
                if self.busy_until_us <= at {
                    self.turn();
                } else if !self.ready {
                    self.ready = true;
                    self.later.push((self.busy_until_us, Event::Ready));
                }
            }
            for (at, event) in std::mem::take(&mut self.later) {
                if at < end_us {
                    serial += 1;
                    queue.insert((at, serial), event);
                } else {
                    self.out.push((at, Out::Later(event)));
                }
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Stands still, with everything that it runs.
    pub(crate) fn pause(&mut self, at_us: u64) {
        if self.core.is_some() && !self.paused {
            (self.paused, self.paused_us) = (true, at_us);
        }
    }

    /// Goes on after a pause; `stood`: its monotonic clock stood still meanwhile.
    pub(crate) fn resume(&mut self, at_us: u64, stood: bool) -> Vec<(u64, Event)> {
        self.paused = false;
        if stood {
            self.mono_offset_us -= at_us - self.paused_us;
        }
        std::mem::take(&mut self.deferred).into_iter().chain([Event::Ready]).map(|event| (at_us, event)).collect()
    }

    fn take(&mut self, event: Event) {
        if self.core.is_none() {
            return;
        }
        if self.paused && !matches!(event, Event::Deliver { .. } | Event::Local(_)) {
            self.deferred.push(event);
            return;
        }
        match event {
            Event::Wake(serial) => {
                if serial == self.wake_serial {
                    self.wake = None;
                    self.note_spin();
                    self.put(Input::Wake);
                }
            }
            Event::Ready => {
                self.ready = false;
                // A wake that came while the node was busy or paused.
                self.put(Input::Wake);
            }
            Event::Gathered(gathering) => self.is_urgent |= gathering == self.gathering && !self.inbox.is_empty(),
            Event::Deliver { .. } => self.deliver(event),
            Event::Local(input) => self.put(*input),
            Event::Task { run, task, started_ms } => self.task(run, task, started_ms),
            Event::Say { since, round } => {
                // The core has spoken meanwhile, or stands still for good.
                let tired = u64::from(round) * REPEAT_US > mesh::limits::PRESENCE_REPEATED_MS_MAX * 1_000;
                if since == self.said && !tired {
                    self.say(self.now_us, round);
                }
            }
        }
    }

    fn deliver(&mut self, event: Event) {
        let Event::Deliver { peer: from, packet, .. } = event else { return };
        if self.inbox.len() >= INBOX_MAX {
            return;
        }
        let input = match &packet.verified {
            Some(verified) => Input::Verified { from, verified: verified.clone() },
            None if packet.gossip => Input::Gossip { via: from, bytes: packet.bytes.clone() },
            None => Input::Message { from, bytes: packet.bytes.clone() },
        };
        let patience_ms = if packet.gossip { mesh::limits::GOSSIP_WAIT_MS } else { input.patience_ms() };
        if patience_ms == 0 {
            return self.put(input);
        }
        // Timers are no finer than this; what ends together runs side by side.
        let until_us = (self.now_us + patience_ms * 1_000).next_multiple_of(TIMER_US);
        if self.inbox.is_empty() || until_us < self.gather_until_us {
            self.gathering += 1;
            self.gather_until_us = until_us;
            self.later.push((until_us, Event::Gathered(self.gathering)));
        }
        self.inbox.push_back(input);
    }

    /// Something to be handled at once.
    fn put(&mut self, input: Input) {
        self.is_urgent = true;
        self.inbox.push_back(input);
    }

    fn note_spin(&mut self) {
        let now_ms = self.now_us / 1_000;
        self.spins = if self.spins.0 == now_ms { (now_ms, self.spins.1 + 1) } else { (now_ms, 0) };
        if self.spins.1 == SPINS_MAX {
            self.out.push((self.now_us, Out::Violation("bounds", format!("node {} wakes without end", self.at))));
        }
    }

    fn turn(&mut self) {
        let now = self.clock(self.now_us);
        let count = self.inbox.len().min(BATCH_MAX);
        let inputs: Vec<Input> = self.inbox.drain(..count).collect();
        self.is_urgent = !self.inbox.is_empty();
        let cost_us: u64 = inputs.iter().map(cost_us).sum();
        let core = self.core.as_mut().expect("it runs");
        core.replica_mut().shelf_mut().commit();
        let mut effects = Effects::new();
        core.handle_all(now, inputs, &mut effects);
        let slots = core.offer().slots as usize;
        let running = core.held().filter(|(_, _, runs)| *runs).count();
        self.slots_most = self.slots_most.max(slots);
        if running > self.slots_most {
            let detail = format!("node {} runs {running} claims in {slots} slots", self.at);
            self.out.push((self.now_us, Out::Violation("bounds", detail)));
        }
        let commit_us = if core.replica().shelf().is_dirty() { self.commit_us() } else { 0 };
        self.busy_until_us = self.now_us + cost_us + commit_us;
        let next = self.core.as_ref().and_then(Core::next_wake);
        for (n, effect) in effects.into_iter().enumerate() {
            self.effect(self.busy_until_us + n as u64, effect);
        }
        if !self.inbox.is_empty() && !self.ready {
            self.ready = true;
            self.later.push((self.busy_until_us.max(self.now_us + 1), Event::Ready));
        }
        self.schedule_wake(next);
    }

    fn commit_us(&mut self) -> u64 {
        let full = self.disk_state.full_until_us.saturating_sub(self.now_us);
        let slow = if self.disk_state.slow_until_us > self.now_us { self.rng.random_range(1_000..500_000) } else { 0 };
        COMMIT_US + full + slow
    }

    fn schedule_wake(&mut self, next: Option<Time>) {
        let Some(next) = next else { return };
        let at = next.0.saturating_sub(self.mono_offset_us).max(self.busy_until_us).max(self.now_us + 1);
        if self.wake != Some(at) {
            self.wake = Some(at);
            self.wake_serial += 1;
            self.later.push((at, Event::Wake(self.wake_serial)));
        }
    }

    fn effect(&mut self, at_us: u64, effect: Effect) {
        match effect {
            Effect::Send(to, bytes) => self.out.push((at_us, Out::Send(to, bytes))),
            Effect::Gossip(bytes) => self.out.push((at_us, Out::Gossip(bytes))),
            Effect::Presence(words) => {
                self.words = words;
                self.said += 1;
                self.say(at_us, 0);
            }
            Effect::Start { job, claim, spec, .. } => self.start_run(at_us, job, claim, spec),
            Effect::Kill { job, claim, exit } => self.kill(at_us, job, claim, &exit),
            Effect::Secure { job, claim, holders, .. } => self.out.push((at_us, Out::Secure { job, claim, holders })),
            Effect::Reply { request, result } => self.out.push((at_us, Out::Reply(request, result))),
            Effect::Misbehaved(..)
            | Effect::Reachable(..)
            | Effect::RosterChanged
            | Effect::Changed(_)
            | Effect::Pruned(_) => {}
        }
    }

    /// A thread of its own says that the node is here, also while its core waits for the disk.
    fn say(&mut self, at_us: u64, round: u32) {
        for (to, bytes) in self.words.clone() {
            self.out.push((at_us, Out::Send(to, bytes)));
        }
        self.later.push((at_us + REPEAT_US, Event::Say { since: self.said, round: round + 1 }));
    }

    fn start_run(&mut self, at_us: u64, job: JobId, claim: ClaimId, spec: Arc<JobSpec>) {
        let known = self.core.as_ref().and_then(|core| core.replica().cached_job(&job));
        let claimed = known.is_some_and(|job| job.claims().contains_key(&claim));
        if claim.owner != self.id || !claimed {
            let detail = format!("node {} starts {claim:?} of {job} without a claim of its own", self.at);
            self.out.push((at_us, Out::Violation("own-register", detail)));
        }
        if self.is_idler {
            return;
        }
        self.run_serial += 1;
        self.runs.insert(self.run_serial, Run { job, claim, spec, current: None });
        let first = Event::Task { run: self.run_serial, task: claim.range.start, started_ms: None };
        let after = self.rng.random_range(1_000..5_000);
        self.later.push((at_us + after, first));
    }

    fn task(&mut self, run_id: u64, task: u32, started_ms: Option<u64>) {
        let at_ms = self.clock(self.now_us).wall_ms;
        let Some(run) = self.runs.get_mut(&run_id) else { return };
        let (job, claim, spec) = (run.job, run.claim, run.spec.clone());
        let Some(started_ms) = started_ms else {
            run.current = Some((task, at_ms));
            let mean_us = spec.command.get(1).and_then(|ms| ms.parse::<u64>().ok()).unwrap_or(10) * 1_000;
            let after = self.rng.random_range(mean_us / 2..=mean_us * 3 / 2);
            self.later.push((self.now_us + after, Event::Task { run: run_id, task, started_ms: Some(at_ms) }));
            self.out.push((self.now_us, Out::Started(job, claim, task)));
            self.put(Input::Started { job, claim, task, at_ms });
            return;
        };
        run.current = None;
        let exit = self.draw_exit(&spec, &claim);
        self.out.push((self.now_us, Out::Ended(job, claim, task, exit.clone())));
        self.put(Input::Exited { job, claim, task, started_ms, at_ms, exit });
        if task + 1 < claim.range.end {
            let next = Event::Task { run: run_id, task: task + 1, started_ms: None };
            self.later.push((self.now_us + 500, next));
            return;
        }
        self.runs.remove(&run_id);
        if spec.command[0] == "make" {
            let size = self.rng.random_range(1..10_000);
            let blob = BlobHash(*blake3::hash(&claim.owner.0).as_bytes());
            let file = ArtifactRef { task, path: b"out".to_vec(), blob, size, parts: false, executable: false };
            let (artifacts, holders) = (vec![file], Vec::new());
            self.put(Input::Progress { job, claim, artifacts, list: None, checkpoint: None, holders });
        }
        let after = self.rng.random_range(200..20_000);
        self.local(after, Input::Ended { job, claim, log: None, cost_micros: 1 });
    }

    fn local(&mut self, after_us: u64, input: Input) {
        self.later.push((self.now_us + after_us, Event::Local(Box::new(input))));
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

    fn kill(&mut self, at_us: u64, job: JobId, claim: ClaimId, exit: &Exit) {
        let found = self.runs.iter().find(|(_, run)| run.job == job && run.claim == claim);
        let Some((run_id, run)) = found.map(|(id, run)| (*id, run.clone())) else {
            if self.is_idler {
                self.local(1_000, Input::Ended { job, claim, log: None, cost_micros: 0 });
            }
            return;
        };
        self.runs.remove(&run_id);
        let at_ms = self.clock(at_us).wall_ms;
        let wait = at_us - self.now_us;
        if let Some((task, started_ms)) = run.current {
            let exit = exit.clone();
            self.local(wait + 2_000, Input::Exited { job, claim, task, started_ms, at_ms, exit });
        }
        self.local(wait + 4_000, Input::Ended { job, claim, log: None, cost_micros: 0 });
    }
}

fn cost_us(input: &Input) -> u64 {
    match input {
        Input::Verified { verified, .. } => INPUT_US + BUNDLE_US * verified.signatures() as u64,
        Input::Message { .. }
        | Input::Gossip { .. }
        | Input::Connected(_)
        | Input::Disconnected(_)
        | Input::Command { .. }
        | Input::Started { .. }
        | Input::Exited { .. }
        | Input::Progress { .. }
        | Input::Ended { .. }
        | Input::Unkept { .. }
        | Input::Secured { .. }
        | Input::Wake => INPUT_US,
    }
}
