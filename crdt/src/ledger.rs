//! The ledger: immutable, signed entries in which people and programs keep what they think, saw and found.
//!
//! An entry signs itself, so that it is the same and can be checked in any mesh, and is named by the hash of its bytes. The
//! entries about one subject (an idea, an observation) are the registers of one document; what they come to is a fold over
//! them, the same whatever the order. Nothing is overwritten, and nothing is removed.

mod alike;
mod content;
mod entry;
mod fold;
mod outcome;
mod rank;
mod text;

pub use alike::{COMPARED_CHARS_MAX, Method, NEAR_MIN, Print, SKETCH_BYTES, Sketch};
pub use content::{
    Attachment, Content, Delegation, Evaluation, JobOutcome, Kind, Link, Relation, Source, Target, Transfer, Verdict,
};
pub use entry::{By, EntryError, Signed};
pub(crate) use fold::IdeaRow;
pub use fold::{Counted, Handover, Incoming, Opinions, RowLink, Shown, Status, Subject, fold};
pub use rank::Terms;
pub use text::{folded, stem, stems};

/// Keys of subjects that begin so are those of observations of commands.
pub const OF_COMMAND: &str = "v6/command/";
/// How an outcome hangs together with what its job served, and with the job.
pub const OUTCOME_OF: &str = "outcome-of";
