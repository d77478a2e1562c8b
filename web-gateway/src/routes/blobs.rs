//! Blobs and trees: uploads are streamed, downloads too, and who uploads first asks what is missing.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use crdt::ids::BlobHash;
use futures::StreamExt;

use super::{App, artifacts};
use crate::api::{
    ArtifactKey, BlobAdded, BlobRow, BlobsQuery, ByteStream, GcReport, MissingAnswer, MissingQuery, TreeAdded,
};
use crate::extract::{JsonBody, Named, Params, Upload, collect};
use crate::refusal::Refusal;
use crate::server::limits::{BATCH_BLOBS_MAX, BATCH_BYTES_MAX, MANIFEST_BYTES_MAX, MISSING_HASHES_MAX, PAGE_ROWS_MAX};

fn hash(text: &str) -> Result<BlobHash, Refusal> {
    text.parse().map_err(|error| Refusal::bad_request(format!("{text:?} is not the hash of a blob: {error}")))
}

/// Blobs held here.
#[utoipa::path(get, path = "/v1/blobs", tag = "blobs", params(BlobsQuery),
    responses((status = 200, body = Vec<BlobRow>, headers(("v6-next" = Option<String>, description = "Cursor of the next page")))))]
pub(super) async fn list(State(app): State<App>, Params(mut query): Params<BlobsQuery>) -> Result<Response, Refusal> {
    query.limit = query.limit.map(|limit| limit.clamp(1, PAGE_ROWS_MAX));
    Ok(super::page(app.node.blobs(query).await?))
}

/// Stores a blob and tells its hash.
#[utoipa::path(post, path = "/v1/blobs", tag = "blobs", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = BlobAdded)))]
pub(super) async fn add(State(app): State<App>, upload: Upload) -> Result<(StatusCode, Json<BlobAdded>), Refusal> {
    Ok((StatusCode::CREATED, Json(app.node.put_blob(None, upload.size_bytes, upload.stream).await?)))
}

/// Stores a blob whose hash is known; other bytes are refused.
#[utoipa::path(put, path = "/v1/blobs/{hash}", tag = "blobs", params(("hash" = String, Path, description = "BLAKE3 of the bytes")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 201, body = BlobAdded)))]
pub(super) async fn put(
    State(app): State<App>,
    Named(name): Named,
    upload: Upload,
) -> Result<(StatusCode, Json<BlobAdded>), Refusal> {
    let hash = hash(&name)?;
    Ok((StatusCode::CREATED, Json(app.node.put_blob(Some(hash), upload.size_bytes, upload.stream).await?)))
}

/// The bytes of a blob; `Range: bytes=A-B` is understood.
#[utoipa::path(get, path = "/v1/blobs/{hash}", tag = "blobs", params(("hash" = String, Path, description = "BLAKE3 of the bytes")),
    responses((status = 200, content_type = "application/octet-stream", description = "The bytes"), (status = 206, content_type = "application/octet-stream", description = "The bytes of the range")))]
pub(super) async fn get(State(app): State<App>, Named(name): Named, headers: HeaderMap) -> Result<Response, Refusal> {
    let range = artifacts::range(&headers);
    let body = app.node.artifact(ArtifactKey::Blob(hash(&name)?), range).await?;
    Ok(artifacts::send(body, range, &name))
}

/// Which of these blobs this node does not hold.
#[utoipa::path(post, path = "/v1/blobs/missing", tag = "blobs", request_body = MissingQuery, responses((status = 200, body = MissingAnswer)))]
pub(super) async fn missing(
    State(app): State<App>,
    JsonBody(query): JsonBody<MissingQuery>,
) -> Result<Json<MissingAnswer>, Refusal> {
    if query.hashes.len() > MISSING_HASHES_MAX {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("ask for at most {MISSING_HASHES_MAX} hashes at a time"),
        ));
    }
    let hashes = query.hashes.iter().map(|text| hash(text)).collect::<Result<Vec<_>, _>>()?;
    let missing = app.node.missing(hashes).await?;
    Ok(Json(MissingAnswer { missing: missing.iter().map(BlobHash::to_string).collect() }))
}

/// Stores many small blobs: for each its 32 bytes of hash, its size as 8 bytes (little endian) and its bytes.
#[utoipa::path(post, path = "/v1/blobs/batch", tag = "blobs", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "All are stored")))]
pub(super) async fn batch(State(app): State<App>, upload: Upload) -> Result<StatusCode, Refusal> {
    let mut frames = Frames { stream: upload.stream, rest: BytesMut::new() };
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    while let Some((hash, bytes)) = frames.next().await? {
        if batch_bytes + bytes.len() > BATCH_BYTES_MAX || batch.len() >= BATCH_BLOBS_MAX {
            app.node.put_blobs(std::mem::take(&mut batch)).await?;
            batch_bytes = 0;
        }
        batch_bytes += bytes.len();
        batch.push((hash, bytes));
    }
    if !batch.is_empty() {
        app.node.put_blobs(batch).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Bytes before each blob of a batch: its hash and its size.
const FRAME_HEAD_BYTES: usize = BlobHash::LEN + 8;

struct Frames {
    stream: ByteStream,
    rest: BytesMut,
}

impl Frames {
    async fn next(&mut self) -> Result<Option<(BlobHash, Bytes)>, Refusal> {
        if !self.fill(FRAME_HEAD_BYTES).await? {
            return if self.rest.is_empty() { Ok(None) } else { Err(broken()) };
        }
        let mut hash = [0; BlobHash::LEN];
        self.rest.copy_to_slice(&mut hash);
        let size = usize::try_from(self.rest.get_u64_le()).unwrap_or(usize::MAX);
        if size > BATCH_BYTES_MAX {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("a blob of more than {BATCH_BYTES_MAX} bytes goes alone: PUT /v1/blobs/HASH"),
            ));
        }
        if !self.fill(size).await? {
            return Err(broken());
        }
        Ok(Some((BlobHash(hash), self.rest.split_to(size).freeze())))
    }

    /// Reads until `bytes` are there; `false` at the end.
    async fn fill(&mut self, bytes: usize) -> Result<bool, Refusal> {
        while self.rest.len() < bytes {
            match self.stream.next().await {
                Some(Ok(chunk)) => self.rest.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(Refusal::bad_request(format!("the upload broke off: {error}"))),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn broken() -> Refusal {
    Refusal::bad_request("the batch ends in the middle of a blob: send it again")
}

/// Drops blobs that nothing pins.
#[utoipa::path(post, path = "/v1/blobs/gc", tag = "blobs", responses((status = 200, body = GcReport)))]
pub(super) async fn gc(State(app): State<App>) -> Result<Json<GcReport>, Refusal> {
    Ok(Json(app.node.gc().await?))
}

/// Stores the manifest of an input tree and tells which of its files are missing.
#[utoipa::path(post, path = "/v1/trees", tag = "blobs", request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = TreeAdded)))]
pub(super) async fn tree(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<TreeAdded>), Refusal> {
    let (parts, body) = request.into_parts();
    let manifest = collect(&parts.headers, body, MANIFEST_BYTES_MAX).await?;
    Ok((StatusCode::CREATED, Json(app.node.put_tree(manifest).await?)))
}
