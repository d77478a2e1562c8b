//! A recorded core is played back to the same state, whatever it was in the middle of.

#[path = "harness/world.rs"]
mod world;

use crdt::ids::JobId;
use crdt::job::JobSpec;
use mesh::Command;
use mesh::field_log::{FieldLogError, FrameKind, MAGIC, Playback, Record, frame, frame_length, kind};
use world::{Event, WALL_MS, World};

/// A mesh in which nodes come and go while jobs run.
fn busy(seed: u64) -> World {
    let mut world = World::new(seed, 4);
    for n in 0..24u8 {
        let at = usize::from(n) % 4;
        let node = &world.nodes[at];
        let person = node.core.as_ref().expect("it runs").replica().roster().person(&node.id).expect("a member");
        let spec = JobSpec {
            command: vec!["work".into(), (100 + u64::from(n) * 150).to_string()],
            array: if n % 5 == 0 { 6 } else { 0 },
            at_most_once: n % 7 == 0,
            person,
            created_ms: WALL_MS,
            ..JobSpec::default()
        };
        world.at_ms(
            2_000 + u64::from(n) * 700,
            Event::Command(at, Command::Submit(vec![(JobId([n; 16]), spec)], Vec::new())),
        );
    }
    world.at_ms(7_000, Event::Crash(3));
    world.at_ms(9_000, Event::Split([0].into()));
    world.at_ms(13_000, Event::Heal);
    world.at_ms(15_000, Event::Restart(3));
    world
}

/// A field log of a node between two times, and its state hash in the end.
fn recorded(seed: u64, at: usize, from_ms: u64, until_ms: u64) -> (Vec<u8>, [u8; 32]) {
    let mut world = busy(seed);
    world.run_until_ms(from_ms, |_| false);
    world.record(at);
    world.run_until_ms(until_ms, |_| false);
    let state = world.nodes[at].core.as_ref().expect("it runs").replica().state_hash();
    (world.recorded(), state)
}

#[test]
fn a_playback_comes_to_the_same_state_from_wherever_it_begins() {
    for (seed, at, from_ms) in
        [(1, 0, 500), (2, 1, 2_500), (3, 2, 6_000), (4, 0, 10_000), (5, 1, 14_000), (6, 2, 16_000)]
    {
        let (log, state) = recorded(seed, at, from_ms, 40_000);
        let mut playback = Playback::open(&log[..]).expect("a field log");
        while let Some(played) = playback.step().expect("whole") {
            assert!(played.is_same, "seed {seed}: step {} at {:?}", playback.steps(), played.step.now);
        }
        assert!(playback.steps() > 100, "seed {seed}: {} steps", playback.steps());
        assert_eq!(playback.core().replica().state_hash(), state, "seed {seed}");
        assert!(!playback.has_ended());
    }
}

#[test]
fn another_answer_is_noticed_at_its_step() {
    let (log, _) = recorded(3, 1, 3_000, 9_000);
    // Without its last input a step comes to something else.
    let (mut bytes, mut at, mut steps) = (log[..MAGIC.len()].to_vec(), MAGIC.len(), 0);
    while let Some(length) = frame_length(&log[at..]) {
        if kind(&log[at..]) == FrameKind::Step {
            steps += 1;
        }
        bytes.extend(&log[at..at + length]);
        at += length;
    }
    bytes.extend(frame(&Record::End(steps)));
    let mut playback = Playback::open(&bytes[..]).expect("a field log");
    let (mut others, mut signed) = (0, None);
    while let Some(played) = playback.step().expect("whole") {
        others += u64::from(!played.is_same);
        if signed.is_none() && !played.step.signatures.is_empty() {
            signed = Some(played.step);
        }
    }
    assert_eq!((others, playback.steps(), playback.has_ended()), (0, steps, true));
    let mut forged = signed.expect("something was signed");
    forged.signatures.pop();
    // The beginning, and a step that says that nothing was signed.
    let mut bytes = Vec::new();
    let mut at = MAGIC.len();
    while kind(&log[at..]) != FrameKind::Step {
        at += frame_length(&log[at..]).expect("whole");
    }
    bytes.extend(&log[..at]);
    bytes.extend(frame(&Record::Step(forged)));
    let played = Playback::open(&bytes[..]).expect("a field log").step().expect("whole").expect("a step");
    assert!(!played.is_same);
}

#[test]
fn a_damaged_log_says_where() {
    let (log, _) = recorded(7, 0, 2_000, 4_000);
    let to_the_end = |bytes: &[u8]| {
        let mut playback = Playback::open(bytes)?;
        while playback.step()?.is_some() {}
        Ok::<_, FieldLogError>(playback.steps())
    };
    let steps = to_the_end(&log).expect("whole");
    assert!(matches!(to_the_end(b"hello"), Err(FieldLogError::Magic)));
    assert!(matches!(to_the_end(MAGIC), Err(FieldLogError::OutOfPlace(1))));
    assert!(matches!(to_the_end(&log[..log.len() - 1]), Err(FieldLogError::Cut(_))));
    for at in (MAGIC.len()..log.len()).step_by(log.len() / 97) {
        let mut flipped = log.clone();
        flipped[at] ^= 0x10;
        let error = to_the_end(&flipped).expect_err("a flipped bit is noticed");
        assert!(matches!(error, FieldLogError::Damaged(_) | FieldLogError::Cut(_)), "{error}");
    }
    let more = [&log[..], &frame(&Record::End(steps + 1))].concat();
    assert!(matches!(to_the_end(&more), Err(FieldLogError::OutOfPlace(_))));
}
