//! What differs between operating systems, one small module per concern, Windows beside Unix.
//!
//! Callers see the same functions everywhere; nothing here knows of jobs or the mesh.

pub mod cores;
pub mod files;
pub mod lock;
pub mod memory;
pub mod process;
