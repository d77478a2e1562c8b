//! Fetching: verified, resumed, from several holders at once.
//!
//! A fetch is cut into pieces (raw blobs, lists of parts, parts). Small ones are asked for together, large ones one by
//! one, each on a stream of its own. Every holder works through the same queue, so that a fast one takes more; what one
//! fails to give, the others are asked for.

mod get;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;

use crdt::ids::NodeId;
use futures::future::join_all;
use tokio::sync::watch;

use super::error::{BlobError, FetchError};
use super::limits::{FETCH_HOLDERS_MAX, FETCH_STREAMS_PER_HOLDER};
use super::{BlobKind, BlobRef, Blobs, Held, Pin, merge};
use get::Failure;
use work::{Piece, Work};

/// What a fetch moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Bytes of content that came over the network; what was here already does not count.
    pub bytes_moved: u64,
    /// The same per holder.
    pub from: Vec<(NodeId, u64)>,
    /// Holders that sent bytes which do not match their hash.
    pub corrupt: Vec<NodeId>,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that have come over the network so far.
    pub bytes_moved: u64,
    /// Bytes of all that was asked for, here or not.
    pub bytes_total: u64,
}

impl Blobs {
    /// Fetches a blob from its holders and pins it. What is here already is not asked for again.
    ///
    /// A fetch that is dropped or fails leaves what arrived; the next one goes on from there.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(
        &self,
        blob: &BlobRef,
        holders: &[NodeId],
        pin: &Pin,
        progress: Option<watch::Sender<FetchProgress>>,
    ) -> Result<FetchReport, FetchError> {
        self.fetch_many(std::slice::from_ref(blob), holders, pin, progress).await
    }

    /// Fetches blobs from holders that may each have some of them, and pins them all. Many small blobs share a request.
    ///
    /// # Errors
    /// [`FetchError`]; the blobs that are complete by then stay, unpinned.
    pub async fn fetch_many(
        &self,
        blobs: &[BlobRef],
        holders: &[NodeId],
        pin: &Pin,
        progress: Option<watch::Sender<FetchProgress>>,
    ) -> Result<FetchReport, FetchError> {
        let unique: BTreeSet<_> = holders.iter().take(FETCH_HOLDERS_MAX).copied().collect();
        let total = blobs.iter().map(|blob| blob.size).sum();
        let work = Arc::new(Work::new(unique, total, progress));
        let fetched = self.fetch_all(blobs, &work).await;
        let fetched = match fetched {
            Err(FetchError::Local(error)) => self.checked(Err(error)).await.map_err(FetchError::Local),
            other => other,
        };
        let held = fetched?;
        for blob in blobs {
            let pinned = self.inner.set_pin(blob, &pin.reason).await;
            self.checked(pinned).await?;
        }
        drop(held);
        Ok(work.report())
    }

    async fn fetch_all(&self, blobs: &[BlobRef], work: &Arc<Work>) -> Result<Held, FetchError> {
        for blob in blobs {
            if blob.size == 0 && blob.hash != BlobRef::EMPTY.hash {
                return Err(BlobError::NotFound { hash: blob.hash }.into());
            }
            if blob.size > super::limits::BLOB_BYTES_MAX {
                return Err(BlobError::TooLarge { size: blob.size, max: super::limits::BLOB_BYTES_MAX }.into());
            }
        }
        let mut held = self.inner.hold(blobs.iter().map(|blob| blob.hash).collect()).await;
        let firsts = blobs.iter().filter(|blob| blob.size > 0).map(|blob| match blob.kind() {
            BlobKind::Raw => Piece { hash: blob.hash, size: blob.size },
            BlobKind::Parts => Piece { hash: blob.hash, size: blob.part_count() * 32 },
        });
        self.move_pieces(firsts.collect(), work).await?;
        let mut seconds = Vec::new();
        for blob in blobs.iter().filter(|blob| blob.kind() == BlobKind::Parts) {
            let parts = self.parts(blob).await?;
            held = merge(held, self.inner.hold(parts.to_vec()).await);
            let sizes = (0..).map(|index| blob.part_size(index));
            seconds.extend(parts.iter().zip(sizes).map(|(hash, size)| Piece { hash: *hash, size }));
        }
        self.move_pieces(seconds, work).await?;
        Ok(held)
    }

    /// Moves all pieces that are not here, in rounds: whatever one holder leaves, another takes in the next.
    async fn move_pieces(&self, mut pieces: Vec<Piece>, work: &Arc<Work>) -> Result<(), FetchError> {
        pieces.sort_unstable();
        pieces.dedup();
        self.inner.scrap(pieces.iter().map(|piece| piece.hash)).await?;
        {
            let index = self.inner.index();
            pieces.retain(|piece| !index.is_complete(&piece.hash));
        }
        let Some(first) = pieces.first().copied() else {
            return Ok(());
        };
        if work.holders().is_empty() {
            return Err(FetchError::NoHolder { hash: first.hash });
        }
        work.enqueue(&pieces);
        while work.is_open() {
            let workers = work.holders().iter().flat_map(|node| [*node; FETCH_STREAMS_PER_HOLDER]);
            join_all(workers.map(|node| self.drain(node, work))).await;
        }
        if let Some(error) = work.take_fatal() {
            return Err(FetchError::Local(error));
        }
        match work.first_left() {
            None => Ok(()),
            Some(left) => Err(FetchError::Incomplete { hash: left.hash, faults: work.faults(), report: work.report() }),
        }
    }

    /// Takes jobs for one holder until there are none that it could do.
    async fn drain(&self, node: NodeId, work: &Arc<Work>) {
        while let Some(job) = work.take(node) {
            match self.get(&job, node, work).await {
                Ok(()) => work.succeeded(node),
                Err(Failure::Local(error)) => work.fail(job, error),
                Err(Failure::Holder { piece, fault }) => {
                    let left = {
                        let index = self.inner.index();
                        job.into_iter().filter(|piece| !index.is_complete(&piece.hash)).collect()
                    };
                    work.give_back(node, piece, fault, left);
                }
            }
        }
    }
}
