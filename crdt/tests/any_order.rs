//! Any order, duplication and interleaving of what five authors signed gives the same state, byte by byte, with one author
//! forked, revoked or frozen at any point.

#[path = "authors/authors.rs"]
mod authors;

use authors::{AUTHORS, Act, Mesh, NOW_MS, empty, rows};
use bytes::Bytes;
use crdt::bundle::Bundle;
use crdt::replica::{ForkProof, Ingest, Replica};
use crdt::shelf::MemoryShelf;
use proptest::prelude::*;

/// What reaches a replica.
#[derive(Debug, Clone)]
enum Arrival {
    Bundle(Bytes),
    Proof(ForkProof),
}

fn acts(author: usize) -> BoxedStrategy<Act> {
    let n = any::<u8>;
    let jobs = prop_oneof![
        2 => (n(), n(), n()).prop_map(|(job, tasks, made_ms)| Act::Spec { job, tasks, made_ms }),
        3 => (n(), n(), n(), n(), any::<bool>())
            .prop_map(|(job, attempt, start, len, lost)| Act::Claim { job, attempt, start, len, lost }),
        3 => (n(), n(), n(), n(), n(), any::<bool>())
            .prop_map(|(job, attempt, start, len, code, ended)| Act::Run { job, attempt, start, len, code, ended }),
        2 => (n(), n(), n(), n(), n())
            .prop_map(|(job, attempt, start, len, owner)| Act::Lost { job, attempt, start, len, owner }),
        1 => (n(), n(), n()).prop_map(|(job, start, len)| Act::Accept { job, start, len }),
        1 => (n(), n()).prop_map(|(job, n)| Act::Cancel { job, n }),
        1 => (n(), n(), n()).prop_map(|(job, n, value)| Act::Priority { job, n, value }),
        1 => (n(), n()).prop_map(|(note, text)| Act::Note { note, text }),
        2 => (3u8..5, n(), n(), n()).prop_map(|(job, tasks, end, outcome)| Act::Seal { job, tasks, end, outcome }),
        1 => (n(), n()).prop_map(|(target, back)| Act::Checkpoint { target, back }),
        1 => n().prop_map(|by| Act::Admit { by }),
    ];
    if author > 1 {
        return jobs.boxed();
    }
    prop_oneof![
        3 => jobs,
        1 => (n(), n(), n(), 0u8..6).prop_map(|(target, n, role, after)| Act::Role { target, n, role, after }),
        1 => (n(), 0u8..6).prop_map(|(target, last)| Act::Revoke { target, last }),
        1 => n().prop_map(|n| Act::Person { n }),
        1 => n().prop_map(|n| Act::Invite { n }),
    ]
    .boxed()
}

/// Bundles in the order of their signing: author and acts. The sixth node writes too, member or not.
fn history() -> impl Strategy<Value = Vec<(usize, Vec<Act>)>> {
    let bundle = (0..=AUTHORS).prop_flat_map(|at| (Just(at), prop::collection::vec(acts(at), 1..4)));
    prop::collection::vec(bundle, 4..28)
}

fn deliver(replica: &mut Replica<MemoryShelf>, arrival: &Arrival) -> bool {
    match arrival {
        Arrival::Bundle(wire) => {
            let bundle = Bundle::decode(wire.clone()).expect("our own bundle");
            let answer = replica.ingest(bundle, NOW_MS);
            matches!(answer, Ingest::Applied(_) | Ingest::Forked(_))
        }
        Arrival::Proof(proof) => replica.ingest_fork(proof),
    }
}

/// Delivers in the given order, and then again what the mesh's repair would, until nothing changes any more.
/// Of the authors in `tails` the newest bundles may count before those between have come.
fn replica_of(mesh: &Mesh, order: &[&Arrival], tails: &[usize], extracts: &[Bytes]) -> Replica<MemoryShelf> {
    let mut replica = empty(mesh);
    let extracts = extracts.iter().map(|wire| Bundle::decode(wire.clone()).expect("it verifies"));
    replica.ingest_extracts(extracts.collect::<Vec<_>>());
    for arrival in order {
        tails.iter().for_each(|at| replica.want_tail(mesh.id(*at)));
        deliver(&mut replica, arrival);
    }
    for _ in 0..64 {
        let changed = order.iter().filter(|arrival| deliver(&mut replica, arrival)).count();
        if changed == 0 {
            replica.drop_extracts();
            return replica;
        }
    }
    panic!("the replica does not come to rest");
}

fn assert_same(one: &Replica<MemoryShelf>, two: &Replica<MemoryShelf>) {
    assert_eq!(one.roster(), two.roster(), "rosters");
    for n in 0..authors::JOBS {
        let id = authors::job_id(n);
        assert_eq!(one.job_row(id), two.job_row(id), "job {n}");
    }
    assert_eq!(one.state_hash(), two.state_hash(), "state hashes");
}

/// The fold is the same whatever came first; with the feeds the same, so are the rows.
fn check(mesh: &Mesh, arrivals: &[Arrival], order: &[&Arrival], tails: &[usize], ahead: bool) {
    let straight = replica_of(mesh, &arrivals.iter().collect::<Vec<_>>(), &[], &[]);
    let extracts = if ahead { straight.roster_extracts() } else { Vec::new() };
    let shuffled = replica_of(mesh, order, tails, &extracts);
    assert!(shuffled.feeds().values().all(|feed| feed.tail.is_none()), "all is one again");
    assert_same(&straight, &shuffled);
    if straight.feeds() == shuffled.feeds() {
        let (one, two) = (rows(&straight), rows(&shuffled));
        let apart: Vec<_> = one.symmetric_difference(&two).map(|(table, key, _)| (table, key)).collect();
        assert!(apart.is_empty(), "rows differ: {apart:?}");
    }
    for replica in [straight, shuffled] {
        let again = Replica::open(replica.shelf().clone()).expect("it holds a mesh");
        assert_same(&replica, &again);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_order_gives_the_same_state(
        history in history(),
        forked in prop::option::of((0..AUTHORS, any::<prop::sample::Index>())),
        proof_only in any::<bool>(),
        order in any::<prop::sample::Index>().prop_perturb(|_, rng| rng),
        doubled in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        tails in prop::collection::vec(0..AUTHORS, 0..4),
        ahead in any::<bool>(),
    ) {
        let mut mesh = Mesh::new();
        for (at, acts) in &history {
            mesh.write(*at, acts);
        }
        let bundles = mesh.feeds.iter().flatten();
        let mut arrivals: Vec<Arrival> = bundles.map(|b| Arrival::Bundle(b.wire.clone())).collect();
        if let Some((at, place)) = forked {
            let first = if at == 0 { 2 } else { 0 };
            let len = mesh.feeds[at].len();
            if len > first {
                let place = first + place.index(len - first);
                let branch = mesh.fork(at, place);
                let taken = &mesh.feeds[at][place];
                prop_assume!(taken.hash != branch.hash);
                arrivals.push(Arrival::Proof(Mesh::proof(taken, &branch)));
                if !proof_only {
                    arrivals.push(Arrival::Bundle(branch.wire));
                }
            }
        }
        let mut order = order;
        let mut shuffled: Vec<&Arrival> = arrivals.iter().collect();
        shuffled.extend(doubled.iter().map(|at| &arrivals[at.index(arrivals.len())]));
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, order.random_range(0..=at));
        }
        check(&mesh, &arrivals, &shuffled, &tails, ahead);
    }
}
