//! Founding, joining and opening a replica.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use serde_bytes::ByteArray;

use super::counts::Counts;
use super::{Applied, Feed, Replica};
use crate::bundle::{Bundle, Change};
use crate::cbor;
use crate::doc::{DocId, Key};
use crate::ids::{BundleHash, JobId, MeshId, NodeId, PersonId};
use crate::roster::{Founding, Roster};
use crate::shelf::{Shelf, Table};
use crate::state_hash::StateHash;

const MESH_ROW: &[u8] = b"mesh";

/// What a founder says about the mesh.
#[derive(Debug, Clone)]
pub struct FoundingWords {
    /// Name of the mesh.
    pub mesh_name: String,
    /// Name of the founder's node.
    pub node_name: String,
    /// Public half of the recovery key.
    pub recovery: [u8; 32],
    /// Random bytes.
    pub nonce: [u8; 16],
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl<S: Shelf> Replica<S> {
    /// Founds a mesh on an empty shelf.
    #[must_use]
    pub fn found(shelf: S, key: &SigningKey, words: &FoundingWords) -> (Self, Bundle, Applied) {
        let me = NodeId(key.verifying_key().to_bytes());
        let person = blake3::derive_key("v6 person of a device 1", &me.0);
        let founding = Founding {
            name: words.mesh_name.clone(),
            node_name: words.node_name.clone(),
            person: PersonId(person[..16].try_into().expect("16 of 32 bytes")),
            recovery: ByteArray::new(words.recovery),
            created_ms: words.now_ms,
            nonce: ByteArray::new(words.nonce),
        };
        let changes = [Change::register(DocId::ROSTER, &Key::Mesh, &founding)];
        let first = Bundle::sign(key, MeshId::ZERO, 1, BundleHash::ZERO, words.now_ms << 16, &changes);
        let mut replica = Self::begin(shelf, MeshId(first.hash.0), me);
        let mut applied = Applied::default();
        replica.apply_chain(first.clone(), &mut applied);
        (replica, first, applied)
    }

    /// A replica of a mesh of which only its id and founder are known.
    #[must_use]
    pub fn begin(mut shelf: S, mesh: MeshId, founder: NodeId) -> Self {
        shelf.put((Table::Meta, MESH_ROW.to_vec(), Some(cbor::encode(&(mesh, founder)))));
        let state = StateHash::load(&shelf);
        let counts = Counts::load(&mut shelf);
        let history = Self::load_history(&mut shelf);
        let incomplete = Self::load_incomplete(&shelf);
        let has_extracts = Self::any_extracts(&shelf);
        Self {
            mesh,
            founder,
            shelf,
            feeds: BTreeMap::new(),
            roster: Roster::default(),
            roster_digest: None,
            jobs: BTreeMap::new(),
            counts,
            history,
            cursors: super::prune::Cursors::default(),
            incomplete,
            reopened: std::collections::BTreeSet::new(),
            state,
            has_extracts,
            tails_wanted: std::collections::BTreeSet::new(),
            waiting: BTreeMap::new(),
            unknown: BTreeMap::new(),
            hlc: 0,
        }
    }

    /// Opens what a shelf holds; gives the shelf back when it holds no mesh.
    ///
    /// # Errors
    /// The shelf, when there is no mesh on it.
    pub fn open(shelf: S) -> Result<Self, S> {
        let row = shelf.get(Table::Meta, MESH_ROW).and_then(|row| cbor::decode::<(MeshId, NodeId)>(&row).ok());
        let Some((mesh, founder)) = row else {
            return Err(shelf);
        };
        let mut replica = Self::begin(shelf, mesh, founder);
        for (key, row) in replica.shelf.all(Table::Feeds, &[]) {
            if let (Ok(author), Ok(feed)) = (key.try_into(), cbor::decode::<Feed>(&row)) {
                replica.hlc = replica.hlc.max(feed.hlc);
                replica.feeds.insert(NodeId(author), feed);
            }
        }
        let (roster, digest) = replica.fold_roster();
        replica.roster = roster;
        replica.roster_digest = digest;
        for (key, _) in replica.shelf.all(Table::OpenJobs, &[]) {
            if let Ok(id) = key.try_into() {
                replica.load_job(JobId(id));
            }
        }
        Ok(replica)
    }
}
