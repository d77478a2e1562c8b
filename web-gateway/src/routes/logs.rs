//! A job's output as lines of JSON, or as the bare bytes of one or both streams.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::App;
use crate::api::{ApiError, Items, LogItem, LogLine, LogQuery};
use crate::extract::{Named, Params, hex_id};
use crate::refusal::Refusal;
use crate::server::limits::HEARTBEAT;

/// A job's output: `application/x-ndjson` with one item per line, or with `Accept: text/plain` the bare bytes.
#[utoipa::path(get, path = "/v1/jobs/{id}/logs", tag = "jobs", params(("id" = String, Path, description = "Job or unambiguous prefix"), LogQuery),
    responses((status = 200, body = LogLine, content_type = "application/x-ndjson", description = "One item per line")))]
pub(super) async fn logs(
    State(app): State<App>,
    Named(id): Named,
    Params(query): Params<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let place = app.stream_place()?;
    let is_file = query.text;
    let id = hex_id("job", id)?;
    let items = app.node.logs(&id, query).await?;
    let wants_text = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.starts_with("text/plain"));
    let plain = wants_text || is_file;
    let (kind, bytes) =
        if plain { ("text/plain; charset=utf-8", bare(items)) } else { ("application/x-ndjson", lines(items)) };
    let bytes = bytes.map(move |item| {
        let _held = &place;
        item
    });
    let mut response = ([(header::CONTENT_TYPE, kind)], Body::from_stream(bytes)).into_response();
    let name = format!("attachment; filename=\"{}.log\"", id.get(..8).unwrap_or(&id));
    if let Some(name) = HeaderValue::try_from(name).ok().filter(|_| is_file) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

type Chunks = BoxStream<'static, Result<Bytes, ApiError>>;

fn bare(items: Items<LogItem>) -> Chunks {
    items
        .filter_map(|item| async {
            match item {
                Ok(LogItem::Bytes { bytes, .. }) => Some(Ok(bytes)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        })
        .boxed()
}

/// An item per line; what is ready together leaves together; in silence a line says that the stream lives.
fn lines(items: Items<LogItem>) -> Chunks {
    let items = items.ready_chunks(64);
    futures::stream::unfold(Some(items), |items| async {
        let mut items = items?;
        let (batch, rest) = match tokio::time::timeout(HEARTBEAT, items.next()).await {
            Err(_) => (vec![Ok(None)], Some(items)),
            Ok(None) => return None,
            Ok(Some(batch)) => (batch.into_iter().map(|item| item.map(Some)).collect(), Some(items)),
        };
        let mut text = Vec::with_capacity(256);
        let mut rest = rest;
        for item in batch {
            let line = match item {
                Ok(Some(item)) => LogLine::from(item),
                Ok(None) => LogLine::Beat,
                Err(error) => {
                    rest = None;
                    LogLine::Error { code: error.code().to_owned(), message: error.to_string() }
                }
            };
            serde_json::to_writer(&mut text, &line).expect("a log line is JSON");
            text.push(b'\n');
            if rest.is_none() {
                break;
            }
        }
        Some((Ok(Bytes::from(text)), rest))
    })
    .boxed()
}
