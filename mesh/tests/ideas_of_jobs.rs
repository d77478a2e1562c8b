//! Jobs and the ideas that they serve.

#[path = "harness/world.rs"]
mod world;

use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::{EntryId, JobId};
use crdt::job::{JobSpec, JobState};
use crdt::ledger::{Content, JobOutcome, Kind, Signed, Target};
use mesh::Command;
use world::{Event, WALL_MS, World};

const JOB: JobId = JobId([1; 16]);

fn idea(world: &World, at: usize) -> Signed {
    let node = &world.nodes[at];
    let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
    Signed::sign(&node.key, person, WALL_MS, [7; 16], Content::new(Kind::Idea, "warm the cache")).expect("good")
}

/// Submits a job that serves an idea, whether its entry is there or not.
fn submit(world: &mut World, at: usize, idea: EntryId, spec: JobSpec) {
    let node = &world.nodes[at];
    let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
    let spec = JobSpec { idea: Some(idea), person, created_ms: WALL_MS, ..spec };
    world.at_ms(2_000, Event::Command(at, Command::Submit(vec![(JOB, spec)], Vec::new())));
}

fn work(array: u32) -> JobSpec {
    JobSpec { command: vec!["work".into(), "100".into()], array, ..JobSpec::default() }
}

fn outcomes(world: &World, at: usize, of: &Target) -> Vec<JobOutcome> {
    let core = world.nodes[at].core.as_ref().expect("it runs");
    core.replica().outcomes(of).into_iter().filter_map(|entry| entry.says.outcome).collect()
}

#[test]
fn a_job_starts_only_where_the_idea_that_it_serves_is_known() {
    let mut world = World::new(11, 3);
    let idea = idea(&world, 2);
    submit(&mut world, 0, idea.id, work(0));
    world.run_until_ms(20_000, |_| false);
    assert!(world.starts.is_empty(), "nobody starts what serves something unheard of");
    let core = world.nodes[0].core.as_mut().expect("it runs");
    let why = core.explain(JOB).expect("a known job").summary;
    assert!(why.contains(&idea.id.short()), "{why}");
    world.at_ms(20_100, Event::Command(2, Command::Write(vec![Change::entry(&idea)])));
    world.run_until_ms(30_000, |_| false);
    assert_eq!(world.starts.len(), 1);
    let starter = world.starts.first().expect("one start").1.owner;
    let at = world.index(&starter);
    let replica = world.nodes[at].core.as_ref().expect("it runs").replica();
    assert!(replica.has_entry(DocId::ledger(idea.id), idea.id));
}

#[test]
fn what_came_of_a_job_is_linked_to_its_idea_once_and_on_every_node() {
    for array in [0, 40] {
        let mut world = World::new(12, 4);
        let idea = idea(&world, 1);
        world.at_ms(1_500, Event::Command(1, Command::Write(vec![Change::entry(&idea)])));
        submit(&mut world, 0, idea.id, work(array));
        world.run_until_ms(40_000, |_| false);
        for at in 0..4 {
            let found = outcomes(&world, at, &Target::Entry(idea.id));
            let [outcome] = &found[..] else { panic!("node {at} of array {array}: {found:?}") };
            let tasks = array.max(1);
            assert_eq!((outcome.job, outcome.exit), (JOB, Some(0)));
            assert_eq!((outcome.state.as_str(), outcome.done, outcome.tasks), ("done", tasks, tasks));
            assert!(outcome.duration_ms > 0 && !outcome.nodes.is_empty());
            assert_eq!(outcomes(&world, at, &Target::Job(JOB)), found);
        }
    }
}

#[test]
fn what_was_cancelled_before_it_ran_has_an_outcome_too() {
    let mut world = World::new(13, 2);
    let idea = idea(&world, 1);
    world.at_ms(1_500, Event::Command(1, Command::Write(vec![Change::entry(&idea)])));
    submit(&mut world, 0, idea.id, JobSpec { labels: vec!["gpu".into()], ..work(0) });
    world.at_ms(3_000, Event::Command(0, Command::Cancel(JOB)));
    world.run_until_ms(10_000, |_| false);
    let found = outcomes(&world, 1, &Target::Entry(idea.id));
    assert_eq!(found.iter().map(|outcome| outcome.state.as_str()).collect::<Vec<_>>(), [JobState::Cancelled.name()]);
}
