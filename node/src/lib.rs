//! All I/O of V6.
pub mod net;
//! All input and output of V6.

pub mod blobs;
