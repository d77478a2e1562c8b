//! Carries out claims: workspace, cell, output, files; and brings the files of accepted runs home.

mod copies;
mod leftovers;
mod outputs;
mod places;
mod trees;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use crdt::ids::{JobId, NodeId};
use crdt::job::{ArtifactList, ArtifactRef, CheckpointRef, ClaimId, Exit, JobSpec, LogRef};
use mesh::Input;
use tokio::sync::{Semaphore, mpsc, oneshot};

use outputs::Outputs;
use places::{CHECKPOINTS, Places, WORKSPACE};

use super::{Shared, accepting, artifacts, now_ms};
use crate::blobs::{BlobError, BlobRef, Pin, is_disk_full};
use crate::cell::{Cell, CellEvent, CellSpec, Cradle, Death, KillReason, KillTarget, SandboxKind, WarmCell};
use crate::joblog::{JobLog, LogKey};
use crate::platform::files;

const KILLS_MAX: usize = 4;
/// Time for a cell to end that has nothing to do any more.
const CELL_ENDS_MAX: Duration = Duration::from_secs(5);

pub(super) use copies::serve as serve_copies;
pub(super) use leftovers::sweep;

/// Where the directories of runs lie.
fn work_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("work")
}

/// A claim to carry out.
pub(super) struct Work {
    pub(super) job: JobId,
    pub(super) claim: ClaimId,
    pub(super) spec: Arc<JobSpec>,
    pub(super) holders: Vec<NodeId>,
    pub(super) resume: Option<CheckpointRef>,
}

/// Claims that run here, and the room for files of those that run elsewhere.
pub(crate) struct Cells {
    running: Mutex<BTreeMap<(JobId, ClaimId), mpsc::Sender<Exit>>>,
    warm: Mutex<Option<WarmCell>>,
    cradle: Cradle,
    copies: Semaphore,
    places: Arc<Places>,
}

impl Cells {
    pub(super) fn new(data_dir: &Path, sandbox: SandboxKind) -> Self {
        let copies = Semaphore::new(copies::SERVED_MAX);
        let places = Arc::new(Places::new(work_dir(data_dir)));
        Self {
            running: Mutex::default(),
            warm: Mutex::default(),
            cradle: Cradle::new(sandbox, vec![data_dir.to_owned()]),
            copies,
            places,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(JobId, ClaimId), mpsc::Sender<Exit>>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn kill(&self, job: JobId, claim: ClaimId, exit: Exit) {
        if let Some(kill) = self.lock().get(&(job, claim)) {
            drop(kill.try_send(exit));
        }
    }

    /// Starts a cell's process ahead, unless one waits.
    pub(super) fn keep_warm(&self) {
        let mut warm = self.warm.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if warm.is_none() {
            *warm = std::env::current_exe().ok().and_then(|exe| self.cradle.warm(&exe).ok());
        }
    }

    fn take_warm(&self) -> Option<WarmCell> {
        self.warm.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// A process for a cell: the one that waits, else a new one; none for a sandbox that makes its own.
    fn process(&self, exe: &Path, sandbox: SandboxKind) -> Option<WarmCell> {
        let serves = sandbox != SandboxKind::Bwrap;
        serves.then(|| self.take_warm().or_else(|| self.cradle.warm(exe).ok())).flatten()
    }

    /// Ends the process that was started ahead.
    pub(super) fn cool(&self) {
        drop(self.take_warm());
    }

    /// Removes what would serve further runs. Blocks.
    pub(super) fn tidy(&self) {
        self.places.clear();
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
    resume: Option<PathBuf>,
    ran_ms: u64,
    ended: u32,
    killed: bool,
}

/// Carries out a claim and reports to the core until it is over.
pub(super) async fn run(shared: Arc<Shared>, work: Work) {
    let (kill, kills) = mpsc::channel(KILLS_MAX);
    let key = (work.job, work.claim);
    shared.cells.lock().insert(key, kill);
    let name = format!("{}-{}-{}", work.job, work.claim.attempt, work.claim.range.start);
    let dir = shared.cells.places.path(&name);
    let price = shared.options.price_micros_per_hour.unwrap_or(0);
    let has_files = !work.spec.outputs.is_empty();
    let (mut log, mut ran_ms, mut cell, mut has_run) = (None, 0, None, false);
    match start(&shared, work, &dir).await {
        Ok((run, outputs)) => {
            has_run = true;
            (log, ran_ms, cell) = run.carry_out(outputs, kills).await;
        }
        Err((work, error)) => not_started(&shared, &work, 0, &error).await,
    }
    if has_files || matches!(log, Some(LogRef::Blob(..))) {
        drop(shared.blobs.sync().await);
    }
    let cost_micros = price.saturating_mul(ran_ms) / 3_600_000;
    shared.core.input(match log {
        None if has_run => Input::Unkept { job: key.0, claim: key.1 },
        log => Input::Ended { job: key.0, claim: key.1, log, cost_micros },
    });
    shared.cells.lock().remove(&key);
    shared.cells.keep_warm();
    let is_over = match cell {
        Some(events) => tokio::time::timeout(CELL_ENDS_MAX, ended_in_order(events)).await.unwrap_or(false),
        None => false,
    };
    let places = Arc::clone(&shared.cells.places);
    drop(tokio::task::spawn_blocking(move || places.give_back(&dir, is_over)).await);
}

/// Waits for a cell's end; whether it said that no process of its job is left.
async fn ended_in_order(mut events: mpsc::Receiver<CellEvent>) -> bool {
    while let Some(event) = events.recv().await {
        if matches!(event, CellEvent::Died { .. }) {
            return false;
        }
    }
    true
}

/// Reports that the tasks of a claim did not start, but for the first ones. A full disk is no fault of theirs: they are given
/// back, and the node takes no work until there is room.
async fn not_started(shared: &Shared, work: &Work, but: u32, error: &anyhow::Error) {
    let is_full = error.chain().any(|cause| {
        let of_blobs = matches!(cause.downcast_ref(), Some(BlobError::DiskFull { .. }));
        of_blobs || cause.downcast_ref().is_some_and(is_disk_full)
    });
    if is_full {
        accepting::disk_is_full(shared).await;
    }
    let now = now_ms();
    let (job, claim) = (work.job, work.claim);
    for task in claim.range.start + but..claim.range.end {
        let exit = if is_full { Exit::Returned } else { Exit::NotStarted(format!("{error:#}")) };
        shared.core.input(Input::Exited { job, claim, task, started_ms: now, at_ms: now, exit });
    }
}

async fn start(shared: &Arc<Shared>, work: Work, dir: &Path) -> Result<(Run, Outputs), (Work, anyhow::Error)> {
    let prepared = async {
        std::fs::create_dir_all(dir.parent().unwrap_or(dir))?;
        shared.cells.places.make(dir)?;
        place_input(shared, &work, &dir.join(WORKSPACE)).await.context("the input tree cannot be laid out")?;
        let resume = place_checkpoint(shared, &work, dir).await;
        let claim = work.claim;
        let key = LogKey { job: work.job, attempt: claim.attempt, start: claim.range.start, owner: claim.owner };
        let log = shared.logs.log(key)?;
        let outputs = Outputs::new(shared, &work, dir.to_owned())?;
        anyhow::Ok((resume, log, outputs))
    };
    match prepared.await {
        Ok((resume, log, outputs)) => {
            let (shared, dir) = (Arc::clone(shared), dir.to_owned());
            let run = Run { shared, work, dir, log, resume, ran_ms: 0, ended: 0, killed: false };
            Ok((run, outputs))
        }
        Err(error) => Err((work, error)),
    }
}

/// Lays out the checkpoint to go on from. One that cannot be had is no reason not to begin: the attempt begins anew.
async fn place_checkpoint(shared: &Arc<Shared>, work: &Work, dir: &Path) -> Option<PathBuf> {
    let checkpoint = work.resume?;
    let resume = dir.join("resume");
    let placed = async {
        files::create_private_dir(&resume)?;
        let tree = BlobRef { hash: checkpoint.tree, size: checkpoint.manifest_bytes };
        trees::place(shared, tree, &others(shared, work), &Pin::job(work.job), vec![resume.clone()]).await
    };
    match placed.await {
        Ok(()) => Some(resume),
        Err(error) => {
            let (job, number) = (work.job, checkpoint.number);
            tracing::warn!(%job, number, error = format!("{error:#}"), "the checkpoint cannot be had, the job begins anew");
            None
        }
    }
}

/// Nodes that may hold what the claim needs.
fn others(shared: &Shared, work: &Work) -> Vec<NodeId> {
    work.holders.iter().filter(|node| **node != shared.me).copied().collect()
}

/// Fetches the input tree and writes it into the workspace (of an array, into each task's directory).
async fn place_input(shared: &Arc<Shared>, work: &Work, workspace: &Path) -> anyhow::Result<()> {
    let Some(hash) = work.spec.input else { return Ok(()) };
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
    let input = BlobRef { hash, size: work.spec.input_manifest_bytes };
    trees::place(shared, input, &others(shared, work), &Pin::job(work.job), roots).await
}

impl Run {
    /// Runs the tasks while another task sees to their files. Answers log, running time, and the cell to its end.
    async fn carry_out(
        mut self,
        outputs: Outputs,
        kills: mpsc::Receiver<Exit>,
    ) -> (Option<LogRef>, u64, Option<mpsc::Receiver<CellEvent>>) {
        let (stop, stopped) = oneshot::channel();
        let watching = tokio::spawn(outputs.watch(stopped));
        let driven = self.drive(kills).await;
        if let Err(error) = &driven {
            not_started(&self.shared, &self.work, self.ended, error).await;
        }
        let _ = stop.send(());
        let log = match watching.await {
            Ok(outputs) => outputs.finish(&self.log, self.killed).await,
            Err(error) => {
                tracing::error!(job = %self.work.job, %error, "the files of a run were not seen to");
                None
            }
        };
        (log, self.ran_ms, driven.ok())
    }

    fn spec(&self) -> CellSpec {
        let (spec, claim) = (&self.work.spec, &self.work.claim);
        CellSpec {
            job: self.work.job,
            trace: spec.trace,
            attempt: claim.attempt,
            workspace: self.dir.join(WORKSPACE),
            command: spec.command.clone(),
            env: spec.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            sandbox: self.shared.sandbox,
            network: spec.network,
            cpu_cores: (spec.cores > 0).then_some(spec.cores),
            memory_bytes: (spec.memory_bytes > 0).then_some(spec.memory_bytes),
            disk_bytes: None,
            timeout_ms: (spec.timeout_ms > 0).then_some(spec.timeout_ms),
            checkpoint_dir: self.dir.join(CHECKPOINTS),
            resume_dir: self.resume.clone(),
            array: spec.array > 0,
            nice: true,
            read_only: Vec::new(),
            hidden: vec![self.shared.options.data_dir.clone()],
        }
    }

    /// Runs the tasks to their end; answers the cell, which is about to end.
    async fn drive(&mut self, mut kills: mpsc::Receiver<Exit>) -> anyhow::Result<mpsc::Receiver<CellEvent>> {
        let exe = std::env::current_exe().context("the path of this program is not known")?;
        let (cell, mut events) =
            Cell::spawn_in(self.shared.cells.process(&exe, self.shared.sandbox), &exe, self.spec())?;
        let range = self.work.claim.range;
        cell.run(range.start..range.end, 1)?;
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
                    self.killed = true;
                    cell.kill(KillTarget::All, KillReason::Cancelled)?;
                }
            }
        }
        cell.shutdown();
        Ok(events)
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
    (job, claim): (JobId, ClaimId),
    mut artifacts: Vec<ArtifactRef>,
    list: Option<ArtifactList>,
    log: Option<&LogRef>,
    holders: &[NodeId],
) -> bool {
    let pin = Pin::job(job);
    let holders: Vec<NodeId> = holders.iter().filter(|n| **n != shared.me).copied().collect();
    if let Some(list) = list {
        match artifacts::read(&shared.blobs, &list, &holders, &pin).await {
            Ok(all) => artifacts = all,
            Err(error) => {
                tracing::warn!(%job, error = format!("{error:#}"), "the list of a run's files cannot be brought here");
                return false;
            }
        }
    }
    let mut refs: Vec<BlobRef> = artifacts.iter().map(|a| BlobRef { hash: a.blob, size: a.size }).collect();
    if let Some(LogRef::Blob(hash, size)) = log {
        refs.push(BlobRef { hash: *hash, size: *size });
    }
    match shared.blobs.fetch_many(&refs, &holders, &pin, None).await {
        Ok(_) => shared.blobs.sync().await.is_ok(),
        Err(error) => {
            tracing::warn!(%job, attempt = claim.attempt, %error, "the files of a run cannot be brought here");
            false
        }
    }
}
