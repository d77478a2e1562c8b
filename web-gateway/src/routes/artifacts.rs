//! Artifacts of a job, and bytes on their way out: whole or by range, never shown by a browser as a page of ours.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::App;
use crate::api::{ArtifactKey, ArtifactView, BlobBody, ByteRange};
use crate::extract::{Named, NamedPair, Params, hex_id};
use crate::refusal::Refusal;

/// The artifacts of a job: per task those of the accepted attempt, else of the newest attempt that has any.
#[utoipa::path(get, path = "/v1/jobs/{id}/artifacts", tag = "jobs", params(("id" = String, Path, description = "Job or unambiguous prefix")),
    responses((status = 200, body = Vec<ArtifactView>)))]
pub(super) async fn list(State(app): State<App>, Named(id): Named) -> Result<Json<Vec<ArtifactView>>, Refusal> {
    Ok(Json(app.node.artifacts(&hex_id("job", id)?).await?))
}

/// Which task's and attempt's file.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FileQuery {
    /// Index of the task.
    task: Option<u32>,
    /// The attempt; without it the accepted one, else the newest with artifacts.
    attempt: Option<u32>,
}

/// The bytes of an artifact; `Range: bytes=A-B` is understood.
#[utoipa::path(get, path = "/v1/jobs/{id}/artifacts/{*path}", tag = "jobs",
    params(("id" = String, Path, description = "Job or unambiguous prefix"), ("path" = String, Path, description = "Path of the artifact"), FileQuery),
    responses((status = 200, content_type = "application/octet-stream", description = "The bytes"), (status = 206, content_type = "application/octet-stream", description = "The bytes of the range")))]
pub(super) async fn download(
    State(app): State<App>,
    NamedPair(id, path): NamedPair,
    Params(query): Params<FileQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let name = path.rsplit('/').next().unwrap_or("artifact").to_owned();
    let key = ArtifactKey::File { job: hex_id("job", id)?, task: query.task, attempt: query.attempt, path };
    let range = range(&headers);
    Ok(send(app.node.artifact(key, range).await?, range, &name))
}

/// Reads `Range: bytes=A-B` or `bytes=A-`; other forms count as none, as HTTP allows.
pub(super) fn range(headers: &HeaderMap) -> Option<ByteRange> {
    let (first, last) = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let start = first.parse().ok()?;
    let end = if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()?.checked_add(1)? };
    (start < end).then_some(ByteRange { start, end })
}

pub(super) fn send(body: BlobBody, range: Option<ByteRange>, name: &str) -> Response {
    let etag = format!("\"{}\"", body.hash);
    let (status, length, content_range) = match range {
        None => (StatusCode::OK, body.size, None),
        Some(range) if range.start >= body.size => {
            let mut response = Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "bad_range",
                format!("the range begins behind the end: there are {} bytes", body.size),
            )
            .into_response();
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{}", body.size)) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return response;
        }
        Some(range) => {
            let end = range.end.min(body.size);
            let text = format!("bytes {}-{}/{}", range.start, end - 1, body.size);
            (StatusCode::PARTIAL_CONTENT, end - range.start, Some(text))
        }
    };
    let stream = body.stream.inspect_err(|error| tracing::debug!(%error, "a download broke off"));
    let mut response = (status, Body::from_stream(stream)).into_response();
    let disposition = format!("attachment; filename*=UTF-8''{}", percent(name));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, Some("application/octet-stream".to_owned())),
        (header::CONTENT_LENGTH, Some(length.to_string())),
        (header::CONTENT_DISPOSITION, Some(disposition)),
        (header::ACCEPT_RANGES, Some("bytes".to_owned())),
        (header::ETAG, Some(etag)),
        (header::CONTENT_SECURITY_POLICY, Some("sandbox; default-src 'none'".to_owned())),
        (header::CONTENT_RANGE, content_range),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

/// Percent-encoding of RFC 8187.
fn percent(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
