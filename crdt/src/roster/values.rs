//! The values of the roster's registers, and what is signed beside them.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::cbor;
use crate::ids::{BundleHash, InviteId, MeshId, NodeId, PersonId};

/// What a member may do. The order is no ranking; see the methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Submits jobs and adds ideas.
    Submitter,
    /// Runs jobs; may also submit them.
    Worker,
    /// Reads.
    Observer,
    /// Mirrors the mesh and lets people in; acts only on behalf of persons.
    Gateway,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Submitter, Self::Worker, Self::Observer, Self::Gateway];

    /// May write the roster.
    #[must_use]
    pub const fn may_administer(self) -> bool {
        matches!(self, Self::Admin)
    }

    /// May submit jobs.
    #[must_use]
    pub const fn may_submit(self) -> bool {
        matches!(self, Self::Admin | Self::Submitter | Self::Worker)
    }

    /// May run jobs.
    #[must_use]
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Admin | Self::Worker)
    }

    /// The role's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Submitter => "submitter",
            Self::Worker => "worker",
            Self::Observer => "observer",
            Self::Gateway => "gateway",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or(())
    }
}

/// `mesh`: written once, in the bundle whose hash is the mesh's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Name of the mesh.
    pub name: String,
    /// Name of the founder's node.
    pub node_name: String,
    /// The founder.
    pub person: PersonId,
    /// Public half of the recovery key.
    pub recovery: ByteArray<32>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Makes the id of a mesh unguessable.
    pub nonce: ByteArray<16>,
}

/// `person/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Display name.
    pub name: String,
}

/// `policy/<name>/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What is wanted, in the words of that policy; empty: what holds where nobody said anything.
    pub value: String,
}

/// `invite/<public half of its one-time key>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Role of those who come with it.
    pub role: Role,
    /// Milliseconds since 1970, by the admitting member's clock.
    pub expires_ms: u64,
    /// How many nodes may come.
    pub uses: u32,
    /// The person whose devices they become; each its own new person otherwise.
    pub person: Option<PersonId>,
}

/// `member/<node>`: valid whoever published it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Name that the node gave itself.
    pub name: String,
    /// The invite it came with.
    pub invite: InviteId,
    /// The invite's signature over mesh, node and name.
    pub proof: ByteArray<64>,
    /// The node's own signature over the same: nobody is made a member against his will.
    pub consent: ByteArray<64>,
    /// Milliseconds since 1970, by the admitting member's clock.
    pub admitted_ms: u64,
}

impl Admission {
    /// Whether both signatures are right.
    #[must_use]
    pub fn verifies(&self, mesh: MeshId, node: NodeId) -> bool {
        let message = admission_message(mesh, node, &self.name, self.invite);
        verifies(&self.invite.0, &message, &self.proof) && verifies(&node.0, &message, &self.consent)
    }

    /// Signs a node in with an invite's private half.
    #[must_use]
    pub fn sign(mesh: MeshId, node: &SigningKey, name: &str, invite: &SigningKey, admitted_ms: u64) -> Self {
        let id = InviteId(invite.verifying_key().to_bytes());
        let message = admission_message(mesh, NodeId(node.verifying_key().to_bytes()), name, id);
        Self {
            name: name.to_owned(),
            invite: id,
            proof: ByteArray::new(invite.sign(&message).to_bytes()),
            consent: ByteArray::new(node.sign(&message).to_bytes()),
            admitted_ms,
        }
    }
}

/// The bytes that an admission's two signatures cover.
#[must_use]
pub fn admission_message(mesh: MeshId, node: NodeId, name: &str, invite: InviteId) -> Vec<u8> {
    cbor::encode(&("v6/admission/1", mesh, node, name, invite))
}

/// `role/<node>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// The role from the next bundle on.
    pub role: Role,
    /// Last place of the node's feed under its old role.
    pub after_seq: u64,
    /// Hash of that bundle.
    pub after_hash: BundleHash,
}

/// `revoke/<node>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Last place of the node's feed that counts.
    pub last_seq: u64,
    /// Hash of that bundle.
    pub last_hash: BundleHash,
    /// What the admin says about it.
    pub reason: String,
    /// Signed by the recovery key: outranks every admin. The register's author is then of no account.
    pub recovery: Option<ByteArray<64>>,
}

/// What the recovery key may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryAct {
    /// Make this node an admin.
    Admit(NodeId),
    /// Revoke this node after a place of its feed.
    Revoke(NodeId, u64, BundleHash),
    /// Lift the revocation of this node.
    Restore(NodeId),
}

/// `recover/<self>`: an act of the recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverySigned {
    /// What it says.
    pub act: RecoveryAct,
    /// Name of the node that is signed in.
    pub name: String,
    /// The recovery key's signature over mesh and act.
    pub signature: ByteArray<64>,
}

impl RecoverySigned {
    /// Signs an act.
    #[must_use]
    pub fn sign(mesh: MeshId, key: &SigningKey, act: RecoveryAct, name: &str) -> Self {
        let message = cbor::encode(&("v6/recovery/1", mesh, &act));
        Self { act, name: name.to_owned(), signature: ByteArray::new(key.sign(&message).to_bytes()) }
    }

    /// Whether the mesh's recovery key signed it.
    #[must_use]
    pub fn verifies(&self, mesh: MeshId, recovery: &[u8; 32]) -> bool {
        verifies(recovery, &cbor::encode(&("v6/recovery/1", mesh, &self.act)), &self.signature)
    }
}

fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify(message, &Signature::from_bytes(signature)).is_ok())
}
