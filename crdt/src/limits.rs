//! Every bound of the mesh in one place: each names its unit and says what happens when it is met.
//!
//! Bounds of what peers may send are part of the protocol (docs/protocol.md lists them); the others are local.

/// Nesting of a CBOR value. Deeper: refused.
pub const CBOR_DEPTH_MAX: usize = 24;
