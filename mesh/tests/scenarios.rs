//! What once went wrong, each as the smallest mesh that shows it.

#[path = "harness/world.rs"]
mod world;

use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::job::{Exit, JobSpec, JobState};
use crdt::roster::Revocation;
use mesh::{Command, Input};
use world::{Event, WALL_MS, World};

const JOB: JobId = JobId([1; 16]);

/// Submits one job at two seconds.
fn submit(world: &mut World, at: usize, program: &str, mean_ms: u64, labels: &[&str]) {
    let node = &world.nodes[at];
    let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
    let spec = JobSpec {
        command: vec![program.into(), mean_ms.to_string()],
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        person,
        created_ms: WALL_MS,
        ..JobSpec::default()
    };
    world.at_ms(2_000, Event::Command(at, Command::Submit(vec![(JOB, spec)], Vec::new())));
}

fn job(world: &World, at: usize) -> &crdt::job::Job {
    world.nodes[at].core.as_ref().expect("it runs").replica().cached_job(&JOB).expect("the job is in memory")
}

#[test]
fn a_result_that_waits_for_its_flush_is_not_given_back() {
    let mut world = World::new(3, 1);
    submit(&mut world, 0, "work", 600_000, &[]);
    world.run_until_ms(4_000, |_| false);
    let (id, claim) = *world.starts.first().expect("it runs");
    let (task, at_ms) = (0, WALL_MS + 4_000);
    for _ in 0..mesh::limits::FLUSH_BURST {
        let (artifacts, holders) = (Vec::new(), Vec::new());
        world.input(0, Input::Progress { job: id, claim, artifacts, list: None, checkpoint: None, holders });
    }
    world.input(0, Input::Exited { job: id, claim, task, started_ms: at_ms, at_ms, exit: Exit::Code(0) });
    world.input(0, Input::Ended { job: id, claim, log: None, cost_micros: 0 });
    // Anything that makes the node look at the job again before the report has left.
    world.input(0, Input::Secured { job: id, claim, held: true });
    world.run_until_ms(6_000, |_| false);
    assert_eq!(job(&world, 0).state(), Some(JobState::Done));
    assert_eq!(world.starts.len(), 1, "it ran once");
}

#[test]
fn files_that_never_come_do_not_hold_a_result_up_for_ever() {
    let mut world = World::new(4, 2);
    world.files_come = false;
    submit(&mut world, 1, "make", 300, &["big"]);
    world.run_until_ms(15_000, |_| false);
    assert!(job(&world, 1).accepted(0).is_none(), "the submitter waits for the files");
    world.run_until_ms(25_000, |_| false);
    assert!(job(&world, 1).accepted(0).expect("it stopped waiting").at_risk);
}

#[test]
fn a_long_run_among_many_nodes_is_left_alone() {
    let mut world = World::new(5, 36);
    submit(&mut world, 1, "work", 60_000, &[]);
    world.run_until_ms(10_000, |_| false);
    let early = world.starts.clone();
    world.run_until_ms(30_000, |_| false);
    assert_eq!(job(&world, 7).state(), Some(JobState::Running));
    assert_eq!(world.starts, early, "nobody takes over what runs");
}

#[test]
fn a_cancelled_job_is_accepted_as_such() {
    let mut world = World::new(6, 2);
    submit(&mut world, 1, "work", 1_000, &["gpu"]);
    world.at_ms(3_000, Event::Command(1, Command::Cancel(JOB)));
    world.run_until_ms(5_000, |_| false);
    for at in 0..2 {
        assert_eq!(job(&world, at).state(), Some(JobState::Cancelled));
        assert!(job(&world, at).accepted(0).is_some(), "it is written down");
    }
}

#[test]
fn of_two_waiting_jobs_the_urgent_one_gets_the_free_slot() {
    // Many ids, so that their order is no help.
    for seed in 20..28 {
        let mut world = World::new(seed, 1);
        let slots = world.nodes[0].core.as_ref().expect("it runs").offer().slots;
        let person = world.nodes[0].core.as_ref().expect("it runs").replica().roster().person(&world.nodes[0].id);
        let jobs = (0..=slots).map(|n| {
            let priority = i32::from(n == slots);
            let id = JobId(
                [u8::try_from(n).expect("few").wrapping_mul(97).wrapping_add(u8::try_from(seed).expect("few")); 16],
            );
            let command = vec!["work".into(), "500".into()];
            let person = person.expect("a member");
            (id, JobSpec { command, person, priority, created_ms: WALL_MS + u64::from(n), ..JobSpec::default() })
        });
        let jobs: Vec<_> = jobs.collect();
        let urgent = jobs.last().expect("some").0;
        world.at_ms(2_000, Event::Command(0, Command::Submit(jobs, Vec::new())));
        world.run_until_ms(2_200, |_| false);
        assert_eq!(world.starts.len(), slots as usize);
        assert!(world.starts.iter().any(|(id, _)| *id == urgent), "seed {seed}");
    }
}

/// What a node holds: its state hash, whether a member stands, and the job's state.
fn seen(world: &World, at: usize, member: NodeId) -> ([u8; 32], bool, Option<JobState>) {
    let replica = world.nodes[at].core.as_ref().expect("it runs").replica();
    (
        replica.state_hash(),
        replica.roster().is_member(&member),
        replica.cached_job(&JOB).and_then(crdt::job::Job::state),
    )
}

#[test]
fn what_a_member_says_after_its_revocation_behind_a_partition_counts_nowhere() {
    let mut world = World::new(7, 4);
    let revoked = world.nodes[3].id;
    world.at_ms(1_500, Event::Split([2, 3].into()));
    // On the other side the member goes on in good faith: it submits, and the job runs and is accepted there.
    submit(&mut world, 3, "work", 100, &[]);
    world.run_until_ms(4_000, |_| false);
    let head = world.nodes[0].core.as_ref().expect("it runs").replica().feeds().get(&revoked).cloned();
    let head = head.unwrap_or_default();
    let words = Revocation { last_seq: head.seq, last_hash: head.hash, reason: "lost".into(), recovery: None };
    let change = Change::register(DocId::ROSTER, &Key::Revoke(revoked), &words);
    world.at_ms(4_500, Event::Command(0, Command::Write(vec![change])));
    world.run_until_ms(8_000, |_| false);
    assert!(!seen(&world, 1, revoked).1, "its side knows of the revocation");
    assert_eq!((seen(&world, 2, revoked).1, seen(&world, 2, revoked).2), (true, Some(JobState::Done)), "the other not");
    world.at_ms(8_500, Event::Heal);
    world.run_until_ms(60_000, |_| false);
    let first = seen(&world, 0, revoked);
    assert_eq!((first.1, first.2), (false, None), "the job of after the cut is nobody's");
    for at in 1..3 {
        assert_eq!(seen(&world, at, revoked), first, "node {at}");
    }
}

#[test]
fn a_job_that_nobody_can_run_is_durable_on_a_second_node_before_it_is_acknowledged() {
    let mut world = World::new(8, 3);
    submit(&mut world, 0, "work", 100, &["no such label"]);
    world.run_until_ms(4_000, |_| false);
    let (_, answer) = world.replies.values().next().expect("an answer");
    let ack = answer.as_ref().expect("it is acknowledged");
    assert!(ack.durable_on >= 2 && ack.warnings[0].is_some(), "{ack:?}");
}

/// Submits a job and one that waits for it, at two seconds.
fn submit_two(world: &mut World, at: usize) -> [JobId; 2] {
    let node = &world.nodes[at];
    let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
    let ids = [JobId([1; 16]), JobId([2; 16])];
    let spec = |after: &[JobId]| JobSpec {
        command: vec!["work".into(), "3000".into()],
        after: after.to_vec(),
        person,
        created_ms: WALL_MS,
        ..JobSpec::default()
    };
    let jobs = vec![(ids[0], spec(&[])), (ids[1], spec(&ids[..1]))];
    world.at_ms(2_000, Event::Command(at, Command::Submit(jobs, Vec::new())));
    ids
}

fn states(world: &World, at: usize, ids: [JobId; 2]) -> [(Option<JobState>, Option<JobState>); 2] {
    let replica = world.nodes[at].core.as_ref().expect("it runs").replica();
    ids.map(|id| match replica.cached_job(&id) {
        Some(job) => (job.state(), job.provisional_state()),
        None => (replica.job_row(id).and_then(|row| row.state()), None),
    })
}

#[test]
fn a_graph_goes_on_while_its_submitter_is_away_and_is_accepted_when_it_is_back() {
    for seed in 40..44 {
        let mut world = World::new(seed, 4);
        let ids = submit_two(&mut world, 1);
        world.at_ms(3_500, Event::Crash(1));
        world.run_until_ms(60_000, |_| false);
        let provisional = (Some(JobState::Running), Some(JobState::Done));
        // What the submitter itself ran is attempted again by another.
        assert_eq!(states(&world, 2, ids), [provisional; 2], "seed {seed}");
        world.at_ms(60_000, Event::Restart(1));
        world.run_until_ms(90_000, |_| false);
        for at in 0..4 {
            assert_eq!(states(&world, at, ids), [(Some(JobState::Done), None); 2], "seed {seed}, node {at}");
        }
    }
}

#[test]
fn an_admin_accepts_what_comes_of_the_jobs_of_a_revoked_member() {
    let mut world = World::new(45, 4);
    let ids = submit_two(&mut world, 3);
    world.run_until_ms(3_500, |_| false);
    let revoked = world.nodes[3].id;
    let head = world.nodes[0].core.as_ref().expect("it runs").replica().feeds().get(&revoked).cloned();
    let head = head.expect("it has written");
    let words = Revocation { last_seq: head.seq, last_hash: head.hash, reason: "lost".into(), recovery: None };
    let change = Change::register(DocId::ROSTER, &Key::Revoke(revoked), &words);
    world.at_ms(3_600, Event::Command(0, Command::Write(vec![change])));
    world.at_ms(3_700, Event::Crash(3));
    world.run_until_ms(90_000, |_| false);
    for at in 0..3 {
        assert_eq!(states(&world, at, ids), [(Some(JobState::Done), None); 2], "node {at}");
        assert_eq!(seen(&world, at, revoked).0, seen(&world, 0, revoked).0, "one state");
    }
}

#[test]
fn a_node_far_behind_takes_part_before_it_has_the_whole_history() {
    let mut world = World::new(46, 3);
    let behind = 2;
    world.at_ms(1_500, Event::Crash(behind));
    submit(&mut world, 0, "work", 1_000, &["nobody has this"]);
    for n in 0..1_500 {
        world.at_ms(3_000 + 40 * n, Event::Command(0, Command::Priority(JOB, i32::try_from(n).expect("few"))));
    }
    world.run_until_ms(70_000, |_| false);
    let author = world.nodes[0].id;
    let feed = |world: &World, at: usize| {
        world.nodes[at].core.as_ref().expect("it runs").replica().feeds().get(&author).cloned().unwrap_or_default()
    };
    let missing = feed(&world, 0).seq;
    assert!(missing > 1_000, "a long history");
    world.bundles_sent = Some(0);
    world.at_ms(70_000, Event::Restart(behind));
    let mut tail = None;
    for ms in 70_000..72_000 {
        world.run_until_ms(ms, |_| false);
        if world.nodes[behind].core.is_some() && feed(&world, behind).tail.is_some() {
            tail = Some(feed(&world, behind));
        }
    }
    assert!(tail.is_some_and(|feed| feed.known_seq() > feed.seq + 100), "the newest came first");
    world.run_until_ms(90_000, |_| false);
    assert_eq!(feed(&world, behind), feed(&world, 0));
    let sent = world.bundles_sent.expect("counted");
    assert!(sent < missing + missing / 5, "{sent} bundles were sent where {missing} were missing");
    let hash = |at: usize| world.nodes[at].core.as_ref().expect("it runs").replica().state_hash();
    assert_eq!(hash(behind), hash(0));
}

#[test]
fn invented_heads_do_not_keep_a_node_busy() {
    let mut world = World::new(47, 3);
    world.run_until_ms(2_000, |_| false);
    let liar = world.nodes[2].id;
    let invented = |n: u32| NodeId(*blake3::hash(&n.to_be_bytes()).as_bytes());
    let hash = crdt::ids::BundleHash([1; 32]);
    let heads = (0..4_000).map(|n| (invented(n), 1_000, hash)).chain([(world.nodes[1].id, 1 << 40, hash)]).collect();
    world.input(0, Input::Message { from: liar, bytes: mesh::msg::Msg::Announce(heads).encode() });
    for (name, size, bound) in world.nodes[0].core.as_ref().expect("it runs").sizes() {
        assert!(size <= bound && bound < 512, "{size} of {name}");
    }
    world.run_until_ms(120_000, |_| false);
    let sizes = world.nodes[0].core.as_ref().expect("it runs").sizes();
    assert!(
        sizes.iter().any(|(name, size, _)| *name == "heads of others" && *size == 0),
        "lies are forgotten: {sizes:?}"
    );
}
