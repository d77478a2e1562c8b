//! What a hostile peer may send instead of an honest bundle: each is refused with its reason and leaves the state and the
//! rows as they were.

#[path = "authors/authors.rs"]
mod authors;

use authors::{Act, Mesh, NOW_MS, empty, job_id, rows};
use bytes::Bytes;
use crdt::SigningKey;
use crdt::bundle::{Bundle, BundleError, Change};
use crdt::cbor;
use crdt::doc::{DocId, Key, KeyError, TaskRange};
use crdt::ids::{BundleHash, MeshId, NodeId, NoteId};
use crdt::job::{Control, ControlOp, JobSpec};
use crdt::limits::{BUNDLE_BYTES_MAX, SEAL_BYTES_MAX, VALUE_BYTES_MAX};
use crdt::notebook::{NoteRefusal, Notebook};
use crdt::replica::{ForkProof, Ingest, Replica};
use crdt::shelf::MemoryShelf;
use ed25519_dalek::Signer;
use serde_bytes::{ByteArray, ByteBuf};

const DOMAIN: &str = "v6/bundle/1";
/// Document, kind and body of one change, as a forger writes it.
type Raw = (DocId, u8, Vec<u8>);

/// A mesh with some work in it, and a replica that holds all of it.
fn scene() -> (Mesh, Replica<MemoryShelf>) {
    let mut mesh = Mesh::new();
    let spec = Act::Spec { job: 0, tasks: 2, made_ms: 0 };
    mesh.write(0, &[spec, Act::Note { note: 0, text: 1 }]);
    mesh.write(2, &[Act::Claim { job: 0, attempt: 0, start: 0, len: 0, lost: false }]);
    let mut replica = empty(&mesh);
    for bundle in mesh.feeds.iter().flatten() {
        assert!(matches!(replica.ingest(bundle.clone(), NOW_MS), Ingest::Applied(_)));
    }
    (mesh, replica)
}

/// Signs whatever is given as the next bundle of an author.
fn forge(mesh: &Mesh, at: usize, changes: &[Raw], mesh_id: MeshId) -> Bytes {
    let (seq, prev) = mesh.feeds[at].last().map_or((0, BundleHash::ZERO), |b| (b.header.seq, b.hash));
    let refs: Vec<_> =
        changes.iter().map(|(doc, kind, body)| (*doc, *kind, ByteArray::new(*blake3::hash(body).as_bytes()))).collect();
    let header = cbor::encode(&(DOMAIN, mesh_id, mesh.id(at), seq + 1, prev, NOW_MS << 16, refs));
    let signature = ByteArray::new(mesh.keys[at].sign(&header).to_bytes());
    let bodies: Vec<_> = changes.iter().map(|(_, _, body)| Some(ByteBuf::from(body.clone()))).collect();
    cbor::encode(&(ByteBuf::from(header), signature, bodies)).into()
}

/// The body of a register's change with any key and bytes.
fn body(key: &str, value: &[u8]) -> Vec<u8> {
    cbor::encode(&(key, ByteBuf::from(value.to_vec())))
}

fn cancel() -> Vec<u8> {
    cbor::encode(&Control { op: ControlOp::Cancel, at_ms: NOW_MS })
}

/// Asserts that bytes are no bundle for this reason.
fn is_refused(wire: Bytes, is_reason: impl Fn(&BundleError) -> bool) {
    match Bundle::decode(wire) {
        Err(reason) => assert!(is_reason(&reason), "refused for another reason: {reason:?}"),
        Ok(bundle) => panic!("taken: {bundle:?}"),
    }
}

/// Asserts what becomes of a bundle, and that nothing else changes.
fn changes_nothing(replica: &mut Replica<MemoryShelf>, wire: &Bytes, is_answer: impl Fn(&Ingest) -> bool) {
    let before = (replica.state_hash(), rows(replica), replica.roster().clone(), replica.feeds().clone());
    let answer = replica.ingest(Bundle::decode(wire.clone()).expect("a sound bundle"), NOW_MS);
    assert!(is_answer(&answer), "another answer: {answer:?}");
    let after = (replica.state_hash(), rows(replica), replica.roster().clone(), replica.feeds().clone());
    assert!(before == after, "the state changed");
}

#[test]
fn the_forger_can_make_an_honest_bundle_too() {
    let (mesh, mut replica) = scene();
    let wire = forge(&mesh, 3, &[(DocId::job(job_id(0)), 1, body("control/0", &cancel()))], mesh.mesh);
    let bundle = Bundle::decode(wire).expect("sound");
    assert!(matches!(replica.ingest(bundle, NOW_MS), Ingest::Applied(_)));
}

#[test]
fn a_bad_signature_is_refused() {
    let (mesh, _) = scene();
    let wire = forge(&mesh, 3, &[(DocId::job(job_id(0)), 1, body("control/0", &cancel()))], mesh.mesh);
    let (header, _, bodies): (ByteBuf, ByteArray<64>, Vec<Option<ByteBuf>>) = cbor::decode(&wire).expect("our own");
    let others = mesh.keys[2].sign(&header).to_bytes();
    is_refused(cbor::encode(&(header, ByteArray::new(others), bodies)).into(), |r| *r == BundleError::Signature);
}

#[test]
fn a_key_that_is_another_members_is_refused() {
    let (mesh, _) = scene();
    let lost = Key::Lost(1, TaskRange { start: 0, end: 1 }, mesh.id(4)).to_string();
    let recover = Key::Recover(mesh.id(4)).to_string();
    for (doc, key) in [(DocId::job(job_id(0)), lost), (DocId::ROSTER, recover)] {
        let wire = forge(&mesh, 3, &[(doc, 1, body(&key, &cancel()))], mesh.mesh);
        is_refused(wire, |r| *r == BundleError::Key(0, KeyError::Foreign));
    }
}

#[test]
fn a_key_outside_the_grammar_is_refused() {
    let (mesh, _) = scene();
    for (doc, key) in [
        (DocId::job(job_id(0)), "claim/01/0-1"),
        (DocId::job(job_id(0)), "mesh"),
        (DocId::ROSTER, "spec"),
        (DocId::FEED, "spec"),
    ] {
        let wire = forge(&mesh, 3, &[(doc, 1, body(key, &cancel()))], mesh.mesh);
        is_refused(wire, |r| *r == BundleError::Key(0, KeyError::Grammar));
    }
}

#[test]
fn a_change_under_another_document_is_refused() {
    let (mesh, _) = scene();
    let [one, two] = [0, 1].map(|n| {
        let change = (DocId::job(job_id(n)), 1, body(&format!("control/{n}"), &cancel()));
        forge(&mesh, 3, &[change], mesh.mesh)
    });
    let (header, signature, _): (ByteBuf, ByteArray<64>, Vec<Option<ByteBuf>>) = cbor::decode(&one).expect("our own");
    let (_, _, bodies): (ByteBuf, ByteArray<64>, Vec<Option<ByteBuf>>) = cbor::decode(&two).expect("our own");
    is_refused(cbor::encode(&(header, signature, bodies)).into(), |r| *r == BundleError::BodyHash(0));
}

#[test]
fn a_kind_of_change_that_does_not_fit_its_document_is_refused() {
    let (mesh, _) = scene();
    for (doc, kind) in
        [(DocId::job(job_id(0)), 2), (DocId::note(NoteId([1; 16])), 1), (DocId::ROSTER, 9), (DocId::FEED, 2)]
    {
        let wire = forge(&mesh, 3, &[(doc, kind, body("control/0", &cancel()))], mesh.mesh);
        is_refused(wire, |r| matches!(r, BundleError::Format(_)));
    }
}

#[test]
fn a_second_write_to_a_write_once_key_has_no_effect() {
    let (mut mesh, mut replica) = scene();
    let doc = DocId::job(job_id(0));
    let (state, row, shown) = (replica.state_hash(), replica.job_row(job_id(0)), replica.show(doc));
    let other = JobSpec { command: vec!["rm".into()], array: 9, ..JobSpec::default() };
    let second = mesh.sign(0, &[Change::register(doc, &Key::Spec, &other)]);
    assert!(matches!(replica.ingest(second, NOW_MS), Ingest::Applied(_)));
    assert_eq!((replica.state_hash(), replica.job_row(job_id(0)), replica.show(doc)), (state, row, shown));
}

#[test]
fn a_bundle_behind_a_gap_waits_and_changes_nothing() {
    let (mut mesh, mut replica) = scene();
    mesh.write(3, &[Act::Cancel { job: 0, n: 0 }]);
    mesh.write(3, &[Act::Cancel { job: 0, n: 1 }]);
    let wire = mesh.feeds[3][1].wire.clone();
    changes_nothing(&mut replica, &wire, |answer| *answer == Ingest::Gap { from_seq: 1 });
}

#[test]
fn a_bundle_of_another_branch_changes_nothing() {
    let (mut mesh, mut replica) = scene();
    mesh.feeds[2].pop();
    mesh.write(2, &[Act::Cancel { job: 1, n: 0 }]);
    mesh.write(2, &[Act::Cancel { job: 1, n: 1 }]);
    let wire = mesh.feeds[2][1].wire.clone();
    changes_nothing(&mut replica, &wire, |answer| *answer == Ingest::OtherBranch { at_seq: 1 });
}

#[test]
fn bundles_of_strangers_and_of_other_meshes_change_nothing() {
    let (mesh, mut replica) = scene();
    let change = [(DocId::job(job_id(0)), 1, body("control/0", &cancel()))];
    let wire = forge(&mesh, 5, &change, mesh.mesh);
    changes_nothing(&mut replica, &wire, |answer| *answer == Ingest::UnknownAuthor);
    for other in [MeshId([9; 32]), MeshId::ZERO] {
        let wire = forge(&mesh, 3, &change, other);
        changes_nothing(&mut replica, &wire, |answer| *answer == Ingest::ForeignMesh);
    }
}

#[test]
fn a_bundle_without_bodies_that_never_go_changes_nothing_and_may_come_again_whole() {
    let acts = [
        Act::Seal { job: 3, tasks: 0, end: 1, outcome: 0 },
        Act::Note { note: 0, text: 1 },
        Act::Checkpoint { target: 0, back: 0 },
        Act::Admit { by: 0 },
    ];
    for act in acts {
        let (mut mesh, mut replica) = scene();
        mesh.write(3, &[act]);
        let bundle = mesh.feeds[3][0].clone();
        let (header, signature, bodies): (ByteBuf, ByteArray<64>, Vec<Option<ByteBuf>>) =
            cbor::decode(&bundle.wire).expect("our own");
        let none = vec![None::<ByteBuf>; bodies.len()];
        let left: Bytes = cbor::encode(&(header, signature, none)).into();
        changes_nothing(&mut replica, &left, |answer| *answer == Ingest::Incomplete);
        assert!(matches!(replica.ingest(bundle, NOW_MS), Ingest::Applied(_)));
    }
}

#[test]
fn a_seal_that_is_not_marked_as_lasting_is_refused_and_so_is_the_mark_on_anything_else() {
    let (mesh, _) = scene();
    let doc = DocId::job(job_id(3));
    let grammar = |r: &BundleError| *r == BundleError::Key(0, KeyError::Grammar);
    is_refused(forge(&mesh, 3, &[(doc, 1, body("seal", &cancel()))], mesh.mesh), grammar);
    is_refused(forge(&mesh, 3, &[(doc, 3, body("control/0", &cancel()))], mesh.mesh), grammar);
    for other in [DocId::ROSTER, DocId::FEED, DocId::note(NoteId([1; 16]))] {
        let wire = forge(&mesh, 3, &[(other, 3, body("seal", &cancel()))], mesh.mesh);
        is_refused(wire, |r| matches!(r, BundleError::Format(_)));
    }
    let long = cbor::encode(&"x".repeat(SEAL_BYTES_MAX));
    is_refused(forge(&mesh, 3, &[(doc, 3, body("seal", &long))], mesh.mesh), |r| *r == BundleError::Value(0));
}

#[test]
fn too_much_is_refused() {
    let (mesh, _) = scene();
    let doc = DocId::job(job_id(0));
    is_refused(vec![0; BUNDLE_BYTES_MAX + 1].into(), |r| *r == BundleError::TooLarge(BUNDLE_BYTES_MAX + 1));
    let long = cbor::encode(&"x".repeat(VALUE_BYTES_MAX));
    is_refused(forge(&mesh, 3, &[(doc, 1, body("control/0", &long))], mesh.mesh), |r| *r == BundleError::Value(0));
    let many = vec![(doc, 1, body("control/0", &cancel())); 1_025];
    is_refused(forge(&mesh, 3, &many, mesh.mesh), |r| *r == BundleError::Changes(1_025));
    is_refused(forge(&mesh, 3, &[], mesh.mesh), |r| *r == BundleError::Changes(0));
    let key = format!("control/{}", "1".repeat(400));
    let wire = forge(&mesh, 3, &[(doc, 1, body(&key, &cancel()))], mesh.mesh);
    is_refused(wire, |r| *r == BundleError::Key(0, KeyError::Grammar));
}

#[test]
fn values_in_another_form_are_refused() {
    let (mesh, _) = scene();
    let deep = [vec![0x81; 200], vec![0x00]].concat();
    let cases: [&[u8]; 6] = [&[], &[0x18, 0x01], &[0xf9, 0x3c, 0x00], &[0xa2, 1, 1, 1, 1], &[0x9f, 0xff], &deep];
    for value in cases {
        let wire = forge(&mesh, 3, &[(DocId::job(job_id(0)), 1, body("control/0", value))], mesh.mesh);
        is_refused(wire, |r| *r == BundleError::Value(0));
    }
}

#[test]
fn garbage_and_whatever_follows_a_bundle_are_refused() {
    let (mesh, _) = scene();
    let honest = mesh.feeds[0][1].wire.clone();
    for wire in [Bytes::new(), Bytes::from_static(b"hello"), honest.slice(..honest.len() - 1)] {
        is_refused(wire, |r| matches!(r, BundleError::Format(_)));
    }
    let longer = [&honest[..], &[0]].concat();
    is_refused(longer.into(), |r| matches!(r, BundleError::Format(_)));
    let mut indefinite = honest.to_vec();
    indefinite[0] = 0x9f;
    indefinite.push(0xff);
    is_refused(indefinite.into(), |r| matches!(r, BundleError::Format(_)));
}

#[test]
fn a_value_that_cannot_be_read_counts_as_absent() {
    let (mesh, mut replica) = scene();
    let row = replica.job_row(job_id(0)).expect("known");
    let change = (DocId::job(job_id(0)), 1, body("accept/0-1", &cbor::encode(&"nonsense")));
    let bundle = Bundle::decode(forge(&mesh, 0, &[change], mesh.mesh)).expect("sound as a bundle");
    assert!(matches!(replica.ingest(bundle, NOW_MS), Ingest::Applied(_)));
    let after = replica.job_row(job_id(0)).expect("known");
    assert_eq!((after.state, after.done), (row.state, row.done));
}

#[test]
fn a_proof_that_comes_before_its_feed_freezes_it_there() {
    let (mut mesh, mut replica) = scene();
    for n in 0..3 {
        mesh.write(3, &[Act::Cancel { job: 1, n }]);
    }
    let proof = Mesh::proof(&mesh.feeds[3][1], &mesh.fork(3, 1));
    assert!(replica.ingest_fork(&proof));
    assert!(matches!(replica.ingest(mesh.feeds[3][0].clone(), NOW_MS), Ingest::Applied(_)));
    let wire = mesh.feeds[3][1].wire.clone();
    changes_nothing(&mut replica, &wire, |answer| *answer == Ingest::Frozen);
}

#[test]
fn a_proof_of_something_else_freezes_nobody() {
    let (mut mesh, mut replica) = scene();
    mesh.write(3, &[Act::Cancel { job: 1, n: 0 }]);
    let taken = mesh.feeds[3][0].clone();
    let key = SigningKey::from_bytes(&mesh.keys[3].to_bytes());
    let change =
        [Change::register(DocId::job(job_id(2)), &Key::Control(0), &Control { op: ControlOp::Cancel, at_ms: 1 })];
    let elsewhere = Bundle::sign(&key, MeshId([8; 32]), 1, BundleHash::ZERO, 1, &change);
    let forked = mesh.fork(3, 0);
    let honest = Mesh::proof(&taken, &forked);
    let proofs = [
        Mesh::proof(&taken, &elsewhere),
        Mesh::proof(&taken, &taken),
        ForkProof { author: NodeId([1; 32]), ..honest.clone() },
        ForkProof { seq: 2, ..honest.clone() },
        ForkProof { branches: [Bytes::new(), taken.wire.clone()], ..honest.clone() },
    ];
    for proof in proofs {
        assert!(!replica.ingest_fork(&proof), "{proof:?}");
    }
    assert!(replica.ingest_fork(&honest), "the control: an honest proof is taken");
}

#[test]
fn hostile_changes_of_a_notebook_are_refused_at_the_door() {
    let (mesh, _) = scene();
    let id = NoteId([0; 16]);
    let mut foreign = Notebook::new(id);
    let stolen = foreign.edit(mesh.id(4), "in another's name", 1).expect("short").expect("a change");
    let mut compressed = stolen.clone();
    compressed[8] = 2;
    let reason_of = |change: Vec<u8>| {
        let wire = forge(&mesh, 3, &[(DocId::note(id), 2, change)], mesh.mesh);
        match Bundle::decode(wire) {
            Err(BundleError::Note(0, reason)) => reason,
            other => panic!("not refused for its notebook: {other:?}"),
        }
    };
    assert_eq!(reason_of(stolen), NoteRefusal::ForeignActor);
    assert_eq!(reason_of(compressed), NoteRefusal::Compressed);
    for garbage in [b"garbage".to_vec(), vec![0xff; 100_000]] {
        reason_of(garbage);
    }
    let mut own = Notebook::new(id);
    let honest = own.edit(mesh.id(3), "in my own", 1).expect("short").expect("a change");
    let wire = forge(&mesh, 3, &[(DocId::note(id), 2, honest)], mesh.mesh);
    assert!(Bundle::decode(wire).is_ok(), "the control: an honest change is taken");
}
