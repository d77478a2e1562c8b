//! Who holds a blob of which only the hash is known: members are asked, and say how large it is.
//!
//! The question is the hash (32 bytes), the answer 8 bytes: 0, or its size and one. The size is believed only as far as
//! the bytes that come verify.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crdt::ids::{BlobHash, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{Shared, now_ms};
use crate::blobs::{BlobRef, Pin, PinReason};
use crate::net::{NetStream, Proto};

/// Members that are asked. More: those with the lowest ids.
const ASKED_MAX: usize = 64;
/// Time for a question and its answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Time that a blob which somebody looked at stays here at least, in milliseconds.
const KEPT_MS: u64 = 3_600_000;

/// Why a blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FindError {
    /// Nobody who was asked has it.
    #[error("no blob {hash} is held here or by the {asked} members that are online")]
    Nobody {
        /// The blob.
        hash: BlobHash,
        /// Members asked.
        asked: usize,
    },
    /// Somebody says to have it, and it cannot be fetched.
    #[error("the blob {0} cannot be fetched: {1}")]
    Fetch(BlobHash, String),
}

/// Answers whether a blob is held here.
pub(super) async fn serve(shared: Arc<Shared>, mut stream: NetStream) {
    let answered = tokio::time::timeout(ANSWER_WAIT, async {
        let mut hash = [0; 32];
        stream.read_exact(&mut hash).await?;
        let held = shared.blobs.resolve(&BlobHash(hash));
        stream.write_u64(held.map_or(0, |blob| blob.size.saturating_add(1))).await?;
        stream.flush().await?;
        stream.shutdown().await
    });
    if let Ok(Err(error)) = answered.await {
        tracing::debug!(%error, "a question for a blob was not answered");
    }
}

/// A blob by its hash: from here, else brought here from whoever has it.
///
/// # Errors
/// [`FindError`].
pub(super) async fn find(shared: &Arc<Shared>, hash: BlobHash) -> Result<BlobRef, FindError> {
    if let Some(blob) = shared.blobs.resolve(&hash) {
        return Ok(blob);
    }
    let online = shared.core.ask(|core| core.connected().take(ASKED_MAX).collect::<Vec<NodeId>>()).await;
    let online = online.unwrap_or_default();
    let mut questions: JoinSet<Option<(NodeId, u64)>> = JoinSet::new();
    for node in online.iter().copied() {
        let shared = Arc::clone(shared);
        questions.spawn(async move {
            let size = tokio::time::timeout(ANSWER_WAIT, ask(&shared, node, hash)).await.ok()?.ok()?;
            Some((node, size.checked_sub(1)?))
        });
    }
    let mut by_size: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
    for (node, size) in questions.join_all().await.into_iter().flatten() {
        by_size.entry(size).or_default().push(node);
    }
    // Whoever lies about the size is alone with it.
    let mut claims: Vec<(u64, Vec<NodeId>)> = by_size.into_iter().collect();
    claims.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    let mut failed = None;
    let pin = Pin::new(PinReason::Replica { until_ms: (now_ms() / KEPT_MS + 2) * KEPT_MS });
    for (size, nodes) in claims {
        let blob = BlobRef { hash, size };
        match shared.blobs.fetch(&blob, &nodes, &pin, None).await {
            Ok(_) => return Ok(blob),
            Err(error) => failed = Some(FindError::Fetch(hash, error.to_string())),
        }
    }
    Err(failed.unwrap_or(FindError::Nobody { hash, asked: online.len() }))
}

async fn ask(shared: &Shared, node: NodeId, hash: BlobHash) -> anyhow::Result<u64> {
    let mut stream = shared.net.open_stream(node, Proto::Find).await?;
    stream.write_all(&hash.0).await?;
    stream.flush().await?;
    Ok(stream.read_u64().await?)
}
