//! An input tree's way to the node: ask which blobs are missing, send only these, then the manifest.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::{BufMut, Bytes, BytesMut};
use crdt::ids::BlobHash;
use hyper::Method;
use web_gateway::api::{MissingAnswer, MissingQuery, TreeAdded};

use super::Client;
use crate::blobs::BlobNamer;
use crate::tree::{self, EntryKind, ScanOptions, TreeError};

/// Hashes in one question.
const HASHES_PER_QUESTION: usize = 50_000;
/// Files up to this size travel together in batches.
const SMALL_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Times that blobs which the node dropped in between are sent again.
const ROUNDS_MAX: usize = 3;

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Its blob.
    pub hash: BlobHash,
    /// Its size in bytes.
    pub size: u64,
    /// Where it lies on this machine.
    pub path: PathBuf,
}

/// A tree that was walked and hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeScan {
    /// Its regular files.
    pub files: Vec<TreeFile>,
    /// Its manifest's bytes.
    pub manifest: Vec<u8>,
    /// What was left out, with the reason.
    pub skipped: Vec<(PathBuf, &'static str)>,
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Hash of the manifest.
    pub tree: String,
    /// Blobs sent, the manifest left out.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Walks a directory and hashes its files. `.gitignore` is respected unless `no_ignore`.
///
/// # Errors
/// What cannot be read, or cannot be part of a tree, is named.
pub fn scan(root: &Path, no_ignore: bool) -> Result<TreeScan, TreeError> {
    let scan = tree::scan(root, ScanOptions { no_ignore })?;
    let files = scan.manifest.entries().iter().filter_map(|entry| match &entry.kind {
        EntryKind::File { hash, size, .. } => {
            Some(TreeFile { hash: *hash, size: *size, path: root.join(native(&entry.path)) })
        }
        EntryKind::Symlink { .. } | EntryKind::Dir => None,
    });
    Ok(TreeScan { files: files.collect(), manifest: scan.manifest.encode(), skipped: scan.skipped })
}

/// A tree's path as this system writes it.
#[cfg(unix)]
fn native(path: &[u8]) -> PathBuf {
    PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path))
}

/// A tree's path as this system writes it.
#[cfg(not(unix))]
fn native(path: &[u8]) -> PathBuf {
    String::from_utf8_lossy(path).split('/').collect()
}

/// Sends what the node does not hold of a tree.
///
/// # Errors
/// The node's refusal, or a file that changed while it was being sent.
pub async fn send_tree(client: &Client, scan: TreeScan) -> anyhow::Result<Sent> {
    let mut files = scan.files;
    files.sort_by_key(|file| file.hash);
    files.dedup_by(|a, b| a.hash == b.hash);
    let mut sent = Sent::default();
    let mut missing = ask(client, &files).await?;
    let manifest = Bytes::from(scan.manifest);
    for _ in 0..ROUNDS_MAX {
        for file in &missing {
            sent.blobs += 1;
            sent.bytes += file.size;
        }
        send_files(client, missing).await?;
        let body = client.call(Method::POST, "/v1/trees", manifest.clone()).await?;
        let answer: TreeAdded = serde_json::from_slice(&body).context("the node's answer is not understood")?;
        if answer.missing.is_empty() {
            sent.tree = answer.tree;
            return Ok(sent);
        }
        let again: std::collections::BTreeSet<String> = answer.missing.into_iter().collect();
        missing = files.iter().filter(|file| again.contains(&file.hash.to_string())).cloned().collect();
    }
    anyhow::bail!("the node keeps losing files of the tree while it is being sent: is its disk full? See `v6 doctor`")
}

async fn ask(client: &Client, files: &[TreeFile]) -> anyhow::Result<Vec<TreeFile>> {
    let mut missing = Vec::new();
    for part in files.chunks(HASHES_PER_QUESTION) {
        let query = MissingQuery { hashes: part.iter().map(|file| file.hash.to_string()).collect() };
        let answer: MissingAnswer = client.send_json(Method::POST, "/v1/blobs/missing", &query).await?;
        for text in answer.missing {
            let hash: BlobHash = text.parse().context("the node's answer is not understood")?;
            if let Ok(at) = part.binary_search_by(|file| file.hash.cmp(&hash)) {
                missing.push(part[at].clone());
            }
        }
    }
    Ok(missing)
}

async fn send_files(client: &Client, files: Vec<TreeFile>) -> anyhow::Result<()> {
    let (small, large): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.size <= SMALL_FILE_BYTES_MAX);
    if !small.is_empty() {
        let frames = futures::stream::unfold(small.into_iter(), |mut files| async move {
            let mut chunk = BytesMut::new();
            while chunk.len() < CHUNK_BYTES {
                let Some(file) = files.next() else { break };
                if let Err(error) = put_frame(&mut chunk, &file) {
                    return Some((Err(error), Vec::new().into_iter()));
                }
            }
            (!chunk.is_empty()).then(|| (Ok(chunk.freeze()), files))
        });
        client.upload(Method::POST, "/v1/blobs/batch", None, frames).await?;
    }
    for file in large {
        send_file(client, &file).await?;
    }
    Ok(())
}

/// Sends one file as a blob of its own.
///
/// # Errors
/// The node's refusal, or a file that cannot be read or has changed.
pub async fn send_file(client: &Client, file: &TreeFile) -> anyhow::Result<()> {
    let open =
        tokio::fs::File::open(&file.path).await.with_context(|| format!("cannot read {}", file.path.display()))?;
    let body = tokio_util::io::ReaderStream::with_capacity(open, CHUNK_BYTES);
    let path = format!("/v1/blobs/{}", file.hash);
    client
        .upload(Method::PUT, &path, None, body)
        .await
        .with_context(|| format!("{} could not be sent (did it change meanwhile?)", file.path.display()))?;
    Ok(())
}

fn put_frame(chunk: &mut BytesMut, file: &TreeFile) -> std::io::Result<()> {
    let named = |message: String| std::io::Error::other(format!("{}: {message}", file.path.display()));
    let mut bytes = Vec::with_capacity(usize::try_from(file.size).unwrap_or(0));
    std::fs::File::open(&file.path)
        .and_then(|open| open.take(file.size + 1).read_to_end(&mut bytes))
        .map_err(|error| named(error.to_string()))?;
    if BlobHash(*blake3::hash(&bytes).as_bytes()) != file.hash {
        return Err(named("it changed while it was being sent: try again".into()));
    }
    chunk.reserve(BlobHash::LEN + 8 + bytes.len());
    chunk.put_slice(file.hash.as_bytes());
    chunk.put_u64_le(bytes.len() as u64);
    chunk.put_slice(&bytes);
    Ok(())
}

/// Hashes a file in constant memory.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> std::io::Result<TreeFile> {
    let mut open = std::fs::File::open(path)?;
    let mut namer = BlobNamer::new();
    std::io::copy(&mut open, &mut namer)?;
    let blob = namer.finish();
    Ok(TreeFile { hash: blob.hash, size: blob.size, path: path.to_owned() })
}
