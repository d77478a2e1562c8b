//! Logs across nodes: the submitter's node copies what runs for it while it runs; others copy on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use crdt::cbor;
use crdt::doc::DocId;
use crdt::ids::{JobId, NodeId};
use crdt::job::{Exit, JobState, LogRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use web_gateway::api::{ApiError, LogItem, LogQuery, LogStream};

use super::Shared;
use super::{find, views};
use crate::blobs::{BlobRef, Pin};
use crate::joblog::{FrameStream, JobLog, LogError, LogKey, LogLength, LogStore};
use crate::net::{NetStream, Proto};

const REQUEST_BYTES_MAX: u32 = 256;
const CHUNK_BYTES: usize = 64 * 1024;
/// A follower looks again when its job or the log changes, and after this time in any case: what a job waits for changes
/// without it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two looks of a follower, however often its job changes.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// The logs of this node: whoever works on one shares it, so that a reader sees what a writer appends.
pub(crate) struct Logs {
    store: LogStore,
    open: Mutex<BTreeMap<LogKey, Weak<JobLog>>>,
}

impl Logs {
    pub(super) fn open(root: &Path) -> Result<Self, LogError> {
        Ok(Self { store: LogStore::open(root)?, open: Mutex::default() })
    }

    pub(super) fn log(&self, key: LogKey) -> Result<Arc<JobLog>, LogError> {
        let mut open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(log) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(log);
        }
        open.retain(|_, log| log.strong_count() > 0);
        let log = Arc::new(self.store.log(key)?);
        open.insert(key, Arc::downgrade(&log));
        Ok(log)
    }

    /// Whether the log is here, or somebody here is about to write it.
    fn exists(&self, key: LogKey) -> bool {
        let open = self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        open.get(&key).is_some_and(|log| log.strong_count() > 0) || self.store.path(key).exists()
    }

    /// Jobs of which there is a log here.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.store.jobs()
    }

    /// Removes every log of a job; who reads one now still reads it to its end.
    pub(super) fn remove_job(&self, job: JobId) -> Result<(), LogError> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner).retain(|key, _| key.job != job);
        self.store.remove_job(job)
    }
}

/// Most time that a reader waits for the report of what was accepted already.
const REPORT_WAIT: Duration = Duration::from_secs(10);
/// Most time that a reader waits for what others have of a log; where the run is over, for its next bytes.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// Stillness after which all that is there has come.
const CATCH_UP_STILL: Duration = Duration::from_millis(150);

/// Logs that are being copied here, and who waits for changes of which jobs.
#[derive(Default)]
pub(crate) struct Follows {
    keys: Mutex<BTreeSet<LogKey>>,
    jobs: Mutex<BTreeMap<JobId, watch::Sender<()>>>,
}

impl Follows {
    fn begin(&self, key: LogKey) -> bool {
        self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key)
    }

    fn is_copying(&self, key: LogKey) -> bool {
        self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&key)
    }

    /// Wakes whoever follows one of these.
    pub(super) fn changed(&self, docs: &[DocId]) {
        let mut jobs = self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if jobs.is_empty() {
            return;
        }
        for job in docs.iter().filter_map(DocId::as_job) {
            if jobs.get(&job).is_some_and(|waiting| waiting.send(()).is_err()) {
                jobs.remove(&job);
            }
        }
    }

    /// Changes of a job from now on.
    fn watch(&self, job: JobId) -> watch::Receiver<()> {
        let mut jobs = self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        jobs.retain(|_, waiting| waiting.receiver_count() > 0);
        jobs.entry(job).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    fn end(&self, key: LogKey) {
        self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&key);
    }
}

/// Answers a request for a log: its bytes from an offset on, until it is complete.
pub(super) async fn serve(shared: Arc<Shared>, mut stream: NetStream) {
    let served = async {
        let len = stream.read_u32().await?;
        anyhow::ensure!(len <= REQUEST_BYTES_MAX, "the request is too long");
        let mut request = vec![0; len as usize];
        stream.read_exact(&mut request).await?;
        let (job, attempt, start, owner, mut offset): (JobId, u32, u32, NodeId, u64) = cbor::decode(&request)?;
        let key = LogKey { job, attempt, start, owner };
        anyhow::ensure!(shared.logs.exists(key), "no such log here");
        let log = shared.logs.log(key)?;
        let mut length = log.follow();
        loop {
            let bytes = log.read_raw(offset, CHUNK_BYTES)?;
            if bytes.is_empty() {
                let more_comes = owner == shared.me || shared.follows.is_copying(key);
                if length.borrow_and_update().sealed || !more_comes {
                    break;
                }
                drop(tokio::time::timeout(LOOK_EVERY, length.changed()).await);
                continue;
            }
            offset += bytes.len() as u64;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
        }
        stream.shutdown().await?;
        anyhow::Ok(())
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "a log was not served to its end");
    }
}

/// Copies the logs of those jobs that this node submitted and another runs.
pub(super) async fn follow_own(shared: &Arc<Shared>, jobs: Vec<JobId>) {
    let me = shared.me;
    let runs = shared.core.ask(move |core| {
        let own = jobs
            .iter()
            .filter_map(|id| core.replica().cached_job(id))
            .filter(|job| job.spec().is_some_and(|s| *s.0 == me));
        own.flat_map(views::runs).collect::<Vec<_>>()
    });
    for run in runs.await.unwrap_or_default() {
        if run.owner != me && run.started && !run.over {
            copy(shared, run.key, run.owner);
        }
    }
}

/// Copies a log from a node that has it, unless that is under way.
fn copy(shared: &Arc<Shared>, key: LogKey, from: NodeId) {
    if !shared.follows.begin(key) {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(error) = copy_all(&shared, key, from).await {
            tracing::debug!(%error, "a log was not copied to its end");
        }
        shared.follows.end(key);
    });
}

/// Copies what a node has of a log, and what it gets while it still gets some.
async fn copy_all(shared: &Shared, key: LogKey, from: NodeId) -> anyhow::Result<()> {
    let log = shared.logs.log(key)?;
    let mut offset = log.len();
    let mut stream = shared.net.open_stream(from, Proto::Logs).await?;
    let request = cbor::encode(&(key.job, key.attempt, key.start, key.owner, offset));
    stream.write_u32(u32::try_from(request.len())?).await?;
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        log.append_raw(offset, &buffer[..read])?;
        offset += read as u64;
    }
}

/// A job's output as a stream.
pub(super) fn stream(shared: Arc<Shared>, job: JobId, query: LogQuery) -> web_gateway::api::Items<LogItem> {
    let (items, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let changes = shared.follows.watch(job);
        let mut reader = Reader { shared, job, query, items, changes, caught_up: false };
        if let Err(error) = reader.read().await {
            drop(reader.items.send(Err(ApiError::Internal(format!("{error:#}")))).await);
        }
    });
    super::api::items(receiver)
}

struct Reader {
    shared: Arc<Shared>,
    job: JobId,
    query: LogQuery,
    items: mpsc::Sender<Result<LogItem, ApiError>>,
    changes: watch::Receiver<()>,
    caught_up: bool,
}

impl Reader {
    /// The first accepted execution of those asked for whose report is not here.
    async fn unreported(&self) -> Option<(u32, NodeId)> {
        let (id, attempt, task) = (self.job, self.query.attempt, self.query.task);
        let asked = self.shared.core.ask(move |core| {
            let missing = core.replica_mut().job(id)?.unreported().into_iter();
            let mut wanted = missing.filter(|(range, of, _)| {
                attempt.is_none_or(|attempt| attempt == *of) && task.is_none_or(|task| range.contains(task))
            });
            wanted.next().map(|(_, attempt, node)| (attempt, node))
        });
        asked.await.flatten()
    }

    async fn look(&self) -> Option<(Vec<views::RunView>, Option<JobState>, Option<i32>, Option<String>)> {
        let id = self.job;
        self.shared
            .core
            .ask(move |core| {
                let (job, _) = views::shown(core, id)?;
                Some((views::runs(&job), job.state(), job.exit_code(), views::reason(&job)))
            })
            .await
            .flatten()
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let mut read: BTreeSet<(LogKey, NodeId)> = BTreeSet::new();
        let (mut waiting, mut ended) = (String::new(), None);
        loop {
            let Some((runs, state, exit, reason)) = self.look().await else { return Ok(()) };
            let next = runs.into_iter().find(|run| {
                run.started
                    && (run.award || self.query.attempt.is_some())
                    && !read.contains(&(run.key, run.owner))
                    && self.query.attempt.is_none_or(|a| a == run.key.attempt)
            });
            if let Some(run) = next {
                read.insert((run.key, run.owner));
                self.read_run(run).await?;
                continue;
            }
            let is_final = state.is_some_and(JobState::is_final);
            if is_final {
                // An acceptance may come before the report that it accepts: without that nothing is known of the output.
                if let Some((attempt, node)) = self.unreported().await {
                    if ended.get_or_insert_with(Instant::now).elapsed() < REPORT_WAIT {
                        self.changed(None).await;
                        continue;
                    }
                    let text = format!(
                        "the output of attempt {attempt} on {} is not known here: what that node reported has not come, or was \
                         lost with the disks that held it",
                        node.short()
                    );
                    drop(self.items.send(Err(ApiError::NotFound(text))).await);
                    return Ok(());
                }
                let state = views::state(state.unwrap_or(JobState::Failed));
                self.send(LogItem::End { state, exit, reason }).await?;
                return Ok(());
            }
            if !self.query.follow {
                return Ok(());
            }
            if state == Some(JobState::Queued) {
                let id = self.job;
                let text = self
                    .shared
                    .core
                    .ask(move |core| core.explain(id).map(|e| e.summary))
                    .await
                    .flatten()
                    .unwrap_or_default();
                if text != waiting {
                    waiting.clone_from(&text);
                    self.send(LogItem::Waiting { text }).await?;
                }
            }
            self.changed(None).await;
        }
    }

    /// Waits until the job or its log may have changed.
    async fn changed(&mut self, log: Option<&mut watch::Receiver<LogLength>>) {
        let grown = async {
            match log {
                Some(length) => drop(length.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::time::sleep(LOOK_PAUSE).await;
        tokio::select! {
            _ = self.changes.changed() => {}
            () = grown => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }

    async fn send(&self, item: LogItem) -> anyhow::Result<()> {
        self.items.send(Ok(item)).await.map_err(|_| anyhow::anyhow!("the reader has gone"))
    }

    /// One run's output, to its end where that is known or awaited.
    async fn read_run(&mut self, run: views::RunView) -> anyhow::Result<()> {
        let (attempt, node) = (run.key.attempt, run.owner.to_string());
        let state = web_gateway::api::AttemptState::Running;
        self.send(LogItem::Attempt { attempt, task: run.key.start, node: node.clone(), state, exit: None }).await?;
        self.caught_up = false;
        let log = self.shared.logs.log(run.key)?;
        let mut offset = 0;
        let mut positions = BTreeMap::new();
        let mut length = log.follow();
        loop {
            length.borrow_and_update();
            let runs = self.look().await.map(|(runs, ..)| runs).unwrap_or_default();
            let Some(now) = runs.into_iter().find(|r| r.key == run.key && r.owner == run.owner) else { return Ok(()) };
            // A disk that came from a backup may lack what this node itself once wrote.
            let is_lacking = now.over && (now.log.is_some() || log.len() == 0);
            if now.owner != self.shared.me || is_lacking {
                match &now.log {
                    Some(whole) => self.complete(&log, whole, &now).await?,
                    None => self.catch_up(&now).await,
                }
            }
            loop {
                let (frames, after) = log.read(offset, CHUNK_BYTES)?;
                if frames.is_empty() {
                    break;
                }
                offset = after;
                for frame in frames {
                    self.send_frame(attempt, frame, &mut positions).await?;
                }
            }
            if now.over {
                if now.lost {
                    self.send(LogItem::Lost { attempt, task: run.key.start, node }).await?;
                }
                return Ok(());
            }
            if !self.query.follow {
                return Ok(());
            }
            self.changed(Some(&mut length)).await;
        }
    }

    /// Copies what others have of a log that is not sealed: its owner, else the submitter's node, which followed it. Waits
    /// for what is there already, so that a reader who does not follow sees it.
    async fn catch_up(&mut self, run: &views::RunView) {
        let (id, owner, me) = (self.job, run.owner, self.shared.me);
        let source = self.shared.core.ask(move |core| {
            let submitter = core.replica_mut().job(id)?.spec().map(|(node, _)| *node);
            let online = |node: &NodeId| core.connected().any(|other| other == *node);
            Some(owner).filter(online).or(submitter.filter(|node| *node != me && online(node)))
        });
        let Some(source) = source.await.flatten() else { return };
        if run.over && run.owner != source && self.caught_up {
            return;
        }
        self.caught_up = run.over;
        copy(&self.shared, run.key, source);
        if run.over || !self.query.follow {
            self.wait_for_copy(run).await;
        }
    }

    /// Waits for a copy that is under way: of a run that is over while bytes still come, else until what was there has come.
    async fn wait_for_copy(&self, run: &views::RunView) {
        let (begun, mut grown) = (Instant::now(), Instant::now());
        let mut before = None;
        while self.shared.follows.is_copying(run.key) {
            tokio::time::sleep(CATCH_UP_STILL).await;
            let now = self.shared.logs.log(run.key).map(|log| log.len()).ok();
            let is_still = now == before;
            if !is_still {
                (before, grown) = (now, Instant::now());
            }
            let is_enough =
                if run.over { grown.elapsed() >= CATCH_UP_WAIT } else { is_still || begun.elapsed() >= CATCH_UP_WAIT };
            if is_enough {
                return;
            }
        }
    }

    async fn send_frame(
        &self,
        attempt: u32,
        frame: crate::joblog::Frame,
        positions: &mut BTreeMap<(u32, bool), u64>,
    ) -> anyhow::Result<()> {
        if self.query.task.is_some_and(|task| task != frame.task) {
            return Ok(());
        }
        let stderr = frame.stream != FrameStream::Stdout;
        let position = positions.entry((frame.task, stderr)).or_insert(0);
        let offset = *position;
        *position += frame.bytes.len() as u64;
        let stream = if stderr { LogStream::Stderr } else { LogStream::Stdout };
        self.send(LogItem::Bytes { attempt, task: frame.task, stream, offset, bytes: Bytes::from(frame.bytes) }).await
    }

    /// Fills the local copy up to the whole log: from its owner, from whoever else holds it, or from who followed it.
    async fn complete(&mut self, log: &JobLog, whole: &LogRef, run: &views::RunView) -> anyhow::Result<()> {
        let (hash, size) = match whole {
            LogRef::Inline(bytes) => {
                let have = usize::try_from(log.len())?;
                if let Some(lacking) = bytes.get(have..).filter(|lacking| !lacking.is_empty()) {
                    log.append_raw(have as u64, lacking)?;
                }
                return Ok(());
            }
            LogRef::Blob(hash, size) => (*hash, *size),
        };
        let mut have = log.len();
        if have >= size {
            return Ok(());
        }
        let blob = BlobRef { hash, size };
        let is_here = self.shared.blobs.has(&blob)
            || self.shared.blobs.fetch(&blob, &[run.owner], &Pin::job(self.job), None).await.is_ok();
        if let Err(error) = if is_here { Ok(blob) } else { find::find(&self.shared, hash).await } {
            self.catch_up(run).await;
            anyhow::ensure!(log.len() >= size, "{} of {size} bytes are here: {error}", log.len());
            return Ok(());
        }
        // Piece by piece: a log may be larger than the memory.
        let mut reader = self.shared.blobs.read_range(&blob, have..size);
        let mut buffer = vec![0; CHUNK_BYTES];
        while have < size {
            let read = reader.read(&mut buffer).await?;
            anyhow::ensure!(read > 0, "{have} of {size} bytes are here");
            log.append_raw(have, &buffer[..read])?;
            have += read as u64;
        }
        Ok(())
    }
}

/// The exit code of an ended task, where it has one.
pub(super) fn code(exit: &Exit) -> Option<i32> {
    exit.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_of_a_job_wakes_its_followers_and_no_others() {
        let follows = Follows::default();
        let (one, other) = (JobId([1; 16]), JobId([2; 16]));
        let mut waiting = follows.watch(one);
        let mut beside = follows.watch(other);
        follows.changed(&[DocId::job(one), DocId::ROSTER]);
        waiting.changed().await.expect("it is told");
        assert!(!beside.has_changed().expect("it may be told"));
        drop(waiting);
        follows.changed(&[DocId::job(one)]);
        assert_eq!(follows.jobs.lock().expect("no writer panics").len(), 1);
        follows.changed(&[DocId::job(other)]);
        assert!(beside.has_changed().expect("it may be told"));
        beside.borrow_and_update();
    }
}
