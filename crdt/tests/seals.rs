//! Sealed jobs: the record says what the history said, nothing that was or comes beside it changes that, and a replica that
//! dropped the history shows the same state as one that did not.

#[path = "authors/authors.rs"]
mod authors;

use authors::{AUTHORS, Act, JOBS, Mesh, NOW_MS, empty, job_id};
use crdt::bundle::{Body, Bundle, Change};
use crdt::doc::{DocId, Key};
use crdt::job::{Job, JobState, Seal};
use crdt::limits::SEAL_BYTES_MAX;
use crdt::replica::{Ingest, Replica};
use crdt::shelf::MemoryShelf;
use proptest::prelude::*;

const BUNDLES_MAX: usize = 10_000;
/// The first worker's job.
const OWN: u8 = 3;

fn applied(replica: &mut Replica<MemoryShelf>, bundle: &Bundle) {
    let answer = replica.ingest(bundle.clone(), NOW_MS);
    assert!(matches!(answer, Ingest::Applied(_)), "{answer:?}");
}

fn replica_of(mesh: &Mesh) -> Replica<MemoryShelf> {
    let mut replica = empty(mesh);
    mesh.feeds.iter().flatten().for_each(|bundle| applied(&mut replica, bundle));
    replica
}

/// The first worker's job, run by the second and accepted.
fn done() -> Mesh {
    let mut mesh = Mesh::new();
    mesh.write(2, &[Act::Spec { job: OWN, tasks: 0, made_ms: 0 }]);
    mesh.write(3, &[Act::Claim { job: OWN, attempt: 0, start: 0, len: 0, lost: false }]);
    mesh.write(3, &[Act::Run { job: OWN, attempt: 0, start: 0, len: 0, code: 0, ended: true }]);
    let accept = crdt::job::Accept {
        outcome: crdt::job::Outcome::Done,
        attempt: 1,
        node: Some(mesh.id(3)),
        because: None,
        at_risk: false,
        reason: String::new(),
        at_ms: NOW_MS,
    };
    let key = Key::Accept(crdt::doc::TaskRange { start: 0, end: 1 });
    mesh.sign(2, &[Change::register(DocId::job(job_id(OWN)), &key, &accept)]);
    mesh
}

/// Seals the first worker's job from what a replica knows of it.
fn seal(mesh: &mut Mesh, replica: &mut Replica<MemoryShelf>) -> Bundle {
    let seal = Seal::of(replica.job(job_id(OWN)).expect("it is known"), NOW_MS + 9).expect("it is over");
    let bundle = mesh.sign(2, &[Change::register(DocId::job(job_id(OWN)), &Key::Seal, &seal)]);
    applied(replica, &bundle);
    bundle
}

/// What people are shown of a job.
fn shown(job: &Job) -> impl PartialEq + std::fmt::Debug + use<> {
    let attempts: Vec<_> = job.attempts(0).into_iter().map(|a| (a.id, a.state, a.award, a.report.cloned())).collect();
    let spec = job.spec().map(|(node, spec)| (*node, spec.command.clone(), spec.trace, spec.created_ms, spec.array));
    (job.state(), job.accepted(0).map(|a| (a.outcome, a.attempt, a.node)), job.ended_ms(), attempts, spec)
}

/// Drops all that may go.
fn prune(replica: &mut Replica<MemoryShelf>) {
    assert!(replica.prune(BUNDLES_MAX, u64::MAX).end);
}

fn checkpoint_all(mesh: &mut Mesh, replica: &mut Replica<MemoryShelf>) {
    for at in 0..AUTHORS {
        if mesh.feeds[at].is_empty() {
            continue;
        }
        let target = u8::try_from(at).expect("small");
        mesh.write(at, &[Act::Checkpoint { target, back: 0 }]);
        let bundle = mesh.feeds[at].last().expect("just written").clone();
        drop(replica.ingest(bundle, NOW_MS));
    }
}

#[test]
fn a_sealed_job_is_shown_as_before_and_so_is_a_pruned_one() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    let before = shown(replica.job(job_id(OWN)).expect("it is known"));
    seal(&mut mesh, &mut replica);
    assert_eq!(shown(replica.job(job_id(OWN)).expect("it is known")), before);
    checkpoint_all(&mut mesh, &mut replica);
    let (state, whole_bytes) = (replica.state_hash(), replica.history_bytes());
    prune(&mut replica);
    assert_eq!(replica.state_hash(), state);
    assert!(replica.is_dropped(job_id(OWN)));
    assert!(replica.history_bytes() < whole_bytes, "nothing was freed");
    assert_eq!(shown(replica.job(job_id(OWN)).expect("its record stays")), before);
    let again = Replica::open(replica.shelf().clone()).expect("it holds a mesh");
    assert_eq!((again.state_hash(), again.history_bytes()), (state, replica.history_bytes()));
}

#[test]
fn nothing_goes_before_the_checkpoint_of_its_feed_and_the_grace() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    seal(&mut mesh, &mut replica);
    let pruned = replica.prune(BUNDLES_MAX, u64::MAX);
    assert!(pruned.jobs.is_empty(), "without a checkpoint");
    assert_eq!(pruned.uncovered.into_iter().collect::<Vec<_>>(), {
        let mut both = vec![mesh.id(2), mesh.id(3)];
        both.sort_unstable();
        both
    });
    checkpoint_all(&mut mesh, &mut replica);
    assert!(replica.prune(BUNDLES_MAX, NOW_MS + 8).jobs.is_empty(), "sealed after that");
    assert_eq!(replica.prune(BUNDLES_MAX, NOW_MS + 9).jobs.len(), 1);
}

#[test]
fn what_comes_after_the_seal_changes_nothing_of_the_job() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    seal(&mut mesh, &mut replica);
    let before = replica.job_row(job_id(OWN));
    mesh.write(3, &[Act::Run { job: OWN, attempt: 0, start: 0, len: 0, code: 1, ended: true }]);
    mesh.write(2, &[Act::Cancel { job: OWN, n: 0 }]);
    for at in [2, 3] {
        let late = mesh.feeds[at].last().expect("just written").clone();
        applied(&mut replica, &late);
    }
    assert_eq!(replica.job_row(job_id(OWN)), before);
}

#[test]
fn only_the_submitter_seals() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    let before = replica.job_row(job_id(OWN)).expect("it is known");
    for at in [0, 3] {
        mesh.write(at, &[Act::Seal { job: OWN, tasks: 0, end: 1, outcome: 1 }]);
        let forged = mesh.feeds[at].last().expect("just written").clone();
        applied(&mut replica, &forged);
    }
    let row = replica.job_row(job_id(OWN)).expect("it is known");
    assert_eq!((row.state, row.sealed_ms), (before.state, None));
}

#[test]
fn a_record_that_no_job_could_leave_does_not_count() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    let before = replica.job_row(job_id(OWN));
    let honest = Seal::of(replica.job(job_id(OWN)).expect("it is known"), NOW_MS).expect("it is over");
    let outcome = crdt::job::Outcome::Failed;
    for (array, stretches) in [
        (0, vec![(1, outcome, u32::MAX)]),
        (0, vec![(2, outcome, 1)]),
        (u32::MAX, vec![(u32::MAX, outcome, 1)]),
        (3, vec![(2, outcome, 1), (1, outcome, 1)]),
        (3, vec![(0, outcome, 1)]),
    ] {
        let forged = Seal(
            honest.0.clone(),
            honest.1,
            honest.2,
            honest.3,
            honest.4,
            honest.5.clone(),
            (array, 0),
            stretches,
            honest.8.clone(),
            honest.9.clone(),
        );
        let mut fresh = Mesh::new();
        fresh.feeds = mesh.feeds.clone();
        let bundle = fresh.sign(2, &[Change::register(DocId::job(job_id(OWN)), &Key::Seal, &forged)]);
        let mut other = replica_of(&mesh);
        applied(&mut other, &bundle);
        let row = other.job_row(job_id(OWN)).expect("it is known");
        assert_eq!((row.state, row.sealed_ms), (before.as_ref().and_then(|row| row.state), None), "{forged:?}");
        assert!(other.job(job_id(OWN)).is_some_and(|job| !job.attempts(0).is_empty()));
    }
    seal(&mut mesh, &mut replica);
    assert!(replica.job_row(job_id(OWN)).is_some_and(|row| row.sealed_ms.is_some()));
}

#[test]
fn a_long_command_and_name_are_shortened_until_the_record_fits() {
    for (command, name) in [
        (vec!["x".repeat(5_000)], String::new()),
        (vec!["سطر".repeat(100); 40], "اسم طويل".repeat(20)),
        (vec!["a".into(); 900], "name".into()),
    ] {
        let mut mesh = done();
        let replica = &mut replica_of(&mesh);
        let (node, spec) = replica.job(job_id(OWN)).and_then(Job::spec).expect("it is known");
        let spec = crdt::job::JobSpec { command, name, ..(**spec).clone() };
        let node = *node;
        let other = Mesh::new();
        let mut fresh = replica_of(&other);
        mesh.feeds = other.feeds;
        let at = (0..AUTHORS).find(|at| mesh.id(*at) == node).expect("one of them");
        applied(&mut fresh, &mesh.sign(at, &[Change::register(DocId::job(job_id(OWN)), &Key::Spec, &spec)]));
        let skip = crdt::job::Accept {
            outcome: crdt::job::Outcome::Skipped,
            attempt: 0,
            node: None,
            because: Some(job_id(0)),
            at_risk: false,
            reason: "a job before it did not succeed, and this is a long way of saying so".into(),
            at_ms: NOW_MS,
        };
        let key = Key::Accept(crdt::doc::TaskRange { start: 0, end: 1 });
        applied(&mut fresh, &mesh.sign(at, &[Change::register(DocId::job(job_id(OWN)), &key, &skip)]));
        let seal = Seal::of(fresh.job(job_id(OWN)).expect("it is known"), NOW_MS).expect("it fits");
        assert!(crdt::cbor::encode(&seal).len() <= SEAL_BYTES_MAX);
        assert!(seal.5.2, "it says that it was shortened");
        assert_eq!(fresh.job(job_id(OWN)).and_then(|job| job.wants(&spec)), Some(true));
        applied(&mut fresh, &mesh.sign(at, &[Change::register(DocId::job(job_id(OWN)), &Key::Seal, &seal)]));
        let job = fresh.job(job_id(OWN)).expect("it is known");
        assert_eq!((job.state(), job.wants(&spec)), (Some(JobState::Skipped), Some(true)));
        assert_eq!(job.accepted(0).and_then(|accept| accept.because), Some(job_id(0)));
    }
}

#[test]
fn a_withheld_body_of_a_live_job_is_asked_for_and_nobody_acts_meanwhile() {
    let mesh = done();
    let mut replica = empty(&mesh);
    for bundle in mesh.feeds.iter().flatten() {
        let withheld = Bundle::decode(bundle.pruned()).expect("the chain verifies");
        applied(&mut replica, &withheld);
    }
    assert!(replica.is_incomplete(job_id(OWN)));
    while let Some((author, seq)) = replica.review_missing(1) {
        let place = usize::try_from(seq - 1).expect("small");
        let feed = mesh.feeds.iter().find(|feed| feed.first().is_some_and(|b| b.header.author == author));
        applied(&mut replica, &feed.expect("an author")[place]);
    }
    assert!(!replica.is_incomplete(job_id(OWN)));
    assert_eq!(replica.state_hash(), replica_of(&mesh).state_hash());
}

#[test]
fn a_seal_cannot_be_withheld() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    let bundle = seal(&mut mesh, &mut replica);
    assert_eq!(bundle.pruned(), bundle.wire, "nothing of it may go");
    checkpoint_all(&mut mesh, &mut replica);
    prune(&mut replica);
    let kept = replica.bundles(mesh.id(2), bundle.header.seq, 1);
    assert_eq!(kept, [bundle.wire]);
}

#[test]
fn a_revocation_from_before_the_seal_opens_the_job_again_and_its_history_is_fetched() {
    let mut mesh = done();
    let mut replica = replica_of(&mesh);
    let unsealed = replica.job_row(job_id(OWN)).expect("it is known").state();
    seal(&mut mesh, &mut replica);
    checkpoint_all(&mut mesh, &mut replica);
    prune(&mut replica);
    mesh.write(0, &[Act::Revoke { target: 2, last: 2 }]);
    let revocation = mesh.feeds[0].last().expect("just written").clone();
    applied(&mut replica, &revocation);
    assert!(replica.is_incomplete(job_id(OWN)));
    assert_eq!(fetch_missing(&mut replica, &mesh), 0);
    let row = replica.job_row(job_id(OWN)).expect("it is known");
    assert_eq!((row.state(), row.sealed_ms), (unsealed, None));
    assert_eq!(replica.state_hash(), replica_of(&mesh).state_hash());
}

/// Gets what is missing from the whole bundles; answers how much still is.
fn fetch_missing(replica: &mut Replica<MemoryShelf>, mesh: &Mesh) -> usize {
    for _ in 0..BUNDLES_MAX {
        let Some((author, seq)) = replica.review_missing(BUNDLES_MAX) else { return 0 };
        let place = usize::try_from(seq - 1).expect("small");
        let feed = mesh.feeds.iter().find(|feed| feed.first().is_some_and(|b| b.header.author == author));
        drop(replica.ingest(feed.expect("an author")[place].clone(), NOW_MS));
    }
    1
}

fn acts() -> impl Strategy<Value = Act> {
    let n = any::<u8>;
    let job = || 3u8..5;
    prop_oneof![
        3 => (job(), n(), n()).prop_map(|(job, tasks, made_ms)| Act::Spec { job, tasks, made_ms }),
        3 => (job(), n(), n(), n()).prop_map(|(job, attempt, start, len)| Act::Claim { job, attempt, start, len, lost: false }),
        3 => (job(), n(), n(), n(), n())
            .prop_map(|(job, attempt, start, len, code)| Act::Run { job, attempt, start, len, code, ended: true }),
        2 => (job(), n(), n()).prop_map(|(job, start, len)| Act::Accept { job, start, len }),
        1 => (job(), n()).prop_map(|(job, n)| Act::Cancel { job, n }),
        2 => (job(), n(), n(), n()).prop_map(|(job, tasks, end, outcome)| Act::Seal { job, tasks, end, outcome }),
        3 => (n(), n()).prop_map(|(target, back)| Act::Checkpoint { target, back }),
        1 => (0u8..3, n()).prop_map(|(note, text)| Act::Note { note, text }),
        1 => (2u8..4, 0u8..8).prop_map(|(target, last)| Act::Revoke { target, last }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// One replica keeps everything; one drops what it may after each bundle; one joins and gets from the second what is left,
    /// mixed with whole bundles. All three show one state.
    #[test]
    fn a_pruned_replica_and_who_joins_it_show_the_same_state(
        history in prop::collection::vec((0..AUTHORS, prop::collection::vec(acts(), 1..4)), 4..28),
        order in any::<prop::sample::Index>().prop_perturb(|_, rng| rng),
    ) {
        let mut mesh = Mesh::new();
        for (at, acts) in &history {
            let revokes = acts.iter().any(|act| matches!(act, Act::Revoke { .. }));
            // Only the founder revokes: who may is the subject of the test of orders.
            mesh.write(if revokes { 0 } else { *at }, acts);
        }
        let whole = replica_of(&mesh);
        let mut pruned = empty(&mesh);
        for bundle in mesh.feeds.iter().flatten() {
            applied(&mut pruned, bundle);
            prune(&mut pruned);
        }
        assert_eq!(fetch_missing(&mut pruned, &mesh), 0);
        assert_eq!(pruned.state_hash(), whole.state_hash(), "after pruning");

        let mut order = order;
        let mut arrivals: Vec<Bundle> = Vec::new();
        for bundle in mesh.feeds.iter().flatten() {
            let left = pruned.bundles(bundle.header.author, bundle.header.seq, 1).remove(0);
            let left = Bundle::decode(left).expect("what is left verifies");
            arrivals.push(if order.random_bool(0.7) { left } else { bundle.clone() });
        }
        for at in (1..arrivals.len()).rev() {
            arrivals.swap(at, order.random_range(0..=at));
        }
        let mut joiner = empty(&mesh);
        let tails: Vec<bool> = (0..AUTHORS).map(|_| order.random_bool(0.5)).collect();
        (0..AUTHORS).filter(|at| tails[*at]).for_each(|at| joiner.want_tail(mesh.id(at)));
        for _ in 0..arrivals.len() {
            for bundle in &arrivals {
                drop(joiner.ingest(bundle.clone(), NOW_MS));
            }
        }
        assert_eq!(fetch_missing(&mut joiner, &mesh), 0);
        assert_eq!(joiner.feeds(), whole.feeds());
        for n in 0..JOBS {
            assert_eq!(joiner.job_row(job_id(n)), whole.job_row(job_id(n)), "job {}", n);
        }
        assert_eq!(joiner.state_hash(), whole.state_hash(), "after joining");
        let again = Replica::open(joiner.shelf().clone()).expect("it holds a mesh");
        assert_eq!(again.state_hash(), whole.state_hash(), "after opening again");
        let lasting = pruned.bundles(mesh.id(0), 1, BUNDLES_MAX);
        for wire in lasting {
            let bundle = Bundle::decode(wire).expect("what is left verifies");
            let roster = bundle.header.changes.iter().zip(&bundle.bodies).filter(|(c, _)| c.doc == DocId::ROSTER);
            assert!(roster.into_iter().all(|(_, body)| *body != Body::Pruned), "the roster stays");
        }
    }
}
