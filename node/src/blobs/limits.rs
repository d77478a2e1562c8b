//! Bounds of the blob store and its protocol; each names its unit and says what happens when it is met.

use std::time::Duration;

/// Bytes of one part. A larger blob is stored as parts of exactly this size (the last one may be shorter).
pub const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Parts of one blob, hence 1 TiB in all. A larger one is refused.
pub const PARTS_MAX: u64 = 65_536;
/// Bytes of one blob. More: refused.
pub const BLOB_BYTES_MAX: u64 = PART_BYTES * PARTS_MAX;
/// Imports that run at once, each with one part in memory. More wait.
pub const IMPORTS_MAX: u32 = 4;
/// Parts of one file that are read ahead while others are imported.
pub const PARTS_READ_AHEAD: usize = 2;
/// Bytes that are left free on the disk. A write that would go below: [`DiskFull`](super::BlobError::DiskFull).
pub const DISK_RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// Share of the quota, in per cent, down to which a collection frees once it has to free at all.
pub const GC_LOW_WATER_PERCENT: u64 = 90;

/// Bytes of one request. More: the stream is dropped.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Blobs of one request for several. More: the stream is dropped.
pub const REQUEST_BLOBS_MAX: usize = 1_024;
/// Requests of one peer that are answered at once. More wait.
pub const SERVE_STREAMS_PER_PEER: usize = 16;
/// Requests of one peer that wait for their turn. More: the stream is dropped.
pub const SERVE_WAITING_PER_PEER: usize = 64;
/// Requests per second of one peer, in the long run. More wait.
pub const SERVE_REQUESTS_PER_SECOND: u64 = 500;
/// Requests of one peer that may come at once before the rate counts.
pub const SERVE_REQUESTS_BURST: u64 = 1_000;
/// Time in which a stream must move at least one byte. Longer: it is given up.
pub const STREAM_IDLE_MAX: Duration = Duration::from_secs(30);
/// Time in which a stream must be opened. Longer: the holder counts as unreachable.
pub const DIAL_MAX: Duration = Duration::from_secs(10);
/// Bytes buffered per direction of a stream.
pub const STREAM_BUFFER_BYTES: usize = 256 * 1024;

/// Streams that one fetch keeps open to one holder.
pub const FETCH_STREAMS_PER_HOLDER: usize = 2;
/// Holders that one fetch uses. Those after are not asked.
pub const FETCH_HOLDERS_MAX: usize = 16;
/// Bytes that one request for several small blobs asks for.
pub const FETCH_BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// Blobs up to this size, in bytes, are asked for together.
pub const FETCH_BATCH_BLOB_BYTES: u64 = 1024 * 1024;

/// Chunks that a reader has ready before the consumer takes them.
pub const READ_AHEAD_CHUNKS: usize = 32;
/// Entries of one page of a listing. A larger wish is cut.
pub const PAGE_MAX: usize = 1_000;
