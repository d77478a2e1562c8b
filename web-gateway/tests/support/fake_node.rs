//! A small node for tests of HTTP and of the CLI: it keeps jobs and blobs in memory, and the first word of a job's command
//! names what its output looks like.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crdt::ids::{BlobHash, JobId, NodeId};
use futures::StreamExt;
use tokio::sync::watch;
use web_gateway::api::*;

pub const TOKEN: &str = "a-token-of-the-tests";
pub const COOKIE: &str = "0a1b2c3d";
pub const TIME: &str = "2026-01-02T03:04:05.678Z";

pub struct FakeNode {
    pub jobs: Mutex<Vec<(JobView, JobRequest)>>,
    pub blobs: Mutex<BTreeMap<BlobHash, Bytes>>,
    pub note: Mutex<String>,
    pub uploads: AtomicU64,
    log_calls: AtomicU64,
    events: watch::Sender<u64>,
    cancelled: watch::Sender<bool>,
}

impl Default for FakeNode {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            blobs: Mutex::default(),
            note: Mutex::default(),
            uploads: AtomicU64::new(0),
            log_calls: AtomicU64::new(0),
            events: watch::Sender::new(0),
            cancelled: watch::Sender::new(false),
        }
    }
}

pub fn node_id() -> NodeId {
    NodeId([0xaa; 32])
}

fn done<'a, T: Send + 'a>(value: Result<T, ApiError>) -> Answer<'a, T> {
    Box::pin(async move { value })
}

impl FakeNode {
    /// Makes events happen up to this number.
    pub fn happen(&self, up_to: u64) {
        self.events.send_replace(up_to);
    }

    pub fn add_blob(&self, bytes: &[u8]) -> BlobHash {
        let hash = BlobHash(*blake3::hash(bytes).as_bytes());
        self.blobs.lock().unwrap().insert(hash, Bytes::copy_from_slice(bytes));
        hash
    }

    fn find(&self, id: &str) -> Result<usize, ApiError> {
        let jobs = self.jobs.lock().unwrap();
        let hits: Vec<usize> = (0..jobs.len()).filter(|&at| jobs[at].0.id.starts_with(id)).collect();
        match hits.as_slice() {
            [only] => Ok(*only),
            [] => Err(ApiError::NotFound(format!("there is no job {id}: `v6 jobs` lists them"))),
            _ => Err(ApiError::Ambiguous(format!("{id} is the beginning of several jobs: write more of it"))),
        }
    }

    fn view(id: String, request: &JobRequest) -> JobView {
        JobView {
            idea: None,
            trace: "77".repeat(16),
            submitter: node_id().to_string(),
            person: None,
            name: request.name.clone(),
            command: request.command.clone(),
            created: TIME.into(),
            ended: None,
            labels: request.labels.clone(),
            after: request.after.clone(),
            priority: request.priority,
            wanted: Some(Box::new(request.clone())),
            reason: None,
            provisional: false,
            at_risk: false,
            sealed: None,
            array: request.array.is_some(),
            tasks_total: request.array.unwrap_or(1),
            tasks: (0..request.array.unwrap_or(1))
                .map(|index| TaskView { index, state: JobState::Queued, accepted_attempt: None, attempts: vec![] })
                .collect(),
            state: JobState::Queued,
            id,
        }
    }
}

fn attempt(attempt: u32, task: u32, state: AttemptState, exit: Option<i32>) -> LogItem {
    LogItem::Attempt { attempt, task, node: node_id().to_string(), state, exit }
}

fn out(attempt: u32, task: u32, stream: LogStream, offset: u64, bytes: &[u8]) -> LogItem {
    LogItem::Bytes { attempt, task, stream, offset, bytes: Bytes::copy_from_slice(bytes) }
}

fn end(state: JobState, exit: Option<i32>, reason: Option<&str>) -> LogItem {
    LogItem::End { state, exit, reason: reason.map(str::to_owned) }
}

/// Bytes that are no UTF-8, with control characters that a terminal would obey.
pub const BINARY: &[u8] = b"\x00\xff\xfe\x1b[2Jx\r\n";

fn script(command: &[String], call: u64) -> Vec<Result<LogItem, ApiError>> {
    let running = |n| attempt(n, 0, AttemptState::Running, None);
    let items = match command[0].as_str() {
        "hello" => vec![
            LogItem::Waiting { text: "3 nodes offer".into() },
            running(1),
            out(1, 0, LogStream::Stdout, 0, b"out\n"),
            out(1, 0, LogStream::Stderr, 0, b"err\n"),
            out(1, 0, LogStream::Stdout, 4, BINARY),
            attempt(1, 0, AttemptState::Done, Some(0)),
            end(JobState::Done, Some(0), None),
        ],
        "exit" => {
            let code = command[1].parse().unwrap();
            vec![running(1), out(1, 0, LogStream::Stdout, 0, b"bye\n"), end(JobState::Failed, Some(code), None)]
        }
        "lost" => vec![
            running(1),
            out(1, 0, LogStream::Stdout, 0, b"half"),
            LogItem::Lost { attempt: 1, task: 0, node: node_id().to_string() },
            running(2),
            out(2, 0, LogStream::Stdout, 0, b"whole\n"),
            end(JobState::Done, Some(0), None),
        ],
        "break" if call == 0 => {
            let broken = ApiError::NotReady("the node is stopping".into());
            return vec![Ok(running(1)), Ok(out(1, 0, LogStream::Stdout, 0, b"first ")), Err(broken)];
        }
        "break" => vec![
            out(1, 0, LogStream::Stdout, 0, b"first sec"),
            out(1, 0, LogStream::Stdout, 9, b"ond\n"),
            end(JobState::Done, Some(0), None),
        ],
        "skipped" => vec![end(JobState::Skipped, None, Some("job 00ff failed"))],
        "array" => vec![
            out(1, 0, LogStream::Stdout, 0, b"zero\n"),
            out(1, 1, LogStream::Stdout, 0, b"one\n"),
            end(JobState::Failed, Some(7), None),
        ],
        _ => vec![running(1)],
    };
    items.into_iter().map(Ok).collect()
}

impl NodeApi for FakeNode {
    fn status(&self) -> Answer<'_, StatusView> {
        done(Ok(StatusView {
            node: node_id().to_string(),
            name: "fake".into(),
            role: Some(Role::Admin),
            labels: Vec::new(),
            mesh: "bb".repeat(32),
            version: "0".into(),
            peers_online: 1,
            jobs: BTreeMap::from([(JobState::Done, 2)]),
            feeds: BTreeMap::from([(node_id().to_string(), FeedHead { seq: 3, hash: "cc".repeat(32), frozen: false })]),
            state_hash: "dd".repeat(32),
            lease_ms: 5_000,
            api_token_file: "/nowhere/api.token".into(),
            api: String::new(),
            listen: vec![],
            data_dir: String::new(),
            slots: 2,
            slots_busy: 1,
            sandbox: "none".into(),
            paused: None,
            uptime_ms: 1_000,
            blob_bytes: 0,
            blob_quota_bytes: None,
            history_bytes: 0,
            recovered: false,
            mirrors: None,
        }))
    }

    fn peers(&self) -> Answer<'_, Vec<PeerView>> {
        done(Ok(vec![PeerView {
            node: "ee".repeat(32),
            name: "حاسوب\u{1b}[31m".into(),
            role: Role::Worker,
            online: true,
            labels: vec!["gpu".into()],
            slots: 4,
            price_micros_per_hour: 100,
            region: None,
            rtt_ms: Some(1.5),
            path: Some(PeerPath::Direct),
            addresses: vec![],
            slots_free: Some(3),
            cores: None,
            memory_bytes: None,
            os: None,
            attempts_done: 9,
            attempts_failed: 1,
            last_seen: None,
        }]))
    }

    fn jobs(&self, query: JobsQuery) -> Answer<'_, Page<JobRow>> {
        let from: usize = query.cursor.as_deref().map_or(0, |cursor| cursor.parse().unwrap());
        let jobs = self.jobs.lock().unwrap();
        let rows: Vec<JobRow> = jobs
            .iter()
            .rev()
            .filter(|(job, _)| query.state.is_none_or(|state| state == job.state))
            .map(|(job, _)| JobRow {
                idea: None,
                id: job.id.clone(),
                state: job.state,
                trace: job.trace.clone(),
                submitter: job.submitter.clone(),
                owner: None,
                created: job.created.clone(),
                ended: None,
                tasks: job.tasks_total,
                done: 0,
                name: job.name.clone(),
                command: job.command.clone(),
            })
            .collect();
        let end = from.saturating_add(query.limit.unwrap_or(2).min(2) as usize).min(rows.len());
        let next = (end < rows.len()).then(|| end.to_string());
        done(Ok(Page { items: rows[from.min(end)..end].to_vec(), next }))
    }

    fn job<'a>(&'a self, id: &'a str, query: JobQuery) -> Answer<'a, JobView> {
        done(self.find(id).map(|at| {
            let mut job = self.jobs.lock().unwrap()[at].0.clone();
            let from = query.tasks_from.unwrap_or(0) as usize;
            job.tasks =
                job.tasks.into_iter().skip(from).take(query.tasks_max.unwrap_or(100).min(100) as usize).collect();
            job
        }))
    }

    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Explain> {
        done(self.find(id).map(|_| Explain {
            id: id.into(),
            state: JobState::Queued,
            summary: "3 of 4 nodes: label gpu missing".into(),
            reasons: vec![],
            offers: vec![],
        }))
    }

    fn join_view(&self) -> Answer<'_, JoinView> {
        done(Ok(JoinView { mesh: "22".repeat(32), addresses: vec!["/ip4/127.0.0.1/tcp/4001".into()] }))
    }

    fn bundles<'a>(&'a self, _author: &'a str, _from_seq: u64, _most: usize) -> Answer<'a, Vec<MirrorBundle>> {
        done(Ok(vec![]))
    }

    fn mirrors(&self) -> Answer<'_, Vec<MirrorView>> {
        done(Ok(vec![]))
    }

    fn mirror_verify<'a>(&'a self, kind: &'a str) -> Answer<'a, MirrorCheck> {
        done(Err(ApiError::NotFound(format!("no mirror {kind}"))))
    }

    fn mirror_rebuild<'a>(&'a self, kind: &'a str) -> Answer<'a, MirrorView> {
        done(Err(ApiError::NotFound(format!("no mirror {kind}"))))
    }

    fn waiting(&self) -> Answer<'_, WaitingView> {
        done(Ok(WaitingView { waiting: 0, groups: vec![] }))
    }

    fn preview(&self, _job: PlannedJob) -> Answer<'_, Explain> {
        done(Ok(Explain {
            id: String::new(),
            state: JobState::Queued,
            summary: "the best of 1 fitting of 1 nodes".into(),
            reasons: vec![],
            offers: vec![],
        }))
    }

    fn submit(&self, jobs: Vec<PlannedJob>) -> Answer<'_, Vec<Submitted>> {
        let mut mine = self.jobs.lock().unwrap();
        let answers = jobs
            .into_iter()
            .map(|planned| {
                let mut id = [0x11; 16];
                id[0] = u8::try_from(mine.len()).unwrap();
                let id = JobId(id).to_string();
                mine.push((Self::view(id.clone(), &planned.request), planned.request.clone()));
                Submitted {
                    idea: None,
                    job: id,
                    trace: "77".repeat(16),
                    durable_on: 2,
                    warning: planned
                        .request
                        .labels
                        .contains(&"nobody".to_owned())
                        .then(|| "label nobody is nowhere".into()),
                    name: planned.request.name,
                }
            })
            .collect();
        done(Ok(answers))
    }

    fn cancel<'a>(&'a self, id: &'a str) -> Answer<'a, Cancelled> {
        self.cancelled.send_replace(true);
        done(self.find(id).map(|_| Cancelled { job: id.into(), state: JobState::Cancelled, durable_on: 1 }))
    }

    fn retry<'a>(&'a self, _id: &'a str) -> Answer<'a, Submitted> {
        done(Err(ApiError::Conflict("the job has not ended: cancel it first".into())))
    }

    fn logs<'a>(&'a self, id: &'a str, query: LogQuery) -> Answer<'a, Items<LogItem>> {
        let command = match self.find(id) {
            Ok(at) => self.jobs.lock().unwrap()[at].1.command.clone(),
            Err(error) => return done(Err(error)),
        };
        let call = self.log_calls.fetch_add(1, Ordering::Relaxed);
        let items = script(&command, call);
        let waits = command[0] == "wait" && query.follow;
        let mut cancelled = self.cancelled.subscribe();
        let tail = futures::stream::once(async move {
            cancelled.wait_for(|cancelled| *cancelled).await.unwrap();
            Ok(end(JobState::Cancelled, Some(143), None))
        });
        let items = futures::stream::iter(items);
        done(Ok(if waits { items.chain(tail).boxed() } else { items.boxed() }))
    }

    fn artifacts<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ArtifactView>> {
        let hash = self.add_blob(b"an artifact");
        done(self.find(id).map(|at| {
            let command = self.jobs.lock().unwrap()[at].1.command.clone();
            command[1..]
                .iter()
                .enumerate()
                .map(|(task, path)| ArtifactView {
                    path: path.clone(),
                    path_base64: None,
                    blob: hash.to_string(),
                    size: 11,
                    executable: false,
                    task: if command[0] == "array" { u32::try_from(task).unwrap() } else { 0 },
                    attempt: 1,
                })
                .collect()
        }))
    }

    fn artifact(&self, key: ArtifactKey, range: Option<ByteRange>) -> Answer<'_, BlobBody> {
        let hash = match key {
            ArtifactKey::Blob(hash) => hash,
            ArtifactKey::File { .. } => self.add_blob(b"an artifact"),
        };
        let bytes = self.blobs.lock().unwrap().get(&hash).cloned();
        done(match bytes {
            None => Err(ApiError::NotFound(format!("nobody who is reachable holds the blob {hash}"))),
            Some(bytes) => {
                let size = bytes.len() as u64;
                let range = range.unwrap_or(ByteRange { start: 0, end: size });
                let part = bytes.slice(range.start.min(size) as usize..range.end.min(size) as usize);
                Ok(BlobBody { hash, size, stream: futures::stream::iter([Ok(part)]).boxed() })
            }
        })
    }

    fn missing(&self, hashes: Vec<BlobHash>) -> Answer<'_, Vec<BlobHash>> {
        let blobs = self.blobs.lock().unwrap();
        done(Ok(hashes.into_iter().filter(|hash| !blobs.contains_key(hash)).collect()))
    }

    fn put_blob(&self, hash: Option<BlobHash>, _size: Option<u64>, mut body: ByteStream) -> Answer<'_, BlobAdded> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| ApiError::BadRequest(format!("the upload broke off: {error}")))?;
                self.uploads.fetch_add(1, Ordering::Relaxed);
                bytes.extend_from_slice(&chunk);
                if bytes.len() > 64 * 1024 * 1024 {
                    return Err(ApiError::NotReady("the disk is full: free some space".into()));
                }
            }
            let real = BlobHash(*blake3::hash(&bytes).as_bytes());
            if hash.is_some_and(|hash| hash != real) {
                return Err(ApiError::BadRequest(format!("the bytes have the hash {real}")));
            }
            Ok(BlobAdded { blob: self.add_blob(&bytes).to_string(), size: bytes.len() as u64 })
        })
    }

    fn put_blobs(&self, blobs: Vec<(BlobHash, Bytes)>) -> Answer<'_, ()> {
        for (hash, bytes) in blobs {
            if BlobHash(*blake3::hash(&bytes).as_bytes()) != hash {
                return done(Err(ApiError::BadRequest(format!("the bytes are not those of {hash}"))));
            }
            self.blobs.lock().unwrap().insert(hash, bytes);
        }
        done(Ok(()))
    }

    fn put_tree(&self, manifest: Bytes) -> Answer<'_, TreeAdded> {
        let tree = self.add_blob(&manifest).to_string();
        done(Ok(TreeAdded { tree, missing: vec![] }))
    }

    fn blobs(&self, _query: BlobsQuery) -> Answer<'_, Page<BlobRow>> {
        let blobs = self.blobs.lock().unwrap();
        let row = |(hash, bytes): (&BlobHash, &Bytes)| BlobRow {
            blob: hash.to_string(),
            size: bytes.len() as u64,
            pinned_by: vec![],
            holders: vec![],
        };
        done(Ok(Page { items: blobs.iter().map(row).collect(), next: None }))
    }

    fn gc(&self) -> Answer<'_, GcReport> {
        done(Ok(GcReport::default()))
    }

    fn invite(&self, request: InviteRequest) -> Answer<'_, Invited> {
        let uses = request.uses.unwrap_or(1);
        if request.role == Role::Admin {
            return done(Err(ApiError::NotAllowed("only an admin may invite an admin".into())));
        }
        done(Ok(Invited { ticket: "v6ticket".into(), role: request.role, expires: TIME.into(), uses }))
    }

    fn invites(&self) -> Answer<'_, Vec<InviteRow>> {
        done(Ok(vec![]))
    }

    fn members(&self) -> Answer<'_, Vec<MemberRow>> {
        done(Ok(vec![MemberRow {
            node: node_id().to_string(),
            name: "fake".into(),
            role: Role::Admin,
            person: None,
            joined: None,
            revoked: false,
            reason: None,
            this: true,
        }]))
    }

    fn revoke(&self, node: NodeId, _reason: Option<String>) -> Answer<'_, Revoked> {
        done(Ok(Revoked { node: node.to_string(), after_seq: 3, durable_on: 1 }))
    }

    fn policies(&self) -> Answer<'_, Vec<PolicyView>> {
        done(Ok(vec![]))
    }

    fn set_policy(&self, name: String, value: String) -> Answer<'_, PolicySet> {
        done(Ok(PolicySet { name, value, durable_on: 1 }))
    }

    fn feeds(&self) -> Answer<'_, Vec<FeedView>> {
        done(Ok(vec![]))
    }

    fn feeds_verify(&self) -> Answer<'_, FeedCheck> {
        let feeds =
            vec![FeedCheckRow { author: node_id().to_string(), bundles: 3, ok: false, problem: Some("torn".into()) }];
        done(Ok(FeedCheck { ok: false, feeds }))
    }

    fn docs(&self) -> Answer<'_, Vec<DocRow>> {
        done(Ok(vec![]))
    }

    fn doc<'a>(&'a self, id: &'a str) -> Answer<'a, DocDetail> {
        done(Ok(DocDetail { id: id.into(), kind: "roster".into(), registers: vec![], text: None }))
    }

    fn doc_history<'a>(&'a self, _id: &'a str) -> Answer<'a, Vec<ChangeView>> {
        done(Ok(vec![]))
    }

    fn ideas(&self, _query: IdeasQuery) -> Answer<'_, Page<IdeaRow>> {
        done(Ok(Page { items: vec![], next: None }))
    }

    fn idea_add(&self, request: IdeaRequest) -> Answer<'_, IdeaAdded> {
        if request.title.is_empty() {
            return done(Err(ApiError::BadRequest("the title is empty".into())));
        }
        done(Ok(IdeaAdded { id: "ab".repeat(32), known: false, observation: None, durable_on: 2, similar: vec![] }))
    }

    fn idea<'a>(&'a self, id: &'a str) -> Answer<'a, IdeaView> {
        done(Err(ApiError::NotFound(format!("no idea {id:?}"))))
    }

    fn idea_say<'a>(&'a self, id: &'a str, _entry: EntryRequest) -> Answer<'a, EntryAdded> {
        done(Err(ApiError::NotFound(format!("no idea {id:?}"))))
    }

    fn ideas_search(&self, _search: IdeaSearch) -> Answer<'_, Page<IdeaFound>> {
        done(Ok(Page { items: vec![], next: None }))
    }

    fn ideas_top(&self, _query: TopQuery) -> Answer<'_, Vec<IdeaRanked>> {
        done(Ok(vec![]))
    }

    fn ideas_graph(&self, _query: GraphQuery) -> Answer<'_, IdeaGraph> {
        done(Ok(IdeaGraph { nodes: vec![], edges: vec![], complete: true }))
    }

    fn ideas_export(&self) -> Answer<'_, Items<Bytes>> {
        done(Ok(Box::pin(futures::stream::empty())))
    }

    fn ideas_import(&self, import: IdeasImport) -> Answer<'_, IdeasImported> {
        done(Ok(IdeasImported { added: import.entries.len() as u64, known: 0, durable_on: 1 }))
    }

    fn note<'a>(&'a self, id: &'a str) -> Answer<'a, NoteView> {
        let text = self.note.lock().unwrap().clone();
        done(Ok(NoteView { id: id.into(), text, heads: vec!["h1".into()], authors: vec![], durable_on: None }))
    }

    fn note_edit<'a>(&'a self, id: &'a str, edit: NoteEdit) -> Answer<'a, NoteView> {
        if edit.base.as_deref() != Some(&["h1".to_owned()]) {
            return done(Err(ApiError::BadRequest("unknown base".into())));
        }
        self.note.lock().unwrap().clone_from(&edit.text);
        let view =
            NoteView { id: id.into(), text: edit.text, heads: vec!["h1".into()], authors: vec![], durable_on: Some(2) };
        done(Ok(view))
    }

    fn events(&self, since: Option<u64>) -> Answer<'_, Items<Event>> {
        let happened = self.events.subscribe();
        let first = since.unwrap_or_else(|| *happened.borrow());
        let stream = futures::stream::unfold(first, move |last| {
            let mut happened = happened.clone();
            async move {
                happened.wait_for(|happened| *happened > last).await.ok()?;
                let event = Event { id: last + 1, kind: "job".into(), data: serde_json::json!({"n": last + 1}) };
                Some((Ok(event), last + 1))
            }
        });
        done(Ok(stream.boxed()))
    }

    fn trace<'a>(&'a self, id: &'a str) -> Answer<'a, TraceView> {
        done(Ok(TraceView { id: id.into(), steps: vec![] }))
    }

    fn record(&self) -> Answer<'_, Items<Bytes>> {
        done(Ok(Box::pin(futures::stream::once(std::future::ready(Ok(Bytes::from_static(b"v6 field log 1\n")))))))
    }

    fn metrics(&self) -> Answer<'_, String> {
        done(Ok("v6_up 1\n".into()))
    }

    fn doctor(&self) -> Answer<'_, Vec<Finding>> {
        done(Ok(vec![Finding {
            check: "disk".into(),
            severity: Severity::Error,
            problem: "the disk is full".into(),
            mend: "free some space".into(),
        }]))
    }
}
