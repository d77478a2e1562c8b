//! What an owner said last to one node only reaches the next owner with the call.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use crdt::SigningKey;
use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::{BlobHash, InviteId, JobId, NodeId};
use crdt::job::{CheckpointRef, ClaimId, Exit, JobSpec, LogRef};
use crdt::replica::{FoundingWords, Replica};
use crdt::roster::{Admission, Invite, Role};
use crdt::shelf::MemoryShelf;
use mesh::msg::Msg;
use mesh::offer::Offer;
use mesh::{Command, Config, Core, Effect, Effects, Input, Now, Retention, Time};
use serde_bytes::ByteBuf;

const WALL_MS: u64 = 1_800_000_000_000;
const STEP_MS: u64 = 10;

/// Cores whose messages arrive at once.
struct Mesh {
    cores: Vec<Core<MemoryShelf>>,
    links: BTreeSet<(usize, usize)>,
    gossips: bool,
    now_ms: u64,
    starts: Vec<(usize, ClaimId, Option<CheckpointRef>)>,
}

impl Mesh {
    fn new(slots: &[u32]) -> Self {
        let keys: Vec<SigningKey> = (1..).take(slots.len()).map(|n: u8| SigningKey::from_bytes(&[n; 32])).collect();
        let words = FoundingWords {
            mesh_name: "m".into(),
            node_name: "n0".into(),
            recovery: [7; 32],
            nonce: [1; 16],
            now_ms: WALL_MS,
        };
        let (mut replica, ..) = Replica::found(MemoryShelf::default(), &keys[0], &words);
        let invite = SigningKey::from_bytes(&[99; 32]);
        let id = InviteId(invite.verifying_key().to_bytes());
        let terms = Invite { role: Role::Worker, expires_ms: u64::MAX, uses: 9, person: None };
        let mut changes = vec![Change::register(DocId::ROSTER, &Key::Invite(id), &terms)];
        for key in &keys[1..] {
            let admission = Admission::sign(replica.mesh(), key, "n", &invite, WALL_MS);
            changes.push(Change::register(DocId::ROSTER, &Key::Member(node(key)), &admission));
        }
        replica.append(&keys[0], WALL_MS, &changes);
        let shelf = replica.shelf().clone();
        let core = |(key, slots): (SigningKey, &u32)| {
            let offer = Offer { slots: *slots, cores: 1, ..Offer::default() };
            let config = Config { seed: [3; 32], incarnation: WALL_MS, retention: Retention::default(), offer };
            let replica = Replica::open(shelf.clone()).expect("a mesh");
            Core::new(key, replica, config, Now { mono: Time(3_600_000_000), wall_ms: WALL_MS })
        };
        let cores = keys.into_iter().zip(slots).map(core).collect();
        Self { cores, links: BTreeSet::new(), gossips: true, now_ms: 0, starts: Vec::new() }
    }

    fn index(&self, id: &NodeId) -> usize {
        self.cores.iter().position(|core| core.me() == *id).expect("a member")
    }

    fn link(&mut self, a: usize, b: usize, up: bool) {
        for (at, other) in [(a, b), (b, a)] {
            if up {
                self.links.insert((at, other))
            } else {
                self.links.remove(&(at, other))
            };
        }
        for (at, other) in [(a, b), (b, a)] {
            let id = self.cores[other].me();
            self.input(at, if up { Input::Connected(id) } else { Input::Disconnected(id) });
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        let mono = Time(3_600_000_000 + self.now_ms * 1_000);
        let now = Now { mono, wall_ms: WALL_MS + self.now_ms };
        let mut inputs = VecDeque::from([(at, input)]);
        while let Some((at, input)) = inputs.pop_front() {
            let mut out = Effects::new();
            self.cores[at].handle(now, input, &mut out);
            let me = self.cores[at].me();
            for effect in out {
                match effect {
                    Effect::Send(to, bytes) => {
                        let to = self.index(&to);
                        if self.links.contains(&(at, to)) {
                            inputs.push_back((to, Input::Message { from: me, bytes }));
                        }
                    }
                    Effect::Gossip(bytes) if self.gossips => {
                        let others = (0..self.cores.len()).filter(|to| *to != at);
                        inputs.extend(others.map(|to| (to, Input::Gossip { via: me, bytes: bytes.clone() })));
                    }
                    Effect::Presence(words) => {
                        for (to, bytes) in words {
                            let to = self.index(&to);
                            if self.links.contains(&(at, to)) {
                                inputs.push_back((to, Input::Message { from: me, bytes }));
                            }
                        }
                    }
                    Effect::Start { claim, resume, .. } => self.starts.push((at, claim, resume)),
                    Effect::Gossip(_)
                    | Effect::Kill { .. }
                    | Effect::Secure { .. }
                    | Effect::Reply { .. }
                    | Effect::Reachable(..)
                    | Effect::RosterChanged
                    | Effect::Changed(_)
                    | Effect::Misbehaved(..)
                    | Effect::Pruned(_) => {}
                }
            }
        }
    }

    /// The first node submits a job of its own person.
    fn submit(&mut self, id: JobId, spec: JobSpec) {
        let core = &self.cores[0];
        let person = core.replica().roster().person(&core.me()).expect("a member");
        let command = Command::Submit(vec![(id, JobSpec { person, ..spec })], Vec::new());
        self.input(0, Input::Command { request: 1, command });
    }

    /// A node starts anew, without links, over a store that is a copy.
    fn restore(&mut self, at: usize, shelf: MemoryShelf) {
        let mut replica = Replica::open(shelf).expect("a mesh");
        mesh::core::hold_own_feed(&mut replica);
        self.begin(at, replica);
    }

    /// A node starts anew, without links, over what it had written.
    fn restart(&mut self, at: usize) {
        let shelf = self.cores[at].replica().shelf().clone();
        self.begin(at, Replica::open(shelf).expect("a mesh"));
    }

    fn begin(&mut self, at: usize, replica: Replica<MemoryShelf>) {
        let key = SigningKey::from_bytes(&[u8::try_from(at + 1).expect("few"); 32]);
        let now = Now { mono: Time(3_600_000_000 + self.now_ms * 1_000), wall_ms: WALL_MS + self.now_ms };
        let offer = Offer { slots: self.cores[at].offer().slots, cores: 1, ..Offer::default() };
        let config = Config { seed: [4; 32], incarnation: now.wall_ms, retention: Retention::default(), offer };
        self.cores[at] = Core::new(key, replica, config, now);
    }

    fn run_until(&mut self, until_ms: u64, nodes: &[usize]) {
        while self.now_ms < until_ms {
            self.now_ms += STEP_MS;
            nodes.iter().for_each(|at| self.input(*at, Input::Wake));
        }
    }
}

fn node(key: &SigningKey) -> NodeId {
    NodeId(key.verifying_key().to_bytes())
}

#[test]
fn a_checkpoint_of_which_only_the_submitter_heard_is_handed_to_the_next_owner() {
    let mut mesh = Mesh::new(&[0, 1, 1]);
    mesh.link(0, 1, true);
    mesh.link(0, 2, true);
    mesh.run_until(2_000, &[0, 1, 2]);
    let id = JobId([5; 16]);
    mesh.submit(id, JobSpec { command: vec!["train".into()], ..JobSpec::default() });
    mesh.run_until(4_000, &[0, 1, 2]);
    let [(first, claim, None)] = mesh.starts[..] else { panic!("one start, not {:?}", mesh.starts) };
    mesh.input(first, Input::Started { job: id, claim, task: 0, at_ms: WALL_MS });
    mesh.run_until(6_000, &[0, 1, 2]);
    mesh.gossips = false;
    let checkpoint = CheckpointRef { number: 3, tree: BlobHash([8; 32]), manifest_bytes: 10 };
    let progress = Input::Progress {
        job: id,
        claim,
        artifacts: Vec::new(),
        list: None,
        checkpoint: Some(checkpoint),
        holders: vec![mesh.cores[0].me()],
    };
    mesh.input(first, progress);
    mesh.run_until(6_100, &[0, 1, 2]);
    mesh.link(0, first, false);
    let second = 3 - first;
    mesh.run_until(6_100 + mesh::limits::LEASE_MS + 2_000, &[0, second]);
    let (at, claim, resume) = mesh.starts[1];
    assert_eq!((at, claim.attempt, resume), (second, 2, Some(checkpoint)));
}

#[test]
fn a_watcher_that_gossip_passes_by_asks_when_presence_tells_of_more() {
    let mut mesh = Mesh::new(&[0, 1, 0]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mesh.link(a, b, true);
    }
    mesh.run_until(2_000, &[0, 1, 2]);
    mesh.gossips = false;
    let id = JobId([5; 16]);
    mesh.submit(id, JobSpec { command: vec!["train".into()], ..JobSpec::default() });
    mesh.run_until(2_200, &[0, 1, 2]);
    let [(owner, claim, None)] = mesh.starts[..] else { panic!("one start, not {:?}", mesh.starts) };
    let watchers = mesh.cores[0]
        .replica()
        .cached_job(&id)
        .expect("known")
        .claims()
        .get(&claim)
        .expect("claimed")
        .value
        .watchers
        .clone();
    assert!(owner == 1 && watchers.contains(&mesh.cores[2].me()), "{watchers:?}");
    let knows = |mesh: &Mesh| mesh.cores[2].replica().cached_job(&id).is_some_and(|job| !job.claims().is_empty());
    assert!(!knows(&mesh), "nobody tells it directly");
    mesh.run_until(4_500, &[0, 1, 2]);
    assert!(knows(&mesh));
}

#[test]
fn a_task_whose_voters_lost_their_stores_waits_for_a_person() {
    let mut mesh = Mesh::new(&[0, 0, 0]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mesh.link(a, b, true);
    }
    mesh.run_until(2_000, &[0, 1, 2]);
    let id = JobId([5; 16]);
    mesh.submit(id, JobSpec { command: vec!["pay".into()], at_most_once: true, ..JobSpec::default() });
    mesh.run_until(3_000, &[0, 1, 2]);
    let why = |mesh: &mut Mesh| mesh.cores[0].explain(id).expect("known").summary;
    let before = why(&mut mesh);
    assert!(!before.contains("person"), "{before}");
    for at in [1, 2] {
        mesh.link(at, 0, false);
        let shelf = mesh.cores[at].replica().shelf().clone();
        mesh.restore(at, shelf);
        mesh.link(at, 0, true);
    }
    mesh.run_until(8_000, &[0, 1, 2]);
    let after = why(&mut mesh);
    assert!(after.starts_with("waits for a person: 2 of its 3 voters"), "{after}");
}

/// The second node's disk came from a backup; the first told that there is more, and went away before it gave it.
fn told_of_more() -> Mesh {
    let mut mesh = Mesh::new(&[0, 0, 0]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mesh.link(a, b, true);
    }
    mesh.run_until(2_000, &[0, 1, 2]);
    let backup = mesh.cores[1].replica().shelf().clone();
    mesh.gossips = false;
    mesh.link(1, 2, false);
    let person = mesh.cores[1].replica().roster().person(&mesh.cores[1].me()).expect("a member");
    let spec = JobSpec { command: vec!["true".into()], person, ..JobSpec::default() };
    mesh.input(1, Input::Command { request: 1, command: Command::Submit(vec![(JobId([5; 16]), spec)], Vec::new()) });
    mesh.run_until(3_000, &[0, 1, 2]);
    let (first, me) = (mesh.cores[0].me(), mesh.cores[1].me());
    let head = mesh.cores[0].replica().feeds()[&me].clone();
    assert!(head.seq > mesh.cores[2].replica().feeds().get(&me).map_or(0, |feed| feed.seq), "the third knows less");
    mesh.link(0, 1, false);
    mesh.link(0, 2, false);
    mesh.restore(1, backup);
    mesh.input(1, Input::Connected(first));
    let heads = Msg::Heads(vec![(me, head.seq, head.hash)]).encode();
    mesh.input(1, Input::Message { from: first, bytes: heads });
    mesh.input(1, Input::Disconnected(first));
    mesh.link(1, 2, true);
    mesh
}

#[test]
fn who_was_told_of_more_of_its_feed_waits_for_it_though_the_teller_went_away() {
    let mut mesh = told_of_more();
    mesh.run_until(mesh::limits::HOLD_OWN_FEED_MS + 20_000, &[1, 2]);
    assert!(mesh.cores[1].waits_for_own_feed());
    // Also when it is started again.
    let shelf = mesh.cores[1].replica().shelf().clone();
    mesh.link(1, 2, false);
    mesh.restore(1, shelf);
    mesh.link(1, 2, true);
    mesh.run_until(2 * mesh::limits::HOLD_OWN_FEED_MS + 40_000, &[1, 2]);
    assert!(mesh.cores[1].waits_for_own_feed());
    mesh.link(0, 1, true);
    mesh.run_until(mesh.now_ms + 1_000, &[0, 1, 2]);
    assert!(!mesh.cores[1].waits_for_own_feed());
    let me = mesh.cores[1].me();
    assert_eq!(mesh.cores[1].replica().feeds()[&me].hash, mesh.cores[0].replica().feeds()[&me].hash);
}

#[test]
fn nobody_waits_for_ever_for_what_somebody_said_that_there_is() {
    let mut mesh = told_of_more();
    mesh.run_until(mesh::limits::HOLD_FOR_TOLD_MS + 10_000, &[1, 2]);
    assert!(!mesh.cores[1].waits_for_own_feed());
}

#[test]
fn a_node_that_waits_for_its_feed_gives_back_no_claim_whose_end_is_still_to_come() {
    let mut mesh = Mesh::new(&[0, 1, 0]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mesh.link(a, b, true);
    }
    mesh.run_until(2_000, &[0, 1, 2]);
    let backup = mesh.cores[1].replica().shelf().clone();
    let (id, me) = (JobId([5; 16]), mesh.cores[1].me());
    mesh.submit(id, JobSpec { command: vec!["true".into()], ..JobSpec::default() });
    mesh.run_until(2_500, &[0, 1, 2]);
    let [(1, claim, None)] = mesh.starts[..] else { panic!("one start, not {:?}", mesh.starts) };
    mesh.input(1, Input::Started { job: id, claim, task: 0, at_ms: WALL_MS });
    mesh.run_until(2_600, &[0, 1, 2]);
    let exit = Exit::Code(0);
    mesh.input(1, Input::Exited { job: id, claim, task: 0, started_ms: WALL_MS, at_ms: WALL_MS, exit });
    let log = Some(LogRef::Inline(vec![7]));
    mesh.input(1, Input::Ended { job: id, claim, log, cost_micros: 0 });
    mesh.run_until(4_000, &[0, 1, 2]);
    let run =
        |mesh: &mut Mesh, at: usize| mesh.cores[at].replica_mut().job(id).and_then(|job| job.run(&claim)).cloned();
    let before = run(&mut mesh, 0).expect("reported");
    assert!(before.ended && before.tasks.len() == 1, "{before:?}");
    let whole = mesh.cores[0].replica().bundles(me, 1, usize::MAX);
    let known = backup_seq(&backup, me);
    for other in [0, 2] {
        mesh.link(1, other, false);
    }
    mesh.restore(1, backup);
    // What it wrote comes back bundle by bundle: first that it claimed, later that it had ended.
    let first = mesh.cores[0].me();
    mesh.input(1, Input::Connected(first));
    let head = mesh.cores[0].replica().feeds()[&me].clone();
    let others: Vec<NodeId> = mesh.cores[0].replica().feeds().keys().copied().filter(|author| *author != me).collect();
    for author in others {
        let bundles = mesh.cores[0].replica().bundles(author, 1, usize::MAX);
        mesh.input(1, Input::Message { from: first, bytes: bundles_msg(bundles) });
    }
    let heads = Msg::Heads(vec![(me, head.seq, head.hash)]).encode();
    mesh.input(1, Input::Message { from: first, bytes: heads });
    for wire in whole.into_iter().skip(known) {
        mesh.input(1, Input::Message { from: first, bytes: bundles_msg(vec![wire]) });
    }
    mesh.input(1, Input::Disconnected(first));
    for other in [0, 2] {
        mesh.link(1, other, true);
    }
    mesh.run_until(8_000, &[0, 1, 2]);
    assert!(!mesh.cores[1].waits_for_own_feed());
    assert_eq!(run(&mut mesh, 0), Some(before), "the report that was accepted stays");
}

/// A task has exited, and its node goes before the log and the files are in the report.
fn exited_without_its_log() -> (Mesh, JobId, usize, ClaimId) {
    let mut mesh = Mesh::new(&[0, 1, 1]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mesh.link(a, b, true);
    }
    mesh.run_until(2_000, &[0, 1, 2]);
    let id = JobId([5; 16]);
    mesh.submit(id, JobSpec { command: vec!["true".into()], ..JobSpec::default() });
    mesh.run_until(2_500, &[0, 1, 2]);
    let [(owner, claim, None)] = mesh.starts[..] else { panic!("one start, not {:?}", mesh.starts) };
    mesh.input(owner, Input::Started { job: id, claim, task: 0, at_ms: WALL_MS });
    let exit = Exit::Code(0);
    mesh.input(owner, Input::Exited { job: id, claim, task: 0, started_ms: WALL_MS, at_ms: WALL_MS, exit });
    mesh.run_until(4_000, &[0, 1, 2]);
    let told = mesh.cores[0].replica_mut().job(id).and_then(|job| job.run(&claim)).cloned().expect("reported");
    assert!(told.tasks[0].2.is_some() && !told.ended, "{told:?}");
    (mesh, id, owner, claim)
}

#[test]
fn a_task_whose_node_was_killed_before_its_log_was_safe_runs_again() {
    let (mut mesh, id, owner, _) = exited_without_its_log();
    for other in (0..3).filter(|other| *other != owner) {
        mesh.link(owner, other, false);
    }
    mesh.restart(owner);
    for other in (0..3).filter(|other| *other != owner) {
        mesh.link(owner, other, true);
    }
    mesh.run_until(9_000, &[0, 1, 2]);
    let [_, (_, claim, None)] = mesh.starts[..] else { panic!("a second start, not {:?}", mesh.starts) };
    assert_eq!(claim.attempt, 2);
    assert!(mesh.cores[0].replica_mut().job(id).expect("known").accepted(0).is_none());
}

#[test]
fn a_task_whose_node_vanished_before_its_log_was_safe_runs_elsewhere() {
    let (mut mesh, id, owner, _) = exited_without_its_log();
    let others: Vec<usize> = (0..3).filter(|other| *other != owner).collect();
    for other in &others {
        mesh.link(owner, *other, false);
    }
    // Half of the others went: whoever is left waits one more lease.
    mesh.run_until(4_000 + 2 * mesh::limits::LEASE_MS + 2_000, &others);
    let [_, (at, claim, None)] = mesh.starts[..] else { panic!("a second start, not {:?}", mesh.starts) };
    assert!(at != owner && claim.attempt == 2);
    assert!(mesh.cores[0].replica_mut().job(id).expect("known").accepted(0).is_none());
}

fn backup_seq(shelf: &MemoryShelf, author: NodeId) -> usize {
    Replica::open(shelf.clone())
        .expect("a mesh")
        .feeds()
        .get(&author)
        .map_or(0, |feed| usize::try_from(feed.seq).expect("few"))
}

fn bundles_msg(bundles: Vec<Bytes>) -> Bytes {
    let bundles = bundles.into_iter().map(|wire| ByteBuf::from(wire.to_vec())).collect();
    Msg::Bundles { bundles, receipt: false, more: None }.encode()
}

#[test]
fn a_task_whose_files_found_no_room_runs_again() {
    let (mut mesh, id, owner, claim) = exited_without_its_log();
    mesh.input(owner, Input::Unkept { job: id, claim });
    mesh.run_until(mesh.now_ms + 10_000, &[0, 1, 2]);
    let [(_, first, _), (_, second, _)] = mesh.starts[..] else { panic!("two starts, not {:?}", mesh.starts) };
    assert_eq!((first, second.attempt), (claim, 2));
    let job = mesh.cores[0].replica_mut().job(id).expect("known");
    assert!(job.accepted(0).is_none(), "what is lost is no result");
}
