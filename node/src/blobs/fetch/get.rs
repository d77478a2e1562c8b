//! One request to one holder: what is missing of a piece, or several small pieces whole.

use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crdt::ids::NodeId;
use iroh_blobs::api::blobs::Bitfield;
use iroh_blobs::get::fsm::{
    AtBlobHeader, AtBlobHeaderNextError, AtConnected, AtEndBlob, BlobContentNext, ConnectedNext, DecodeError,
    EndBlobNext,
};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesSeq, GetManyRequest, GetRequest, Request};
use iroh_blobs::util::SendStream;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::super::error::{BlobError, DialError, HolderFault, store_error};
use super::super::index::Entry;
use super::super::limits::DIAL_MAX;
use super::super::stream::{Incoming, Nowhere, Outgoing, split};
use super::super::{Blobs, iroh_hash, now_ms};
use super::work::{Job, Piece, Work};

/// Why a job did not complete.
pub(super) enum Failure {
    /// The store here.
    Local(BlobError),
    /// The holder, at this piece if it got that far.
    Holder { piece: Option<Piece>, fault: HolderFault },
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        Self::Local(error)
    }
}

/// Items of a transfer that wait for the store to write them.
const IMPORT_QUEUE: usize = 64;
/// Content counted at once, in bytes: progress need not be finer.
const COUNT_STEP_BYTES: u64 = 256 * 1024;
const STALE_TRIES: u32 = 50;
const STALE_WAIT: Duration = Duration::from_millis(20);

impl Blobs {
    /// Asks a holder for a job's pieces, as far as they are not here.
    pub(super) async fn get(&self, job: &Job, node: NodeId, work: &Work) -> Result<(), Failure> {
        let _claims = self.claim(job).await;
        let wanted: Vec<Piece> = {
            let index = self.inner.index();
            job.iter().filter(|piece| !index.is_complete(&piece.hash)).copied().collect()
        };
        match wanted.as_slice() {
            [] => Ok(()),
            [piece] => self.get_one(*piece, node, work).await,
            pieces => self.get_batch(pieces, node, work).await,
        }
    }

    /// Keeps two fetches from moving the same bytes. Every job claims in the order of the hashes.
    async fn claim(&self, job: &Job) -> Vec<OwnedMutexGuard<()>> {
        let mut hashes: Vec<_> = job.iter().map(|piece| piece.hash).collect();
        hashes.sort_unstable();
        let mut claims = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let lock = {
                let mut fetching = self.inner.fetching.lock().unwrap_or_else(PoisonError::into_inner);
                fetching.retain(|other, lock| *other == hash || lock.strong_count() > 0);
                let found = fetching.get(&hash).and_then(std::sync::Weak::upgrade);
                found.unwrap_or_else(|| {
                    let lock = Arc::new(tokio::sync::Mutex::new(()));
                    fetching.insert(hash, Arc::downgrade(&lock));
                    lock
                })
            };
            claims.push(lock.lock_owned().await);
        }
        claims
    }

    async fn get_one(&self, piece: Piece, node: NodeId, work: &Work) -> Result<(), Failure> {
        let Some(present) = self.present(piece).await? else {
            return Ok(());
        };
        let missing = &ChunkRanges::all() - &present.ranges;
        let known = self.inner.index().get(&piece.hash).map_or(0, |entry| entry.size);
        let room = self.inner.make_room(piece.size.saturating_sub(known)).await?;
        let (recv, send) = self.dial(node).await.map_err(|fault| Failure::Holder { piece: Some(piece), fault })?;
        let request = GetRequest::blob_ranges(iroh_hash(&piece.hash), missing);
        let connected = AtConnected::new(Instant::now(), recv, send.closing(), request, Default::default());
        let broken = |e: String| Failure::Holder { piece: Some(piece), fault: HolderFault::Broken(e) };
        let received = match connected.next().await {
            Ok(ConnectedNext::StartRoot(root)) => self.receive(root.next(), piece, node, work).await.map(|_| ()),
            Ok(_) => Err(broken("the request was empty".to_owned())),
            Err(error) => Err(broken(error.to_string())),
        };
        self.note_piece(piece, received.is_ok()).await;
        drop(room);
        received
    }

    async fn get_batch(&self, pieces: &[Piece], node: NodeId, work: &Work) -> Result<(), Failure> {
        let room = self.inner.make_room(pieces.iter().map(|piece| piece.size).sum()).await?;
        let at_first = |fault| Failure::Holder { piece: pieces.first().copied(), fault };
        let broken = |e: String| at_first(HolderFault::Broken(e));
        let (recv, mut send) = self.dial(node).await.map_err(at_first)?;
        let hashes = pieces.iter().map(|piece| iroh_hash(&piece.hash)).collect();
        let request = Request::GetMany(GetManyRequest::new(hashes, ChunkRangesSeq::all()));
        let bytes = postcard::to_stdvec(&request).map_err(|e| Failure::Local(BlobError::Store(e.to_string())))?;
        send.send(&bytes).await.map_err(|e| broken(e.to_string()))?;
        send.finish().await.map_err(|e| broken(e.to_string()))?;
        // The answer is laid out like that for the children of a hash sequence whose root was not asked for.
        let ranges = std::iter::once(ChunkRanges::empty()).chain(pieces.iter().map(|_| ChunkRanges::all()));
        let request = GetRequest::new(iroh_blobs::Hash::EMPTY, ChunkRangesSeq::from_ranges(ranges));
        let connected = AtConnected::new(Instant::now(), recv, Nowhere, request, Default::default());
        let Ok(ConnectedNext::StartChild(mut child)) = connected.next().await else {
            return Err(broken("the request was empty".to_owned()));
        };
        for piece in pieces {
            let received = self.receive(child.next(iroh_hash(&piece.hash)), *piece, node, work).await;
            self.note_piece(*piece, received.is_ok()).await;
            match received?.next() {
                EndBlobNext::MoreChildren(next) => child = next,
                EndBlobNext::Closing(_) => break,
            }
        }
        drop(room);
        Ok(())
    }

    async fn dial(&self, node: NodeId) -> Result<(Incoming, Outgoing), HolderFault> {
        let dialer = self.inner.dialer.get().ok_or_else(|| HolderFault::Unreachable("no network yet".to_owned()))?;
        match tokio::time::timeout(DIAL_MAX, dialer.open(node)).await {
            Ok(Ok(stream)) => Ok(split(stream)),
            Ok(Err(DialError(reason))) => Err(HolderFault::Unreachable(reason)),
            Err(_) => Err(HolderFault::Unreachable(format!("no stream within {} s", DIAL_MAX.as_secs()))),
        }
    }

    /// What is here of a piece; `None` when that is all of it.
    async fn present(&self, piece: Piece) -> Result<Option<Bitfield>, BlobError> {
        for _ in 0..STALE_TRIES {
            let present = self.inner.store()?.blobs().observe(iroh_hash(&piece.hash)).await;
            let present = present.map_err(|e| store_error(&self.inner.dir, e))?;
            if !present.is_complete() {
                return Ok(Some(present));
            }
            if self.is_stored(&piece.hash).await? {
                self.note_complete(piece.hash, piece.size);
                return Ok(None);
            }
            // A handle of the store outlives the blob's deletion by a moment.
            tokio::time::sleep(STALE_WAIT).await;
        }
        Err(BlobError::Store(format!("it cannot make up its mind about {}", piece.hash)))
    }

    /// Reads one blob of an answer into the store.
    async fn receive(
        &self,
        header: AtBlobHeader<Incoming>,
        piece: Piece,
        node: NodeId,
        work: &Work,
    ) -> Result<AtEndBlob<Incoming>, Failure> {
        let holder = |fault| Failure::Holder { piece: Some(piece), fault };
        let (mut content, announced) = header.next().await.map_err(|e| holder(header_fault(&e)))?;
        let expected = piece.size;
        let size = NonZeroU64::new(announced).filter(|size| size.get() == expected);
        let size = size.ok_or_else(|| holder(HolderFault::WrongSize { announced, expected }))?;
        let local = |e: iroh_blobs::api::Error| Failure::Local(store_error(&self.inner.dir, e));
        let import = self.inner.store()?.blobs().import_bao(iroh_hash(&piece.hash), size, IMPORT_QUEUE).await;
        let import = import.map_err(|e| local(e.into()))?;
        let mut read = content.stats().payload_bytes_read;
        let mut counted = read;
        let end = loop {
            match content.next().await {
                BlobContentNext::More((next, Ok(item))) => {
                    read = next.stats().payload_bytes_read;
                    if read - counted >= COUNT_STEP_BYTES {
                        work.moved(node, read - counted);
                        counted = read;
                    }
                    content = next;
                    if import.tx.send(item).await.is_err() {
                        break None;
                    }
                }
                BlobContentNext::More((next, Err(error))) => {
                    work.moved(node, next.stats().payload_bytes_read - counted);
                    drop(import.tx);
                    let _ = import.rx.await;
                    return Err(holder(decode_fault(&error)));
                }
                BlobContentNext::Done(end) => break Some(end),
            }
        };
        work.moved(node, read - counted);
        drop(import.tx);
        let stored = import.rx.await.map_err(|e| local(std::io::Error::other(e).into()))?;
        stored.map_err(local)?;
        let end = end.ok_or_else(|| Failure::Local(BlobError::Store("it took no more content".to_owned())))?;
        Ok(end)
    }

    /// Enters into the index what there is of a piece after a transfer.
    async fn note_piece(&self, piece: Piece, received: bool) {
        if received && self.is_stored(&piece.hash).await.unwrap_or(false) {
            self.note_complete(piece.hash, piece.size);
            return;
        }
        let Ok(store) = self.inner.store() else {
            return;
        };
        if let Ok(present) = store.blobs().observe(iroh_hash(&piece.hash)).await
            && !present.ranges.is_empty()
        {
            let entry = Entry { size: present.total_bytes(), complete: false, used_ms: now_ms() };
            self.inner.index().put(piece.hash, entry);
        }
    }
}

fn header_fault(error: &AtBlobHeaderNextError) -> HolderFault {
    match error {
        AtBlobHeaderNextError::NotFound { .. } => HolderFault::Lacks,
        AtBlobHeaderNextError::Read { source, .. } => HolderFault::Broken(source.to_string()),
    }
}

fn decode_fault(error: &DecodeError) -> HolderFault {
    if let DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } = error {
        return HolderFault::Corrupt;
    }
    HolderFault::Broken(error.to_string())
}
