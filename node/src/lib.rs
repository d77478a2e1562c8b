//! All I/O of V6 and its one binary.

pub mod cli;
pub mod client;
