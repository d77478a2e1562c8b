//! What can go wrong with blobs, named after what the caller can do about it.

use std::io;
use std::path::PathBuf;

use crdt::ids::{BlobHash, NodeId};

/// Why an operation on the local store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The blob, or a part of it, is not here: fetch it.
    #[error("blob {hash} is not stored here; fetch it from a holder")]
    NotFound {
        /// The blob, or the part of it that is missing.
        hash: BlobHash,
    },
    /// What the disk holds no longer matches the hash: fetch it again.
    #[error("blob {hash} is damaged on disk ({reason}); fetch it again from another holder")]
    Damaged {
        /// The blob, or the part of it that is damaged.
        hash: BlobHash,
        /// What was found.
        reason: String,
    },
    /// Pinned content leaves no room under the quota: unpin something or raise the quota.
    #[error("the blob store's quota is used up ({used} of {quota} bytes are pinned or in use); free some or raise it")]
    QuotaExceeded {
        /// Bytes that cannot be freed.
        used: u64,
        /// The quota in bytes.
        quota: u64,
    },
    /// The disk is full.
    #[error("the disk of {path} is full; free some space there")]
    DiskFull {
        /// Where it was to be written.
        path: PathBuf,
    },
    /// More bytes than allowed.
    #[error("{size} bytes are more than the {max} that are allowed here")]
    TooLarge {
        /// The size in bytes, as far as it is known.
        size: u64,
        /// The bound in bytes.
        max: u64,
    },
    /// The blob is not a list of parts that fits the declared size.
    #[error("blob {hash} is not a list of parts for {size} bytes")]
    NotParts {
        /// The blob.
        hash: BlobHash,
        /// The declared size in bytes.
        size: u64,
    },
    /// Not a regular file.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("the blob store {dir} is in use by another process")]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store did not do its work; it has been opened again where that was possible.
    #[error("the blob store failed: {0}")]
    Store(String),
    /// The store has been shut down.
    #[error("the blob store is shut down")]
    Closed,
}

/// Why a stream to a holder could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);

/// What one holder did wrong in a fetch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HolderFault {
    /// No stream could be opened.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It does not have what it was asked for.
    #[error("does not have it")]
    Lacks,
    /// The stream broke or stood still.
    #[error("the transfer broke: {0}")]
    Broken(String),
    /// It sent bytes that do not match the hash.
    #[error("sent corrupt data")]
    Corrupt,
    /// It announced another size than the blob's.
    #[error("announced {announced} bytes instead of {expected}")]
    WrongSize {
        /// What it announced.
        announced: u64,
        /// The declared size.
        expected: u64,
    },
}

/// Why a fetch did not complete. What arrived stays and is not fetched again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No holder was given.
    #[error("no holder of blob {hash} is known")]
    NoHolder {
        /// The blob.
        hash: BlobHash,
    },
    /// Every holder failed for some of it.
    #[error("blob {hash}: no holder could give the rest ({})", list(.faults))]
    Incomplete {
        /// The blob.
        hash: BlobHash,
        /// What each holder did wrong last.
        faults: Vec<(NodeId, HolderFault)>,
        /// What has been moved before it failed.
        report: super::FetchReport,
    },
    /// The local store refused or failed.
    #[error(transparent)]
    Local(#[from] BlobError),
}

fn list(faults: &[(NodeId, HolderFault)]) -> String {
    let texts: Vec<_> = faults.iter().map(|(node, fault)| format!("{}: {fault}", node.short())).collect();
    texts.join("; ")
}

/// Why a request of a peer was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Too many requests of this peer wait already.
    #[error("too many requests of one peer")]
    Busy,
    /// Not a request that is answered here.
    #[error("refused request: {0}")]
    Refused(String),
    /// The stream broke, or the blob is not here.
    #[error("answering a request broke off: {0}")]
    Broken(String),
}

/// Turns an error of the store into ours, keeping a full disk apart.
pub(super) fn store_error(path: &std::path::Path, error: impl Into<iroh_blobs::api::Error>) -> BlobError {
    let iroh_blobs::api::Error::Io(source) = error.into();
    io_error(path, source)
}

/// Turns an I/O error into ours, keeping a full disk apart.
pub(super) fn io_error(path: &std::path::Path, source: io::Error) -> BlobError {
    if is_disk_full(&source) {
        BlobError::DiskFull { path: path.to_owned() }
    } else if source.get_ref().is_some_and(|inner| !inner.is::<io::Error>()) {
        BlobError::Store(source.to_string())
    } else {
        BlobError::File { path: path.to_owned(), source }
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return true;
    }
    // The store's database wraps the system's error more than once.
    let mut source = error.get_ref().map(|e| e as &(dyn std::error::Error + 'static));
    while let Some(inner) = source {
        if inner.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        source = inner.source();
    }
    error.to_string().contains("No space left on device")
}
