//! What a run leaves: artifacts and checkpoints are stored when they change, copied to other nodes and reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crdt::ids::{BlobHash, JobId, NodeId};
use crdt::job::{ArtifactList, ArtifactRef, CheckpointRef, ClaimId, LogRef};
use crdt::limits::{ARTIFACTS_INLINE_MAX, ARTIFACTS_PER_RUN_MAX, LOG_INLINE_BYTES_MAX};
use mesh::Input;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::copies::{Copies, Item};
use super::places::{CHECKPOINTS, WORKSPACE};
use super::trees;
use crate::blobs::{BlobError, BlobKind, BlobRef, Pin, PinReason};
use crate::daemon::{Shared, accepting};
use crate::joblog::JobLog;
use crate::tree::{self, Checkpoint, Globs, Snapshot};

/// Interval in which changed files are looked for while a job runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time that the end of a run waits for a second holder of its files.
const SECOND_HOLDER_WAIT: Duration = Duration::from_secs(20);
/// The same where somebody ended the run.
const SECOND_HOLDER_WAIT_ENDED: Duration = Duration::from_secs(1);
/// How often a run that ended looks for room for its files, and the time in between.
const LAST_LOOKS: u32 = 3;
const LAST_LOOK_AFTER: Duration = Duration::from_millis(500);
/// Interval in which the end of a run asks again.
const ASK_AGAIN_EVERY: Duration = Duration::from_millis(250);
/// Names of checkpoints that are remembered as seen; beyond, the run's checkpoints are no longer looked for.
const CHECKPOINTS_SEEN_MAX: usize = 100_000;

/// A stored checkpoint.
#[derive(Debug, Clone)]
struct Stored {
    checkpoint: CheckpointRef,
    blobs: BTreeSet<BlobHash>,
}

impl Stored {
    fn item(&self) -> Item {
        Item { blob: BlobRef { hash: self.checkpoint.tree, size: self.checkpoint.manifest_bytes }, tree: true }
    }
}

/// The files of one run.
pub(super) struct Outputs {
    shared: Arc<Shared>,
    job: JobId,
    claim: ClaimId,
    array: bool,
    dir: PathBuf,
    globs: Option<Arc<Globs>>,
    looks: BTreeMap<u32, Snapshot>,
    artifacts: BTreeMap<(u32, Vec<u8>), ArtifactRef>,
    /// Where they are named, when they are too many for a report.
    list: Option<ArtifactList>,
    /// Files were left out, and the owner was told.
    cut: bool,
    log: Option<BlobRef>,
    seen: BTreeSet<Vec<u8>>,
    /// Waits for a second holder.
    pending: Option<Stored>,
    published: Option<Stored>,
    copies: Copies,
    changed: bool,
    reported_holders: Vec<NodeId>,
    /// Whether the last look found a file for which there is no room.
    failed: bool,
}

impl Outputs {
    pub(super) fn new(shared: &Arc<Shared>, work: &super::Work, dir: PathBuf) -> anyhow::Result<Self> {
        let outputs = &work.spec.outputs;
        let globs = if outputs.is_empty() { None } else { Some(Arc::new(Globs::new(outputs)?)) };
        // The submitter is the first of the holders that the core names.
        let submitter = work.holders.first().copied().unwrap_or(shared.me);
        Ok(Self {
            shared: Arc::clone(shared),
            job: work.job,
            claim: work.claim,
            array: work.spec.array > 0,
            dir,
            globs,
            looks: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            list: None,
            cut: false,
            log: None,
            seen: BTreeSet::new(),
            pending: None,
            published: None,
            copies: Copies::new(Arc::clone(shared), work.job, submitter),
            changed: false,
            reported_holders: Vec::new(),
            failed: false,
        })
    }

    /// Looks for changes until it is told to stop.
    pub(super) async fn watch(mut self, mut stop: oneshot::Receiver<()>) -> Self {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return self,
                Some(()) = self.copies.answered() => {}
                _ = tick.tick() => {
                    self.look().await;
                    self.copies.ask_for(&self.wanted()).await;
                }
            }
            self.report().await;
        }
    }

    /// Takes in what has changed last, seals the log, and waits for a second holder where one can be had. Answers the log; `None`
    /// where it or a file could not be stored.
    pub(super) async fn finish(mut self, log: &JobLog, hurried: bool) -> Option<LogRef> {
        for _ in 0..LAST_LOOKS {
            self.failed = false;
            self.look().await;
            if !self.failed || hurried {
                break;
            }
            tokio::time::sleep(LAST_LOOK_AFTER).await;
        }
        let log = self.seal(log).await.filter(|_| !self.failed || hurried);
        if let Some(LogRef::Blob(hash, size)) = &log {
            self.log = Some(BlobRef { hash: *hash, size: *size });
        }
        self.report().await;
        let wait = if hurried { SECOND_HOLDER_WAIT_ENDED } else { SECOND_HOLDER_WAIT };
        let deadline = Instant::now() + wait;
        while self.copies.ask_for(&self.wanted()).await {
            let wanted = self.wanted();
            if !self.copies.holders(&wanted).is_empty() {
                break;
            }
            tokio::select! {
                Some(()) = self.copies.answered() => {}
                () = tokio::time::sleep(ASK_AGAIN_EVERY) => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.report().await;
        self.copies.let_go();
        log
    }

    /// Everything that another node should hold.
    fn wanted(&self) -> BTreeSet<Item> {
        let artifacts = self.artifacts.values().map(|a| BlobRef { hash: a.blob, size: a.size });
        let list = self.list.map(|list| BlobRef { hash: list.blob, size: list.size });
        let blobs =
            artifacts.chain(list).chain(self.log).filter(|blob| blob.size > 0).map(|blob| Item { blob, tree: false });
        let checkpoint = self.pending.as_ref().or(self.published.as_ref());
        blobs.chain(checkpoint.map(Stored::item)).collect()
    }

    async fn look(&mut self) {
        let range = self.claim.range;
        if let Some(globs) = self.globs.clone() {
            for task in range.start..range.end {
                self.collect(task, Arc::clone(&globs)).await;
            }
        }
        // Of several tasks one directory cannot say whose checkpoint it is.
        if range.len() == 1 && !(self.pending.is_some() && self.copies.is_busy()) {
            self.take_checkpoint().await;
        }
        if self.changed {
            self.write_list().await;
            drop(self.shared.blobs.sync().await);
        }
    }

    /// Stores the list of the artifacts, when they are too many for a report.
    async fn write_list(&mut self) {
        let old = self.list.take();
        if self.artifacts.len() > ARTIFACTS_INLINE_MAX {
            let all: Vec<ArtifactRef> = self.artifacts.values().cloned().collect();
            let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
            match self.shared.blobs.add_bytes(ArtifactList::encode(&all).into(), &Pin::job(self.job)).await {
                Ok(blob) => self.list = Some(ArtifactList { blob: blob.hash, size: blob.size, count }),
                Err(error) => tracing::warn!(%error, "the list of a run's files could not be stored"),
            }
        }
        let gone = old.filter(|old| Some(old.blob) != self.list.map(|list| list.blob));
        self.release(gone.map(|old| old.blob)).await;
    }

    /// Stores the artifacts of one task that changed.
    async fn collect(&mut self, task: u32, globs: Arc<Globs>) {
        let workspace = self.dir.join(WORKSPACE);
        let root = if self.array { workspace.join(task.to_string()) } else { workspace };
        let before = self.looks.remove(&task).unwrap_or_default();
        let place = root.clone();
        let looking = tokio::task::spawn_blocking(move || (tree::collect(&place, &globs, &before), before));
        let Ok((looked, before)) = looking.await else { return };
        let Ok(found) = looked else {
            self.looks.insert(task, before);
            return;
        };
        let mut snapshot = found.snapshot;
        for path in found.gone {
            let gone = self.artifacts.remove(&(task, path));
            self.changed |= gone.is_some();
            self.release(gone.map(|a| a.blob)).await;
        }
        for file in found.changed {
            if self.artifacts.len() >= ARTIFACTS_PER_RUN_MAX {
                if !std::mem::replace(&mut self.cut, true) {
                    let most = ARTIFACTS_PER_RUN_MAX;
                    tracing::warn!(job = %self.job, most, "a run leaves more files than are kept of one");
                }
                break;
            }
            let Ok(open) = tree::open_file(&root, &file.path) else { continue };
            let executable = is_executable(&open);
            match self.shared.blobs.add_open_file(open, file.size, &Pin::job(self.job)).await {
                Ok(blob) => {
                    let (path, parts) = (file.path.clone(), blob.kind() == BlobKind::Parts);
                    let artifact = ArtifactRef { task, path, blob: blob.hash, size: blob.size, parts, executable };
                    let old = self.artifacts.insert((task, file.path), artifact);
                    self.changed = true;
                    self.release(old.map(|a| a.blob).filter(|old| *old != blob.hash)).await;
                }
                Err(error) => {
                    tracing::warn!(job = %self.job, %error, "an artifact could not be stored, and is tried again");
                    // The next look finds it again.
                    snapshot.forget(&file.path);
                    if matches!(error, BlobError::DiskFull { .. }) {
                        self.failed = true;
                        accepting::disk_is_full(&self.shared).await;
                    }
                }
            }
        }
        self.looks.insert(task, snapshot);
    }

    /// Stores the highest checkpoint that has appeared.
    async fn take_checkpoint(&mut self) {
        let dir = self.dir.join(CHECKPOINTS);
        if self.seen.len() >= CHECKPOINTS_SEEN_MAX {
            return;
        }
        let Ok(found) = tree::new_checkpoints(&dir, &self.seen) else { return };
        self.seen.extend(found.iter().map(|checkpoint| checkpoint.name.clone()));
        let Some(newest) = found.last() else { return };
        let known = self.pending.as_ref().or(self.published.as_ref()).map(|stored| stored.checkpoint.number);
        if known.is_some_and(|known| newest.number < known) {
            return;
        }
        match self.store_checkpoint(newest, newest.dir(&dir)).await {
            Ok(stored) => {
                let old = self.pending.replace(stored);
                self.changed = true;
                self.release(old.into_iter().flat_map(|old| old.blobs)).await;
            }
            Err(error) => {
                let name = String::from_utf8_lossy(&newest.name).into_owned();
                tracing::warn!(job = %self.job, name, error = format!("{error:#}"), "a checkpoint is passed over");
            }
        }
    }

    async fn store_checkpoint(&self, checkpoint: &Checkpoint, dir: PathBuf) -> anyhow::Result<Stored> {
        let root = dir.clone();
        let scan = tokio::task::spawn_blocking(move || tree::snapshot(&root)).await??;
        if let Some((path, why)) = scan.skipped.first() {
            anyhow::bail!("{}: {why}", path.display());
        }
        let pin = Pin::job(self.job);
        for entry in scan.manifest.entries() {
            let tree::EntryKind::File { hash, size, .. } = &entry.kind else { continue };
            let open = tree::open_file(&dir, &entry.path).context("it changed while it was read")?;
            let stored = self.shared.blobs.add_open_file(open, *size, &pin).await?;
            anyhow::ensure!(stored == BlobRef { hash: *hash, size: *size }, "it changed while it was read");
        }
        let mut blobs: BTreeSet<BlobHash> = trees::files(&scan.manifest).into_iter().map(|blob| blob.hash).collect();
        let manifest = self.shared.blobs.add_bytes(scan.manifest.encode().into(), &pin).await?;
        blobs.insert(manifest.hash);
        let checkpoint =
            CheckpointRef { number: checkpoint.number, tree: manifest.hash, manifest_bytes: manifest.size };
        Ok(Stored { checkpoint, blobs })
    }

    /// Ends the pins of what nothing names any more.
    async fn release(&self, hashes: impl IntoIterator<Item = BlobHash>) {
        let checkpoints = [&self.pending, &self.published];
        for hash in hashes {
            let named = self.artifacts.values().any(|a| a.blob == hash)
                || checkpoints.iter().any(|stored| stored.as_ref().is_some_and(|s| s.blobs.contains(&hash)));
            if !named {
                drop(self.shared.blobs.unpin_blob(&hash, &PinReason::Job(self.job)).await);
            }
        }
    }

    /// Tells the core what has changed: files, who else holds them, and a checkpoint that may be relied on.
    async fn report(&mut self) {
        if let Some(pending) = &self.pending
            && (!self.copies.holders(&[pending.item()].into()).is_empty() || self.is_alone().await)
        {
            let old = std::mem::replace(&mut self.published, self.pending.take());
            self.changed = true;
            self.release(old.into_iter().flat_map(|old| old.blobs)).await;
        }
        let holders = self.copies.holders(&self.wanted());
        if !self.changed && holders == self.reported_holders {
            return;
        }
        self.changed = false;
        self.reported_holders.clone_from(&holders);
        let artifacts = self.artifacts.values().take(ARTIFACTS_INLINE_MAX).cloned().collect();
        let list = self.list;
        let checkpoint = self.published.as_ref().map(|stored| stored.checkpoint);
        let (job, claim) = (self.job, self.claim);
        self.shared.core.input(Input::Progress { job, claim, artifacts, list, checkpoint, holders });
    }

    /// Whether this node is the whole mesh: then nobody else will ever hold anything.
    async fn is_alone(&self) -> bool {
        self.shared.core.ask(|core| core.replica().roster().standing().nth(1).is_none()).await.unwrap_or(false)
    }

    async fn seal(&self, log: &JobLog) -> Option<LogRef> {
        let (_, len) = log.seal().ok()?;
        if len <= LOG_INLINE_BYTES_MAX as u64 {
            return log.read_raw(0, LOG_INLINE_BYTES_MAX).ok().map(LogRef::Inline);
        }
        let blob = self.shared.blobs.add_file(log.path(), &Pin::job(self.job)).await.ok()?;
        drop(self.shared.blobs.sync().await);
        Some(LogRef::Blob(blob.hash, blob.size))
    }
}

#[cfg(unix)]
fn is_executable(file: &std::fs::File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
fn is_executable(_file: &std::fs::File) -> bool {
    false
}
