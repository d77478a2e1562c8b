//! Fifty nodes in one thread: work, a partition that heals, a crash and a restart; twice with one seed to one trace.

#[path = "harness/checks.rs"]
mod checks;
#[path = "harness/world.rs"]
mod world;

use std::collections::BTreeSet;

use crdt::ids::JobId;
use crdt::job::{JobSpec, JobState};
use mesh::Command;
use rand::RngExt;
use world::{Event, WALL_MS, World};

const NODES: usize = 50;
const CRASH_AT_MS: u64 = 5_500;
const QUIET_AT_MS: u64 = 26_000;
const END_MS: u64 = 120_000;

/// What a job must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    State(JobState),
    Final,
    WaitsForLabel,
}

struct Scenario {
    world: World,
    crashes: usize,
    jobs: Vec<(JobId, Expected)>,
}

impl Scenario {
    fn submit(&mut self, at_ms: u64, specs: &[(&str, u64, Expected)], shape: impl Fn(usize, &[JobId], &mut JobSpec)) {
        let mut at = self.world.rng.random_range(0..NODES);
        if at == self.crashes && at_ms > CRASH_AT_MS - 500 {
            at -= 1;
        }
        let ids: Vec<JobId> = specs.iter().map(|_| JobId(self.world.rng.random())).collect();
        let mut jobs = Vec::new();
        for (n, (program, mean_ms, expected)) in specs.iter().enumerate() {
            let mut spec = JobSpec {
                command: vec![(*program).into(), mean_ms.to_string()],
                person: self.person(at),
                created_ms: WALL_MS + at_ms,
                ..JobSpec::default()
            };
            shape(n, &ids, &mut spec);
            jobs.push((ids[n], spec));
            self.jobs.push((ids[n], *expected));
        }
        self.world.at_ms(at_ms, Event::Command(at, Command::Submit(jobs, Vec::new())));
    }

    fn person(&self, at: usize) -> crdt::ids::PersonId {
        let node = &self.world.nodes[at];
        node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member")
    }
}

fn scenario(seed: u64) -> Scenario {
    let done = Expected::State(JobState::Done);
    let mut world = World::new(seed, NODES);
    let crashes = world.rng.random_range(1..NODES);
    let mut s = Scenario { world, crashes, jobs: Vec::new() };
    for n in 0..12 {
        let program = ["work", "make", "work"][n % 3];
        let at_ms = 2_000 + s.world.rng.random_range(0..4_000);
        s.submit(at_ms, &[(program, 400, done)], |_, _, _| {});
    }
    for _ in 0..6 {
        let at_ms = 8_000 + s.world.rng.random_range(0..8_000);
        s.submit(at_ms, &[("work", 600, done)], |_, _, _| {});
    }
    s.submit(3_000, &[("work", 60, done)], |_, _, spec| spec.array = 20);
    s.submit(7_000, &[("dice", 60, Expected::Final)], |_, _, spec| (spec.array, spec.retries) = (8, 2));
    let graph = [("work", 300, done), ("work", 300, done), ("make", 300, done), ("work", 200, done)];
    s.submit(4_000, &graph, |n, ids, spec| {
        spec.after = [vec![], vec![ids[0]], vec![ids[0]], vec![ids[1], ids[2]]][n].clone();
    });
    let failing = [("fail", 200, Expected::State(JobState::Failed)), ("work", 1, Expected::State(JobState::Skipped))];
    s.submit(5_000, &failing, |n, ids, spec| spec.after = if n == 1 { vec![ids[0]] } else { vec![] });
    s.submit(5_000, &[("flaky", 200, done)], |_, _, spec| spec.retries = 1);
    s.submit(6_000, &[("work", 500, done)], |_, _, spec| spec.labels = vec!["big".into()]);
    s.submit(6_000, &[("work", 100, Expected::WaitsForLabel)], |_, _, spec| spec.labels = vec!["gpu".into()]);
    s.submit(5_000, &[("work", 18_000, done)], |_, _, _| {});
    s.submit(5_000, &[("work", 60_000, Expected::State(JobState::Cancelled))], |_, _, _| {});
    let cancelled = s.jobs.last().expect("just pushed").0;
    s.world.at_ms(7_000, Event::Command(0, Command::Cancel(cancelled)));
    let minority: BTreeSet<usize> = (0..20).map(|_| s.world.rng.random_range(0..NODES)).collect();
    s.world.at_ms(8_000, Event::Split(minority));
    s.world.at_ms(18_000, Event::Heal);
    s.world.at_ms(CRASH_AT_MS, Event::Crash(crashes));
    s.world.at_ms(14_000, Event::Restart(crashes));
    s
}

/// Runs a scenario to its rest.
fn run(seed: u64) -> Scenario {
    let mut s = scenario(seed);
    let jobs = s.jobs.clone();
    s.world.run_until_ms(END_MS, |world| {
        let settled = |world: &mut World, at: usize| {
            jobs.iter().all(|(id, expected)| {
                let is_final = checks::state(world, at, *id).is_some_and(JobState::is_final);
                is_final || *expected == Expected::WaitsForLabel
            })
        };
        world.now_us > QUIET_AT_MS * 1_000 && settled(world, 0) && checks::feeds_agree(world)
    });
    s
}

fn check(mut s: Scenario) {
    eprintln!("ended at {} ms, {:?}", s.world.now_us / 1_000, s.world.counts);
    assert_eq!(s.world.misbehaved, [], "nobody is blamed in an honest mesh");
    for (request, (at, result)) in &s.world.replies {
        assert!(result.is_ok(), "request {request} on node {at}: {result:?}");
    }
    for (id, expected) in s.jobs.clone() {
        for at in 0..NODES {
            let state = checks::state(&mut s.world, at, id);
            match expected {
                Expected::State(wanted) => assert_eq!(state, Some(wanted), "{id} on node {at}"),
                Expected::Final => assert!(state.is_some_and(JobState::is_final), "{id} on node {at}: {state:?}"),
                Expected::WaitsForLabel => {
                    let core = s.world.nodes[at].core.as_mut().expect("it runs");
                    let why = core.explain(id).expect("known").summary;
                    assert!(why.contains("label gpu missing"), "{why}");
                }
            }
        }
        if expected != Expected::WaitsForLabel {
            checks::one_acceptance_per_task(&mut s.world, id);
        }
    }
    checks::state_follows_feeds(&s.world);
    assert!(checks::feeds_agree(&s.world), "all feeds are everywhere");
}

#[test]
fn fifty_cores_settle_everything_and_the_same_seed_gives_the_same_trace() {
    let again = std::thread::spawn(|| run(1).world.trace_hash());
    let first = run(1);
    assert_eq!(again.join().expect("the second run ends"), first.world.trace_hash());
    check(first);
}

#[test]
fn another_seed_gives_another_trace() {
    let [one, two] = [1, 2].map(|seed| {
        let mut world = World::new(seed, 3);
        world.run_until_ms(2_000, |_| false);
        world.trace_hash()
    });
    assert_ne!(one, two);
}

/// For a search by hand: `V6_SEEDS=2..20 cargo test -p v6-mesh --test fifty_cores -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn more_seeds_settle_everything() {
    let seeds = std::env::var("V6_SEEDS").unwrap_or_else(|_| "2..6".into());
    let (from, to) = seeds.split_once("..").expect("a range of seeds");
    for seed in from.parse::<u64>().expect("a number")..to.parse().expect("a number") {
        eprintln!("seed {seed}");
        check(run(seed));
    }
}
