//! All input and output of V6, and the parts that its one binary is made of.

pub mod accept;
pub mod blobs;
pub mod cell;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod joblog;
mod ledger;
pub mod net;
pub mod platform;
pub mod sandbox;
pub mod store;
pub mod tree;
