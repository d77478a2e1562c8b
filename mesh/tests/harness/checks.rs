//! What must hold when a world has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::job::{Exit, JobState, Outcome};
use crdt::replica::{Feed, Replica};

use super::world::World;

/// Heads of all feeds that a node knows.
fn heads(world: &World, at: usize) -> BTreeMap<NodeId, Feed> {
    world.nodes[at].core.as_ref().expect("it runs").replica().feeds().clone()
}

/// Whether all nodes hold the same feeds.
pub(crate) fn feeds_agree(world: &World) -> bool {
    (1..world.nodes.len()).all(|at| heads(world, at) == heads(world, 0))
}

/// Where two nodes hold the same feeds they show the same state, and so does a replica that is opened from their rows.
pub(crate) fn state_follows_feeds(world: &World) {
    let mut states: Vec<(BTreeMap<NodeId, Feed>, [u8; 32])> = Vec::new();
    for at in 0..world.nodes.len() {
        let replica = world.nodes[at].core.as_ref().expect("it runs").replica();
        let (feeds, state) = (heads(world, at), replica.state_hash());
        match states.iter().find(|(known, _)| *known == feeds) {
            Some((_, known)) => assert_eq!(*known, state, "node {at} has the same feeds and another state"),
            None => states.push((feeds, state)),
        }
    }
    let replica = world.nodes[0].core.as_ref().expect("it runs").replica();
    let again = Replica::open(replica.shelf().clone()).expect("its rows hold a mesh");
    assert_eq!((again.state_hash(), again.roster()), (replica.state_hash(), replica.roster()));
}

/// The state of a job on a node, with the state that its list row shows.
pub(crate) fn state(world: &mut World, at: usize, id: JobId) -> Option<JobState> {
    let replica = world.nodes[at].core.as_mut().expect("it runs").replica_mut();
    let state = replica.job(id).and_then(crdt::job::Job::state);
    assert_eq!(replica.job_row(id).and_then(|row| row.state()), state, "the row of {id} on node {at}");
    state
}

/// Each task has one acceptance, by the submitter, of something that happened.
#[allow(clippy::wildcard_enum_match_arm, reason = "what is not named gets the same answer, also when kinds are added")]
pub(crate) fn one_acceptance_per_task(world: &mut World, id: JobId) {
    let rows = world.nodes[0].core.as_ref().expect("it runs").replica().show(DocId::job(id));
    let accepts: Vec<_> = rows
        .into_iter()
        .filter_map(|(author, key, _, value)| match key {
            Key::Accept(range) => {
                Some((author, range, crdt::cbor::decode::<crdt::job::Accept>(&value).expect("our own value")))
            }
            _ => None,
        })
        .collect();
    let replica = world.nodes[0].core.as_mut().expect("it runs").replica_mut();
    let (submitter, spec) = replica.job(id).and_then(|job| job.spec()).expect("a job with a spec");
    let (submitter, tasks) = (*submitter, spec.tasks());
    let mut seen = BTreeSet::new();
    for (author, range, accept) in &accepts {
        assert_eq!(*author, submitter, "only the submitter accepts");
        for task in range.start..range.end {
            assert!(seen.insert(task), "task {task} of {id} is accepted twice");
            let job = world.nodes[0].core.as_mut().expect("it runs").replica_mut().job(id).expect("known");
            let attempt = job
                .attempts(task)
                .into_iter()
                .map(|a| a.id)
                .find(|a| a.attempt == accept.attempt && Some(a.owner) == accept.node && a.range.contains(task));
            let exit = attempt.and_then(|a| world.exits.get(&(id, a, task)));
            match accept.outcome {
                Outcome::Done => assert_eq!(exit, Some(&Exit::Code(0)), "task {task} of {id}"),
                Outcome::Failed if accept.attempt > 0 => {
                    assert!(matches!(exit, Some(Exit::Code(1..))), "task {task} of {id}: {exit:?}");
                }
                Outcome::Failed => assert_eq!(accept.reason, "its owners vanish"),
                Outcome::Cancelled | Outcome::Skipped => assert_eq!(accept.attempt, 0),
                Outcome::Returned => panic!("a task that was given back is not accepted"),
            }
        }
    }
    assert_eq!(seen.len(), tasks as usize, "every task of {id} is accepted");
}
