//! The ledger: add, list, show, search, rank, say something about an idea, export, import.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;

use super::App;
use crate::api::{
    EntryAdded, EntryRequest, GraphQuery, IdeaAdded, IdeaFound, IdeaGraph, IdeaRanked, IdeaRequest, IdeaRow,
    IdeaSearch, IdeaView, IdeasImport, IdeasImported, IdeasQuery, TopQuery,
};
use crate::extract::{JsonBody, Named, Params};
use crate::refusal::Refusal;
use crate::server::limits::PAGE_ROWS_MAX;

/// Ideas and other subjects, by the time they were written.
#[utoipa::path(get, path = "/v1/ideas", tag = "ideas", params(IdeasQuery),
    responses((status = 200, body = Vec<IdeaRow>, headers(("v6-next" = Option<String>, description = "Cursor of the next page")))))]
pub(super) async fn list(State(app): State<App>, Params(mut query): Params<IdeasQuery>) -> Result<Response, Refusal> {
    query.limit = query.limit.map(|limit| limit.clamp(1, PAGE_ROWS_MAX));
    Ok(super::page(app.node.ideas(query).await?))
}

/// Adds an idea. It is there from then on, and for ever.
#[utoipa::path(post, path = "/v1/ideas", tag = "ideas", request_body = IdeaRequest, responses((status = 201, body = IdeaAdded)))]
pub(super) async fn add(
    State(app): State<App>,
    JsonBody(request): JsonBody<IdeaRequest>,
) -> Result<(StatusCode, Json<IdeaAdded>), Refusal> {
    Ok((StatusCode::CREATED, Json(app.node.idea_add(request).await?)))
}

/// An idea with all that was said about it.
#[utoipa::path(get, path = "/v1/ideas/{id}", tag = "ideas", params(("id" = String, Path, description = "Idea or unambiguous prefix")),
    responses((status = 200, body = IdeaView)))]
pub(super) async fn show(State(app): State<App>, Named(id): Named) -> Result<Json<IdeaView>, Refusal> {
    Ok(Json(app.node.idea(&id).await?))
}

/// Says something about an idea: an argument, an evaluation, a decision, a link; offers it to another person, or takes it back.
#[utoipa::path(post, path = "/v1/ideas/{id}/entries", tag = "ideas", request_body = EntryRequest,
    params(("id" = String, Path, description = "Idea or unambiguous prefix")), responses((status = 201, body = EntryAdded)))]
pub(super) async fn say(
    State(app): State<App>,
    Named(id): Named,
    JsonBody(entry): JsonBody<EntryRequest>,
) -> Result<(StatusCode, Json<EntryAdded>), Refusal> {
    Ok((StatusCode::CREATED, Json(app.node.idea_say(&id, entry).await?)))
}

/// Ideas in which words are found, in any spelling.
#[utoipa::path(get, path = "/v1/ideas/search", tag = "ideas", params(IdeaSearch),
    responses((status = 200, body = Vec<IdeaFound>, headers(("v6-next" = Option<String>, description = "Cursor of the next page")))))]
pub(super) async fn search(
    State(app): State<App>,
    Params(mut search): Params<IdeaSearch>,
) -> Result<Response, Refusal> {
    search.limit = search.limit.map(|limit| limit.clamp(1, PAGE_ROWS_MAX));
    Ok(super::page(app.node.ideas_search(search).await?))
}

/// Ideas by rank, each with the terms that it is made of.
#[utoipa::path(get, path = "/v1/ideas/top", tag = "ideas", params(TopQuery), responses((status = 200, body = Vec<IdeaRanked>)))]
pub(super) async fn top(
    State(app): State<App>,
    Params(mut query): Params<TopQuery>,
) -> Result<Json<Vec<IdeaRanked>>, Refusal> {
    query.limit = query.limit.map(|limit| limit.clamp(1, PAGE_ROWS_MAX));
    Ok(Json(app.node.ideas_top(query).await?))
}

/// How ideas hang together: those around one, or all.
#[utoipa::path(get, path = "/v1/ideas/graph", tag = "ideas", params(GraphQuery), responses((status = 200, body = IdeaGraph)))]
pub(super) async fn graph(
    State(app): State<App>,
    Params(query): Params<GraphQuery>,
) -> Result<Json<IdeaGraph>, Refusal> {
    Ok(Json(app.node.ideas_graph(query).await?))
}

/// The whole ledger: a head, one line per entry, and a signed end.
#[utoipa::path(get, path = "/v1/ideas/export", tag = "ideas",
    responses((status = 200, content_type = "application/x-ndjson", description = "One entry per line")))]
pub(super) async fn export(State(app): State<App>) -> Result<Response, Refusal> {
    let place = app.stream_place()?;
    let lines = app.node.ideas_export().await?.map(move |item| {
        let _held = &place;
        item
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Takes entries that were exported elsewhere, with their first signatures: all of them or none.
#[utoipa::path(post, path = "/v1/ideas/import", tag = "ideas", request_body = IdeasImport, responses((status = 200, body = IdeasImported)))]
pub(super) async fn import(
    State(app): State<App>,
    JsonBody(import): JsonBody<IdeasImport>,
) -> Result<Json<IdeasImported>, Refusal> {
    Ok(Json(app.node.ideas_import(import).await?))
}
