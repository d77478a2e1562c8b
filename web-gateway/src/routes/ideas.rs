//! The ledger: add, list, show.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use crate::api::{IdeaAdded, IdeaRequest, IdeaRow, IdeaView, IdeasQuery};
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
