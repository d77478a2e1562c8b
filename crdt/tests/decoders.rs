//! Every decoder of peers' bytes in this crate over a fixed number of mutated inputs: none panics, and what is taken has
//! one form only. The fuzz targets in `fuzz/` go on from here.

#[path = "authors/authors.rs"]
mod authors;
#[path = "mutate/mutate.rs"]
mod mutate;

use authors::{Act, Mesh, NOW_MS, empty};
use crdt::bundle::Bundle;
use crdt::cbor;
use crdt::ids::{MeshId, NodeId, NoteId};
use crdt::notebook::Notebook;
use crdt::replica::Ingest;
use crdt::roster::Role;
use crdt::ticket::Ticket;
use ed25519_dalek::Signer;
use mutate::{Draw, INPUTS};
use serde_bytes::{ByteArray, ByteBuf};

fn mesh() -> Mesh {
    let mut mesh = Mesh::new();
    let range = (1, 1);
    mesh.write(0, &[Act::Spec { job: 0, tasks: 2, made_ms: 0 }, Act::Note { note: 0, text: 1 }]);
    mesh.write(0, &[Act::Person { n: 1 }, Act::Role { target: 3, n: 0, role: 0, after: 0 }, Act::Invite { n: 1 }]);
    mesh.write(2, &[Act::Claim { job: 0, attempt: 1, start: range.0, len: range.1, lost: true }]);
    mesh.write(2, &[Act::Run { job: 0, attempt: 1, start: range.0, len: range.1, code: 1, ended: true }]);
    mesh.write(3, &[Act::Lost { job: 0, attempt: 1, start: range.0, len: range.1, owner: 2 }]);
    mesh.write(4, &[Act::Revoke { target: 1, last: 0 }, Act::Cancel { job: 0, n: 0 }]);
    mesh
}

#[test]
fn mutated_bundles_do_no_harm() {
    let mesh = mesh();
    let seeds: Vec<Vec<u8>> = mesh.feeds.iter().flatten().map(|b| b.wire.to_vec()).collect();
    let mut draw = Draw(1);
    for _ in 0..INPUTS {
        let bytes = draw.mutated(&seeds);
        if let Ok(bundle) = Bundle::decode(bytes.clone().into()) {
            assert!(seeds.contains(&bytes) || bundle.pruned() == bytes, "only what was signed is taken");
        }
        let _ = Bundle::place(&bytes);
    }
}

/// A member that signs nonsense gets further: to the header, the bodies, the folds.
#[test]
fn mutated_bundles_of_a_member_who_signs_them_do_no_harm() {
    type Wire = (ByteBuf, ByteArray<64>, Vec<Option<ByteBuf>>);
    let mesh = mesh();
    let bundles: Vec<Bundle> = mesh.feeds.iter().flatten().cloned().collect();
    let parts: Vec<Wire> = bundles.iter().map(|b| cbor::decode(&b.wire).expect("our own")).collect();
    let headers: Vec<Vec<u8>> = parts.iter().map(|p| p.0.to_vec()).collect();
    let bodies: Vec<Vec<u8>> = parts.iter().flat_map(|p| p.2.iter().flatten().map(|b| b.to_vec())).collect();
    let (mut draw, mut taken) = (Draw(2), 0);
    let mut replica = empty(&mesh);
    for bundle in bundles.iter().filter(|b| b.header.author != mesh.id(4)) {
        replica.ingest(bundle.clone(), NOW_MS);
    }
    for round in 0..INPUTS / 4 {
        let key = &mesh.keys[4];
        let wire = if round % 4 == 0 {
            let header = draw.mutated(&headers);
            let signature = ByteArray::new(key.sign(&header).to_bytes());
            cbor::encode(&(ByteBuf::from(header), signature, vec![Some(ByteBuf::from(draw.mutated(&bodies)))]))
        } else {
            let body = draw.mutated(&bodies);
            let change = &bundles[draw.below(bundles.len())].header.changes[0];
            let (seq, prev) = replica.feeds().get(&mesh.id(4)).map_or_else(Default::default, |f| (f.seq, f.hash.0));
            let refs = vec![(change.doc, change.kind as u8, ByteArray::new(*blake3::hash(&body).as_bytes()))];
            let prev = crdt::ids::BundleHash(prev);
            let header = cbor::encode(&("v6/bundle/1", mesh.mesh, mesh.id(4), seq + 1, prev, NOW_MS << 16, refs));
            let signature = ByteArray::new(key.sign(&header).to_bytes());
            cbor::encode(&(ByteBuf::from(header), signature, vec![Some(ByteBuf::from(body))]))
        };
        if let Ok(bundle) = Bundle::decode(wire.into()) {
            taken += u32::from(matches!(replica.ingest(bundle, NOW_MS), Ingest::Applied(_)));
        }
    }
    assert!(taken > 50, "the forger gets some of it in: {taken}");
    assert!(replica.roster().members.len() >= 5);
}

#[test]
fn mutated_tickets_are_refused_or_have_one_form() {
    let ticket = Ticket {
        mesh: MeshId([1; 32]),
        founder: NodeId([2; 32]),
        secret: ByteArray::new([3; 32]),
        role: Role::Worker,
        expires_ms: 9,
        members: vec![(NodeId([2; 32]), vec!["/ip4/127.0.0.1/tcp/1".into()])],
    };
    let (texts, payloads) = ([ticket.encode().into_bytes()], [cbor::encode(&ticket)]);
    let mut symbols = data_encoding::Specification::new();
    symbols.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    let alphabet = symbols.encoding().expect("32 symbols");
    let mut draw = Draw(3);
    for round in 0..INPUTS {
        let text = if round % 2 == 0 {
            String::from_utf8_lossy(&draw.mutated(&texts)).into_owned()
        } else {
            let mut bytes = draw.mutated(&payloads);
            bytes.extend_from_slice(&blake3::derive_key("v6 ticket checksum 1", &bytes)[..5]);
            format!("v6-{}", alphabet.encode(&bytes))
        };
        if let Ok(read) = Ticket::decode(&text) {
            assert_eq!(read.encode(), text.trim());
        }
    }
}

#[test]
fn mutated_values_are_refused_or_have_one_form() {
    let seeds: Vec<Vec<u8>> = mesh()
        .feeds
        .iter()
        .flatten()
        .flat_map(|bundle| bundle.bodies.clone())
        .filter_map(|body| match body {
            crdt::bundle::Body::Register { value, .. } => Some(value.to_vec()),
            crdt::bundle::Body::Notebook(_) | crdt::bundle::Body::Pruned => None,
        })
        .collect();
    let (mut draw, mut taken) = (Draw(4), 0);
    for _ in 0..INPUTS {
        let bytes = draw.mutated(&seeds);
        if let Ok(value) = cbor::decode::<ciborium::Value>(&bytes) {
            assert_eq!(cbor::encode(&value), bytes);
            taken += 1;
        }
    }
    assert!(taken > 100, "some mutations are values: {taken}");
}

#[test]
fn mutated_changes_of_a_notebook_do_no_harm() {
    let id = NoteId([5; 16]);
    let author = NodeId([6; 32]);
    let mut writer = Notebook::new(id);
    let seeds: Vec<Vec<u8>> = ["hello", "hello world", "hell world", "مرحبا"]
        .iter()
        .map(|text| writer.edit(author, text, 1).expect("short").expect("a change"))
        .collect();
    let mut note = Notebook::new(id);
    let mut draw = Draw(7);
    for _ in 0..INPUTS {
        drop(note.apply(author, &draw.mutated(&seeds)));
        assert!(!note.is_poisoned());
    }
}
