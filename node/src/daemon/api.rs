//! What the API answers: questions to the core, wishes to it, and the blobs.

mod blobs;
mod docs;
mod ideas;
mod jobs;
mod mesh;
mod mirror;
mod policy;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use ::mesh::{Ack, Command, Refusal};
use bytes::Bytes;
use crdt::ids::{BlobHash, NodeId};
use tokio::sync::mpsc;
use web_gateway::api::*;

use super::Shared;
use super::driver::{CoreHandle, NodeCore};

/// Chunks of a recording between the node and who reads it.
const RECORDED_CHUNKS: usize = 64;

/// Why a node takes no work, and acknowledges none, for a while.
pub(super) const HOLDS: &str =
    "its store was lost or restored: it waits for other members to say what this node wrote before";
/// Time that a wish waits for them before it is refused.
const HOLD_PATIENCE: Duration = Duration::from_secs(15);
const HOLD_LOOK: Duration = Duration::from_millis(50);

/// The node as the API sees it.
pub(super) struct Api(pub(super) Arc<Shared>);

pub(super) fn stopping() -> ApiError {
    ApiError::NotReady("the node is stopping; start it again with `v6 up`".into())
}

/// What comes out of a channel, as a stream.
pub(super) fn items<T: Send + 'static>(mut receiver: mpsc::Receiver<Result<T, ApiError>>) -> Items<T> {
    Box::pin(futures::stream::poll_fn(move |context| receiver.poll_recv(context)))
}

pub(super) fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::Internal(error.to_string())
}

pub(super) fn refusal(refusal: Refusal) -> ApiError {
    let text = refusal.to_string();
    #[allow(clippy::wildcard_enum_match_arm, reason = "the enum may grow; the rest may pass")]
    match refusal {
        Refusal::Role(_) => ApiError::NotAllowed(text),
        Refusal::NoJob(_) | Refusal::NoUpstream(_) => ApiError::NotFound(text),
        Refusal::KeyTaken(..) | Refusal::Over(..) => ApiError::Conflict(text),
        _ => ApiError::NotReady(text),
    }
}

/// Hands a wish to the core, once the core may write.
///
/// # Errors
/// What the core refuses; it waits to hear what it wrote before its store was lost.
pub(super) async fn wish(core: &CoreHandle, command: Command) -> Result<Result<Ack, Refusal>, ApiError> {
    let deadline = tokio::time::Instant::now() + HOLD_PATIENCE;
    while core.ask(|core| core.waits_for_own_feed()).await.ok_or_else(stopping)? {
        if tokio::time::Instant::now() >= deadline {
            return Err(ApiError::NotReady(format!(
                "this node takes nothing yet: {HOLDS}; try again later, or on another node"
            )));
        }
        tokio::time::sleep(HOLD_LOOK).await;
    }
    core.command(command).await.ok_or_else(stopping)
}

impl Api {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut NodeCore) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.0.core.ask(question).await.ok_or_else(stopping)
    }

    async fn command(&self, command: Command) -> Result<Ack, ApiError> {
        wish(&self.0.core, command).await?.map_err(refusal)
    }
}

impl NodeApi for Api {
    fn status(&self) -> Answer<'_, StatusView> {
        Box::pin(mesh::status(self))
    }

    fn peers(&self) -> Answer<'_, Vec<PeerView>> {
        Box::pin(mesh::peers(self))
    }

    fn jobs(&self, query: JobsQuery) -> Answer<'_, Page<JobRow>> {
        Box::pin(jobs::jobs(self, query))
    }

    fn job<'a>(&'a self, id: &'a str, query: JobQuery) -> Answer<'a, JobView> {
        Box::pin(jobs::job(self, id, query))
    }

    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Explain> {
        Box::pin(jobs::explain(self, id))
    }

    fn join_view(&self) -> Answer<'_, JoinView> {
        Box::pin(mesh::join_view(self))
    }

    fn bundles<'a>(&'a self, author: &'a str, from_seq: u64, most: usize) -> Answer<'a, Vec<MirrorBundle>> {
        Box::pin(mirror::bundles(self, author, from_seq, most))
    }

    fn mirrors(&self) -> Answer<'_, Vec<MirrorView>> {
        Box::pin(mirror::views(self))
    }

    fn mirror_verify<'a>(&'a self, kind: &'a str) -> Answer<'a, MirrorCheck> {
        Box::pin(mirror::verify(self, kind))
    }

    fn mirror_rebuild<'a>(&'a self, kind: &'a str) -> Answer<'a, MirrorView> {
        Box::pin(mirror::rebuild(self, kind))
    }

    fn waiting(&self) -> Answer<'_, WaitingView> {
        Box::pin(jobs::waiting(self))
    }

    fn preview(&self, job: PlannedJob) -> Answer<'_, Explain> {
        Box::pin(jobs::preview(self, job))
    }

    fn submit(&self, jobs: Vec<PlannedJob>) -> Answer<'_, Vec<Submitted>> {
        Box::pin(jobs::submit(self, jobs))
    }

    fn cancel<'a>(&'a self, id: &'a str) -> Answer<'a, Cancelled> {
        Box::pin(jobs::cancel(self, id))
    }

    fn retry<'a>(&'a self, id: &'a str) -> Answer<'a, Submitted> {
        Box::pin(jobs::retry(self, id))
    }

    fn logs<'a>(&'a self, id: &'a str, query: LogQuery) -> Answer<'a, Items<LogItem>> {
        Box::pin(jobs::logs(self, id, query))
    }

    fn artifacts<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ArtifactView>> {
        Box::pin(blobs::artifacts(self, id))
    }

    fn artifact(&self, key: ArtifactKey, range: Option<ByteRange>) -> Answer<'_, BlobBody> {
        Box::pin(blobs::artifact(self, key, range))
    }

    fn ideas(&self, query: IdeasQuery) -> Answer<'_, Page<IdeaRow>> {
        Box::pin(ideas::ideas(self, query))
    }

    fn idea_add(&self, request: IdeaRequest) -> Answer<'_, IdeaAdded> {
        Box::pin(ideas::add(self, request))
    }

    fn idea<'a>(&'a self, id: &'a str) -> Answer<'a, IdeaView> {
        Box::pin(ideas::idea(self, id))
    }

    fn idea_say<'a>(&'a self, id: &'a str, entry: EntryRequest) -> Answer<'a, EntryAdded> {
        Box::pin(ideas::say(self, id, entry))
    }

    fn ideas_search(&self, search: IdeaSearch) -> Answer<'_, Page<IdeaFound>> {
        Box::pin(ideas::search(self, search))
    }

    fn ideas_top(&self, query: TopQuery) -> Answer<'_, Vec<IdeaRanked>> {
        Box::pin(ideas::top(self, query))
    }

    fn ideas_graph(&self, query: GraphQuery) -> Answer<'_, IdeaGraph> {
        Box::pin(ideas::graph(self, query))
    }

    fn ideas_export(&self) -> Answer<'_, Items<Bytes>> {
        Box::pin(ideas::export(self))
    }

    fn ideas_import(&self, import: IdeasImport) -> Answer<'_, IdeasImported> {
        Box::pin(ideas::import(self, import))
    }

    fn missing(&self, hashes: Vec<BlobHash>) -> Answer<'_, Vec<BlobHash>> {
        Box::pin(std::future::ready(Ok(blobs::missing(self, hashes))))
    }

    fn put_blob(&self, hash: Option<BlobHash>, size_bytes: Option<u64>, body: ByteStream) -> Answer<'_, BlobAdded> {
        Box::pin(blobs::put_blob(self, hash, size_bytes, body))
    }

    fn put_blobs(&self, blobs: Vec<(BlobHash, Bytes)>) -> Answer<'_, ()> {
        Box::pin(blobs::put_blobs(self, blobs))
    }

    fn put_tree(&self, manifest: Bytes) -> Answer<'_, TreeAdded> {
        Box::pin(blobs::put_tree(self, manifest))
    }

    fn blobs(&self, query: BlobsQuery) -> Answer<'_, Page<BlobRow>> {
        Box::pin(std::future::ready(Ok(blobs::blobs(self, &query))))
    }

    fn gc(&self) -> Answer<'_, GcReport> {
        Box::pin(blobs::gc(self))
    }

    fn invite(&self, request: InviteRequest) -> Answer<'_, Invited> {
        Box::pin(mesh::invite(self, request))
    }

    fn invites(&self) -> Answer<'_, Vec<InviteRow>> {
        Box::pin(mesh::invites(self))
    }

    fn members(&self) -> Answer<'_, Vec<MemberRow>> {
        Box::pin(mesh::members(self))
    }

    fn revoke(&self, node: NodeId, reason: Option<String>) -> Answer<'_, Revoked> {
        Box::pin(mesh::revoke(self, node, reason))
    }

    fn policies(&self) -> Answer<'_, Vec<PolicyView>> {
        Box::pin(policy::list(self))
    }

    fn set_policy(&self, name: String, value: String) -> Answer<'_, PolicySet> {
        Box::pin(policy::set(self, name, value))
    }

    fn feeds(&self) -> Answer<'_, Vec<FeedView>> {
        Box::pin(mesh::feeds(self))
    }

    fn feeds_verify(&self) -> Answer<'_, FeedCheck> {
        Box::pin(mesh::feeds_verify(self))
    }

    fn docs(&self) -> Answer<'_, Vec<DocRow>> {
        Box::pin(docs::docs(self))
    }

    fn doc<'a>(&'a self, id: &'a str) -> Answer<'a, DocDetail> {
        Box::pin(docs::doc(self, id))
    }

    fn doc_history<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChangeView>> {
        Box::pin(docs::doc_history(self, id))
    }

    fn note<'a>(&'a self, id: &'a str) -> Answer<'a, NoteView> {
        Box::pin(docs::note(self, id))
    }

    fn note_edit<'a>(&'a self, id: &'a str, edit: NoteEdit) -> Answer<'a, NoteView> {
        Box::pin(docs::note_edit(self, id, edit))
    }

    fn events(&self, since: Option<u64>) -> Answer<'_, Items<Event>> {
        Box::pin(async move { Ok(self.0.events.subscribe(since)) })
    }

    fn record(&self) -> Answer<'_, Items<Bytes>> {
        let (sink, bytes) = mpsc::channel(RECORDED_CHUNKS);
        self.0.core.record(sink);
        Box::pin(std::future::ready(Ok(items(bytes))))
    }

    fn trace<'a>(&'a self, id: &'a str) -> Answer<'a, TraceView> {
        Box::pin(trace::trace(self, id))
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(mesh::metrics(self))
    }

    fn doctor(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(mesh::doctor(self))
    }
}
