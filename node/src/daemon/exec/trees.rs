//! Trees on their way into a run's directory: inputs and checkpoints, fetched, verified and written out.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use crdt::ids::NodeId;
use tokio::io::AsyncReadExt;

use crate::blobs::{BlobReader, BlobRef, Blobs, Pin};
use crate::daemon::Shared;
use crate::tree::{self, EntryKind, MANIFEST_BYTES_MAX, Manifest, Source};

/// Files up to this size, in bytes, are written out of memory; larger ones stream.
const WHOLE_BYTES_MAX: u64 = 1024 * 1024;

/// Fetches a tree and writes it into each of these directories, which exist. Memory: a few MiB, whatever the files' sizes.
pub(super) async fn place(
    shared: &Shared,
    tree: BlobRef,
    holders: &[NodeId],
    pin: &Pin,
    roots: Vec<PathBuf>,
) -> anyhow::Result<()> {
    let manifest = manifest(&shared.blobs, tree, holders, pin).await?;
    let missing = shared.blobs.missing(&files(&manifest));
    if !missing.is_empty() {
        shared.blobs.fetch_many(&missing, holders, pin, None).await.context("the tree's files cannot be fetched")?;
    }
    let blobs = shared.blobs.clone();
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let sizes: BTreeMap<_, _> = files(&manifest).into_iter().map(|blob| (blob.hash, blob.size)).collect();
        roots.iter().try_for_each(|root| {
            tree::materialise(&manifest, root, |hash| {
                let blob = BlobRef { hash: *hash, size: sizes.get(hash).copied().unwrap_or(0) };
                open(&blobs, &handle, &blob)
            })
        })
    })
    .await??;
    Ok(())
}

/// Brings a tree's manifest here and pins it.
pub(super) async fn manifest(blobs: &Blobs, tree: BlobRef, holders: &[NodeId], pin: &Pin) -> anyhow::Result<Manifest> {
    anyhow::ensure!(tree.size <= MANIFEST_BYTES_MAX as u64, "the tree's manifest has {} bytes, too many", tree.size);
    blobs.fetch(&tree, holders, pin, None).await.context("the tree's manifest cannot be fetched")?;
    Ok(Manifest::decode(&blobs.read_all(&tree, tree.size).await?)?)
}

/// The blobs of a tree's files, each once.
pub(super) fn files(manifest: &Manifest) -> Vec<BlobRef> {
    let file = |entry: &tree::Entry| match &entry.kind {
        EntryKind::File { hash, size, .. } => Some(BlobRef { hash: *hash, size: *size }),
        EntryKind::Symlink { .. } | EntryKind::Dir => None,
    };
    let mut files: Vec<BlobRef> = manifest.entries().iter().filter_map(file).collect();
    files.sort_unstable();
    files.dedup();
    files
}

fn open(blobs: &Blobs, handle: &tokio::runtime::Handle, blob: &BlobRef) -> std::io::Result<Source> {
    if blob.size <= WHOLE_BYTES_MAX {
        let bytes = handle.block_on(blobs.read_all(blob, WHOLE_BYTES_MAX));
        return bytes.map(Source::Bytes).map_err(std::io::Error::other);
    }
    let _runtime = handle.enter();
    Ok(Source::Reader(Box::new(Blocking { handle: handle.clone(), reader: blobs.read(blob) })))
}

/// A blob for a thread that blocks.
struct Blocking {
    handle: tokio::runtime::Handle,
    reader: BlobReader,
}

impl Read for Blocking {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.handle.block_on(self.reader.read(bytes))
    }
}
