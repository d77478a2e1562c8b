//! Old jobs of a mesh under a virtual clock: when they are sealed, who lets their bodies go, and that all members agree.

#[path = "harness/world.rs"]
mod world;

use crdt::ids::JobId;
use crdt::job::{JobSpec, JobState, job_id_of_nonce};
use mesh::{Command, Retention};
use world::{Event, WALL_MS, World};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Submits jobs at two seconds.
fn submit(world: &mut World, at: usize, count: u8) -> Vec<JobId> {
    let node = &world.nodes[at];
    let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
    let job = |n: u8| {
        let nonce = [n; 16];
        let command = vec!["work".into(), "300".into()];
        let nonce_of = Some(nonce.into());
        let spec = JobSpec { command, person, nonce: nonce_of, created_ms: WALL_MS + 2_000, ..JobSpec::default() };
        (job_id_of_nonce(node.id, &nonce), spec)
    };
    let jobs: Vec<_> = (0..count).map(job).collect();
    let ids = jobs.iter().map(|(id, _)| *id).collect();
    world.at_ms(2_000, Event::Command(at, Command::Submit(jobs, Vec::new())));
    ids
}

/// How many of the jobs are done, sealed and dropped at a node.
fn counts(world: &World, at: usize, ids: &[JobId]) -> (usize, usize, usize) {
    let replica = world.nodes[at].core.as_ref().expect("it runs").replica();
    let rows: Vec<_> = ids.iter().filter_map(|id| replica.job_row(*id)).collect();
    (
        rows.iter().filter(|row| row.state() == Some(JobState::Done)).count(),
        rows.iter().filter(|row| row.sealed_ms.is_some()).count(),
        ids.iter().filter(|id| replica.is_dropped(**id)).count(),
    )
}

fn state_hash(world: &World, at: usize) -> [u8; 32] {
    world.nodes[at].core.as_ref().expect("it runs").replica().state_hash()
}

#[test]
fn a_history_beyond_its_bound_is_sealed_after_an_hour_and_not_before() {
    let mut world = World::keeping(11, 3, Retention { history_bytes_max: 1, ..Retention::default() });
    let ids = submit(&mut world, 1, 20);
    world.run_until_ms(HOUR_MS - MINUTE_MS, |_| false);
    assert_eq!(counts(&world, 2, &ids), (20, 0, 0));
    world.run_until_ms(HOUR_MS + 10 * MINUTE_MS, |_| false);
    for at in 0..3 {
        assert_eq!(counts(&world, at, &ids), (20, 20, 20), "node {at}");
        assert_eq!(state_hash(&world, at), state_hash(&world, 0));
    }
}

#[test]
fn a_history_within_its_bounds_stays() {
    let mut world = World::new(12, 3);
    let ids = submit(&mut world, 1, 3);
    world.run_until_ms(HOUR_MS + 10 * MINUTE_MS, |_| false);
    assert_eq!(counts(&world, 0, &ids), (3, 0, 0));
}

#[test]
fn what_a_member_wrote_who_is_gone_is_let_go_by_an_admin_and_by_itself_when_it_is_back() {
    let keep = Retention { keep_ms: 10 * MINUTE_MS, ..Retention::default() };
    let mut world = World::keeping(13, 4, keep);
    let ids = submit(&mut world, 1, 20);
    world.at_ms(MINUTE_MS, Event::Crash(3));
    world.run_until_ms(9 * MINUTE_MS, |_| false);
    assert_eq!(counts(&world, 0, &ids), (20, 0, 0));
    let gone = world.nodes[3].id;
    let wrote = |world: &World, at: usize| {
        let job = |id: &JobId| {
            let replica = world.nodes[at].core.as_ref().expect("it runs").replica();
            replica.show(crdt::doc::DocId::job(*id)).into_iter().any(|(author, ..)| author == gone)
        };
        ids.iter().filter(|id| job(id)).count()
    };
    assert!(wrote(&world, 0) > 0, "the member ran some of them");
    world.run_until_ms(HOUR_MS, |_| false);
    for at in 0..3 {
        assert_eq!((counts(&world, at, &ids), wrote(&world, at)), ((20, 20, 20), 0), "node {at}");
    }
    world.at_ms(HOUR_MS, Event::Restart(3));
    world.run_until_ms(HOUR_MS + 20 * MINUTE_MS, |_| false);
    assert_eq!((counts(&world, 3, &ids), wrote(&world, 3)), ((20, 20, 20), 0));
    assert_eq!(state_hash(&world, 3), state_hash(&world, 0));
}
