//! Copies of a run's files on other nodes, made while it runs.
//!
//! The runner asks the submitter's node and one more to hold what it has stored: a frame `(length, Request)` on a stream of
//! its own. The other fetches it from the runner, makes it durable and answers with one byte, 1. What is asked for is pinned
//! there for an hour, and asked for again while the run lasts: a runner that is gone keeps nobody's disk full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crdt::cbor;
use crdt::ids::{JobId, NodeId};
use crdt::job::rendezvous;
use crdt::roster::Role;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::trees;
use crate::blobs::{BlobRef, Pin, PinReason};
use crate::daemon::{Shared, now_ms};
use crate::net::{NetStream, Proto};

/// Other nodes that are to hold a run's files.
const REPLICAS: usize = 2;
/// Things in one request; the rest goes into the next.
const ITEMS_MAX: usize = 512;
/// Bytes of one request. More: the stream is dropped.
const REQUEST_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of the manifest of a tree that is asked for. More: refused.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time in which a request has to arrive.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// Time in which a request has to be fulfilled; then it counts as refused.
const FULFIL_WAIT: Duration = Duration::from_secs(600);
/// Time that a request waits for the claim that entitles to it, which travels by another path.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
/// Interval in which that is looked for.
const CLAIM_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time that a node which refused or failed is not asked again.
const REST: Duration = Duration::from_secs(2);
/// Time that a copy is pinned at its holder, in milliseconds; a multiple of it, so that renewals share their pins.
const PIN_MS: u64 = 3_600_000;
/// Interval in which the runner renews the pins.
const RENEW_EVERY: Duration = Duration::from_secs(20 * 60);
/// Requests that a node fulfils at once. More are refused.
pub(super) const SERVED_MAX: usize = 8;

/// Something to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Item {
    /// The blob.
    pub(super) blob: BlobRef,
    /// Whether it is the manifest of a tree whose files are meant as well.
    pub(super) tree: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    job: JobId,
    items: Vec<Item>,
}

/// What a node has of a run.
#[derive(Debug)]
struct Holder {
    items: BTreeSet<Item>,
    renew_at: Instant,
}

/// The runner's side.
pub(super) struct Copies {
    shared: Arc<Shared>,
    job: JobId,
    submitter: NodeId,
    holders: BTreeMap<NodeId, Holder>,
    busy: BTreeSet<NodeId>,
    resting: BTreeMap<NodeId, Instant>,
    asked: JoinSet<(NodeId, Vec<Item>, bool)>,
}

impl Copies {
    pub(super) fn new(shared: Arc<Shared>, job: JobId, submitter: NodeId) -> Self {
        let (holders, busy, resting, asked) = Default::default();
        Self { shared, job, submitter, holders, busy, resting, asked }
    }

    /// Asks for what is missing elsewhere. Answers whether anybody is there to be asked.
    pub(super) async fn ask_for(&mut self, wanted: &BTreeSet<Item>) -> bool {
        if wanted.is_empty() {
            return false;
        }
        let (now, targets) = (Instant::now(), self.targets().await);
        for node in &targets {
            let holder = self.holders.get(node);
            let stale = holder.is_some_and(|holder| holder.renew_at <= now);
            let has = |item: &&Item| !stale && holder.is_some_and(|holder| holder.items.contains(item));
            let missing: Vec<Item> = wanted.iter().filter(|item| !has(item)).take(ITEMS_MAX).copied().collect();
            if missing.is_empty() || !self.busy.insert(*node) {
                continue;
            }
            let (shared, job, node) = (Arc::clone(&self.shared), self.job, *node);
            self.asked.spawn(async move {
                let held = ask(&shared, node, Request { job, items: missing.clone() }).await;
                (node, missing, held)
            });
        }
        !targets.is_empty()
    }

    /// Waits for the next answer; `None` where none is awaited. Nothing is lost when it is dropped.
    pub(super) async fn answered(&mut self) -> Option<()> {
        let (node, items, held) = self.asked.join_next().await?.ok()?;
        self.busy.remove(&node);
        if held {
            let renew_at = Instant::now() + RENEW_EVERY;
            let holder = self.holders.entry(node).or_insert(Holder { items: BTreeSet::new(), renew_at });
            holder.items.extend(items);
            if holder.renew_at <= Instant::now() {
                holder.renew_at = renew_at;
            }
        } else {
            self.resting.insert(node, Instant::now() + REST);
        }
        Some(())
    }

    /// Whether an answer is awaited.
    pub(super) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Nodes that hold all of this.
    pub(super) fn holders(&self, wanted: &BTreeSet<Item>) -> Vec<NodeId> {
        let all = |holder: &Holder| wanted.is_subset(&holder.items);
        self.holders.iter().filter(|(_, holder)| !wanted.is_empty() && all(holder)).map(|(node, _)| *node).collect()
    }

    /// Lets what was asked for go on without anybody waiting for the answer.
    pub(super) fn let_go(mut self) {
        self.asked.detach_all();
    }

    /// The submitter's node, then those that hold something, then others in an order that is the job's own.
    async fn targets(&mut self) -> Vec<NodeId> {
        let now = Instant::now();
        self.resting.retain(|_, until| *until > now);
        let connected = self.shared.core.ask(|core| {
            let roster = core.replica().roster();
            core.connected().filter(|node| roster.role(node).is_some_and(Role::may_submit)).collect::<Vec<_>>()
        });
        let mut nodes = connected.await.unwrap_or_default();
        nodes.retain(|node| !self.resting.contains_key(node));
        nodes.sort_by_key(|n| (*n != self.submitter, !self.holders.contains_key(n), rendezvous(self.job, 0, *n)));
        nodes.truncate(REPLICAS);
        nodes
    }
}

/// Asks a node to hold something and waits until it does.
async fn ask(shared: &Shared, node: NodeId, request: Request) -> bool {
    let asked = async {
        let mut stream = shared.net.open_stream(node, Proto::Copies).await?;
        let request = cbor::encode(&request);
        stream.write_u32(u32::try_from(request.len())?).await?;
        stream.write_all(&request).await?;
        stream.flush().await?;
        anyhow::Ok(stream.read_u8().await? == 1)
    };
    match tokio::time::timeout(FULFIL_WAIT, asked).await {
        Ok(Ok(held)) => held,
        Ok(Err(error)) => {
            tracing::debug!(%node, %error, "a node took no copies");
            false
        }
        Err(_) => false,
    }
}

/// The holder's side: answers one request.
pub(in crate::daemon) async fn serve(shared: Arc<Shared>, from: NodeId, mut stream: NetStream) {
    let Ok(_turn) = shared.cells.copies.try_acquire() else { return };
    let held = async {
        let request = tokio::time::timeout(REQUEST_WAIT, read(&mut stream)).await??;
        hold(&shared, from, &request).await
    };
    let held = match tokio::time::timeout(FULFIL_WAIT, held).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%from, error = format!("{error:#}"), "copies are not held");
            false
        }
        Err(_) => false,
    };
    let answered = async {
        stream.write_u8(u8::from(held)).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if let Err(error) = answered.await {
        tracing::debug!(%from, %error, "the answer did not arrive");
    }
}

async fn read(stream: &mut NetStream) -> anyhow::Result<Request> {
    let len = stream.read_u32().await?;
    anyhow::ensure!(len <= REQUEST_BYTES_MAX, "the request is too long");
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes).await?;
    let request: Request = cbor::decode(&bytes)?;
    anyhow::ensure!(request.items.len() <= ITEMS_MAX, "the request names too much");
    Ok(request)
}

async fn hold(shared: &Shared, from: NodeId, request: &Request) -> anyhow::Result<()> {
    let submitter = entitled(shared, from, request.job).await?;
    let until_ms = (now_ms() / PIN_MS + 2) * PIN_MS;
    let pin = Pin::new(PinReason::Replica { until_ms });
    let holders = [from];
    let room = |bytes: u64| {
        let usage = shared.blobs.usage();
        let fits = usage.pinned_bytes.saturating_add(bytes) <= usage.quota_bytes / 2;
        anyhow::ensure!(submitter == shared.me || fits, "half of the store is pinned: the rest is for this node's own");
        Ok(())
    };
    room(request.items.iter().fold(0, |sum, item| item.blob.size.saturating_add(sum)))?;
    let blobs: Vec<BlobRef> = request.items.iter().filter(|item| !item.tree).map(|item| item.blob).collect();
    shared.blobs.fetch_many(&blobs, &holders, &pin, None).await?;
    for tree in request.items.iter().filter(|item| item.tree) {
        anyhow::ensure!(tree.blob.size <= MANIFEST_BYTES_MAX, "the tree's manifest is too large");
        let manifest = trees::manifest(&shared.blobs, tree.blob, &holders, &pin).await?;
        room(manifest.size_bytes())?;
        shared.blobs.fetch_many(&trees::files(&manifest), &holders, &pin, None).await?;
    }
    shared.blobs.sync().await?;
    Ok(())
}

/// The job's submitter, if the peer has claimed something of the job.
async fn entitled(shared: &Shared, from: NodeId, id: JobId) -> anyhow::Result<NodeId> {
    let deadline = Instant::now() + CLAIM_WAIT;
    loop {
        let found = shared.core.ask(move |core| {
            let job = core.replica_mut().job(id)?;
            let claimed = job.claims().keys().any(|claim| claim.owner == from && !job.is_void(claim));
            let (submitter, _) = job.spec()?;
            claimed.then_some(*submitter)
        });
        if let Some(submitter) = found.await.flatten() {
            return Ok(submitter);
        }
        anyhow::ensure!(Instant::now() < deadline, "no claim of its sender on job {id} is known here");
        tokio::time::sleep(CLAIM_LOOK_EVERY).await;
    }
}
