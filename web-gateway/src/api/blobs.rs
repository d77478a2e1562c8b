//! Blobs as they come in and go out: always streams, never whole in memory.

use std::fmt;

use bytes::Bytes;
use crdt::ids::BlobHash;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Bytes on their way; an error ends them.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Which bytes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactKey {
    /// A blob by its hash.
    Blob(BlobHash),
    /// A file of a job.
    File {
        /// The job, or an unambiguous prefix.
        job: String,
        /// Index of the task; without it that of a job of one task, or of the first task that has the path.
        task: Option<u32>,
        /// The attempt; without it the accepted one, else the newest that has any artifact.
        attempt: Option<u32>,
        /// Path as [`super::ArtifactView::path`] shows it.
        path: String,
    },
}

/// A range of bytes; `end` is exclusive and may lie behind the end of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// A blob's bytes on their way out.
pub struct BlobBody {
    /// Its hash.
    pub hash: BlobHash,
    /// Size of the whole blob, in bytes.
    pub size: u64,
    /// The bytes, of the range alone where one was asked for.
    pub stream: ByteStream,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobBody").field("hash", &self.hash).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Hashes to look for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MissingQuery {
    /// Hashes, 50,000 at most.
    pub hashes: Vec<String>,
}

/// Hashes that this node does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingAnswer {
    /// The hashes, in the order asked.
    pub missing: Vec<String>,
}

/// A blob stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobAdded {
    /// Its hash.
    pub blob: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A tree's manifest stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeAdded {
    /// Hash of the manifest, for a job's `input`.
    pub tree: String,
    /// Files that it names and that this node does not hold yet.
    pub missing: Vec<String>,
}

/// Which blobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BlobsQuery {
    /// Most rows to return; 1,000 without it, 10,000 at most.
    pub limit: Option<u32>,
    /// Where the page before ended (its `v6-next` header).
    pub cursor: Option<String>,
}

/// A blob held here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobRow {
    /// Its hash.
    pub blob: String,
    /// Its size in bytes.
    pub size: u64,
    /// What keeps it ("job …", "replica for 40 min"); empty: nothing does.
    pub pinned_by: Vec<String>,
    /// Other nodes known to hold it.
    #[serde(default)]
    pub holders: Vec<String>,
}

/// What a collection freed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcReport {
    /// Blobs dropped.
    pub blobs_dropped: u64,
    /// Bytes freed.
    pub bytes_freed: u64,
    /// Bytes still held.
    pub bytes_held: u64,
}
