//! What changes as server-sent events (WHATWG HTML §9.2), traces, findings and metrics.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::App;
use crate::api::{Event, Finding, TraceView};
use crate::extract::{Named, Params, hex_id};
use crate::refusal::Refusal;
use crate::server::limits::HEARTBEAT;

/// From where on.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// The last event that was seen; the header `Last-Event-ID` goes before it.
    since: Option<u64>,
}

/// Everything that changes, as server-sent events; a client that reconnects with `Last-Event-ID` misses nothing, or gets a
/// `reset` when too much has passed.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "The last event that was seen")),
    responses((status = 200, body = Event, content_type = "text/event-stream", description = "`event` is the kind, `data` the data, `id` the id")))]
pub(super) async fn events(
    State(app): State<App>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let place = app.stream_place()?;
    let last = match headers.get("last-event-id") {
        None => query.since,
        Some(value) => match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
            Some(id) => Some(id),
            None => return Err(Refusal::bad_request("Last-Event-ID is a number that an event had as its id")),
        },
    };
    let events = app.node.events(last).await?;
    let hello = futures::stream::once(async {
        Ok(SseEvent::default().comment("events").retry(std::time::Duration::from_secs(2)))
    });
    let stream = events.map_ok(encode).map(move |item| {
        let _held = &place;
        item
    });
    Ok(Sse::new(hello.chain(stream)).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("beat")).into_response())
}

fn encode(event: Event) -> SseEvent {
    let kind: String = event.kind.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    SseEvent::default().id(event.id.to_string()).event(kind).data(event.data.to_string())
}

/// What the node's core knows and sees from now on, to be played back by `simulations replay`.
#[utoipa::path(get, path = "/v1/debug/record", tag = "node",
    responses((status = 200, description = "A field log", content_type = "application/octet-stream")))]
pub(super) async fn record(State(app): State<App>) -> Result<Response, Refusal> {
    let place = app.stream_place()?;
    let bytes = app.node.record().await?.map(move |item| {
        let _held = &place;
        item
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(bytes)).into_response())
}

/// What is known about a trace, oldest first.
#[utoipa::path(get, path = "/v1/traces/{id}", tag = "jobs", params(("id" = String, Path, description = "Trace, job or unambiguous prefix")),
    responses((status = 200, body = TraceView)))]
pub(super) async fn trace(State(app): State<App>, Named(id): Named) -> Result<Json<TraceView>, Refusal> {
    Ok(Json(app.node.trace(&hex_id("trace", id)?).await?))
}

/// Problems of this node, each with its mend.
#[utoipa::path(get, path = "/v1/doctor", tag = "node", responses((status = 200, body = Vec<Finding>)))]
pub(super) async fn doctor(State(app): State<App>) -> Result<Json<Vec<Finding>>, Refusal> {
    Ok(Json(app.node.doctor().await?))
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "node", responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Refusal> {
    let text = app.node.metrics().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
