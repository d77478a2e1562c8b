//! All I/O of V6.
pub mod net;
