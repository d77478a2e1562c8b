//! All I/O of V6 and its one binary.

pub mod cell;
pub mod cli;
pub mod client;
pub mod joblog;
pub mod platform;
pub mod sandbox;
pub mod tree;
