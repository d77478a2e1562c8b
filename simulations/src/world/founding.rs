//! How a mesh begins: the rows that all members start with, and what they sell.

use crdt::SigningKey;
use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::{InviteId, NodeId};
use crdt::replica::{FoundingWords, Replica};
use crdt::roster::{Admission, Invite, Role};
use mesh::offer::Offer;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::disk::{Disk, Shared};
use crate::node::WALL_MS;
use crate::plan::Plan;

/// What a member sells.
pub(super) fn draw_offer(at: usize, plan: &Plan, rng: &mut ChaCha8Rng) -> Offer {
    let plain = plan.steps.is_empty() && plan.submits.iter().all(|s| s.labels.is_empty());
    Offer {
        slots: if plain { 1 } else { rng.random_range(1..3) },
        cores: 4,
        memory_bytes: 8 << 30,
        labels: if at.is_multiple_of(3) { vec!["big".into()] } else { Vec::new() },
        price_micros_per_hour: rng.random_range(0..1_000),
        speed_percent: rng.random_range(50..200),
        os: "linux".into(),
        version: "0".into(),
        ..Offer::default()
    }
}

/// The founder's rows: the mesh, an invite for all, and everybody's admission.
pub(crate) fn found(keys: &[SigningKey], shared: &Shared, rng: &mut ChaCha8Rng) -> (Disk, SigningKey) {
    let words = FoundingWords {
        mesh_name: "simulated".into(),
        node_name: "n0".into(),
        recovery: [7; 32],
        nonce: rng.random(),
        now_ms: WALL_MS - 60_000,
    };
    let (mut replica, _, _) = Replica::found(Disk::new(shared), &keys[0], &words);
    let invite = SigningKey::from_bytes(&rng.random());
    let invite_id = InviteId(invite.verifying_key().to_bytes());
    let terms = Invite { role: Role::Worker, expires_ms: u64::MAX, uses: 1_000, person: None };
    let mut changes = vec![Change::register(DocId::ROSTER, &Key::Invite(invite_id), &terms)];
    for (at, key) in keys.iter().enumerate().skip(1) {
        let admission = Admission::sign(replica.mesh(), key, &format!("n{at}"), &invite, WALL_MS);
        let member = NodeId(key.verifying_key().to_bytes());
        changes.push(Change::register(DocId::ROSTER, &Key::Member(member), &admission));
    }
    for changes in changes.chunks(512) {
        replica.append(&keys[0], WALL_MS - 50_000, changes);
    }
    assert_eq!(replica.roster().members.len(), keys.len());
    let mut disk = replica.shelf().clone();
    disk.commit();
    (disk, invite)
}
