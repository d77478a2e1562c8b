//! Every bound of the HTTP server; each says what happens when it is met.

use std::time::Duration;

/// Most connections at a time. More wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 512;
/// Most log and event streams at a time. More: 503.
pub const STREAMS_MAX: usize = 256;
/// Most headers of a request. More: 431 and the connection is closed.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of a request's head. More: 431 and the connection is closed.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// A request's head must have come, and an idle connection is kept, this long. Then it is closed.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of a body that is no upload. More: 413.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A body that is no upload must have come within this time. Else: 408.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence in the middle of an upload. Then it fails.
pub const UPLOAD_SILENCE_MAX: Duration = Duration::from_secs(60);
/// Chunks of an upload between the socket and the store. At the bound the sender waits.
pub const UPLOAD_CHUNKS: usize = 8;
/// Most bytes of a tree's manifest. More: 413.
pub const MANIFEST_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most bytes of one blob inside a batch, and of the blobs handed to the node at once. A larger blob: 413.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most blobs handed to the node at once.
pub const BATCH_BLOBS_MAX: usize = 4_096;
/// Most hashes in one question for missing blobs. More: 413.
pub const MISSING_HASHES_MAX: usize = 50_000;
/// Bytes of a refused body that are still read, so that the client sees the refusal and no reset.
pub const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time that such reading may take.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a log or event stream sends a sign of life.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time that open requests have to end when the server stops.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(1_500);
/// Pause after the system refused a connection (too many open files).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Most rows of one page.
pub const PAGE_ROWS_MAX: u32 = 10_000;
/// Most bytes of a path segment or path that names something.
pub const NAME_BYTES_MAX: usize = 4_096;
/// Time in which a sign-in link can be used. Then it opens nothing.
pub const LINK_LIFE: Duration = Duration::from_secs(10 * 60);
/// Most links that wait to be used. More: the oldest ends.
pub const LINKS_MAX: usize = 64;
/// Longest life of a session. Then its person signs in again.
pub const SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest silence of a session. Then it ends.
pub const SESSION_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most sessions at a time. More: the one that was seen longest ago ends.
pub const SESSIONS_MAX: usize = 128;
