//! The ledger: immutable, signed entries in which people and programs keep what they think, saw and found.
//!
//! An entry signs itself, so that it is the same and can be checked in any mesh, and is named by the hash of its bytes. The
//! entries about one subject (an idea, an observation) are the registers of one document; what they come to is a fold over
//! them, the same whatever the order. Nothing is overwritten, and nothing is removed.

mod entry;
mod fold;

pub use entry::{Draft, Entry, EntryError, Kind, Signed, Source};
pub(crate) use fold::IdeaRow;
pub use fold::{Shown, Status, Subject, fold};
