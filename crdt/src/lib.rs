//! What the mesh knows: identities, signed feeds, documents, their rules and their folds.
//!
//! This crate is pure: it opens no file or socket, reads no clock and draws no random numbers. Everything that a peer
//! sent is decoded, verified and folded here, so that every replica comes to the same state whatever the order.

pub mod bundle;
pub mod cbor;
pub mod doc;
pub mod ids;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod mutant;
pub mod notebook;
pub mod replica;
pub mod roster;
pub mod shelf;
pub mod state_hash;
pub mod ticket;

pub use ed25519_dalek::SigningKey;

use ed25519_dalek::{Signature, Verifier, VerifyingKey};

/// Signs for a node: its key, or what stands for it where a recording is played back.
pub trait Signer: std::fmt::Debug + Send + Sync {
    /// The node that it signs for.
    fn node(&self) -> ids::NodeId;
    /// Signs bytes; the first field of what they encode names what they are.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl Signer for SigningKey {
    fn node(&self) -> ids::NodeId {
        ids::NodeId(self.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(self, message).to_bytes()
    }
}

/// Whether a node signed these bytes.
#[must_use]
pub fn verify(node: &ids::NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&node.0).is_ok_and(|key| key.verify(message, &Signature::from_bytes(signature)).is_ok())
}
