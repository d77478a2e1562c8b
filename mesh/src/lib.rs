//! How the mesh decides: replication, presence, offers, claims, leases, acceptance.
//!
//! One [`Core`] per node, pure and sans-IO: [`Core::handle`] takes an input at a time and yields effects, and
//! [`Core::next_wake`] says when it wants to be woken. It never reads a clock, opens a socket or a file, or draws from
//! another generator than the one that was seeded. The same inputs at the same times give the same effects.

pub mod core;
pub mod field_log;
pub mod io;
pub mod limits;
pub mod msg;
pub mod offer;
pub mod time;
pub mod vote;

pub use crate::core::Core;
pub use crate::io::{Ack, Command, Config, Effect, Effects, Input, Refusal, Retention, Verified};
pub use crate::time::{Now, Time};
