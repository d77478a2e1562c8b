//! The blob store through its public interface: real stores on disk, streams in memory or over TCP.

#[path = "blobs/crash.rs"]
mod crash;
#[path = "blobs/fetch.rs"]
mod fetch;
#[cfg(target_os = "linux")]
#[path = "blobs/full.rs"]
mod full;
#[path = "blobs/gc.rs"]
mod gc;
#[path = "blobs/net.rs"]
mod net;
#[path = "blobs/speed.rs"]
mod speed;
#[path = "blobs/store.rs"]
mod store;
