//! Giving content out: every byte is checked against its hash on the way, so that a bad disk is noticed.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use crdt::ids::BlobHash;
use futures::StreamExt;
use iroh_blobs::api::blobs::EncodedItem;
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::error::{BlobError, io_error, store_error};
use super::limits::READ_AHEAD_CHUNKS;
use super::{BlobKind, BlobRef, Blobs, iroh_hash, now_ms};

/// Reads a blob as one stream, however it is stored. The content is held until the reader is dropped.
pub struct BlobReader {
    inner: Pin<Box<dyn AsyncRead + Send>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobReader")
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.inner.as_mut().poll_read(cx, buf)
    }
}

type Chunks = mpsc::Receiver<Result<Bytes, BlobError>>;

impl Blobs {
    /// Reads a whole blob. Errors come out of the reader, as `std::io::Error` around a [`BlobError`].
    #[must_use]
    pub fn read(&self, blob: &BlobRef) -> BlobReader {
        self.read_range(blob, 0..blob.size)
    }

    /// Reads some of a blob's bytes; a range beyond the end is cut.
    #[must_use]
    pub fn read_range(&self, blob: &BlobRef, range: Range<u64>) -> BlobReader {
        let chunks = self.chunks(blob, range);
        let stream = futures::stream::unfold(chunks, |mut chunks| async move {
            let chunk = chunks.recv().await?;
            Some((chunk.map_err(std::io::Error::other), chunks))
        });
        BlobReader { inner: Box::pin(StreamReader::new(Box::pin(stream))) }
    }

    /// Reads a blob of at most `max_bytes` into memory.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::NotFound`], [`BlobError::Damaged`], or the store failed.
    pub async fn read_all(&self, blob: &BlobRef, max_bytes: u64) -> Result<Bytes, BlobError> {
        if blob.size > max_bytes {
            return Err(BlobError::TooLarge { size: blob.size, max: max_bytes });
        }
        let mut chunks = self.chunks(blob, 0..blob.size);
        let mut all = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(all.into())
    }

    /// Writes a blob to a file: to a temporary one beside it first, which then takes its name, so that the path never
    /// shows half of it. The directory must exist; a file of that name is replaced.
    ///
    /// # Errors
    /// As [`Blobs::read_all`], and [`BlobError::File`], [`BlobError::DiskFull`] for the target.
    pub async fn export(&self, blob: &BlobRef, path: &Path) -> Result<(), BlobError> {
        let mut chunks = self.chunks(blob, 0..blob.size);
        let path = path.to_owned();
        let writing = tokio::task::spawn_blocking(move || {
            let failed = |e| io_error(&path, e);
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let temp = tempfile::Builder::new().prefix(".v6-").tempfile_in(dir).map_err(failed)?;
            let mut out = std::io::BufWriter::with_capacity(1 << 20, temp);
            while let Some(chunk) = chunks.blocking_recv() {
                std::io::Write::write_all(&mut out, &chunk?).map_err(failed)?;
            }
            let temp = out.into_inner().map_err(|e| failed(e.into_error()))?;
            temp.persist(&path).map_err(|e| failed(e.error))?;
            Ok(())
        });
        writing.await.map_err(|e| BlobError::Store(e.to_string()))?
    }

    /// The hashes of a blob's parts, in order; they may not be here themselves.
    pub(super) async fn parts(&self, blob: &BlobRef) -> Result<Arc<[BlobHash]>, BlobError> {
        let hash = blob.hash;
        let known = self.inner.index().parts(&hash);
        let parts: Arc<[BlobHash]> = match known {
            Some(parts) => parts,
            None => {
                let entry = self.inner.index().get(&hash).cloned();
                let entry = entry.filter(|entry| entry.complete).ok_or(BlobError::NotFound { hash })?;
                if entry.size != blob.part_count() * 32 {
                    return Err(BlobError::NotParts { hash, size: blob.size });
                }
                let mut list = Vec::new();
                self.send_raw(&hash, 0..entry.size, &mut |chunk| {
                    list.extend_from_slice(&chunk);
                    std::future::ready(true)
                })
                .await?;
                let parts: Arc<[BlobHash]> =
                    split_hashes(&list).ok_or(BlobError::NotParts { hash, size: blob.size })?.into();
                self.inner.index().set_parts(hash, parts.clone());
                parts
            }
        };
        if parts.len() as u64 == blob.part_count() {
            Ok(parts)
        } else {
            Err(BlobError::NotParts { hash, size: blob.size })
        }
    }

    /// Starts a task that reads the range; it ends when the receiver goes.
    fn chunks(&self, blob: &BlobRef, range: Range<u64>) -> Chunks {
        let (sender, receiver) = mpsc::channel(READ_AHEAD_CHUNKS);
        let (blobs, blob) = (self.clone(), *blob);
        tokio::spawn(async move {
            if let Err(error) = blobs.send_range(&blob, range, &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        receiver
    }

    async fn send_range(
        &self,
        blob: &BlobRef,
        range: Range<u64>,
        sender: &mpsc::Sender<Result<Bytes, BlobError>>,
    ) -> Result<(), BlobError> {
        let range = range.start.min(blob.size)..range.end.min(blob.size);
        if range.is_empty() {
            return Ok(());
        }
        let held = self.hold_all(blob).await?;
        let now = now_ms();
        {
            let mut index = self.inner.index();
            held.hashes.iter().for_each(|hash| index.touch(hash, now));
        }
        let mut send = |chunk: Bytes| async move { sender.send(Ok(chunk)).await.is_ok() };
        match blob.kind() {
            BlobKind::Raw => self.send_raw(&blob.hash, range, &mut send).await?,
            BlobKind::Parts => {
                let parts = self.parts(blob).await?;
                let mut start = 0;
                for (hash, index) in parts.iter().zip(0..) {
                    let size = blob.part_size(index);
                    let wanted = range.start.max(start)..range.end.min(start + size);
                    if !wanted.is_empty() {
                        self.send_raw(hash, wanted.start - start..wanted.end - start, &mut send).await?;
                    }
                    start += size;
                }
            }
        }
        Ok(())
    }

    /// Passes on a range of one raw blob; stops early when the consumer says `false`.
    async fn send_raw<F>(
        &self,
        hash: &BlobHash,
        range: Range<u64>,
        send: &mut impl FnMut(Bytes) -> F,
    ) -> Result<(), BlobError>
    where
        F: Future<Output = bool>,
    {
        let ranges = ChunkRanges::bytes(range.clone());
        let mut items = Box::pin(self.inner.store()?.blobs().export_bao(iroh_hash(hash), ranges).stream());
        let mut next = range.start;
        while let Some(item) = items.next().await {
            match item {
                EncodedItem::Leaf(leaf) => {
                    let end = leaf.offset + leaf.data.len() as u64;
                    let wanted = next.max(leaf.offset)..range.end.min(end);
                    if wanted.is_empty() {
                        continue;
                    }
                    next = wanted.end;
                    let from = usize::try_from(wanted.start - leaf.offset).unwrap_or(usize::MAX);
                    let to = usize::try_from(wanted.end - leaf.offset).unwrap_or(usize::MAX);
                    if !send(leaf.data.slice(from..to)).await {
                        return Ok(());
                    }
                }
                EncodedItem::Error(error) => {
                    return Err(self.read_failed(hash, io::Error::from(error)));
                }
                EncodedItem::Size(_) | EncodedItem::Parent(_) | EncodedItem::Done => {}
            }
        }
        if next < range.end {
            return Err(BlobError::Damaged { hash: *hash, reason: "it is shorter than recorded".to_owned() });
        }
        Ok(())
    }

    /// Tells content that is bad from a store that failed, and remembers the former.
    fn read_failed(&self, hash: &BlobHash, error: io::Error) -> BlobError {
        let size = self.inner.index().get(hash).map_or(0, |entry| entry.size);
        let bad =
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound);
        if !bad && self.file_fits(hash, size) {
            return store_error(&self.inner.dir, error);
        }
        self.inner.index().mark_damaged(*hash);
        BlobError::Damaged { hash: *hash, reason: error.to_string() }
    }
}

/// Cuts a list of parts into hashes; `None` when its length does not fit.
pub(super) fn split_hashes(list: &[u8]) -> Option<Vec<BlobHash>> {
    let (hashes, rest) = list.as_chunks::<32>();
    rest.is_empty().then(|| hashes.iter().map(|hash| BlobHash(*hash)).collect())
}
