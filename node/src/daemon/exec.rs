//! Carries out claims: workspace, cell, output, files; and brings the files of accepted runs home.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use crdt::ids::{BlobHash, JobId, NodeId};
use crdt::job::{ArtifactRef, ClaimId, Exit, JobSpec, LogRef};
use crdt::limits::{ARTIFACTS_INLINE_MAX, LOG_INLINE_BYTES_MAX};
use mesh::Input;
use tokio::sync::mpsc;

use super::{Shared, now_ms};
use crate::blobs::{BlobRef, Pin};
use crate::cell::{Cell, CellEvent, CellSpec, Death, KillReason, KillTarget};
use crate::joblog::{JobLog, LogKey};
use crate::platform::files;
use crate::tree::{self, EntryKind, Globs, Manifest, Snapshot, Source};

/// Interval in which changed files are looked for while a job runs.
const COLLECT_EVERY: Duration = Duration::from_secs(1);
const KILLS_MAX: usize = 4;

/// A claim to carry out.
pub(super) struct Work {
    pub(super) job: JobId,
    pub(super) claim: ClaimId,
    pub(super) spec: Arc<JobSpec>,
    pub(super) holders: Vec<NodeId>,
    pub(super) resume: Option<(u64, BlobHash)>,
}

/// Claims that run here.
#[derive(Default)]
pub(crate) struct Cells {
    running: Mutex<BTreeMap<(JobId, ClaimId), mpsc::Sender<Exit>>>,
}

impl Cells {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(JobId, ClaimId), mpsc::Sender<Exit>>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn kill(&self, job: JobId, claim: ClaimId, exit: Exit) {
        if let Some(kill) = self.lock().get(&(job, claim)) {
            drop(kill.try_send(exit));
        }
    }

    pub(super) async fn wait_empty(&self, most: Duration) {
        let deadline = tokio::time::Instant::now() + most;
        while !self.lock().is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Run {
    shared: Arc<Shared>,
    work: Work,
    dir: PathBuf,
    log: Arc<JobLog>,
    globs: Globs,
    looks: BTreeMap<u32, Snapshot>,
    artifacts: BTreeMap<(u32, Vec<u8>), ArtifactRef>,
    ran_ms: u64,
    ended: u32,
}

/// Carries out a claim and reports to the core until it is over.
pub(super) async fn run(shared: Arc<Shared>, work: Work) {
    let (kill, kills) = mpsc::channel(KILLS_MAX);
    let key = (work.job, work.claim);
    shared.cells.lock().insert(key, kill);
    let dir = shared
        .options
        .data_dir
        .join("work")
        .join(format!("{}-{}-{}", work.job, work.claim.attempt, work.claim.range.start));
    let price = shared.core.ask(|core| core.offer().price_micros_per_hour).await.unwrap_or(0);
    let log_key = LogKey { job: work.job, attempt: work.claim.attempt, start: work.claim.range.start };
    let (mut log_ref, mut ran_ms) = (None, 0);
    match start(&shared, work, &dir, log_key).await {
        Ok(mut run) => {
            if let Err(error) = run.drive(kills).await {
                run.fail(&format!("{error:#}"));
            }
            run.collect().await;
            log_ref = run.seal().await;
            ran_ms = run.ran_ms;
        }
        Err((work, error)) => {
            let now = now_ms();
            for task in work.claim.range.start..work.claim.range.end {
                let exit = Exit::NotStarted(format!("{error:#}"));
                shared.core.input(Input::Exited {
                    job: work.job,
                    claim: work.claim,
                    task,
                    started_ms: now,
                    at_ms: now,
                    exit,
                });
            }
        }
    }
    drop(shared.blobs.sync().await);
    let cost_micros = price.saturating_mul(ran_ms) / 3_600_000;
    shared.core.input(Input::Ended { job: key.0, claim: key.1, log: log_ref, cost_micros });
    shared.cells.lock().remove(&key);
    drop(tokio::fs::remove_dir_all(&dir).await);
}

async fn start(shared: &Arc<Shared>, work: Work, dir: &Path, key: LogKey) -> Result<Run, (Work, anyhow::Error)> {
    let prepared = async {
        std::fs::create_dir_all(dir.parent().unwrap_or(dir))?;
        files::create_private_dir(dir)?;
        files::create_private_dir(&dir.join("ws"))?;
        files::create_private_dir(&dir.join("checkpoints"))?;
        place_input(shared, &work, &dir.join("ws")).await.context("the input tree cannot be laid out")?;
        let log = shared.logs.log(key)?;
        let globs = Globs::new(&work.spec.outputs)?;
        anyhow::Ok((log, globs))
    };
    match prepared.await {
        Ok((log, globs)) => Ok(Run {
            shared: Arc::clone(shared),
            work,
            dir: dir.to_owned(),
            log,
            globs,
            looks: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            ran_ms: 0,
            ended: 0,
        }),
        Err(error) => Err((work, error)),
    }
}

/// Fetches the input tree and writes it into the workspace (of an array, into each task's directory).
async fn place_input(shared: &Arc<Shared>, work: &Work, workspace: &Path) -> anyhow::Result<()> {
    let array = work.spec.array > 0;
    let range = work.claim.range;
    let roots: Vec<PathBuf> = if array {
        (range.start..range.end).map(|i| workspace.join(i.to_string())).collect()
    } else {
        vec![workspace.to_owned()]
    };
    for root in roots.iter().filter(|_| array) {
        files::create_private_dir(root)?;
    }
    let Some(hash) = work.spec.input else { return Ok(()) };
    let pin = Pin::job(work.job);
    let manifest_ref = BlobRef { hash, size: work.spec.input_manifest_bytes };
    let holders: Vec<NodeId> = work.holders.iter().filter(|n| **n != shared.me).copied().collect();
    if !shared.blobs.has(&manifest_ref) {
        shared.blobs.fetch(&manifest_ref, &holders, &pin, None).await?;
    }
    let manifest = Manifest::decode(&shared.blobs.read_all(&manifest_ref, manifest_ref.size).await?)?;
    let sizes: BTreeMap<BlobHash, u64> = manifest
        .entries()
        .iter()
        .filter_map(|entry| match &entry.kind {
            EntryKind::File { hash, size, .. } => Some((*hash, *size)),
            EntryKind::Symlink { .. } | EntryKind::Dir => None,
        })
        .collect();
    let refs: Vec<BlobRef> = sizes.iter().map(|(hash, size)| BlobRef { hash: *hash, size: *size }).collect();
    let missing = shared.blobs.missing(&refs);
    if !missing.is_empty() {
        shared.blobs.fetch_many(&missing, &holders, &pin, None).await?;
    }
    let (blobs, handle) = (shared.blobs.clone(), tokio::runtime::Handle::current());
    tokio::task::spawn_blocking(move || {
        roots.iter().try_for_each(|root| {
            tree::materialise(&manifest, root, |hash| {
                let size = sizes.get(hash).copied().unwrap_or(0);
                let bytes = handle.block_on(blobs.read_all(&BlobRef { hash: *hash, size }, size));
                bytes.map(Source::Bytes).map_err(std::io::Error::other)
            })
        })
    })
    .await??;
    Ok(())
}

impl Run {
    fn spec(&self) -> CellSpec {
        let (spec, claim) = (&self.work.spec, &self.work.claim);
        CellSpec {
            job: self.work.job,
            trace: spec.trace,
            attempt: claim.attempt,
            workspace: self.dir.join("ws"),
            command: spec.command.clone(),
            env: spec.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            sandbox: self.shared.sandbox,
            network: spec.network,
            cpu_cores: (spec.cores > 0).then_some(spec.cores),
            memory_bytes: (spec.memory_bytes > 0).then_some(spec.memory_bytes),
            disk_bytes: None,
            timeout_ms: (spec.timeout_ms > 0).then_some(spec.timeout_ms),
            checkpoint_dir: self.dir.join("checkpoints"),
            resume_dir: None,
            array: spec.array > 0,
            nice: true,
            read_only: Vec::new(),
            hidden: vec![self.shared.options.data_dir.clone()],
        }
    }

    async fn drive(&mut self, mut kills: mpsc::Receiver<Exit>) -> anyhow::Result<()> {
        if self.work.resume.is_some() {
            tracing::info!(job = %self.work.job, "the attempt begins anew: checkpoints are kept, not yet handed on");
        }
        let exe = std::env::current_exe().context("the path of this program is not known")?;
        let (cell, mut events) = Cell::spawn(&exe, self.spec())?;
        let range = self.work.claim.range;
        cell.run(range.start..range.end, 1)?;
        let mut tick = tokio::time::interval(COLLECT_EVERY);
        tick.tick().await;
        let mut wanted: Option<Exit> = None;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => {
                        if self.on_event(event, wanted.as_ref())? {
                            break;
                        }
                    }
                    None => anyhow::bail!("the cell ended unexpectedly"),
                },
                Some(exit) = kills.recv() => {
                    wanted = Some(exit);
                    cell.kill(KillTarget::All, KillReason::Cancelled)?;
                }
                _ = tick.tick() => self.collect().await,
            }
        }
        cell.shutdown();
        Ok(())
    }

    /// Takes in what the cell says; answers whether it is done.
    fn on_event(&mut self, event: CellEvent, wanted: Option<&Exit>) -> anyhow::Result<bool> {
        let (job, claim) = (self.work.job, self.work.claim);
        match event {
            CellEvent::Ready { .. } => {}
            CellEvent::Started { task, at_ms, .. } => {
                self.shared.core.input(Input::Started { job, claim, task, at_ms })
            }
            CellEvent::Output { task, stream, bytes } => {
                self.log.append(task, stream, &bytes)?;
            }
            CellEvent::Exited { task, exit, started_ms, ended_ms, .. } => {
                self.ran_ms += ended_ms.saturating_sub(started_ms);
                self.ended += 1;
                let exit = exit_of(exit, wanted);
                self.shared.core.input(Input::Exited { job, claim, task, started_ms, at_ms: ended_ms, exit });
            }
            CellEvent::Idle => return Ok(true),
            CellEvent::Died { reason } => match reason {
                Death::Refused(why) | Death::Ended(why) | Death::Garbled(why) => anyhow::bail!(why),
            },
        }
        Ok(self.ended == claim.range.len())
    }

    fn fail(&self, why: &str) {
        let now = now_ms();
        let (job, claim) = (self.work.job, self.work.claim);
        for task in claim.range.start + self.ended..claim.range.end {
            let exit = Exit::NotStarted(why.to_owned());
            self.shared.core.input(Input::Exited { job, claim, task, started_ms: now, at_ms: now, exit });
        }
    }

    /// Takes in files that changed, and says so.
    async fn collect(&mut self) {
        if self.work.spec.outputs.is_empty() {
            return;
        }
        let range = self.work.claim.range;
        let mut changed = false;
        for task in range.start..range.end {
            let root =
                if self.work.spec.array > 0 { self.dir.join("ws").join(task.to_string()) } else { self.dir.join("ws") };
            let before = self.looks.get(&task).cloned().unwrap_or_default();
            let Ok(found) = tree::collect(&root, &self.globs, &before) else { continue };
            for file in &found.changed {
                if self.artifacts.len() >= ARTIFACTS_INLINE_MAX {
                    break;
                }
                let Ok(open) = tree::open_file(&root, &file.path) else { continue };
                let executable = is_executable(&open);
                match self.shared.blobs.add_open_file(open, file.size, &Pin::job(self.work.job)).await {
                    Ok(blob) => {
                        let path = file.path.clone();
                        let parts = blob.kind() == crate::blobs::BlobKind::Parts;
                        let artifact = ArtifactRef {
                            task,
                            path: path.clone(),
                            blob: blob.hash,
                            size: blob.size,
                            parts,
                            executable,
                        };
                        self.artifacts.insert((task, path), artifact);
                        changed = true;
                    }
                    Err(error) => tracing::warn!(%error, "an artifact could not be stored"),
                }
            }
            self.looks.insert(task, found.snapshot);
        }
        if changed {
            drop(self.shared.blobs.sync().await);
            let artifacts = self.artifacts.values().cloned().collect();
            let (job, claim) = (self.work.job, self.work.claim);
            self.shared.core.input(Input::Progress { job, claim, artifacts, checkpoint: None, holders: Vec::new() });
        }
    }

    async fn seal(&self) -> Option<LogRef> {
        let (_, len) = self.log.seal().ok()?;
        if len <= LOG_INLINE_BYTES_MAX as u64 {
            return self.log.read_raw(0, LOG_INLINE_BYTES_MAX).ok().map(LogRef::Inline);
        }
        let blob = self.shared.blobs.add_file(self.log.path(), &Pin::job(self.work.job)).await.ok()?;
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

fn exit_of(exit: crate::cell::Exit, wanted: Option<&Exit>) -> Exit {
    use crate::cell::Exit as Cell;
    match exit {
        Cell::Code(code) => Exit::Code(code),
        Cell::Signal(signal) => Exit::Signal(signal),
        Cell::Timeout => Exit::Timeout,
        Cell::Killed(_) => wanted.cloned().unwrap_or(Exit::Cancelled),
        Cell::SpawnFailed(why) => Exit::NotStarted(why),
        Cell::LimitExceeded(kind) => Exit::Limit(format!("{kind:?}").to_lowercase()),
    }
}

/// Brings the files of a run here.
pub(super) async fn secure(
    shared: &Shared,
    job: JobId,
    claim: ClaimId,
    artifacts: &[ArtifactRef],
    log: Option<&LogRef>,
    holders: &[NodeId],
) -> bool {
    let pin = Pin::job(job);
    let mut refs: Vec<BlobRef> = artifacts.iter().map(|a| BlobRef { hash: a.blob, size: a.size }).collect();
    if let Some(LogRef::Blob(hash, size)) = log {
        refs.push(BlobRef { hash: *hash, size: *size });
    }
    let holders: Vec<NodeId> = holders.iter().filter(|n| **n != shared.me).copied().collect();
    match shared.blobs.fetch_many(&refs, &holders, &pin, None).await {
        Ok(_) => shared.blobs.sync().await.is_ok(),
        Err(error) => {
            tracing::warn!(%job, attempt = claim.attempt, %error, "the files of a run cannot be brought here");
            false
        }
    }
}
