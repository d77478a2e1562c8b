//! What must be known when the store is gone: the mesh and its members.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use crdt::ids::{MeshId, NodeId};

use crate::net::Multiaddr;
use crate::platform::files;

const MESH_FILE: &str = "mesh.json";
/// Members that the file names; the newest contacts stay.
const MEMBERS_KEPT_MAX: usize = 64;

/// What a node must still know of its mesh when its store is gone: beside the store, in a file of its own.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct AboutMesh {
    pub(super) mesh: MeshId,
    pub(super) founder: NodeId,
    pub(super) members: Vec<(NodeId, Vec<String>)>,
}

impl AboutMesh {
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(MESH_FILE)).ok()?).ok()
    }

    pub(super) fn addresses(&self) -> Vec<(NodeId, Vec<Multiaddr>)> {
        let parse = |addrs: &Vec<String>| addrs.iter().filter_map(|a| a.parse().ok()).collect();
        self.members.iter().map(|(node, addrs)| (*node, parse(addrs))).collect()
    }

    pub(super) fn write(self, dir: &Path, before: Option<Self>) -> anyhow::Result<()> {
        let members = before.map(|b| b.members).unwrap_or_default();
        let bytes = serde_json::to_vec(&Self { members, ..self })?;
        files::write_private(&dir.join(MESH_FILE), &bytes).context("writing mesh.json")
    }

    /// Reads the file, changes it, and writes it where that made a difference; one at a time.
    fn change(dir: &Path, change: impl FnOnce(&mut Vec<(NodeId, Vec<String>)>)) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut about) = Self::read(dir) else { return };
        let before = about.members.clone();
        change(&mut about.members);
        if about.members != before
            && let Ok(bytes) = serde_json::to_vec(&about)
        {
            drop(files::write_private(&dir.join(MESH_FILE), &bytes));
        }
    }

    /// Remembers who belongs to the mesh, up to [`MEMBERS_KEPT_MAX`] members.
    pub(super) fn remember_members(dir: &Path, members: &BTreeSet<NodeId>) {
        Self::change(dir, |known| {
            known.retain(|(node, _)| members.contains(node));
            for node in members {
                if known.len() < MEMBERS_KEPT_MAX && !known.iter().any(|(other, _)| other == node) {
                    known.push((*node, Vec::new()));
                }
            }
        });
    }

    /// Remembers where a member was reached; the newest of at most 64.
    pub(super) fn remember(dir: &Path, node: NodeId, addrs: &[Multiaddr]) {
        let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
        Self::change(dir, |known| {
            if !known.iter().any(|known| *known == (node, addrs.clone())) {
                known.retain(|(known, _)| *known != node);
                known.insert(0, (node, addrs));
                known.truncate(MEMBERS_KEPT_MAX);
            }
        });
    }
}
