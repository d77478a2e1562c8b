//! Content-addressed bytes: stored, verified, moved between members, kept by pins and bounded by a quota.
//!
//! The store and the transfer protocol are `iroh-blobs` (BLAKE3 verified streaming); the streams are whatever the caller
//! hands in. A blob above [`limits::PART_BYTES`] is a list of parts (a hash sequence), so that it can be fetched from
//! several holders at once and resumed by part; its name is the hash of that list.
//!
//! Nothing is deleted outside a collection, and no collection touches what is pinned or in use: whoever relies on
//! content holds it first, and waits for that while a collection runs.

pub mod limits;

mod add;
mod error;
mod fetch;
mod gc;
mod index;
mod name;
mod open;
mod pin;
mod platform;
mod read;
mod serve;
mod stream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crdt::ids::{BlobHash, NodeId};
use iroh_blobs::api::{Store, blobs::BlobStatus};
use iroh_blobs::{BlobFormat, HashAndFormat};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub(crate) use error::is_disk_full;
pub use error::{BlobError, DialError, FetchError, HolderFault, ServeError};
pub use fetch::{FetchProgress, FetchReport};
pub use gc::{GcMode, GcReport};
pub use index::Usage;
pub use name::BlobNamer;
pub use open::Opened;
pub use pin::{Pin, PinName, PinReason};
pub use read::BlobReader;
pub use serve::ServeReport;
pub use stream::{BoxFuture, BoxedStream, Dialer, DuplexStream};

use index::Index;

/// A blob's name and size: enough to fetch and read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the bytes; of a blob in parts that of the list of its parts' hashes.
    pub hash: BlobHash,
    /// Bytes of the whole.
    pub size: u64,
}

/// How a blob is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// In one piece.
    Raw,
    /// As parts under a list of their hashes.
    Parts,
}

impl BlobRef {
    /// The blob without bytes, which is always here.
    pub const EMPTY: Self = Self { hash: BlobHash(EMPTY_HASH), size: 0 };

    /// How it is stored: that follows from the size, so that nobody can claim otherwise.
    #[must_use]
    pub const fn kind(&self) -> BlobKind {
        if self.size > limits::PART_BYTES { BlobKind::Parts } else { BlobKind::Raw }
    }

    /// Number of parts; 0 for a raw blob.
    #[must_use]
    pub const fn part_count(&self) -> u64 {
        match self.kind() {
            BlobKind::Raw => 0,
            BlobKind::Parts => self.size.div_ceil(limits::PART_BYTES),
        }
    }

    /// Size of the part with this index, in bytes.
    const fn part_size(&self, index: u64) -> u64 {
        let rest = self.size.saturating_sub(index.saturating_mul(limits::PART_BYTES));
        if rest < limits::PART_BYTES { rest } else { limits::PART_BYTES }
    }

    fn content(&self) -> HashAndFormat {
        let format = match self.kind() {
            BlobKind::Raw => BlobFormat::Raw,
            BlobKind::Parts => BlobFormat::HashSeq,
        };
        HashAndFormat { hash: iroh_hash(&self.hash), format }
    }
}

/// BLAKE3 of nothing.
const EMPTY_HASH: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49, 0x9b, 0xcb, 0x25,
    0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// What the store may take.
#[derive(Debug, Clone, Copy)]
pub struct BlobsConfig {
    /// Bytes of content, pinned or not. At the bound the oldest unpinned go; when that is not enough, nothing is taken.
    pub quota_bytes: u64,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// The blob, the part, or the list of parts.
    pub hash: BlobHash,
    /// Bytes it takes here.
    pub stored_bytes: u64,
    /// Bytes of the whole blob that the hash names, when all of it is here.
    pub size: Option<u64>,
    /// All of it is here (of a list of parts: the list).
    pub complete: bool,
    /// Last use, in Unix milliseconds.
    pub used_ms: u64,
    /// Why it stays; empty when it may be collected.
    pub pins: Vec<PinReason>,
}

/// The blob store of this node: a handle.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

struct Inner {
    dir: PathBuf,
    config: RwLock<BlobsConfig>,
    live: RwLock<open::Live>,
    reopening: tokio::sync::Mutex<()>,
    index: Mutex<Index>,
    /// Held for writing by a collection, for reading by whoever starts to rely on content.
    gate: tokio::sync::RwLock<()>,
    imports: Semaphore,
    /// Content whose files have not been synced yet.
    unsynced: Mutex<Vec<BlobHash>>,
    dialer: OnceLock<Arc<dyn Dialer>>,
    fetching: Mutex<BTreeMap<BlobHash, std::sync::Weak<tokio::sync::Mutex<()>>>>,
    peers: Mutex<BTreeMap<NodeId, Arc<serve::PeerGate>>>,
}

/// Keeps content from being collected while it is in use.
struct Held {
    inner: Arc<Inner>,
    hashes: Vec<BlobHash>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut index = self.inner.index();
        for hash in &self.hashes {
            index.release(hash);
        }
    }
}

/// Room set aside under the quota.
struct Reservation {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.index().unreserve(self.bytes);
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> BlobsConfig {
        *self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Result<Store, BlobError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.store.clone().ok_or(BlobError::Closed)
    }

    fn data_path(&self, hash: &BlobHash) -> PathBuf {
        self.dir.join("data").join(format!("{hash}.data"))
    }

    /// Holds content; waits while a collection runs.
    async fn hold(self: &Arc<Self>, hashes: Vec<BlobHash>) -> Held {
        let _open = self.gate.read().await;
        let mut index = self.index();
        for hash in &hashes {
            index.hold(*hash);
        }
        Held { inner: self.clone(), hashes: hashes.clone() }
    }

    /// Sets the tag and mirrors it. The content must be held.
    async fn set_pin(&self, blob: &BlobRef, reason: &PinReason) -> Result<(), BlobError> {
        if blob.size == 0 {
            return Ok(());
        }
        let name = PinName { reason: reason.clone(), hash: blob.hash };
        let _open = self.gate.read().await;
        let set = self.store()?.tags().set(name.to_tag(), blob.content()).await;
        set.map_err(|e| error::store_error(&self.dir, e))?;
        self.index().pin(name);
        Ok(())
    }
}

impl Blobs {
    /// Sets how holders are reached. Only the first call counts.
    pub fn set_dialer(&self, dialer: Arc<dyn Dialer>) {
        let _ = self.inner.dialer.set(dialer);
    }

    /// Changes the quota, in bytes; a lower one takes effect at the next collection.
    pub fn set_quota(&self, quota_bytes: u64) {
        let mut config = self.inner.config.write().unwrap_or_else(PoisonError::into_inner);
        config.quota_bytes = quota_bytes;
    }

    /// Whether all of a blob is here. No disk access.
    #[must_use]
    pub fn has(&self, blob: &BlobRef) -> bool {
        if blob.size == 0 {
            return blob.hash == BlobRef::EMPTY.hash;
        }
        self.inner.index().total(&blob.hash) == Some(blob.size)
    }

    /// Which of these are not (all) here. No disk access.
    #[must_use]
    pub fn missing(&self, blobs: &[BlobRef]) -> Vec<BlobRef> {
        blobs.iter().filter(|blob| !self.has(blob)).copied().collect()
    }

    /// The blob that a hash names, when all of it is here: for users, who type hashes.
    #[must_use]
    pub fn resolve(&self, hash: &BlobHash) -> Option<BlobRef> {
        if *hash == BlobRef::EMPTY.hash {
            return Some(BlobRef::EMPTY);
        }
        self.inner.index().total(hash).map(|size| BlobRef { hash: *hash, size })
    }

    /// Size in bytes of the blob that a hash names, when all of it is here.
    #[must_use]
    pub fn size(&self, hash: &BlobHash) -> Option<u64> {
        self.resolve(hash).map(|blob| blob.size)
    }

    /// What is stored after this hash, in the order of the hashes; at most [`limits::PAGE_MAX`].
    #[must_use]
    pub fn list(&self, after: Option<BlobHash>, limit: usize) -> Vec<BlobInfo> {
        let index = self.inner.index();
        let page = index.page(after, limit.min(limits::PAGE_MAX));
        let line = |(hash, entry): (BlobHash, index::Entry)| BlobInfo {
            hash,
            stored_bytes: entry.size,
            size: index.total(&hash),
            complete: entry.complete,
            used_ms: entry.used_ms,
            pins: index.reasons_of(&hash),
        };
        page.into_iter().map(line).collect()
    }

    /// The store in numbers.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.index().usage(self.inner.config().quota_bytes)
    }

    /// Pins a blob that is here.
    ///
    /// # Errors
    /// [`BlobError::NotFound`]: it is not (all) here.
    pub async fn pin(&self, blob: &BlobRef, pin: &Pin) -> Result<(), BlobError> {
        let held = self.hold_all(blob).await?;
        let pinned = self.inner.set_pin(blob, &pin.reason).await;
        drop(held);
        self.checked(pinned).await
    }

    /// Ends all pins of a reason; returns how many there were. The content stays until room is needed.
    ///
    /// # Errors
    /// [`BlobError`]: the store failed.
    pub async fn unpin(&self, reason: &PinReason) -> Result<usize, BlobError> {
        let names = self.inner.index().pins_of(reason);
        let removed = self.remove_pins(&names).await;
        self.checked(removed).await?;
        Ok(names.len())
    }

    /// Jobs that pin something here.
    #[must_use]
    pub fn pinned_jobs(&self) -> std::collections::BTreeSet<crdt::ids::JobId> {
        self.inner.index().pinned_jobs()
    }

    /// Ends the pin of one blob for one reason.
    ///
    /// # Errors
    /// [`BlobError`]: the store failed.
    pub async fn unpin_blob(&self, hash: &BlobHash, reason: &PinReason) -> Result<(), BlobError> {
        self.remove_pins(&[PinName { reason: reason.clone(), hash: *hash }]).await
    }

    async fn remove_pins(&self, names: &[PinName]) -> Result<(), BlobError> {
        let store = self.inner.store()?;
        for name in names {
            let deleted = store.tags().delete(name.to_tag()).await;
            deleted.map_err(|e| error::store_error(&self.inner.dir, e))?;
            self.inner.index().unpin(name);
        }
        Ok(())
    }

    /// Holds a blob with all its parts, or says what is missing.
    async fn hold_all(&self, blob: &BlobRef) -> Result<Held, BlobError> {
        let mut held = self.inner.hold(vec![blob.hash]).await;
        let parts = match blob.kind() {
            BlobKind::Raw => Arc::from([]),
            BlobKind::Parts => self.parts(blob).await?,
        };
        if !parts.is_empty() {
            let more = self.inner.hold(parts.to_vec()).await;
            held = merge(held, more);
        }
        let index = self.inner.index();
        let gone = held.hashes.iter().find(|hash| blob.size != 0 && !index.is_complete(hash)).copied();
        drop(index);
        match gone {
            Some(hash) => Err(BlobError::NotFound { hash }),
            None => Ok(held),
        }
    }

    /// Makes everything added, fetched and pinned so far survive a crash of the machine. Call it before telling others.
    ///
    /// Costs a commit of the store's database, and a sync of each file written since the last call.
    ///
    /// # Errors
    /// [`BlobError`]: it could not be made durable.
    pub async fn sync(&self) -> Result<(), BlobError> {
        let hashes = std::mem::take(&mut *self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        let paths: Vec<_> = hashes.iter().map(|hash| self.inner.data_path(hash)).collect();
        let dir = self.inner.dir.join("data");
        let synced = tokio::task::spawn_blocking(move || platform::sync_files(&paths, &dir)).await;
        synced
            .map_err(|e| BlobError::Store(e.to_string()))?
            .map_err(|e| error::io_error(&self.inner.dir.join("data"), e))?;
        let done = self.inner.store()?.sync_db().await;
        self.checked(done.map_err(|e| error::store_error(&self.inner.dir, e))).await
    }

    /// Whether the store itself, not the index, has all of a hash.
    async fn is_stored(&self, hash: &BlobHash) -> Result<bool, BlobError> {
        let status = self.inner.store()?.blobs().status(iroh_hash(hash)).await;
        let status = status.map_err(|e| error::store_error(&self.inner.dir, e))?;
        Ok(matches!(status, BlobStatus::Complete { .. }))
    }
}

fn merge(mut one: Held, mut other: Held) -> Held {
    one.hashes.append(&mut other.hashes);
    one
}

fn iroh_hash(hash: &BlobHash) -> iroh_blobs::Hash {
    iroh_blobs::Hash::from_bytes(hash.0)
}

fn our_hash(hash: iroh_blobs::Hash) -> BlobHash {
    BlobHash(*hash.as_bytes())
}

/// Unix time in milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
