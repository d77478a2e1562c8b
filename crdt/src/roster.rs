//! The roster: who belongs to the mesh, with which role, and up to which place of its feed each author counts.
//!
//! The fold is a pure function of the roster's registers, whatever their order. Admins come from the founding, from
//! admissions under an admin's invite, from role changes and from the recovery key; an author's registers beyond its cut
//! do not count. Admins who revoke each other concurrently are both suspended (see [`fold`]).

mod fold;
mod values;

use std::collections::{BTreeMap, BTreeSet};

pub use fold::fold;
pub use values::{
    Admission, Founding, Invite, Person, Policy, RecoveryAct, RecoverySigned, Revocation, Role, RoleChange,
    admission_message,
};

use crate::ids::{BundleHash, InviteId, NodeId, PersonId};

/// What the roster says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The name it gave itself when it joined.
    pub name: String,
    /// Whose device it is.
    pub person: PersonId,
    /// Roles, each from the bundle after `seq` on: ascending, the first from 0.
    pub roles: Vec<(u64, Role)>,
    /// When the admitting member says that it joined, in milliseconds since 1970.
    pub admitted_ms: u64,
    /// The invite that let it in; `None` for the founder and for nodes signed in by the recovery key.
    pub invite: Option<InviteId>,
}

impl Member {
    /// The role in force for the bundle `seq`.
    #[must_use]
    pub fn role_at(&self, seq: u64) -> Role {
        self.roles.iter().rev().find(|(after, _)| *after < seq).map_or(Role::Observer, |(_, role)| *role)
    }

    /// The role in force at the end.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role_at(u64::MAX)
    }
}

/// The folded roster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Name of the mesh.
    pub mesh_name: String,
    /// The recovery key's public half.
    pub recovery: Option<[u8; 32]>,
    /// Members, revoked ones too.
    pub members: BTreeMap<NodeId, Member>,
    /// Nodes that may have a feed: all that were ever let in, whatever was revoked since, so that replicas keep the same
    /// feeds in whatever order they hear of admissions and revocations.
    pub authors: BTreeSet<NodeId>,
    /// Persons by id.
    pub persons: BTreeMap<PersonId, String>,
    /// Valid invites by id, with the number of nodes that they let in.
    pub invites: BTreeMap<InviteId, (Invite, u32)>,
    /// Revoked authors: the last `seq` that counts, and its hash.
    pub revoked: BTreeMap<NodeId, (u64, BundleHash)>,
    /// What the mesh as a whole wants, by name: the number of the register, and the value.
    pub policies: BTreeMap<String, (u32, String)>,
    /// Admins who are revoked only by admins whom they revoked at the same time: a third, or the recovery key, decides.
    pub suspended: BTreeSet<NodeId>,
}

impl Roster {
    /// What an admin wanted under a policy's name; `None` where nobody said anything.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&str> {
        self.policies.get(name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a node is a member in good standing.
    #[must_use]
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.members.contains_key(node) && !self.revoked.contains_key(node)
    }

    /// Last place of an author's feed that counts: 0 for a stranger, `u64::MAX` for a member in good standing.
    #[must_use]
    pub fn last_counting(&self, author: &NodeId) -> u64 {
        let cut = self.revoked.get(author).map_or(u64::MAX, |(last, _)| *last);
        if self.members.contains_key(author) { cut } else { 0 }
    }

    /// The role in force for the bundle `seq` of an author; `None` for a stranger and beyond a revocation.
    #[must_use]
    pub fn role_at(&self, author: &NodeId, seq: u64) -> Option<Role> {
        let member = self.members.get(author)?;
        match self.revoked.get(author) {
            Some((last, _)) if seq > *last => None,
            _ => Some(member.role_at(seq)),
        }
    }

    /// The role of a member in good standing.
    #[must_use]
    pub fn role(&self, node: &NodeId) -> Option<Role> {
        self.role_at(node, u64::MAX)
    }

    /// The person a node belongs to.
    #[must_use]
    pub fn person(&self, node: &NodeId) -> Option<PersonId> {
        self.members.get(node).map(|m| m.person)
    }

    /// Members in good standing.
    pub fn standing(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter().filter(|(node, _)| !self.revoked.contains_key(node))
    }
}
