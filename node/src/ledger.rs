//! What finds entries of the ledger: by their words, and by what they are like.

mod analyser;
pub(crate) mod file;
pub(crate) mod index;
pub(crate) mod meaning;
mod sketches;
