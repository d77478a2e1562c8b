//! Mutated messages into a core: none panics, and the mesh goes on. The fuzz target in `fuzz/` goes on from here.

#[path = "../../crdt/tests/mutate/mutate.rs"]
mod mutate;
#[path = "harness/world.rs"]
mod world;

use crdt::ids::JobId;
use crdt::job::{JobSpec, JobState};
use mesh::msg::Msg;
use mesh::{Command, Input};
use mutate::{Draw, INPUTS};
use world::{Event, WALL_MS, World};

fn submit(world: &mut World, at_ms: u64, id: JobId, array: u32) {
    let node = &world.nodes[1];
    let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
    let command = vec!["work".into(), "200".into()];
    let spec = JobSpec { command, array, person, created_ms: WALL_MS, ..JobSpec::default() };
    world.at_ms(at_ms, Event::Command(1, Command::Submit(vec![(id, spec)], Vec::new())));
}

fn is_done(world: &mut World, id: JobId) -> bool {
    let replica = world.nodes[2].core.as_mut().expect("it runs").replica_mut();
    replica.job(id).and_then(crdt::job::Job::state) == Some(JobState::Done)
}

#[test]
fn mutated_messages_do_no_harm() {
    let mut world = World::new(9, 3);
    let (first, second) = (JobId([1; 16]), JobId([2; 16]));
    submit(&mut world, 2_000, first, 0);
    submit(&mut world, 2_500, first, 6);
    world.run_until_ms(8_000, |_| false);
    assert!(is_done(&mut world, first));
    let seeds = world.sent.clone();
    let sender = world.nodes[1].id;
    let (mut draw, mut read) = (Draw(8), 0);
    for round in 0..INPUTS {
        let bytes = draw.mutated(&seeds);
        if let Some(msg) = Msg::decode(&bytes) {
            read += 1;
            assert_eq!(Msg::decode(&msg.encode()), Some(msg));
        }
        let bytes = bytes.into();
        let input =
            if round % 4 == 0 { Input::Gossip { via: sender, bytes } } else { Input::Message { from: sender, bytes } };
        world.input(0, input);
        if round % 200 == 0 {
            world.run_until_ms(8_000 + round / 20, |_| false);
        }
    }
    assert!(read > 1_000, "some mutations are messages: {read}");
    submit(&mut world, 10_000, second, 4);
    world.run_until_ms(30_000, |_| false);
    assert!(is_done(&mut world, second), "the mesh goes on");
}
