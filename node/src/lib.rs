//! All input and output of V6, and the parts that its one binary is made of.

pub mod blobs;
pub mod net;
