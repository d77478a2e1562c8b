//! All input and output of V6.

pub mod blobs;
