//! The claim protocol, looked at exhaustively: three real cores, two tasks, and every order in which what they say arrives.
//!
//! The first node submits a plain task and one that may start at most once; the others have a slot each. From then on a step
//! is the arrival of one message, the end of a running task, or a fault: a message is lost, comes twice, or comes later than
//! everything else; a node crashes and starts again; a node is cut off, and is back. Time goes on when nothing is under way.
//! Each kind of fault comes once at most, and some at most on one path.
//!
//! Two states are one when each node heard the same in the same order and the same is under way. Presences, offers and repair
//! arrive at once, as far as the network lets them.

mod step;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use crdt::SigningKey;
use crdt::ids::{JobId, NodeId};
use crdt::job::{ClaimId, Exit, JobSpec, JobState, job_id_of_nonce};
use crdt::mutant::Mutant;
use crdt::replica::Replica;
use mesh::msg::Msg;
use mesh::offer::Offer;
use mesh::{Command, Config, Core, Effect, Effects, Input, Now, Retention, Time};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Property};

use step::Kind;
pub(crate) use step::Step;

use crate::disk::{Disk, Shared};
use crate::node::WALL_MS;

const NODES: usize = 3;
/// Time that one step of the clock goes on at most while nothing is under way: a lease and what follows it.
const STEP_US: u64 = 9_000_000;
/// Steps of the clock on one path.
const STEPS_MAX: u8 = 3;
/// Time in which everything must be over once nothing goes wrong any more.
const CLOSING_US: u64 = 90_000_000;
/// Time until the mesh stands, before anything is submitted.
const SETTLED_US: u64 = 4_000_000;

#[derive(Clone)]
struct Member {
    core: Option<Core<Disk>>,
    disk: Option<Disk>,
    /// A hash of all that it is.
    past: Option<u64>,
    runs: Vec<(JobId, ClaimId, u64)>,
    starts: u64,
}

/// Hashes what is written to it.
struct Hashing(foldhash::fast::FoldHasher<'static>);

impl std::fmt::Write for Hashing {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Member {
    /// All that it is: its rows, and what its core holds beside them as it prints it.
    fn digest(&self) -> u64 {
        self.past.unwrap_or_else(|| {
            let mut hashing = Hashing(foldhash::fast::FixedState::default().build_hasher());
            let disk = self.core.as_ref().map(|core| core.replica().shelf()).or(self.disk.as_ref());
            hashing.0.write_u64(disk.map_or(0, Disk::digest));
            write!(hashing, "{:?} {:?} {}", self.core, self.runs, self.starts).expect("hashing cannot fail");
            hashing.0.finish()
        })
    }
}

/// What is so at one moment.
#[derive(Clone)]
pub(crate) struct State {
    members: [Arc<Member>; NODES],
    ways: BTreeMap<(usize, usize), Vec<Bytes>>,
    late: Option<(usize, usize, Bytes)>,
    now_us: u64,
    ticks: u8,
    faults: Vec<Kind>,
    down: Option<usize>,
    cut: Option<usize>,
    /// Claims that were started, of each job.
    started: BTreeMap<JobId, Vec<ClaimId>>,
    /// The first result that any node held for accepted, of each job.
    accepted: BTreeMap<JobId, (u32, Option<NodeId>)>,
    broken: Option<(&'static str, String)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = |(from, to): &(usize, usize), sent: &Vec<Bytes>| {
            let names = sent.iter().map(|bytes| name(bytes)).collect::<Vec<_>>().join(" ");
            format!("{from}>{to} {names}")
        };
        let ways: Vec<String> = self.ways.iter().filter(|(_, sent)| !sent.is_empty()).map(|(k, v)| way(k, v)).collect();
        f.debug_struct("State")
            .field("ms", &(self.now_us / 1_000))
            .field("ways", &ways)
            .field("down", &self.down)
            .field("cut", &self.cut)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.digest());
    }
}

/// What a message is called.
fn name(bytes: &[u8]) -> String {
    let text = Msg::decode(bytes).map_or_else(|| "?".to_owned(), |msg| format!("{msg:?}"));
    text.split(['{', '(', ' ']).next().unwrap_or("?").to_owned()
}

/// Whether a message arrives at once: its order beside others is not looked at.
fn is_chatter(bytes: &[u8]) -> bool {
    use Msg::{Bundles, Call, Outvoted, Prepare, Promise, Propose, Vote};
    !matches!(
        Msg::decode(bytes),
        Some(
            Bundles { .. }
                | Call { .. }
                | Prepare { .. }
                | Promise { .. }
                | Propose { .. }
                | Vote { .. }
                | Outvoted { .. }
        )
    )
}

impl State {
    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for member in &self.members {
            hasher.update(&member.digest().to_le_bytes());
        }
        for ((from, to), sent) in self.ways.iter().filter(|(_, sent)| !sent.is_empty()) {
            hasher.update(&[1, u8::try_from(*from).unwrap_or(9), u8::try_from(*to).unwrap_or(9)]);
            for bytes in sent {
                hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
            }
        }
        if let Some((from, to, bytes)) = &self.late {
            hasher.update(&[2, u8::try_from(*from).unwrap_or(9), u8::try_from(*to).unwrap_or(9)]).update(bytes);
        }
        hasher.update(&self.now_us.to_le_bytes()).update(&[self.ticks]);
        hasher.update(format!("{:?} {:?} {:?}", self.faults, self.down, self.cut).as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn core(&self, at: usize) -> Option<&Core<Disk>> {
        self.members[at].core.as_ref()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut == Some(a) || self.cut == Some(b)
    }
}

/// The protocol and what may go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    keys: [SigningKey; NODES],
    jobs: [(JobId, JobSpec); 2],
    begin: State,
    faults_max: usize,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Different states that were looked at.
    pub states: usize,
    /// Steps on the longest path.
    pub depth: usize,
    /// Whether all states were looked at that there are within the bounds.
    pub complete: bool,
    /// What was broken, and the steps that lead there.
    pub broken: Vec<(String, Vec<String>)>,
}

/// Looks at all states with at most `faults_max` faults on a path, with a deliberate mistake if so asked, and no more than
/// `states_max`. Nothing else may run in this process meanwhile.
#[must_use]
pub fn check_model(faults_max: usize, states_max: usize, mutant: Option<Mutant>) -> Checked {
    crdt::mutant::make(mutant);
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let protocol = Protocol::new(faults_max);
    let checker = stateright::Model::checker(protocol)
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(states_max)
        .spawn_dfs()
        .join();
    let steps = |path: stateright::Path<State, Step>| {
        let mut steps: Vec<String> = Vec::new();
        let mut last = None;
        for (state, step) in path.into_vec() {
            steps.extend(step.map(|step| format!("{step:?}")));
            last = Some(state);
        }
        steps.extend(last.and_then(|state| state.broken).map(|(_, what)| what));
        steps
    };
    let broken: Vec<_> = checker.discoveries().into_iter().map(|(name, path)| (name.to_owned(), steps(path))).collect();
    crdt::mutant::make(None);
    Checked {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        complete: broken.is_empty() && checker.state_count() < states_max,
        broken,
    }
}

impl Protocol {
    fn new(faults_max: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let keys: [SigningKey; NODES] = std::array::from_fn(|_| SigningKey::from_bytes(&rng.random()));
        let shared = Shared::default();
        let (founded, _) = crate::world::founding::found(&keys, &shared, &mut rng);
        let id = |at: usize| NodeId(keys[at].verifying_key().to_bytes());
        let replica = Replica::open(founded.clone()).expect("just founded");
        let person = replica.roster().person(&id(0)).expect("a member");
        let job = |nonce: u8, at_most_once: bool| {
            let nonce = [nonce; 16];
            let spec = JobSpec {
                command: vec!["work".into()],
                at_most_once,
                nonce: Some(serde_bytes::ByteArray::new(nonce)),
                person,
                created_ms: WALL_MS,
                ..JobSpec::default()
            };
            (job_id_of_nonce(id(0), &nonce), spec)
        };
        let jobs = [job(1, false), job(2, true)];
        let nobody = Member { core: None, disk: Some(founded), past: None, runs: Vec::new(), starts: 0 };
        let begin = State {
            members: std::array::from_fn(|_| Arc::new(nobody.clone())),
            ways: BTreeMap::new(),
            late: None,
            now_us: 0,
            ticks: 0,
            faults: Vec::new(),
            down: None,
            cut: None,
            started: BTreeMap::new(),
            accepted: BTreeMap::new(),
            broken: None,
        };
        let mut protocol = Self { keys, jobs, begin: begin.clone(), faults_max };
        let mut state = begin;
        for at in 0..NODES {
            protocol.start(&mut state, at);
        }
        protocol.settle(&mut state, SETTLED_US);
        protocol.take(
            &mut state,
            0,
            Input::Command { request: 1, command: Command::Submit(protocol.jobs.to_vec(), Vec::new()) },
        );
        protocol.begin = state;
        protocol
    }

    fn id(&self, at: usize) -> NodeId {
        NodeId(self.keys[at].verifying_key().to_bytes())
    }

    fn index(&self, id: NodeId) -> usize {
        (0..NODES).find(|at| self.id(*at) == id).expect("one of three")
    }

    /// Starts a node and connects it with those that are there.
    fn start(&self, state: &mut State, at: usize) {
        let now = clock(state.now_us);
        let member = Arc::make_mut(&mut state.members[at]);
        member.starts += 1;
        let config = Config {
            seed: [u8::try_from(at).unwrap_or(9); 32],
            incarnation: WALL_MS + member.starts,
            retention: Retention::default(),
            offer: Offer {
                slots: u32::from(at > 0),
                cores: 4,
                memory_bytes: 8 << 30,
                speed_percent: 100,
                os: "linux".into(),
                version: "0".into(),
                ..Offer::default()
            },
        };
        let replica = Replica::open(member.disk.take().expect("it does not run")).expect("rows of a mesh");
        member.core = Some(Core::new(self.keys[at].clone(), replica, config, now));
        self.take(state, at, Input::Wake);
        for other in (0..NODES).filter(|other| *other != at) {
            self.connect(state, at, other);
        }
    }

    fn connect(&self, state: &mut State, a: usize, b: usize) {
        if state.core(a).is_some() && state.core(b).is_some() && !state.is_cut(a, b) {
            self.take(state, a, Input::Connected(self.id(b)));
            self.take(state, b, Input::Connected(self.id(a)));
        }
    }

    /// A node takes something in. What it says is under way, or has arrived.
    fn take(&self, state: &mut State, at: usize, input: Input) {
        let mut chatter = vec![(at, input)];
        // Chatter answers chatter.
        while !chatter.is_empty() {
            let (at, input) = chatter.remove(0);
            self.take_one(state, at, input, &mut chatter);
        }
    }

    fn take_one(&self, state: &mut State, at: usize, input: Input, chatter: &mut Vec<(usize, Input)>) {
        let now = clock(state.now_us);
        let member = Arc::make_mut(&mut state.members[at]);
        member.past = None;
        let Some(core) = &mut member.core else { return };
        let mut effects = Effects::new();
        core.handle(now, input, &mut effects);
        core.replica_mut().shelf_mut().commit();
        let mut local = Vec::new();
        let mut sent: Vec<(usize, Bytes)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(to, bytes) => sent.push((self.index(to), bytes)),
                Effect::Presence(words) => {
                    sent.extend(words.into_iter().map(|(to, bytes)| (self.index(to), bytes)));
                }
                Effect::Start { job, claim, .. } => {
                    member.runs.push((job, claim, now.wall_ms));
                    local.push(Input::Started { job, claim, task: claim.range.start, at_ms: now.wall_ms });
                    let started = state.started.entry(job).or_default();
                    if !started.contains(&claim) {
                        started.push(claim);
                    }
                    if job == self.jobs[1].0 && started.len() > 1 && state.broken.is_none() {
                        state.broken = Some(("at-most-once", format!("started by {started:?}")));
                    }
                }
                Effect::Kill { job, claim, exit } => {
                    if let Some(run) = member.runs.iter().position(|run| (run.0, run.1) == (job, claim)) {
                        let (.., started_ms) = member.runs.remove(run);
                        local.extend(ended(job, claim, started_ms, now.wall_ms, exit));
                    }
                }
                Effect::Secure { job, claim, .. } => local.push(Input::Secured { job, claim, held: true }),
                Effect::Gossip(_)
                | Effect::Reply { .. }
                | Effect::Misbehaved(..)
                | Effect::Reachable(..)
                | Effect::RosterChanged
                | Effect::Changed(_)
                | Effect::Pruned(_) => {}
            }
        }
        chatter.extend(local.into_iter().map(|input| (at, input)));
        for (to, bytes) in sent {
            if state.is_cut(at, to) || state.core(to).is_none() {
                continue;
            }
            if is_chatter(&bytes) {
                chatter.push((to, self.input(at, bytes)));
            } else {
                state.ways.entry((at, to)).or_default().push(bytes);
            }
        }
        self.look(state, at);
    }

    fn input(&self, from: usize, bytes: Bytes) -> Input {
        Input::Message { from: self.id(from), bytes }
    }

    /// One accepted result, on all nodes, for good.
    fn look(&self, state: &mut State, at: usize) {
        let mut found = Vec::new();
        for (job, _) in &self.jobs {
            let Some(known) = state.core(at).and_then(|core| core.replica().cached_job(job)) else { continue };
            found.extend(known.accepted(0).map(|accept| (*job, (accept.attempt, accept.node))));
        }
        for (job, result) in found {
            let first = *state.accepted.entry(job).or_insert(result);
            if first != result && state.broken.is_none() {
                let what = format!("{job} was accepted of {first:?}, and of {result:?} on node {at}");
                state.broken = Some(("exclusive-acceptance", what));
            }
        }
    }

    /// Lets time go on until something is under way, and for `most_us` at most.
    fn tick(&self, state: &mut State, most_us: u64) {
        let end = state.now_us + most_us;
        while state.now_us < end && state.ways.values().all(Vec::is_empty) {
            let wake = |at| state.core(at).and_then(Core::next_wake).map(|wake| wake.0.saturating_sub(clock(0).mono.0));
            let Some(next) = (0..NODES).filter_map(wake).min() else { break };
            // A core that wants to be woken at once may not hold the clock.
            state.now_us = next.max(state.now_us + 1_000).min(end);
            for at in 0..NODES {
                if wake_of(state, at).is_some_and(|wake| wake <= state.now_us) {
                    self.take(state, at, Input::Wake);
                }
            }
        }
    }

    /// Everything that is under way arrives, tasks end, and time goes on.
    fn settle(&self, state: &mut State, for_us: u64) {
        let end = state.now_us + for_us;
        while state.now_us < end && state.broken.is_none() {
            let next = state.ways.iter().find(|(_, sent)| !sent.is_empty()).map(|(way, _)| *way);
            if let Some((from, to)) = next {
                let bytes = state.ways.get_mut(&(from, to)).expect("just seen").remove(0);
                self.take(state, to, self.input(from, bytes));
                continue;
            }
            if let Some(at) = (0..NODES).find(|at| !state.members[*at].runs.is_empty()) {
                self.end(state, at);
                continue;
            }
            let left = end - state.now_us;
            self.tick(state, left.min(STEP_US));
        }
    }

    fn end(&self, state: &mut State, at: usize) {
        let member = Arc::make_mut(&mut state.members[at]);
        member.past = None;
        let (job, claim, started_ms) = member.runs.remove(0);
        for input in ended(job, claim, started_ms, clock(state.now_us).wall_ms, Exit::Code(0)) {
            self.take(state, at, input);
        }
    }

    /// Whether both jobs are over, as all nodes know it.
    fn is_over(&self, state: &mut State) -> bool {
        self.jobs.iter().all(|(job, _)| {
            state.members.iter_mut().all(|member| {
                let core = Arc::make_mut(member).core.as_mut();
                let known = core.and_then(|core| core.replica_mut().job(*job));
                known.and_then(|job| job.state()).is_some_and(JobState::is_final)
            })
        })
    }

    /// Once nothing goes wrong any more, everything ends, but for what may start once and whose owner vanished.
    fn close(&self, state: &mut State) {
        if let Some((from, to, bytes)) = state.late.take() {
            self.take(state, to, self.input(from, bytes));
        }
        self.mend(state);
        let end = state.now_us + CLOSING_US;
        while state.now_us < end && !self.is_over(state) && state.broken.is_none() {
            self.settle(state, 1_000_000);
        }
        if state.broken.is_some() || self.is_over(state) {
            return;
        }
        for (at, (job, spec)) in (0..NODES).flat_map(|at| self.jobs.iter().map(move |job| (at, job))) {
            let member = Arc::make_mut(&mut state.members[at]);
            let Some(core) = &mut member.core else { continue };
            let known = core.replica_mut().job(*job).and_then(|job| job.state());
            let why = core.explain(*job).map_or_else(String::new, |e| e.summary);
            let may_wait = spec.at_most_once && !state.faults.is_empty() && why.contains("person");
            if !known.is_some_and(JobState::is_final) && !may_wait {
                state.broken = Some(("no-stuck-task", format!("{job} is {known:?} on node {at}: {why}")));
                return;
            }
        }
    }

    /// Who is down starts, who is cut off is back.
    fn mend(&self, state: &mut State) {
        if let Some(at) = state.down.take() {
            self.start(state, at);
        }
        if let Some(at) = state.cut.take() {
            let others: Vec<usize> = (0..NODES).filter(|other| *other != at && state.core(*other).is_some()).collect();
            for other in others {
                self.take(state, at, Input::Disconnected(self.id(other)));
                self.take(state, other, Input::Disconnected(self.id(at)));
                self.connect(state, at, other);
            }
        }
    }

    fn crash(&self, state: &mut State, at: usize, with_sent: bool) {
        let member = Arc::make_mut(&mut state.members[at]);
        let core = member.core.take().expect("it runs");
        member.disk = Some(core.replica().shelf().clone());
        member.runs.clear();
        member.past = None;
        state.ways.retain(|(from, to), _| *to != at && !(with_sent && *from == at));
        state.down = Some(at);
        for other in (0..NODES).filter(|other| *other != at) {
            if !state.is_cut(at, other) {
                self.take(state, other, Input::Disconnected(self.id(at)));
            }
        }
    }
}

fn wake_of(state: &State, at: usize) -> Option<u64> {
    state.core(at).and_then(Core::next_wake).map(|wake| wake.0.saturating_sub(clock(0).mono.0))
}

/// All nodes have the same clocks.
fn clock(at_us: u64) -> Now {
    Now { mono: Time(at_us + 3_600_000_000), wall_ms: WALL_MS + at_us / 1_000 }
}

fn ended(job: JobId, claim: ClaimId, started_ms: u64, at_ms: u64, exit: Exit) -> [Input; 2] {
    let task = claim.range.start;
    [
        Input::Exited { job, claim, task, started_ms, at_ms, exit },
        Input::Ended { job, claim, log: None, cost_micros: 1 },
    ]
}

impl stateright::Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin.clone()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let may = |kind| state.faults.len() < self.faults_max && !state.faults.contains(&kind);
        let under_way: Vec<(usize, usize)> =
            state.ways.iter().filter(|(_, sent)| !sent.is_empty()).map(|(way, _)| *way).collect();
        for (from, to) in under_way.iter().copied() {
            steps.push(Step::Arrive(from, to));
            if may(Kind::Lose) {
                steps.push(Step::Lose(from, to));
            }
            if may(Kind::Double) && state.late.is_none() {
                steps.push(Step::Double(from, to));
            }
            if may(Kind::Delay) && state.late.is_none() {
                steps.push(Step::Delay(from, to));
            }
        }
        if state.late.is_some() {
            steps.push(Step::Late);
        }
        steps.extend((0..NODES).filter(|at| !state.members[*at].runs.is_empty()).map(Step::End));
        let moves = !under_way.is_empty() || state.members.iter().any(|member| !member.runs.is_empty());
        if moves && state.down.is_none() && may(Kind::Crash) {
            for at in 0..NODES {
                steps.push(Step::Crash(at, false));
                if under_way.iter().any(|(from, _)| *from == at) {
                    steps.push(Step::Crash(at, true));
                }
            }
        }
        if moves && state.cut.is_none() && may(Kind::Cut) {
            steps.extend((0..NODES).map(Step::Cut));
        }
        if under_way.is_empty() {
            if state.down.is_some() {
                steps.push(Step::Restart);
            }
            if state.cut.is_some() {
                steps.push(Step::Heal);
            }
            if state.ticks < STEPS_MAX {
                steps.push(Step::Tick);
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        let pop =
            |state: &mut State, from: usize, to: usize| state.ways.get_mut(&(from, to)).map(|sent| sent.remove(0));
        match step {
            Step::Arrive(from, to) => {
                let bytes = pop(&mut state, from, to)?;
                self.take(&mut state, to, self.input(from, bytes));
            }
            Step::Lose(from, to) => {
                state.faults.push(Kind::Lose);
                pop(&mut state, from, to)?;
            }
            Step::Double(from, to) => {
                state.faults.push(Kind::Double);
                let bytes = pop(&mut state, from, to)?;
                state.late = Some((from, to, bytes.clone()));
                self.take(&mut state, to, self.input(from, bytes));
            }
            Step::Delay(from, to) => {
                state.faults.push(Kind::Delay);
                let bytes = pop(&mut state, from, to)?;
                state.late = Some((from, to, bytes));
            }
            Step::Late => {
                let (from, to, bytes) = state.late.take()?;
                if !state.is_cut(from, to) {
                    self.take(&mut state, to, self.input(from, bytes));
                }
            }
            Step::End(at) => self.end(&mut state, at),
            Step::Crash(at, with_sent) => {
                state.faults.push(Kind::Crash);
                self.crash(&mut state, at, with_sent);
            }
            Step::Restart => {
                let at = state.down.take()?;
                self.start(&mut state, at);
            }
            Step::Cut(at) => {
                state.faults.push(Kind::Cut);
                state.cut = Some(at);
                state.ways.retain(|(from, to), _| *from != at && *to != at);
            }
            Step::Heal => {
                let down = state.down.take();
                self.mend(&mut state);
                state.down = down;
            }
            Step::Tick => {
                state.ticks += 1;
                self.tick(&mut state, STEP_US);
            }
        }
        for member in &mut state.members {
            if member.past.is_none() {
                let past = Some(member.digest());
                Arc::make_mut(member).past = past;
            }
        }
        state.faults.sort_unstable();
        state.ways.retain(|_, sent| !sent.is_empty());
        if state.ticks == STEPS_MAX && state.ways.is_empty() && state.broken.is_none() {
            let mut end = state.clone();
            self.close(&mut end);
            state.broken = end.broken;
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds(state: &State, name: &str) -> bool {
            state.broken.as_ref().is_none_or(|(broken, _)| *broken != name)
        }
        vec![
            Property::<Self>::always("exclusive-acceptance", |_, state| holds(state, "exclusive-acceptance")),
            Property::<Self>::always("at-most-once", |_, state| holds(state, "at-most-once")),
            Property::<Self>::always("no-stuck-task", |_, state| holds(state, "no-stuck-task")),
        ]
    }
}
