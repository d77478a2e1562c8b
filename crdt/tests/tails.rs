//! The newest bundles of a feed before those between, and the roster before the feeds: they count at once, and all is one once the
//! feeds are whole.

#[path = "authors/authors.rs"]
mod authors;

use authors::{Act, Mesh, NOW_MS, empty, job_id};
use crdt::bundle::Bundle;
use crdt::replica::{Ingest, Replica};
use crdt::shelf::MemoryShelf;

/// A worker's feed of ten bundles, the last of which submits a job.
fn scene() -> (Mesh, Replica<MemoryShelf>) {
    let mut mesh = Mesh::new();
    for n in 0..9 {
        mesh.write(2, &[Act::Note { note: 0, text: n }, Act::Priority { job: 1, n, value: n }]);
    }
    mesh.write(2, &[Act::Spec { job: 3, tasks: 0, made_ms: 0 }]);
    let mut replica = empty(&mesh);
    for bundle in &mesh.feeds[0] {
        assert!(matches!(replica.ingest(bundle.clone(), NOW_MS), Ingest::Applied(_)));
    }
    (mesh, replica)
}

fn give(replica: &mut Replica<MemoryShelf>, bundles: &[Bundle]) {
    for bundle in bundles {
        let answer = replica.ingest(bundle.clone(), NOW_MS);
        assert!(matches!(answer, Ingest::Applied(_)), "{}: {answer:?}", bundle.header.seq);
    }
}

fn whole(mesh: &Mesh) -> [u8; 32] {
    let mut replica = empty(mesh);
    mesh.feeds.iter().for_each(|feed| give(&mut replica, feed));
    replica.state_hash()
}

#[test]
fn the_newest_count_before_the_history_and_all_is_one_at_the_end() {
    let (mesh, mut replica) = scene();
    let (author, feed) = (mesh.id(2), &mesh.feeds[2]);
    give(&mut replica, &feed[..2]);
    assert_eq!(replica.ingest(feed[7].clone(), NOW_MS), Ingest::Gap { from_seq: 3 }, "nobody asked for a tail");
    replica.want_tail(author);
    give(&mut replica, &feed[6..7]);
    assert_eq!(replica.feeds()[&author].known_seq(), 8, "what had waited follows");
    give(&mut replica, &feed[8..9]);
    assert!(matches!(replica.ingest(feed[7].clone(), NOW_MS), Ingest::Duplicate));
    give(&mut replica, &feed[9..]);
    assert!(replica.job_row(job_id(3)).is_some_and(|row| row.state().is_some()), "the job is known");
    let known = replica.feeds()[&author].clone();
    assert_eq!((known.seq, known.known_seq(), known.hash), (2, 10, feed[1].hash));
    assert_eq!(replica.bundles(author, 1, 100).len(), 2, "up to the gap");
    assert_eq!(replica.bundles(author, 7, 100).len(), 4);
    let mut replica = Replica::open(replica.shelf().clone()).expect("it holds a mesh");
    give(&mut replica, &feed[2..6]);
    let known = replica.feeds()[&author].clone();
    assert_eq!((known.seq, known.hash, known.tail), (10, feed[9].hash, None));
    assert_eq!(replica.state_hash(), whole(&mesh));
}

#[test]
fn a_tail_of_another_branch_goes_when_the_gap_closes() {
    let (mesh, mut replica) = scene();
    let mut other = Mesh::new();
    other.feeds = mesh.feeds.clone();
    other.feeds[2].truncate(5);
    for n in 0..5 {
        other.write(2, &[Act::Cancel { job: 1, n }, Act::Note { note: 1, text: n }]);
    }
    give(&mut replica, &mesh.feeds[2][..2]);
    replica.want_tail(mesh.id(2));
    give(&mut replica, &other.feeds[2][7..]);
    give(&mut replica, &mesh.feeds[2][2..7]);
    assert_eq!(replica.feeds()[&mesh.id(2)].tail, None);
    give(&mut replica, &mesh.feeds[2][7..]);
    assert_eq!(replica.state_hash(), whole(&mesh), "nothing of it stays");
}

#[test]
fn a_proven_fork_takes_the_tail_behind_it_along() {
    let (mesh, mut replica) = scene();
    let (author, feed) = (mesh.id(2), &mesh.feeds[2]);
    let proof = Mesh::proof(&feed[4], &mesh.fork(2, 4));
    give(&mut replica, &feed[..2]);
    replica.want_tail(author);
    give(&mut replica, &feed[7..]);
    assert!(replica.ingest_fork(&proof));
    assert_eq!(replica.feeds()[&author].known_seq(), 2);
    replica.want_tail(author);
    assert!(matches!(replica.ingest(feed[8].clone(), NOW_MS), Ingest::Gap { .. }), "none begins behind a known fork");
    give(&mut replica, &feed[2..4]);
    assert!(replica.feeds()[&author].frozen);
    let mut straight = empty(&mesh);
    mesh.feeds[..2].iter().for_each(|feed| give(&mut straight, feed));
    give(&mut straight, &feed[..5]);
    assert!(straight.ingest_fork(&proof));
    assert_eq!(replica.state_hash(), straight.state_hash());
}

#[test]
fn a_tail_that_leads_nowhere_can_be_dropped() {
    let (mesh, mut replica) = scene();
    give(&mut replica, &mesh.feeds[2][..2]);
    let before = replica.state_hash();
    replica.want_tail(mesh.id(2));
    give(&mut replica, &mesh.feeds[2][7..]);
    assert_ne!(replica.state_hash(), before);
    replica.drop_tail(mesh.id(2));
    assert_eq!(replica.state_hash(), before);
    give(&mut replica, &mesh.feeds[2][2..]);
    assert_eq!(replica.state_hash(), whole(&mesh));
}

#[test]
fn a_joiner_knows_the_roster_from_extracts() {
    let (mut mesh, _) = scene();
    mesh.write(0, &[Act::Invite { n: 0 }, Act::Cancel { job: 1, n: 0 }]);
    mesh.write(1, &[Act::Admit { by: 0 }, Act::Priority { job: 1, n: 0, value: 3 }]);
    let mut straight = empty(&mesh);
    mesh.feeds.iter().for_each(|feed| give(&mut straight, feed));
    let mut joiner = empty(&mesh);
    let extracts: Vec<Bundle> =
        straight.roster_extracts().into_iter().map(|wire| Bundle::decode(wire).expect("it verifies")).collect();
    assert!(extracts.iter().all(|b| b.bodies.contains(&crdt::bundle::Body::Pruned) || b.header.seq <= 2));
    assert!(joiner.ingest_extracts(extracts.clone()).roster);
    assert_eq!(joiner.roster(), straight.roster());
    assert!(joiner.roster().is_member(&mesh.id(5)));
    let mut joiner = Replica::open(joiner.shelf().clone()).expect("it holds a mesh");
    mesh.feeds.iter().for_each(|feed| give(&mut joiner, feed));
    assert!(!joiner.drop_extracts());
    assert_eq!((joiner.state_hash(), joiner.feeds()), (straight.state_hash(), straight.feeds()));
}

#[test]
fn an_extract_that_its_author_never_published_goes_and_one_that_differs_proves_a_fork() {
    let (mesh, mut replica) = scene();
    let mut other = Mesh::new();
    other.feeds = mesh.feeds.clone();
    other.write(0, &[Act::Invite { n: 1 }]);
    let secret = other.feeds[0].last().expect("just written").clone();
    let before = replica.state_hash();
    assert!(replica.ingest_extracts([secret.clone()]).roster);
    assert_ne!(replica.state_hash(), before);
    assert!(replica.drop_extracts());
    assert_eq!(replica.state_hash(), before);
    replica.ingest_extracts([secret]);
    let mut honest = Mesh::new();
    honest.feeds = mesh.feeds.clone();
    honest.write(0, &[Act::Cancel { job: 1, n: 2 }]);
    give(&mut replica, &honest.feeds[0][2..]);
    assert!(replica.feeds()[&mesh.id(0)].frozen, "its author signed two for one place");
    assert_eq!(replica.state_hash(), before);
}
