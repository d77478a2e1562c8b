//! Skeleton.
pub mod cell;
pub mod joblog;
pub mod platform;
pub mod sandbox;
pub mod tree;
