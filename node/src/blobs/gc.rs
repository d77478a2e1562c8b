//! Collection: under the quota the oldest unpinned content goes first; what is pinned or in use never goes.
//!
//! The store can delete only in its own collector's runs, and that would take everything without a tag. So its collector
//! is told, before each run, to protect all but the chosen victims, and it runs when we say so: its hook waits for a plan.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crdt::ids::BlobHash;
use iroh_blobs::store::{GcConfig, ProtectOutcome};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::error::{BlobError, store_error};
use super::limits::{DISK_RESERVE_BYTES, GC_LOW_WATER_PERCENT};
use super::{Blobs, Inner, Reservation, iroh_hash, now_ms, platform};

/// How much to free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcMode {
    /// Only what is above the quota.
    ToQuota,
    /// Everything that is neither pinned nor in use.
    All,
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs deleted, every part counted.
    pub deleted: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
}

/// Looks at a handle of the store that should have gone, and the time between them.
const STALE_TRIES: u32 = 50;
const STALE_WAIT: Duration = Duration::from_millis(20);

/// One run of the store's collector.
struct Plan {
    keep: Vec<BlobHash>,
    done: oneshot::Sender<()>,
}

/// Our end of the store's collector.
#[derive(Clone)]
pub(super) struct Collector {
    plans: mpsc::Sender<Plan>,
    ended: Arc<AtomicBool>,
}

struct Hook {
    plans: mpsc::Receiver<Plan>,
    running: Option<oneshot::Sender<()>>,
}

impl Collector {
    /// A collector and the configuration that ties the store to it.
    pub(super) fn new() -> (Self, GcConfig) {
        let (plans, receiver) = mpsc::channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let hook = Arc::new(Mutex::new(Hook { plans: receiver, running: None }));
        let flag = ended.clone();
        let protect: iroh_blobs::store::ProtectCb = Arc::new(move |live: &mut HashSet<iroh_blobs::Hash>| {
            let (hook, flag) = (hook.clone(), flag.clone());
            Box::pin(async move { next_run(&hook, &flag, live).await })
        });
        let config = GcConfig { interval: Duration::from_millis(1), add_protected: Some(protect) };
        (Self { plans, ended }, config)
    }

    /// Lets the store's collector end; call it once the store has been shut down.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    async fn run(&self, keep: Vec<BlobHash>) -> Result<(), BlobError> {
        let stopped = || BlobError::Store("its collector has stopped".to_owned());
        let (done, finished) = oneshot::channel();
        self.plans.send(Plan { keep, done }).await.map_err(|_| stopped())?;
        finished.await.map_err(|_| stopped())
    }
}

/// Called by the store before each run: reports the last one as done and waits for the next plan.
async fn next_run(hook: &Mutex<Hook>, ended: &AtomicBool, live: &mut HashSet<iroh_blobs::Hash>) -> ProtectOutcome {
    let mut hook = hook.lock().await;
    if let Some(done) = hook.running.take() {
        let _ = done.send(());
    }
    match hook.plans.recv().await {
        Some(plan) => {
            live.extend(plan.keep.iter().map(iroh_hash));
            hook.running = Some(plan.done);
            ProtectOutcome::Continue
        }
        // After a shutdown the run fails on the closed database and that ends the collector's task. Before it, a run
        // without a plan would delete what is not tagged.
        None if ended.load(Ordering::Acquire) => ProtectOutcome::Continue,
        None => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ProtectOutcome::Abort
        }
    }
}

impl Blobs {
    /// Ends pins whose time is over, then frees what the mode says, oldest use first.
    ///
    /// # Errors
    /// [`BlobError`]: the store failed.
    pub async fn gc(&self, mode: GcMode) -> Result<GcReport, BlobError> {
        let over = self.inner.index().pins_over(now_ms());
        self.remove_pins(&over).await?;
        let quota = self.inner.config().quota_bytes;
        let used = self.inner.index().committed();
        let bytes = match mode {
            GcMode::All => u64::MAX,
            GcMode::ToQuota if used <= quota => 0,
            GcMode::ToQuota => used - low_water(quota),
        };
        self.inner.collect(bytes).await
    }

    /// Collects in this rhythm until the store is shut down. Spawn it once.
    pub async fn gc_periodically(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.gc(GcMode::ToQuota).await {
                Ok(report) if report.deleted > 0 => {
                    tracing::info!(deleted = report.deleted, bytes = report.freed_bytes, "collected blobs");
                }
                Ok(_) => {}
                Err(BlobError::Closed) => return,
                Err(error) => tracing::warn!(%error, "collecting blobs failed"),
            }
        }
    }
}

fn low_water(quota: u64) -> u64 {
    quota - quota / 100 * (100 - GC_LOW_WATER_PERCENT)
}

impl Inner {
    /// Deletes unpinned content of at least this many bytes in all, if there is so much.
    async fn collect(self: &Arc<Self>, bytes: u64) -> Result<GcReport, BlobError> {
        if bytes == 0 {
            return Ok(GcReport::default());
        }
        let _shut = self.gate.write().await;
        let (victims, keep) = {
            let index = self.index();
            let victims = index.victims(bytes);
            let keep = index.keep(&victims);
            (victims, keep)
        };
        if victims.is_empty() {
            return Ok(GcReport::default());
        }
        self.collector()?.run(keep).await?;
        let mut report = GcReport::default();
        for hash in victims {
            let status = self.store()?.blobs().status(iroh_hash(&hash)).await;
            let status = status.map_err(|e| store_error(&self.dir, e))?;
            if !matches!(status, iroh_blobs::api::blobs::BlobStatus::NotFound) {
                continue;
            }
            let mut index = self.index();
            report.deleted += 1;
            report.freed_bytes += index.get(&hash).map_or(0, |entry| entry.size);
            index.forget(&hash);
        }
        Ok(report)
    }

    /// Deletes content that no longer matches its hash, so that it can be stored again. Its pins stay.
    pub(super) async fn scrap(&self, hashes: impl Iterator<Item = BlobHash>) -> Result<(), BlobError> {
        let bad = self.index().damaged_among(hashes);
        if bad.is_empty() {
            return Ok(());
        }
        let _shut = self.gate.write().await;
        let (names, keep) = {
            let index = self.index();
            (index.pins_over_any(&bad), index.keep(&bad))
        };
        let failed = |e| store_error(&self.dir, e);
        let store = self.store()?;
        let mut tags = Vec::new();
        for name in &names {
            // The tag is all that keeps the store from deleting; it comes back as it was.
            let tag = store.tags().get(name.to_tag()).await.map_err(failed)?;
            store.tags().delete(name.to_tag()).await.map_err(failed)?;
            tags.extend(tag);
        }
        let collector = self.collector();
        let run = match collector {
            Ok(collector) => collector.run(keep).await,
            Err(error) => Err(error),
        };
        for tag in tags {
            let content = tag.hash_and_format();
            store.tags().set(tag.name.0, content).await.map_err(failed)?;
        }
        run?;
        for hash in &bad {
            self.wait_until_gone(&store, hash).await;
        }
        let mut index = self.index();
        bad.iter().for_each(|hash| index.scrapped(hash));
        Ok(())
    }

    /// A handle of the store outlives the content's deletion by a moment, and would take the old file for the new one.
    async fn wait_until_gone(&self, store: &iroh_blobs::api::Store, hash: &BlobHash) {
        for _ in 0..STALE_TRIES {
            let seen = store.blobs().observe(iroh_hash(hash)).await;
            if seen.is_ok_and(|seen| seen.ranges.is_empty()) {
                return;
            }
            tokio::time::sleep(STALE_WAIT).await;
        }
    }

    fn collector(&self) -> Result<Collector, BlobError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.collector.clone().ok_or(BlobError::Closed)
    }

    /// Sets room aside, collecting when there is none.
    pub(super) async fn make_room(self: &Arc<Self>, bytes: u64) -> Result<Reservation, BlobError> {
        let quota = self.config().quota_bytes;
        let first = self.index().reserve(bytes, quota);
        if let Err(excess) = first {
            let slack = quota - low_water(quota);
            self.collect(excess.saturating_add(slack)).await?;
            let second = self.index().reserve(bytes, quota);
            if second.is_err() {
                let mut index = self.index();
                index.refuse(bytes);
                return Err(BlobError::QuotaExceeded { used: index.unfreeable(), quota });
            }
        }
        let reservation = Reservation { inner: self.clone(), bytes };
        let wanted = bytes.saturating_add(DISK_RESERVE_BYTES);
        let lacking = |dir: &std::path::Path| wanted.saturating_sub(platform::free_bytes(dir).unwrap_or(u64::MAX));
        if lacking(&self.dir) > 0 {
            self.collect(lacking(&self.dir)).await?;
        }
        if lacking(&self.dir) > 0 {
            return Err(BlobError::DiskFull { path: self.dir.clone() });
        }
        Ok(reservation)
    }
}
