//! What the mesh knows: identities, signed feeds, documents, their rules and their folds.
//!
//! This crate is pure: it opens no file or socket, reads no clock and draws no random numbers. Everything that a peer
//! sent is decoded, verified and folded here, so that every replica comes to the same state whatever the order.

pub mod cbor;
pub mod ids;
pub mod limits;
pub mod notebook;
