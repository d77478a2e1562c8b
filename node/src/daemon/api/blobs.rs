//! Blobs and artifacts: in and out as streams.

use bytes::Bytes;
use crdt::ids::{BlobHash, JobId, NodeId};
use futures::StreamExt;
use tokio::io::AsyncReadExt;
use web_gateway::api::*;

use super::Api;
use super::jobs::job_id;
use crate::blobs::{BlobRef, GcMode, Pin, PinReason};
use crate::daemon::artifacts::{self, Lists};
use crate::daemon::find::{self, FindError};
use crate::daemon::views;
use crate::tree::{EntryKind, Manifest};

/// Most rows of a page.
const BLOBS_PAGE: usize = 1_000;
/// Largest upload whose size is not announced.
const UPLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes that are read at once.
const READ_CHUNK_BYTES: usize = 256 * 1024;

pub(super) async fn artifacts(api: &Api, id: &str) -> Result<Vec<ArtifactView>, ApiError> {
    let id = job_id(api, id).await?;
    Ok(artifact_list(api, id).await?.into_iter().map(|(view, _)| view).collect())
}

pub(super) async fn artifact(api: &Api, key: ArtifactKey, range: Option<ByteRange>) -> Result<BlobBody, ApiError> {
    let (blob, owner, job) = match key {
        ArtifactKey::Blob(hash) => {
            let found = find::find(&api.0, hash).await.map_err(|error| match error {
                FindError::Nobody { .. } => ApiError::NotFound(error.to_string()),
                FindError::Fetch(..) => ApiError::NotReady(error.to_string()),
            });
            (found?, None, None)
        }
        ArtifactKey::File { job, task, attempt, path } => {
            let id = job_id(api, &job).await?;
            let list = artifact_list(api, id).await?;
            let found = list.into_iter().find(|(view, _)| {
                view.path == path && task.is_none_or(|t| t == view.task) && attempt.is_none_or(|a| a == view.attempt)
            });
            let (view, owner) =
                found.ok_or_else(|| ApiError::NotFound(format!("job {id} has no artifact {path:?}")))?;
            let hash = view.blob.parse().map_err(|_| ApiError::Internal("a malformed hash".into()))?;
            (BlobRef { hash, size: view.size }, Some(owner), Some(id))
        }
    };
    if !api.0.blobs.has(&blob) {
        let mut holders: Vec<NodeId> = owner.into_iter().collect();
        holders.extend(api.ask(|core| core.connected().collect::<Vec<_>>()).await?);
        let pin = job.map_or(Pin::new(PinReason::Manual), Pin::job);
        let fetched = api.0.blobs.fetch(&blob, &holders, &pin, None).await;
        fetched.map_err(|e| ApiError::NotReady(format!("the blob {} cannot be fetched: {e}", blob.hash)))?;
    }
    Ok(body(api, blob, range))
}

pub(super) fn missing(api: &Api, mut hashes: Vec<BlobHash>) -> Vec<BlobHash> {
    hashes.retain(|hash| api.0.blobs.resolve(hash).is_none());
    hashes
}

pub(super) async fn put_blob(
    api: &Api,
    hash: Option<BlobHash>,
    size_bytes: Option<u64>,
    mut body: ByteStream,
) -> Result<BlobAdded, ApiError> {
    let broken = |e: std::io::Error| ApiError::BadRequest(format!("the upload broke off: {e}"));
    let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(&api.0.options.data_dir).map_err(broken)?);
    while let Some(chunk) = body.next().await {
        tokio::io::AsyncWriteExt::write_all(&mut file, &chunk.map_err(broken)?).await.map_err(broken)?;
    }
    tokio::io::AsyncSeekExt::rewind(&mut file).await.map_err(broken)?;
    let file = file.into_std().await;
    let added =
        api.0.blobs.add_open_file(file, size_bytes.unwrap_or(UPLOAD_BYTES_MAX), &Pin::new(PinReason::Upload)).await;
    let blob = added.map_err(|e| ApiError::NotReady(e.to_string()))?;
    if hash.is_some_and(|hash| hash != blob.hash) {
        return Err(ApiError::BadRequest(format!("the bytes hash to {}, not to what was announced", blob.hash)));
    }
    api.0.blobs.sync().await.map_err(|e| ApiError::NotReady(e.to_string()))?;
    Ok(BlobAdded { blob: blob.hash.to_string(), size: blob.size })
}

pub(super) async fn put_blobs(api: &Api, blobs: Vec<(BlobHash, Bytes)>) -> Result<(), ApiError> {
    for (hash, bytes) in blobs {
        let added = api.0.blobs.add_bytes(bytes, &Pin::new(PinReason::Upload)).await;
        if added.map_err(|e| ApiError::NotReady(e.to_string()))?.hash != hash {
            return Err(ApiError::BadRequest(format!("the bytes announced as {hash} hash to something else")));
        }
    }
    api.0.blobs.sync().await.map_err(|e| ApiError::NotReady(e.to_string()))
}

pub(super) async fn put_tree(api: &Api, manifest: Bytes) -> Result<TreeAdded, ApiError> {
    let read = Manifest::decode(&manifest).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    let added = api.0.blobs.add_bytes(manifest, &Pin::new(PinReason::Upload)).await;
    let blob = added.map_err(|e| ApiError::NotReady(e.to_string()))?;
    let files = read.entries().iter().filter_map(|entry| match &entry.kind {
        EntryKind::File { hash, size, .. } => Some(BlobRef { hash: *hash, size: *size }),
        EntryKind::Symlink { .. } | EntryKind::Dir => None,
    });
    let missing = files.filter(|file| !api.0.blobs.has(file)).map(|file| file.hash.to_string()).collect();
    api.0.blobs.sync().await.map_err(|e| ApiError::NotReady(e.to_string()))?;
    Ok(TreeAdded { tree: blob.hash.to_string(), missing })
}

pub(super) fn blobs(api: &Api, query: &BlobsQuery) -> Page<BlobRow> {
    let most = query.limit.map_or(BLOBS_PAGE, |l| l as usize).clamp(1, BLOBS_PAGE);
    let rows = api.0.blobs.list(query.cursor.as_ref().and_then(|c| c.parse().ok()), most);
    let now = crate::daemon::now_ms();
    let items: Vec<BlobRow> = rows
        .into_iter()
        .map(|info| BlobRow {
            blob: info.hash.to_string(),
            size: info.size.unwrap_or(info.stored_bytes),
            pinned_by: info.pins.iter().map(|pin| pin.words(now)).collect(),
            holders: Vec::new(),
        })
        .collect();
    let next = (items.len() == most).then(|| items.last().map(|row| row.blob.clone())).flatten();
    Page { items, next }
}

pub(super) async fn gc(api: &Api) -> Result<GcReport, ApiError> {
    let report = api.0.blobs.gc(GcMode::All).await.map_err(|e| ApiError::NotReady(e.to_string()))?;
    Ok(GcReport {
        blobs_dropped: report.deleted as u64,
        bytes_freed: report.freed_bytes,
        bytes_held: api.0.blobs.usage().bytes,
    })
}

fn body(api: &Api, blob: BlobRef, range: Option<ByteRange>) -> BlobBody {
    let reader = match range {
        Some(range) => api.0.blobs.read_range(&blob, range.start..range.end.min(blob.size)),
        None => api.0.blobs.read(&blob),
    };
    let stream = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        let mut buffer = vec![0; READ_CHUNK_BYTES];
        match reader.read(&mut buffer).await {
            Ok(0) => None,
            Ok(read) => {
                buffer.truncate(read);
                Some((Ok(Bytes::from(buffer)), Some(reader)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    BlobBody { hash: blob.hash, size: blob.size, stream: stream.boxed() }
}

async fn artifact_list(api: &Api, id: JobId) -> Result<Vec<(ArtifactView, NodeId)>, ApiError> {
    let lists = lists(api, id).await?;
    api.ask(move |core| core.replica_mut().job(id).map(|job| views::job_artifacts(job, &lists)).unwrap_or_default())
        .await
}

/// The lists of artifacts that a job's runs name, brought here where they can be had.
pub(super) async fn lists(api: &Api, id: JobId) -> Result<Lists, ApiError> {
    let named = api.ask(move |core| {
        let lists = core.replica_mut().job(id).map(artifacts::lists).unwrap_or_default();
        let holders: Vec<NodeId> = if lists.is_empty() { Vec::new() } else { core.connected().collect() };
        (lists, holders)
    });
    let (named, holders) = named.await?;
    let mut lists = Lists::new();
    for list in named {
        match artifacts::read(&api.0.blobs, &list, &holders, &Pin::job(id)).await {
            Ok(all) => drop(lists.insert(list.blob, all)),
            Err(error) => tracing::warn!(job = %id, error = format!("{error:#}"), "only some files of a run are shown"),
        }
    }
    Ok(lists)
}
