//! What the API answers: questions to the core, wishes to it, and the blobs.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use crdt::SigningKey;
use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::{BlobHash, InviteId, JobId, NodeId, TraceId};
use crdt::job::{JobSpec, job_id_of_key};
use crdt::limits::INVITE_USES_MAX;
use crdt::roster::{Invite, Revocation, Role};
use crdt::shelf::{Shelf, Table};
use crdt::ticket::Ticket;
use futures::StreamExt;
use mesh::{Ack, Command, Refusal};
use serde_bytes::ByteArray;
use tokio::io::AsyncReadExt;
use web_gateway::api::*;

use super::driver::NodeCore;
use super::{Shared, logs, now_ms, random, views};
use crate::blobs::{BlobRef, GcMode, Pin, PinReason};
use crate::tree::{EntryKind, Manifest};

const ROSTER_WAIT: std::time::Duration = std::time::Duration::from_secs(5);
const ROSTER_LOOK: std::time::Duration = std::time::Duration::from_millis(20);
const JOBS_PAGE: usize = 1_000;
const TASKS_WINDOW: u32 = 10_000;
const EXPIRES_MS: u64 = 24 * 3_600 * 1_000;
const UPLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
const READ_CHUNK_BYTES: usize = 256 * 1024;

/// The node as the API sees it.
pub(super) struct Api(pub(super) Arc<Shared>);

fn stopping() -> ApiError {
    ApiError::NotReady("the node is stopping; start it again with `v6 up`".into())
}

fn not_built(what: &str) -> ApiError {
    ApiError::NotBuilt(format!("{what} is not built yet"))
}

fn refusal(refusal: Refusal) -> ApiError {
    let text = refusal.to_string();
    match refusal {
        Refusal::Role(_) => ApiError::NotAllowed(text),
        Refusal::NoJob(_) | Refusal::NoUpstream(_) => ApiError::NotFound(text),
        Refusal::KeyTaken(..) | Refusal::Over(..) => ApiError::Conflict(text),
        _ => ApiError::NotReady(text),
    }
}

/// Finds a job by its id or an unambiguous prefix.
fn find_job(core: &NodeCore, word: &str) -> Result<JobId, ApiError> {
    if let Ok(id) = JobId::from_str(word) {
        return Ok(id);
    }
    let valid = word.len() >= 2 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let whole = data_encoding::HEXLOWER.decode(word.get(..word.len() & !1).unwrap_or("").to_lowercase().as_bytes());
    let (true, Ok(prefix)) = (valid, whole) else {
        return Err(ApiError::NotFound(format!("no job {word:?}: ids are listed by `v6 jobs`")));
    };
    let rows = core.replica().shelf().scan(Table::Jobs, &prefix, &prefix, JOBS_PAGE);
    let mut found = rows
        .into_iter()
        .filter_map(|(key, _)| Some(JobId(key.try_into().ok()?)))
        .filter(|id| id.to_string().starts_with(&word.to_lowercase()));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => {
            Err(ApiError::Ambiguous(format!("several jobs begin with {word:?}: write more of the id")))
        }
        (None, _) => Err(ApiError::NotFound(format!("no job {word:?}: ids are listed by `v6 jobs`"))),
    }
}

fn api_role(role: Role) -> web_gateway::api::Role {
    use web_gateway::api::Role as Api;
    match role {
        Role::Admin => Api::Admin,
        Role::Submitter => Api::Submitter,
        Role::Worker => Api::Worker,
        Role::Observer => Api::Observer,
        Role::Gateway => Api::Gateway,
    }
}

fn core_role(role: web_gateway::api::Role) -> Role {
    use web_gateway::api::Role as Api;
    match role {
        Api::Admin => Role::Admin,
        Api::Submitter => Role::Submitter,
        Api::Worker => Role::Worker,
        Api::Observer => Role::Observer,
        Api::Gateway => Role::Gateway,
    }
}

impl Api {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut NodeCore) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.0.core.ask(question).await.ok_or_else(stopping)
    }

    async fn command(&self, command: Command) -> Result<Ack, ApiError> {
        self.0.core.command(command).await.ok_or_else(stopping)?.map_err(refusal)
    }

    async fn job_id(&self, word: &str) -> Result<JobId, ApiError> {
        let word = word.to_owned();
        self.ask(move |core| {
            let id = find_job(core, &word)?;
            core.replica_mut()
                .job(id)
                .map(|job| job.id)
                .ok_or_else(|| ApiError::NotFound(format!("no job {word} is known here")))
        })
        .await?
    }

    /// The person of this node; a node that has just joined or lost its store waits for the roster to arrive.
    async fn person(&self, me: NodeId) -> Result<crdt::ids::PersonId, ApiError> {
        let deadline = tokio::time::Instant::now() + ROSTER_WAIT;
        loop {
            if let Some(person) = self.ask(move |core| core.replica().roster().person(&me)).await? {
                return Ok(person);
            }
            if tokio::time::Instant::now() >= deadline {
                let text =
                    "this node does not know its mesh yet: no member is reachable; see `v6 peers` and `v6 doctor`";
                return Err(ApiError::NotReady(text.into()));
            }
            tokio::time::sleep(ROSTER_LOOK).await;
        }
    }

    async fn spec(
        &self,
        planned: &PlannedJob,
        ids: &[JobId],
        names: &mut Vec<JobId>,
    ) -> Result<(JobId, JobSpec), ApiError> {
        let request = &planned.request;
        if request.at_most_once {
            return Err(not_built("at-most-once"));
        }
        let me = self.0.me;
        let person = self.person(me).await?;
        let mut after = Vec::new();
        for word in &request.after {
            after.push(self.job_id(word).await?);
        }
        after.extend(planned.after_earlier.iter().filter_map(|at| ids.get(*at).copied()));
        let (mut input, mut manifest_bytes, mut input_bytes) = (None, 0, 0);
        if let Some(tree) = &request.input {
            let hash: BlobHash =
                tree.parse().map_err(|_| ApiError::BadRequest(format!("input {tree:?} is no hash of a tree")))?;
            let blob = self
                .0
                .blobs
                .resolve(&hash)
                .ok_or_else(|| ApiError::NotFound(format!("the input tree {tree} is not here: upload it first")))?;
            let bytes = self.0.blobs.read_all(&blob, blob.size).await.map_err(|e| ApiError::Internal(e.to_string()))?;
            let manifest = Manifest::decode(&bytes).map_err(|e| ApiError::BadRequest(e.to_string()))?;
            (input, manifest_bytes, input_bytes) = (Some(hash), blob.size, manifest.size_bytes());
        }
        let id = match &request.key {
            Some(key) => job_id_of_key(person, key),
            None => JobId(random().map_err(|e| ApiError::Internal(e.to_string()))?),
        };
        names.push(id);
        let spec = JobSpec {
            command: request.command.clone(),
            name: request.name.clone().unwrap_or_default(),
            input,
            input_bytes,
            input_manifest_bytes: manifest_bytes,
            outputs: request.outputs.clone(),
            labels: request.labels.clone(),
            env: request.env.clone(),
            timeout_ms: request.timeout_ms.unwrap_or(0),
            retries: request.retries,
            array: request.array.unwrap_or(0),
            after,
            key: request.key.clone(),
            priority: request.priority,
            value: request.value_micros,
            max_price: request.max_price_micros_per_hour,
            cores: request.cores.unwrap_or(0),
            memory_bytes: request.memory_bytes.unwrap_or(0),
            os: request.os.clone(),
            region: request.region.clone(),
            network: request.network,
            person,
            trace: TraceId(random().map_err(|e| ApiError::Internal(e.to_string()))?),
            created_ms: now_ms(),
        };
        Ok((id, spec))
    }

    async fn submit_specs(&self, jobs: Vec<(JobId, JobSpec)>) -> Result<Vec<Submitted>, ApiError> {
        let ids: Vec<(JobId, TraceId, String)> =
            jobs.iter().map(|(id, spec)| (*id, spec.trace, spec.name.clone())).collect();
        let ack = self.command(Command::Submit(jobs)).await?;
        let wanted: Vec<JobId> = ids.iter().map(|(id, ..)| *id).collect();
        let traces = self
            .ask(move |core| {
                wanted
                    .iter()
                    .map(|id| core.replica_mut().job(*id).and_then(|j| j.spec()).map(|(_, s)| s.trace))
                    .collect::<Vec<_>>()
            })
            .await?;
        let mut warnings = ack.warnings.into_iter();
        Ok(ids
            .into_iter()
            .zip(traces)
            .map(|((id, trace, name), known)| Submitted {
                job: id.to_string(),
                trace: known.unwrap_or(trace).to_string(),
                durable_on: ack.durable_on,
                warning: warnings.next().flatten(),
                name: (!name.is_empty()).then_some(name),
            })
            .collect())
    }

    async fn body(&self, blob: BlobRef, range: Option<ByteRange>) -> BlobBody {
        let reader = match range {
            Some(range) => self.0.blobs.read_range(&blob, range.start..range.end.min(blob.size)),
            None => self.0.blobs.read(&blob),
        };
        let stream = futures::stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            let mut buffer = vec![0; READ_CHUNK_BYTES];
            match reader.read(&mut buffer).await {
                Ok(0) => None,
                Ok(read) => {
                    buffer.truncate(read);
                    Some((Ok(Bytes::from(buffer)), Some(reader)))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        BlobBody { hash: blob.hash, size: blob.size, stream: stream.boxed() }
    }

    async fn artifact_list(&self, id: JobId) -> Result<Vec<(ArtifactView, NodeId)>, ApiError> {
        self.ask(move |core| core.replica_mut().job(id).map(views::job_artifacts).unwrap_or_default()).await
    }
}

fn job_row(core: &mut NodeCore, id: JobId) -> Option<JobRow> {
    let row = core.replica().job_row(id)?;
    let state = row.state()?;
    let command = core.replica().cached_job(&id).and_then(|j| j.spec()).map(|(_, s)| s.command.clone());
    Some(JobRow {
        id: id.to_string(),
        state: views::state(state),
        trace: row.trace.to_string(),
        submitter: row.submitter?.to_string(),
        owner: row.owner.map(|o| o.to_string()),
        created: views::time(row.created_ms),
        ended: None,
        tasks: row.tasks,
        done: row.done,
        name: None,
        command: command.unwrap_or_else(|| vec![row.title]),
    })
}

impl NodeApi for Api {
    fn status(&self) -> Answer<'_, StatusView> {
        Box::pin(async move {
            let shared = Arc::clone(&self.0);
            let usage = shared.blobs.usage();
            self.ask(move |core| {
                let mut jobs: BTreeMap<JobState, u64> = BTreeMap::new();
                for (_, row) in core.replica().shelf().all(Table::Jobs, &[]) {
                    if let Some(state) = crdt::cbor::decode::<crdt::replica::JobRow>(&row).ok().and_then(|r| r.state())
                    {
                        *jobs.entry(views::state(state)).or_default() += 1;
                    }
                }
                let feeds = core.replica().feeds().iter().map(|(author, feed)| {
                    (author.to_string(), FeedHead { seq: feed.seq, hash: feed.hash.to_string(), frozen: feed.frozen })
                });
                StatusView {
                    node: shared.me.to_string(),
                    name: shared.name.clone(),
                    role: core.replica().roster().role(&shared.me).map(api_role),
                    mesh: core.replica().mesh().to_string(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    peers_online: u32::try_from(core.connected().count()).unwrap_or(u32::MAX),
                    jobs,
                    feeds: feeds.collect(),
                    state_hash: data_encoding::HEXLOWER.encode(&core.replica().state_hash()),
                    lease_ms: mesh::limits::LEASE_MS,
                    api_token_file: shared.options.data_dir.join(crate::client::TOKEN_FILE).display().to_string(),
                    api: String::new(),
                    listen: shared.net.listen_addrs().iter().map(ToString::to_string).collect(),
                    data_dir: shared.options.data_dir.display().to_string(),
                    slots: core.offer().slots,
                    slots_busy: core.offer().slots.saturating_sub(core.offer().free),
                    sandbox: format!("{:?}", shared.sandbox).to_lowercase(),
                    paused: usage.paused.then(|| "the blob store is full".to_owned()),
                    uptime_ms: now_ms().saturating_sub(shared.started_ms),
                    blob_bytes: usage.bytes,
                    blob_quota_bytes: Some(usage.quota_bytes),
                    recovered: shared.recovered,
                }
            })
            .await
        })
    }

    fn peers(&self) -> Answer<'_, Vec<PeerView>> {
        Box::pin(async move {
            let (me, infos) = (self.0.me, self.0.net.peers());
            self.ask(move |core| {
                let connected: std::collections::BTreeSet<NodeId> = core.connected().collect();
                let standing = core.replica().roster().standing().filter(|(node, _)| **node != me);
                standing
                    .map(|(node, member)| {
                        let offer = core.offer_of(node).cloned().unwrap_or_default();
                        let info = infos.iter().find(|info| info.node == *node);
                        let online = connected.contains(node);
                        PeerView {
                            node: node.to_string(),
                            name: member.name.clone(),
                            role: api_role(member.role()),
                            online,
                            labels: offer.labels,
                            slots: offer.slots,
                            price_micros_per_hour: offer.price_micros_per_hour,
                            region: (!offer.region.is_empty()).then_some(offer.region),
                            rtt_ms: info.and_then(|i| i.rtt_ms),
                            path: online.then_some(PeerPath::Direct),
                            addresses: info
                                .map(|i| i.addrs.iter().map(ToString::to_string).collect())
                                .unwrap_or_default(),
                            slots_free: Some(offer.free),
                            cores: Some(offer.cores),
                            memory_bytes: Some(offer.memory_bytes),
                            os: Some(offer.os),
                            attempts_done: 0,
                            attempts_failed: 0,
                            last_seen: None,
                        }
                    })
                    .collect()
            })
            .await
        })
    }

    fn jobs(&self, query: JobsQuery) -> Answer<'_, Page<JobRow>> {
        Box::pin(async move {
            self.ask(move |core| {
                let most = query.limit.map_or(JOBS_PAGE, |l| l as usize).clamp(1, JOBS_PAGE);
                let before =
                    query.cursor.and_then(|c| data_encoding::HEXLOWER.decode(c.as_bytes()).ok()).unwrap_or_default();
                let rows = core.replica().shelf().scan_back(Table::JobsByTime, &before, most);
                let next = (rows.len() == most)
                    .then(|| rows.last().map(|(key, _)| data_encoding::HEXLOWER.encode(key)))
                    .flatten();
                let ids = rows.into_iter().filter_map(|(key, _)| Some(JobId(key.get(8..)?.try_into().ok()?)));
                let items = ids.collect::<Vec<_>>().into_iter().filter_map(|id| job_row(core, id));
                let items = items.filter(|row| query.state.is_none_or(|s| s == row.state));
                let items =
                    items.filter(|row| query.submitter.as_ref().is_none_or(|s| row.submitter.starts_with(s))).collect();
                Page { items, next }
            })
            .await
        })
    }

    fn job<'a>(&'a self, id: &'a str, query: JobQuery) -> Answer<'a, JobView> {
        Box::pin(async move {
            let id = self.job_id(id).await?;
            let view = self.ask(move |core| {
                let job = core.replica_mut().job(id)?;
                views::job_view(job, query.tasks_from.unwrap_or(0), query.tasks_max.unwrap_or(TASKS_WINDOW))
            });
            view.await?.ok_or_else(|| ApiError::NotFound(format!("job {id} is not wholly known here yet; try again")))
        })
    }

    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Explain> {
        Box::pin(async move {
            let id = self.job_id(id).await?;
            let explained = self.ask(move |core| {
                let explanation = core.explain(id)?;
                let job = core.replica_mut().job(id)?;
                let winner = job.attempts(0).iter().rev().find(|a| a.award).map(|a| a.id.owner);
                let offers = explanation.offers.into_iter().map(|offer| ExplainOffer {
                    node: offer.node.to_string(),
                    name: offer.name,
                    fits: offer.lacks.is_empty(),
                    bid_micros: offer.bid_micros,
                    rank: None,
                    detail: None,
                    codes: offer.lacks.iter().map(|l| format!("{l:?}").to_lowercase()).collect(),
                    lacks: offer.lacks.iter().map(ToString::to_string).collect(),
                    won: winner == Some(offer.node),
                });
                let offers = offers.collect();
                Some(Explain {
                    id: id.to_string(),
                    state: views::state(job.state()?),
                    summary: explanation.summary,
                    reasons: Vec::new(),
                    offers,
                })
            });
            explained
                .await?
                .ok_or_else(|| ApiError::NotFound(format!("job {id} is not wholly known here yet; try again")))
        })
    }

    fn submit(&self, jobs: Vec<PlannedJob>) -> Answer<'_, Vec<Submitted>> {
        Box::pin(async move {
            let (mut ids, mut specs) = (Vec::new(), Vec::new());
            for planned in &jobs {
                let known = ids.clone();
                specs.push(self.spec(planned, &known, &mut ids).await?);
            }
            self.submit_specs(specs).await
        })
    }

    fn cancel<'a>(&'a self, id: &'a str) -> Answer<'a, Cancelled> {
        Box::pin(async move {
            let id = self.job_id(id).await?;
            let answer = self.0.core.command(Command::Cancel(id)).await.ok_or_else(stopping)?;
            let durable_on = match answer {
                Ok(ack) => ack.durable_on,
                Err(Refusal::Over(..)) => 1,
                Err(other) => return Err(refusal(other)),
            };
            let state = self.ask(move |core| core.replica_mut().job(id).and_then(crdt::job::Job::state)).await?;
            let state = state.map_or(JobState::Cancelled, views::state);
            Ok(Cancelled { job: id.to_string(), state, durable_on })
        })
    }

    fn retry<'a>(&'a self, id: &'a str) -> Answer<'a, Submitted> {
        Box::pin(async move {
            let id = self.job_id(id).await?;
            let old = self.ask(move |core| {
                let job = core.replica_mut().job(id)?;
                let over = job.state().is_some_and(crdt::job::JobState::is_final);
                job.spec().map(|(_, spec)| (over, (**spec).clone()))
            });
            let (over, spec) = old.await?.ok_or_else(|| ApiError::NotFound(format!("job {id} is not known here")))?;
            if !over {
                return Err(ApiError::Conflict(format!(
                    "job {id} is not over; cancel it first (`v6 job cancel {id}`)"
                )));
            }
            let fresh = || random().map_err(|e| ApiError::Internal(e.to_string()));
            let spec = JobSpec { key: None, trace: TraceId(fresh()?), created_ms: now_ms(), ..spec };
            let submitted = self.submit_specs(vec![(JobId(fresh()?), spec)]).await?;
            submitted.into_iter().next().ok_or_else(stopping)
        })
    }

    fn logs<'a>(&'a self, id: &'a str, query: LogQuery) -> Answer<'a, Items<LogItem>> {
        Box::pin(async move {
            let id = self.job_id(id).await?;
            Ok(logs::stream(Arc::clone(&self.0), id, query))
        })
    }

    fn artifacts<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ArtifactView>> {
        Box::pin(async move {
            let id = self.job_id(id).await?;
            Ok(self.artifact_list(id).await?.into_iter().map(|(view, _)| view).collect())
        })
    }

    fn artifact(&self, key: ArtifactKey, range: Option<ByteRange>) -> Answer<'_, BlobBody> {
        Box::pin(async move {
            let (blob, owner, job) = match key {
                ArtifactKey::Blob(hash) => {
                    let blob = self
                        .0
                        .blobs
                        .resolve(&hash)
                        .ok_or_else(|| ApiError::NotFound(format!("no blob {hash} is held here")))?;
                    (blob, None, None)
                }
                ArtifactKey::File { job, task, attempt, path } => {
                    let id = self.job_id(&job).await?;
                    let list = self.artifact_list(id).await?;
                    let found = list.into_iter().find(|(view, _)| {
                        view.path == path
                            && task.is_none_or(|t| t == view.task)
                            && attempt.is_none_or(|a| a == view.attempt)
                    });
                    let (view, owner) =
                        found.ok_or_else(|| ApiError::NotFound(format!("job {id} has no artifact {path:?}")))?;
                    let hash = view.blob.parse().map_err(|_| ApiError::Internal("a malformed hash".into()))?;
                    (BlobRef { hash, size: view.size }, Some(owner), Some(id))
                }
            };
            if !self.0.blobs.has(&blob) {
                let mut holders: Vec<NodeId> = owner.into_iter().collect();
                holders.extend(self.ask(|core| core.connected().collect::<Vec<_>>()).await?);
                let pin = job.map_or(Pin::new(PinReason::Manual), Pin::job);
                let fetched = self.0.blobs.fetch(&blob, &holders, &pin, None).await;
                fetched.map_err(|e| ApiError::NotReady(format!("the blob {} cannot be fetched: {e}", blob.hash)))?;
            }
            Ok(self.body(blob, range).await)
        })
    }

    fn missing(&self, hashes: Vec<BlobHash>) -> Answer<'_, Vec<BlobHash>> {
        Box::pin(async move { Ok(hashes.into_iter().filter(|hash| self.0.blobs.resolve(hash).is_none()).collect()) })
    }

    fn put_blob(&self, hash: Option<BlobHash>, size_bytes: Option<u64>, mut body: ByteStream) -> Answer<'_, BlobAdded> {
        Box::pin(async move {
            let broken = |e: std::io::Error| ApiError::BadRequest(format!("the upload broke off: {e}"));
            let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(&self.0.options.data_dir).map_err(broken)?);
            while let Some(chunk) = body.next().await {
                tokio::io::AsyncWriteExt::write_all(&mut file, &chunk.map_err(broken)?).await.map_err(broken)?;
            }
            tokio::io::AsyncSeekExt::rewind(&mut file).await.map_err(broken)?;
            let file = file.into_std().await;
            let added = self
                .0
                .blobs
                .add_open_file(file, size_bytes.unwrap_or(UPLOAD_BYTES_MAX), &Pin::new(PinReason::Upload))
                .await;
            let blob = added.map_err(|e| ApiError::NotReady(e.to_string()))?;
            if hash.is_some_and(|hash| hash != blob.hash) {
                return Err(ApiError::BadRequest(format!(
                    "the bytes hash to {}, not to what was announced",
                    blob.hash
                )));
            }
            self.0.blobs.sync().await.map_err(|e| ApiError::NotReady(e.to_string()))?;
            Ok(BlobAdded { blob: blob.hash.to_string(), size: blob.size })
        })
    }

    fn put_blobs(&self, blobs: Vec<(BlobHash, Bytes)>) -> Answer<'_, ()> {
        Box::pin(async move {
            for (hash, bytes) in blobs {
                let added = self.0.blobs.add_bytes(bytes, &Pin::new(PinReason::Upload)).await;
                if added.map_err(|e| ApiError::NotReady(e.to_string()))?.hash != hash {
                    return Err(ApiError::BadRequest(format!("the bytes announced as {hash} hash to something else")));
                }
            }
            self.0.blobs.sync().await.map_err(|e| ApiError::NotReady(e.to_string()))
        })
    }

    fn put_tree(&self, manifest: Bytes) -> Answer<'_, TreeAdded> {
        Box::pin(async move {
            let read = Manifest::decode(&manifest).map_err(|e| ApiError::BadRequest(e.to_string()))?;
            let added = self.0.blobs.add_bytes(manifest, &Pin::new(PinReason::Upload)).await;
            let blob = added.map_err(|e| ApiError::NotReady(e.to_string()))?;
            let files = read.entries().iter().filter_map(|entry| match &entry.kind {
                EntryKind::File { hash, size, .. } => Some(BlobRef { hash: *hash, size: *size }),
                EntryKind::Symlink { .. } | EntryKind::Dir => None,
            });
            let missing = files.filter(|file| !self.0.blobs.has(file)).map(|file| file.hash.to_string()).collect();
            self.0.blobs.sync().await.map_err(|e| ApiError::NotReady(e.to_string()))?;
            Ok(TreeAdded { tree: blob.hash.to_string(), missing })
        })
    }

    fn blobs(&self, query: BlobsQuery) -> Answer<'_, Page<BlobRow>> {
        Box::pin(async move {
            let most = query.limit.map_or(JOBS_PAGE, |l| l as usize).clamp(1, JOBS_PAGE);
            let rows = self.0.blobs.list(query.cursor.and_then(|c| c.parse().ok()), most);
            let items: Vec<BlobRow> = rows
                .into_iter()
                .map(|info| BlobRow {
                    blob: info.hash.to_string(),
                    size: info.size.unwrap_or(info.stored_bytes),
                    pinned_by: info.pins.iter().map(|p| format!("{p:?}")).collect(),
                    holders: Vec::new(),
                })
                .collect();
            let next = (items.len() == most).then(|| items.last().map(|row| row.blob.clone())).flatten();
            Ok(Page { items, next })
        })
    }

    fn gc(&self) -> Answer<'_, GcReport> {
        Box::pin(async move {
            let report = self.0.blobs.gc(GcMode::All).await.map_err(|e| ApiError::NotReady(e.to_string()))?;
            Ok(GcReport {
                blobs_dropped: report.deleted as u64,
                bytes_freed: report.freed_bytes,
                bytes_held: self.0.blobs.usage().bytes,
            })
        })
    }

    fn invite(&self, request: InviteRequest) -> Answer<'_, Invited> {
        Box::pin(async move {
            let role = core_role(request.role);
            let uses = request.uses.unwrap_or(1);
            if uses == 0 || uses > INVITE_USES_MAX {
                return Err(ApiError::BadRequest(format!("an invite has 1 to {INVITE_USES_MAX} uses, not {uses}")));
            }
            let expires_ms = now_ms() + request.expires_ms.unwrap_or(EXPIRES_MS);
            let secret: [u8; 32] = random().map_err(|e| ApiError::Internal(e.to_string()))?;
            let id = InviteId(SigningKey::from_bytes(&secret).verifying_key().to_bytes());
            let me = self.0.me;
            let (admin, mesh, founder) = self
                .ask(move |core| {
                    let admin = core.replica().roster().role(&me).is_some_and(Role::may_administer);
                    (admin, core.replica().mesh(), core.replica().founder())
                })
                .await?;
            if !admin {
                return Err(ApiError::NotAllowed(
                    "only an admin may invite; run `v6 invite` on an admin's node".into(),
                ));
            }
            let invite = Invite { role, expires_ms, uses, person: None };
            self.command(Command::Write(vec![Change::register(DocId::ROSTER, &Key::Invite(id), &invite)])).await?;
            let addrs: Vec<String> = self.0.net.listen_addrs().iter().take(8).map(ToString::to_string).collect();
            let ticket =
                Ticket { mesh, founder, secret: ByteArray::new(secret), role, expires_ms, members: vec![(me, addrs)] };
            Ok(Invited { ticket: ticket.encode(), role: request.role, expires: views::time(expires_ms), uses })
        })
    }

    fn invites(&self) -> Answer<'_, Vec<InviteRow>> {
        Box::pin(async move {
            self.ask(|core| {
                let row = |(id, (invite, used)): (&InviteId, &(Invite, u32))| InviteRow {
                    id: id.to_string(),
                    role: api_role(invite.role),
                    expires: views::time(invite.expires_ms),
                    uses: invite.uses,
                    used: *used,
                    by: String::new(),
                };
                core.replica().roster().invites.iter().map(row).collect()
            })
            .await
        })
    }

    fn members(&self) -> Answer<'_, Vec<MemberRow>> {
        Box::pin(async move {
            let me = self.0.me;
            self.ask(move |core| {
                let roster = core.replica().roster();
                let row = |(node, member): (&NodeId, &crdt::roster::Member)| MemberRow {
                    node: node.to_string(),
                    name: member.name.clone(),
                    role: api_role(member.role()),
                    person: Some(member.person.to_string()),
                    joined: Some(views::time(member.admitted_ms)),
                    revoked: roster.revoked.contains_key(node),
                    reason: roster.suspended.contains(node).then(|| "suspended: admins revoked each other".into()),
                    this: *node == me,
                };
                roster.members.iter().map(row).collect()
            })
            .await
        })
    }

    fn revoke(&self, node: NodeId, reason: Option<String>) -> Answer<'_, Revoked> {
        Box::pin(async move {
            let me = self.0.me;
            let (admin, known, head) = self
                .ask(move |core| {
                    let roster = core.replica().roster();
                    let admin = roster.role(&me).is_some_and(Role::may_administer);
                    (
                        admin,
                        roster.members.contains_key(&node),
                        core.replica().feeds().get(&node).cloned().unwrap_or_default(),
                    )
                })
                .await?;
            if !admin {
                return Err(ApiError::NotAllowed("only an admin may revoke a member".into()));
            }
            if !known {
                return Err(ApiError::NotFound(format!("no member {node}: `v6 members` lists them")));
            }
            let value = Revocation {
                last_seq: head.seq,
                last_hash: head.hash,
                reason: reason.unwrap_or_default(),
                recovery: None,
            };
            let ack =
                self.command(Command::Write(vec![Change::register(DocId::ROSTER, &Key::Revoke(node), &value)])).await?;
            Ok(Revoked { node: node.to_string(), after_seq: head.seq, durable_on: ack.durable_on })
        })
    }

    fn feeds(&self) -> Answer<'_, Vec<FeedView>> {
        Box::pin(async move {
            self.ask(|core| {
                let members = &core.replica().roster().members;
                let view = |(author, feed): (&NodeId, &crdt::replica::Feed)| FeedView {
                    author: author.to_string(),
                    name: members.get(author).map(|m| m.name.clone()),
                    seq: feed.seq,
                    hash: feed.hash.to_string(),
                    frozen: feed.frozen,
                    reason: feed.frozen.then(|| "two versions of this feed exist".into()),
                    checkpoint: None,
                };
                core.replica().feeds().iter().map(view).collect()
            })
            .await
        })
    }

    fn feeds_verify(&self) -> Answer<'_, FeedCheck> {
        Box::pin(async move {
            self.ask(|core| {
                let mut feeds = Vec::new();
                for (author, feed) in core.replica().feeds().clone() {
                    let (mut prev, mut bundles, mut problem) = (crdt::ids::BundleHash::ZERO, 0, None);
                    for wire in core.replica().bundles(author, 1, usize::MAX) {
                        match crdt::bundle::Bundle::decode(wire) {
                            Ok(b) if b.header.prev == prev && b.header.seq == bundles + 1 => prev = b.hash,
                            Ok(b) => problem = Some(format!("bundle {} does not follow the one before", b.header.seq)),
                            Err(e) => problem = Some(format!("bundle {}: {e}", bundles + 1)),
                        }
                        bundles += 1;
                    }
                    if problem.is_none() && (bundles != feed.seq || prev != feed.hash) {
                        problem = Some("the feed's head does not fit its bundles".into());
                    }
                    feeds.push(FeedCheckRow { author: author.to_string(), bundles, ok: problem.is_none(), problem });
                }
                FeedCheck { ok: feeds.iter().all(|f| f.ok), feeds }
            })
            .await
        })
    }

    fn docs(&self) -> Answer<'_, Vec<DocRow>> {
        Box::pin(async { Err(not_built("the list of documents")) })
    }

    fn doc<'a>(&'a self, _id: &'a str) -> Answer<'a, DocDetail> {
        Box::pin(async { Err(not_built("`doc show`")) })
    }

    fn doc_history<'a>(&'a self, _id: &'a str) -> Answer<'a, Vec<ChangeView>> {
        Box::pin(async { Err(not_built("`doc history`")) })
    }

    fn note<'a>(&'a self, _id: &'a str) -> Answer<'a, NoteView> {
        Box::pin(async { Err(not_built("`note show`")) })
    }

    fn note_edit<'a>(&'a self, _id: &'a str, _edit: NoteEdit) -> Answer<'a, NoteView> {
        Box::pin(async { Err(not_built("`note edit`")) })
    }

    fn events(&self, since: Option<u64>) -> Answer<'_, Items<Event>> {
        Box::pin(async move { Ok(self.0.events.subscribe(since)) })
    }

    fn trace<'a>(&'a self, _id: &'a str) -> Answer<'a, TraceView> {
        Box::pin(async { Err(not_built("`trace`")) })
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(async move {
            let status = self.status().await?;
            let mut text = format!(
                "# TYPE v6_peers_online gauge\nv6_peers_online {}\n# TYPE v6_jobs gauge\n",
                status.peers_online
            );
            for (state, count) in &status.jobs {
                text.push_str(&format!("v6_jobs{{state=\"{}\"}} {count}\n", state.as_str()));
            }
            text.push_str(&format!("# TYPE v6_blob_bytes gauge\nv6_blob_bytes {}\n", status.blob_bytes));
            Ok(text)
        })
    }

    fn doctor(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let mut findings = Vec::new();
            let mut find = |check: &str, severity, problem: String, mend: &str| {
                findings.push(Finding { check: check.into(), severity, problem, mend: mend.into() });
            };
            if self.0.sandbox != crate::sandbox::SandboxKind::None
                && let Err(error) = crate::sandbox::probe(self.0.sandbox)
            {
                find(
                    "sandbox",
                    Severity::Error,
                    error.to_string(),
                    "choose another with --sandbox, or use a newer kernel",
                );
            }
            if self.0.blobs.usage().paused {
                find(
                    "blobs",
                    Severity::Error,
                    "the blob store is full".into(),
                    "raise --blob-quota or remove finished jobs",
                );
            }
            if self.ask(|core| core.connected().next().is_none()).await? {
                find(
                    "peers",
                    Severity::Info,
                    "no peer is connected".into(),
                    "invite one with `v6 invite`, or start the others",
                );
            }
            Ok(findings)
        })
    }
}
