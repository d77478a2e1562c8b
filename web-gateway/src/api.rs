//! The one trait through which HTTP, CLI and dashboard see a node, and the types that travel through it.
//!
//! Field names are the JSON that scripts rely on: fields may be added, never renamed. Identifiers are lower-case hexadecimal
//! strings, times are RFC 3339 in UTC with milliseconds, money is micro-units, sizes are bytes.

mod blobs;
mod docs;
mod error;
mod events;
mod ideas;
mod jobs;
mod logs;
mod mesh;
mod mirror;
mod request;

use bytes::Bytes;
use crdt::ids::{BlobHash, NodeId};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use blobs::{
    ArtifactKey, BlobAdded, BlobBody, BlobRow, BlobsQuery, ByteRange, ByteStream, GcReport, MissingAnswer,
    MissingQuery, TreeAdded,
};
pub use docs::{ChangeView, DocDetail, DocRow, FeedCheck, FeedCheckRow, FeedView, NoteEdit, NoteView, RegisterView};
pub use error::ApiError;
pub use events::{Event, Finding, Severity, TraceStep, TraceView};
pub use ideas::{
    EntryAdded, EntryRequest, EntryView, GraphEdge, GraphNode, GraphQuery, HandoverView, IdeaAdded, IdeaFound,
    IdeaGraph, IdeaRanked, IdeaRequest, IdeaRow, IdeaSearch, IdeaView, IdeasImport, IdeasImported, IdeasQuery,
    LinkView, OutcomeArtifact, OutcomeView, Similar, TopQuery,
};
pub use jobs::{
    ArtifactView, AttemptState, AttemptView, Cancelled, Explain, ExplainOffer, JobQuery, JobRow, JobState, JobView,
    JobsQuery, Page, TaskView, WaitingGroup, WaitingView,
};
pub use logs::{LogItem, LogLine, LogQuery, LogStream};
pub use mesh::{
    DelegateRequest, Delegated, FeedHead, InviteRequest, InviteRow, Invited, JoinView, MemberRow, PeerPath, PeerView,
    PolicyRequest, PolicySet, PolicyView, Revoked, Role, StatusView,
};
pub use mirror::{MirrorBundle, MirrorCheck, MirrorView, Touched};
pub use request::{
    AFTER_MAX, ARRAY_TASKS_MAX, COMMAND_BYTES_MAX, JOBS_PER_REQUEST_MAX, JobRequest, PlannedJob, Submitted, WORDS_MAX,
    plan,
};

/// What a method of [`NodeApi`] returns: a boxed future, so that the trait can be used as `Arc<dyn NodeApi>`.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// A stream that outlives the call that opened it. Dropping it ends the work behind it.
pub type Items<T> = BoxStream<'static, Result<T, ApiError>>;

/// A node as its own user sees it: everything that the CLI, the dashboard and scripts may ask or order.
///
/// The caller has been authenticated as the node's owner. Every method may be called concurrently. An `id` of a job, blob,
/// document or trace is the whole identifier or a prefix; an unknown one is [`ApiError::NotFound`], a prefix of several
/// [`ApiError::Ambiguous`]. A change has been made durable before its answer is given.
pub trait NodeApi: Send + Sync + 'static {
    /// The node, its mesh and the heads of all feeds.
    fn status(&self) -> Answer<'_, StatusView>;
    /// The other members of the mesh, this node left out.
    fn peers(&self) -> Answer<'_, Vec<PeerView>>;

    /// Jobs, newest first, one page at a time.
    fn jobs(&self, query: JobsQuery) -> Answer<'_, Page<JobRow>>;
    /// One job with (a window of) its tasks.
    fn job<'a>(&'a self, id: &'a str, query: JobQuery) -> Answer<'a, JobView>;
    /// Why a job runs where it runs, or why it still waits.
    fn explain<'a>(&'a self, id: &'a str) -> Answer<'a, Explain>;
    /// What the jobs wait for that nobody has claimed yet.
    fn waiting(&self) -> Answer<'_, WaitingView>;
    /// Where a job would run if it were submitted now; nothing is submitted.
    fn preview(&self, job: PlannedJob) -> Answer<'_, Explain>;
    /// Accepts jobs, all or none. The list has been checked and ordered by [`plan`]: dependencies inside it point backwards.
    /// Answers come in the order of the list.
    fn submit(&self, jobs: Vec<PlannedJob>) -> Answer<'_, Vec<Submitted>>;
    /// Cancels a job. A job that has already ended keeps its state, which the answer tells.
    fn cancel<'a>(&'a self, id: &'a str) -> Answer<'a, Cancelled>;
    /// Submits an ended job's spec again, as a job of its own.
    fn retry<'a>(&'a self, id: &'a str) -> Answer<'a, Submitted>;

    /// A job's output. Without `follow` it ends at what is there; with it, when the job has ended; in both cases the last
    /// item of a job that has ended is [`LogItem::End`].
    fn logs<'a>(&'a self, id: &'a str, query: LogQuery) -> Answer<'a, Items<LogItem>>;

    /// The artifacts of a job: per task those of the accepted attempt, else of the newest attempt that has any.
    fn artifacts<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ArtifactView>>;
    /// The bytes of an artifact or of a blob, fetched from a holder when this node has none. A `range` is answered with those
    /// bytes alone.
    fn artifact(&self, key: ArtifactKey, range: Option<ByteRange>) -> Answer<'_, BlobBody>;

    /// Which of these blobs this node does not hold, in the order asked.
    fn missing(&self, hashes: Vec<BlobHash>) -> Answer<'_, Vec<BlobHash>>;
    /// Stores a blob. With a `hash` other bytes are refused ([`ApiError::BadRequest`]); `size_bytes` is what the caller
    /// announced. The blob is kept for at least an hour even when nothing names it yet.
    fn put_blob(&self, hash: Option<BlobHash>, size_bytes: Option<u64>, body: ByteStream) -> Answer<'_, BlobAdded>;
    /// Stores many small blobs (8 MiB together at most) at once; the same promise as [`NodeApi::put_blob`].
    fn put_blobs(&self, blobs: Vec<(BlobHash, Bytes)>) -> Answer<'_, ()>;
    /// Stores the manifest of an input tree and says which of its files are still missing here.
    fn put_tree(&self, manifest: Bytes) -> Answer<'_, TreeAdded>;
    /// Blobs held here.
    fn blobs(&self, query: BlobsQuery) -> Answer<'_, Page<BlobRow>>;
    /// Drops blobs that nothing pins, oldest first, down to the quota.
    fn gc(&self) -> Answer<'_, GcReport>;

    /// Where the mesh is reached.
    fn join_view(&self) -> Answer<'_, JoinView>;
    /// Issues an invite and returns its ticket.
    fn invite(&self, request: InviteRequest) -> Answer<'_, Invited>;
    /// Invites that this mesh knows.
    fn invites(&self) -> Answer<'_, Vec<InviteRow>>;
    /// The roster: all members, revoked ones too.
    fn members(&self) -> Answer<'_, Vec<MemberRow>>;
    /// Revokes a member. Only an admin may.
    fn revoke(&self, node: NodeId, reason: Option<String>) -> Answer<'_, Revoked>;
    /// What the mesh as a whole wants.
    fn policies(&self) -> Answer<'_, Vec<PolicyView>>;
    /// Sets a policy; an empty value takes it back. Only an admin may.
    fn set_policy(&self, name: String, value: String) -> Answer<'_, PolicySet>;
    /// Issues a delegation.
    fn delegate(&self, _request: DelegateRequest) -> Answer<'_, Delegated> {
        Box::pin(async { Err(ApiError::NotBuilt("delegations are not built yet".into())) })
    }

    /// The heads of all feeds.
    fn feeds(&self) -> Answer<'_, Vec<FeedView>>;
    /// Bundles of a feed from a place on, up to `most` and some megabytes, unbroken; empty: there are none.
    fn bundles<'a>(&'a self, author: &'a str, from_seq: u64, most: usize) -> Answer<'a, Vec<MirrorBundle>>;
    /// How this node's mirrors stand.
    fn mirrors(&self) -> Answer<'_, Vec<MirrorView>>;
    /// Compares a mirror with the mesh.
    fn mirror_verify<'a>(&'a self, kind: &'a str) -> Answer<'a, MirrorCheck>;
    /// Drops what a mirror holds and fills it again.
    fn mirror_rebuild<'a>(&'a self, kind: &'a str) -> Answer<'a, MirrorView>;
    /// Reads every stored bundle again and checks hashes, links and signatures.
    fn feeds_verify(&self) -> Answer<'_, FeedCheck>;
    /// Documents, registers and notebooks alike.
    fn docs(&self) -> Answer<'_, Vec<DocRow>>;
    /// One document's registers, with their writers.
    fn doc<'a>(&'a self, id: &'a str) -> Answer<'a, DocDetail>;
    /// Every change of a document, oldest first.
    fn doc_history<'a>(&'a self, id: &'a str) -> Answer<'a, Vec<ChangeView>>;

    /// Ideas and other subjects of the ledger by (created, id), one page at a time.
    fn ideas(&self, query: IdeasQuery) -> Answer<'_, Page<IdeaRow>>;
    /// Adds an entry that is a subject of its own.
    fn idea_add(&self, request: IdeaRequest) -> Answer<'_, IdeaAdded>;
    /// A subject with all that was said about it.
    fn idea<'a>(&'a self, id: &'a str) -> Answer<'a, IdeaView>;
    /// Adds an entry about a subject.
    fn idea_say<'a>(&'a self, id: &'a str, entry: EntryRequest) -> Answer<'a, EntryAdded>;
    /// Subjects that words are found in, the best first, one page at a time.
    fn ideas_search(&self, search: IdeaSearch) -> Answer<'_, Page<IdeaFound>>;
    /// Ideas in the order of their rank, the same on every node that holds the same.
    fn ideas_top(&self, query: TopQuery) -> Answer<'_, Vec<IdeaRanked>>;
    /// The whole ledger as lines of JSON (docs/ledger.md).
    fn ideas_export(&self) -> Answer<'_, Items<Bytes>>;
    /// How ideas hang together: those around one, or all.
    fn ideas_graph(&self, query: GraphQuery) -> Answer<'_, IdeaGraph>;
    /// Takes entries that were exported elsewhere: all of them or none.
    fn ideas_import(&self, import: IdeasImport) -> Answer<'_, IdeasImported>;

    /// A notebook's text. `id` is the notebook's or a job's.
    fn note<'a>(&'a self, id: &'a str) -> Answer<'a, NoteView>;
    /// Changes a notebook's text; what others wrote since `base` survives.
    fn note_edit<'a>(&'a self, id: &'a str, edit: NoteEdit) -> Answer<'a, NoteView>;

    /// Everything that changes, from the event after `since` on (from now without it). Event ids grow, over a restart too.
    /// When `since` is older than what is kept or unknown, the first event is of kind `reset`: read everything again.
    fn events(&self, since: Option<u64>) -> Answer<'_, Items<Event>>;
    /// A field log from now on (`mesh::field_log`), until it is dropped or the node stops.
    fn record(&self) -> Answer<'_, Items<Bytes>>;
    /// What is known about a trace, from every node, oldest first.
    fn trace<'a>(&'a self, id: &'a str) -> Answer<'a, TraceView>;
    /// Metrics in Prometheus' text format 0.0.4.
    fn metrics(&self) -> Answer<'_, String>;
    /// Problems of this node, each with its mend. Empty: all is well.
    fn doctor(&self) -> Answer<'_, Vec<Finding>>;
}
