//! Skeleton.
pub mod cell;
pub mod platform;
pub mod sandbox;
pub mod tree;
