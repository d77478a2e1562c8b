//! Taking content in: always a copy, hashed as it was copied, so that a file may change while it is read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bytes::Bytes;
use crdt::ids::BlobHash;
use futures::{StreamExt, stream::FuturesOrdered};
use tokio_util::task::AbortOnDropHandle;

use super::error::{BlobError, io_error, store_error};
use super::index::Entry;
use super::limits::{BLOB_BYTES_MAX, IMPORTS_MAX, PART_BYTES, PARTS_READ_AHEAD};
use super::{BlobRef, Blobs, Held, Pin, merge, now_ms, our_hash, platform};

/// Content to be taken in, part by part.
enum Source {
    Memory(Bytes),
    File { file: File, path: PathBuf, left: u64 },
}

impl Source {
    /// The next part; empty at the end.
    async fn next_part(&mut self) -> Result<Bytes, BlobError> {
        match self {
            Self::Memory(bytes) => {
                let len = bytes.len().min(usize::try_from(PART_BYTES).unwrap_or(usize::MAX));
                Ok(bytes.split_to(len))
            }
            Self::File { file, path, left } => {
                let max = PART_BYTES.min(*left);
                let mut file = file.try_clone().map_err(|e| io_error(path, e))?;
                let read = tokio::task::spawn_blocking(move || {
                    let mut part = Vec::new();
                    file.by_ref().take(max).read_to_end(&mut part).map(|_| part)
                });
                let part = read.await.map_err(|e| BlobError::Store(e.to_string()))?;
                let part = part.map_err(|e| io_error(path, e))?;
                *left -= part.len() as u64;
                Ok(part.into())
            }
        }
    }
}

impl Blobs {
    /// Takes bytes in and pins them. In memory they are held once.
    ///
    /// # Errors
    /// [`BlobError::QuotaExceeded`], [`BlobError::DiskFull`], [`BlobError::TooLarge`], or the store failed.
    pub async fn add_bytes(&self, bytes: Bytes, pin: &Pin) -> Result<BlobRef, BlobError> {
        let added = self.add(Source::Memory(bytes), pin).await;
        self.checked(added).await
    }

    /// Takes a file in and pins it. Memory: a few parts of 16 MiB at most.
    ///
    /// # Errors
    /// As [`Blobs::add_bytes`], and [`BlobError::NotAFile`], [`BlobError::File`].
    pub async fn add_file(&self, path: &Path, pin: &Pin) -> Result<BlobRef, BlobError> {
        let source = open_source(path, true, BLOB_BYTES_MAX).await?;
        let added = self.add(source, pin).await;
        self.checked(added).await
    }

    /// Takes in what a file holds now, though somebody may be writing it: at most the length that it has on opening, as
    /// it was copied. A link is refused.
    ///
    /// # Errors
    /// As [`Blobs::add_file`].
    pub async fn add_file_while_written(&self, path: &Path, pin: &Pin) -> Result<BlobRef, BlobError> {
        let mut source = open_source(path, false, 0).await?;
        if let Source::File { file, left, .. } = &mut source {
            *left = file.metadata().map_err(|e| io_error(path, e))?.len();
        }
        let added = self.add(source, pin).await;
        self.checked(added).await
    }

    /// Takes in at most `max_bytes` of an open file, from where it stands. For callers that opened it safely themselves.
    ///
    /// # Errors
    /// As [`Blobs::add_file`].
    pub async fn add_open_file(&self, file: File, max_bytes: u64, pin: &Pin) -> Result<BlobRef, BlobError> {
        let source = Source::File { file, path: PathBuf::from("(open file)"), left: max_bytes };
        let added = self.add(source, pin).await;
        self.checked(added).await
    }

    async fn add(&self, mut source: Source, pin: &Pin) -> Result<BlobRef, BlobError> {
        let first = source.next_part().await?;
        let mut size = first.len() as u64;
        if size < PART_BYTES {
            return self.add_raw(first, pin).await;
        }
        let second = source.next_part().await?;
        if second.is_empty() {
            return self.add_raw(first, pin).await;
        }
        let mut imports = FuturesOrdered::new();
        imports.push_back(self.spawn_import(first));
        let mut next = second;
        let mut hashes = Vec::new();
        let mut held = None;
        while !next.is_empty() || !imports.is_empty() {
            if !next.is_empty() {
                size += next.len() as u64;
                if size > BLOB_BYTES_MAX {
                    return Err(BlobError::TooLarge { size, max: BLOB_BYTES_MAX });
                }
                imports.push_back(self.spawn_import(next));
                next = source.next_part().await?;
            }
            if next.is_empty() || imports.len() > PARTS_READ_AHEAD {
                let Some(done) = imports.next().await else {
                    break;
                };
                let (hash, one) = done.map_err(|e| BlobError::Store(e.to_string()))??;
                hashes.push(hash);
                held = Some(match held {
                    None => one,
                    Some(held) => merge(held, one),
                });
            }
        }
        let list: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        let (root, root_held) = self.import(list.into()).await?;
        self.inner.index().set_parts(root, hashes.into());
        let blob = BlobRef { hash: root, size };
        self.inner.set_pin(&blob, &pin.reason).await?;
        drop((held, root_held));
        Ok(blob)
    }

    async fn add_raw(&self, bytes: Bytes, pin: &Pin) -> Result<BlobRef, BlobError> {
        let size = bytes.len() as u64;
        let (hash, held) = self.import(bytes).await?;
        let blob = BlobRef { hash, size };
        self.inner.set_pin(&blob, &pin.reason).await?;
        drop(held);
        Ok(blob)
    }

    fn spawn_import(&self, part: Bytes) -> AbortOnDropHandle<Result<(BlobHash, Held), BlobError>> {
        let blobs = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { blobs.import(part).await }))
    }

    /// Stores at most one part's bytes; what is here already is not written again.
    async fn import(&self, bytes: Bytes) -> Result<(BlobHash, Held), BlobError> {
        let inner = &self.inner;
        let _turn = inner.imports.acquire().await.map_err(|_| BlobError::Closed)?;
        let hash = hash_of(&bytes).await?;
        let size = bytes.len() as u64;
        inner.scrap(std::iter::once(hash)).await?;
        let held = inner.hold(vec![hash]).await;
        if size == 0 || self.is_here(&hash, size) {
            inner.index().touch(&hash, now_ms());
            return Ok((hash, held));
        }
        let reservation = inner.make_room(size).await?;
        let added = inner.store()?.blobs().add_bytes(bytes).temp_tag().await;
        let tag = match added {
            Ok(tag) => tag,
            Err(error) => {
                drop(reservation);
                let error = store_error(&inner.dir, error);
                self.clear_temp(_turn).await;
                return Err(error);
            }
        };
        if our_hash(tag.hash()) != hash {
            return Err(BlobError::Store("it stored other bytes than it was given".to_owned()));
        }
        self.note_complete(hash, size);
        drop(reservation);
        Ok((hash, held))
    }

    /// Enters complete content into the index.
    pub(super) fn note_complete(&self, hash: BlobHash, size: u64) {
        self.inner.index().put(hash, Entry { size, complete: true, used_ms: now_ms() });
        self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner).push(hash);
    }

    /// Whether the content is here and its file still has its length.
    fn is_here(&self, hash: &BlobHash, size: u64) -> bool {
        let known = self.inner.index().get(hash).is_some_and(|entry| entry.complete && entry.size == size);
        known && self.file_fits(hash, size)
    }

    /// Whether the file of stored content, if it has one, still has its length.
    pub(super) fn file_fits(&self, hash: &BlobHash, size: u64) -> bool {
        size <= INLINE_BYTES || std::fs::metadata(self.inner.data_path(hash)).is_ok_and(|file| file.len() == size)
    }

    /// Removes the temporary files that a failed import leaves, once no import runs.
    async fn clear_temp(&self, turn: tokio::sync::SemaphorePermit<'_>) {
        drop(turn);
        let Ok(_all) = self.inner.imports.acquire_many(IMPORTS_MAX).await else {
            return;
        };
        let Ok(files) = std::fs::read_dir(self.inner.dir.join("temp")) else {
            return;
        };
        for file in files.flatten() {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Content up to this many bytes lives in the store's database instead of a file (the store's default).
const INLINE_BYTES: u64 = 16 * 1024;

/// Above this many bytes hashing leaves the async threads.
const HASH_INLINE_BYTES: usize = 256 * 1024;

async fn hash_of(bytes: &Bytes) -> Result<BlobHash, BlobError> {
    if bytes.len() <= HASH_INLINE_BYTES {
        return Ok(BlobHash(*blake3::hash(bytes).as_bytes()));
    }
    let bytes = bytes.clone();
    let hash = tokio::task::spawn_blocking(move || blake3::hash(&bytes)).await;
    hash.map(|hash| BlobHash(*hash.as_bytes())).map_err(|e| BlobError::Store(e.to_string()))
}

async fn open_source(path: &Path, follow: bool, left: u64) -> Result<Source, BlobError> {
    let path = path.to_owned();
    let opening = tokio::task::spawn_blocking(move || match platform::open_regular(&path, follow) {
        Ok(file) => Ok(Source::File { file, path, left }),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Err(BlobError::NotAFile { path }),
        Err(e) => Err(io_error(&path, e)),
    });
    opening.await.map_err(|e| BlobError::Store(e.to_string()))?
}
