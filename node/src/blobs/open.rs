//! Opening, closing and reviving the store, and reading into the index what it holds.
//!
//! A store whose database cannot be read is moved aside, never deleted, and an empty one takes its place.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crdt::ids::BlobHash;
use futures::StreamExt;
use iroh_blobs::BlobFormat;
use iroh_blobs::api::{Store, blobs::BlobStatus};
use iroh_blobs::store::fs::{FsStore, options::Options};
use tokio::sync::Semaphore;

use super::error::{BlobError, io_error, store_error};
use super::gc::Collector;
use super::index::{Entry, Index};
use super::limits::IMPORTS_MAX;
use super::pin::PinName;
use super::{Blobs, BlobsConfig, Inner, iroh_hash, now_ms, our_hash, platform, read};

/// The store while it is open.
#[derive(Default)]
pub(super) struct Live {
    pub(super) store: Option<Store>,
    pub(super) collector: Option<Collector>,
}

/// The result of opening a store.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub blobs: Blobs,
    /// The store was unreadable and has been begun anew.
    pub recovered: bool,
    /// Where the unreadable store has been moved.
    pub moved_to: Option<PathBuf>,
}

/// Why a directory does not open as a store.
enum Unopened {
    /// Its content is unreadable.
    Damaged(String),
    /// Anything else: the content may be in order.
    Refused(BlobError),
}

impl From<BlobError> for Unopened {
    fn from(error: BlobError) -> Self {
        if let BlobError::Store(_) | BlobError::Damaged { .. } = &error {
            return Self::Damaged(error.to_string());
        }
        Self::Refused(error)
    }
}

/// With less room than this, in bytes, a database that failed failed for that.
const DISK_FULL_BYTES: u64 = 1024 * 1024;
const STATUS_AT_ONCE: usize = 64;
const IDLE_WAIT_MAX: Duration = Duration::from_secs(2);

impl Blobs {
    /// Opens the store in this directory, creating it when there is none.
    ///
    /// Costs a look at each blob's record (about 20 µs each).
    ///
    /// # Errors
    /// [`BlobError::InUse`]: another process has it open. [`BlobError::DiskFull`], [`BlobError::File`]: the system
    /// refused. An unreadable store is no error: see [`Opened::recovered`].
    pub async fn open(dir: &Path, config: BlobsConfig) -> Result<Opened, BlobError> {
        let (reason, moved_to) = match open_dir(dir).await {
            Ok((live, index)) => {
                return Ok(Opened { blobs: Self::new(dir, config, live, index), recovered: false, moved_to: None });
            }
            Err(Unopened::Refused(error)) => return Err(error),
            Err(Unopened::Damaged(reason)) => (reason, move_aside(dir)?),
        };
        tracing::error!(%reason, moved_to = %moved_to.display(), "the blob store was unreadable and is begun anew");
        match open_dir(dir).await {
            Ok((live, index)) => {
                Ok(Opened { blobs: Self::new(dir, config, live, index), recovered: true, moved_to: Some(moved_to) })
            }
            Err(Unopened::Refused(error)) => Err(error),
            Err(Unopened::Damaged(reason)) => Err(BlobError::Store(reason)),
        }
    }

    fn new(dir: &Path, config: BlobsConfig, live: Live, index: Index) -> Self {
        let inner = Inner {
            dir: dir.to_owned(),
            config: RwLock::new(config),
            live: RwLock::new(live),
            reopening: tokio::sync::Mutex::new(()),
            index: Mutex::new(index),
            gate: tokio::sync::RwLock::new(()),
            imports: Semaphore::new(IMPORTS_MAX as usize),
            unsynced: Mutex::new(Vec::new()),
            dialer: OnceLock::new(),
            fetching: Mutex::new(BTreeMap::new()),
            peers: Mutex::new(BTreeMap::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Closes the store in order. Every later call on any handle answers [`BlobError::Closed`].
    pub async fn shutdown(&self) {
        let _shut = self.inner.gate.write().await;
        let live = std::mem::take(&mut *self.inner.live.write().unwrap_or_else(PoisonError::into_inner));
        let ages = self.inner.index().ages();
        if live.store.is_some() {
            write_ages(&self.inner.dir, &ages);
        }
        close(live).await;
    }

    /// Passes a result on; when the store has stopped working (a full disk stops its database), opens it again first.
    pub(super) async fn checked<T>(&self, result: Result<T, BlobError>) -> Result<T, BlobError> {
        if let Err(BlobError::Store(_) | BlobError::DiskFull { .. } | BlobError::File { .. }) = &result
            && let Err(error) = self.inner.revive().await
        {
            tracing::error!(%error, "the blob store does not open again");
        }
        // The store's words for a disk that filled up under its database do not say so.
        match result {
            Err(BlobError::Store(_))
                if platform::free_bytes(&self.inner.dir).is_some_and(|free| free < DISK_FULL_BYTES) =>
            {
                Err(BlobError::DiskFull { path: self.inner.dir.clone() })
            }
            other => other,
        }
    }
}

impl Inner {
    async fn revive(&self) -> Result<(), BlobError> {
        let _one = self.reopening.lock().await;
        let Ok(store) = self.store() else {
            return Ok(());
        };
        if store.sync_db().await.is_ok() {
            return Ok(());
        }
        let _shut = self.gate.write().await;
        let old = std::mem::take(&mut *self.live.write().unwrap_or_else(PoisonError::into_inner));
        close(Live { store: old.store.clone(), collector: old.collector.clone() }).await;
        match load(&self.dir).await {
            Ok((live, mut index)) => {
                let mut current = self.index();
                index.keep_uses_of(std::mem::take(&mut *current));
                *current = index;
                drop(current);
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
                tracing::warn!(dir = %self.dir.display(), "the blob store has been opened again");
                Ok(())
            }
            Err(unopened) => {
                // The dead store stays in place, so that the next failure tries again.
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = old;
                match unopened {
                    Unopened::Refused(error) => Err(error),
                    Unopened::Damaged(reason) => Err(BlobError::Store(reason)),
                }
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let live = std::mem::take(&mut *self.live.write().unwrap_or_else(PoisonError::into_inner));
        if live.store.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(close(live));
        }
    }
}

async fn close(live: Live) {
    if let Some(store) = live.store {
        // Partial blobs write down what they have once they are idle.
        let _ = tokio::time::timeout(IDLE_WAIT_MAX, store.wait_idle()).await;
        if let Err(error) = store.shutdown().await {
            tracing::warn!(%error, "the blob store did not shut down in order");
        }
    }
    if let Some(collector) = live.collector {
        collector.end();
    }
}

async fn open_dir(dir: &Path) -> Result<(Live, Index), Unopened> {
    let path = dir.to_owned();
    let prepared = tokio::task::spawn_blocking(move || prepare(&path)).await;
    match prepared {
        Ok(result) => result?,
        Err(panic) => return Err(Unopened::Damaged(panic.to_string())),
    }
    load(dir).await
}

/// Makes the directory, clears what a crash left and tries the database, so that its errors keep their types.
fn prepare(dir: &Path) -> Result<(), Unopened> {
    let refuse = |e| Unopened::Refused(io_error(dir, e));
    std::fs::create_dir_all(dir).map_err(refuse)?;
    match redb::Database::create(dir.join("blobs.db")) {
        Ok(database) => drop(database),
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
            return Err(Unopened::Refused(BlobError::InUse { dir: dir.to_owned() }));
        }
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(e))) if !is_damage(&e) => {
            return Err(refuse(e));
        }
        Err(error) => return Err(Unopened::Damaged(error.to_string())),
    }
    if let Ok(left) = std::fs::read_dir(dir.join("temp")) {
        for file in left.flatten() {
            let _ = std::fs::remove_file(file.path());
        }
    }
    Ok(())
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

async fn load(dir: &Path) -> Result<(Live, Index), Unopened> {
    let (collector, gc) = Collector::new();
    let options = Options { gc: Some(gc), ..Options::new(dir) };
    let store = FsStore::load_with_opts(dir.join("blobs.db"), options).await;
    let store: Store = store.map_err(|e| Unopened::Damaged(format!("{e:#}")))?.into();
    let live = Live { store: Some(store.clone()), collector: Some(collector) };
    match read_index(dir, &store).await {
        Ok(index) => Ok((live, index)),
        Err(error) => {
            close(live).await;
            Err(error.into())
        }
    }
}

async fn read_index(dir: &Path, store: &Store) -> Result<Index, BlobError> {
    let failed = |e: iroh_blobs::api::Error| store_error(dir, e);
    let ages = read_ages(dir);
    let mut index = Index::default();
    let hashes = store.blobs().list().hashes().await.map_err(|e| failed(e.into()))?;
    let mut statuses = futures::stream::iter(hashes)
        .map(|hash| async move { (hash, store.blobs().status(hash).await) })
        .buffer_unordered(STATUS_AT_ONCE);
    while let Some((hash, status)) = statuses.next().await {
        let hash = our_hash(hash);
        let path = dir.join("data").join(format!("{hash}.data"));
        let (size, complete) = match status.map_err(|e| failed(e.into()))? {
            BlobStatus::NotFound => continue,
            BlobStatus::Partial { .. } => (std::fs::metadata(&path).map_or(0, |m| m.len()), false),
            BlobStatus::Complete { size } => (size, true),
        };
        let used_ms = ages.get(&hash).copied().or_else(|| modified_ms(&path)).unwrap_or_else(now_ms);
        index.put(hash, Entry { size, complete, used_ms });
    }
    drop(statuses);
    drop_orphans(dir, &index);
    let tags: Vec<_> = store.tags().list().await.map_err(|e| failed(e.into()))?.collect().await;
    for tag in tags {
        let tag = tag.map_err(failed)?;
        let Some(name) = PinName::from_tag(&tag.name.0) else {
            continue;
        };
        if tag.format == BlobFormat::HashSeq && index.is_complete(&name.hash) && index.parts(&name.hash).is_none() {
            let bytes = store.blobs().get_bytes(iroh_hash(&name.hash)).await;
            if let Some(parts) = bytes.ok().and_then(|bytes| read::split_hashes(&bytes)) {
                index.set_parts(name.hash, parts.into());
            }
        }
        index.pin(name);
    }
    Ok(index)
}

/// Removes files that no record names: a crash leaves them between the first write and the record's commit.
fn drop_orphans(dir: &Path, index: &Index) {
    let Ok(files) = std::fs::read_dir(dir.join("data")) else {
        return;
    };
    for file in files.flatten() {
        let name = file.file_name();
        let hash = name.to_str().and_then(|name| name.split('.').next()).and_then(|stem| stem.parse::<BlobHash>().ok());
        if hash.is_some_and(|hash| index.get(&hash).is_none()) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

fn modified_ms(path: &Path) -> Option<u64> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn move_aside(dir: &Path) -> Result<PathBuf, BlobError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for attempt in 0..100 {
        let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        let target = dir.with_file_name(format!("{name}.damaged-{stamp}{suffix}"));
        if target.exists() {
            continue;
        }
        std::fs::rename(dir, &target).map_err(|e| io_error(dir, e))?;
        return Ok(target);
    }
    Err(BlobError::Store(format!("no free name to move {} to", dir.display())))
}

fn ages_path(dir: &Path) -> PathBuf {
    dir.join("ages.cbor")
}

/// Writes the last uses down; losing them costs only a worse choice of victims.
fn write_ages(dir: &Path, ages: &[(BlobHash, u64)]) {
    let temp = dir.join("ages.cbor.new");
    let written = std::fs::write(&temp, crdt::cbor::encode(ages)).and_then(|()| std::fs::rename(&temp, ages_path(dir)));
    if let Err(error) = written {
        tracing::warn!(%error, "could not write down the blobs' last uses");
    }
}

fn read_ages(dir: &Path) -> BTreeMap<BlobHash, u64> {
    let Ok(bytes) = std::fs::read(ages_path(dir)) else {
        return BTreeMap::new();
    };
    let ages: Vec<(BlobHash, u64)> = crdt::cbor::decode(&bytes).unwrap_or_default();
    ages.into_iter().collect()
}
