//! Feeds, documents and notebooks.

use axum::Json;
use axum::extract::State;

use super::App;
use crate::api::{ChangeView, DocDetail, DocRow, FeedCheck, FeedView, NoteEdit, NoteView};
use crate::extract::{JsonBody, Named};
use crate::refusal::Refusal;

type Reply<T> = Result<Json<T>, Refusal>;

/// The heads of all feeds.
#[utoipa::path(get, path = "/v1/feeds", tag = "documents", responses((status = 200, body = Vec<FeedView>)))]
pub(super) async fn feeds(State(app): State<App>) -> Reply<Vec<FeedView>> {
    Ok(Json(app.node.feeds().await?))
}

/// Reads every stored bundle again and checks it.
#[utoipa::path(get, path = "/v1/feeds/verify", tag = "documents", responses((status = 200, body = FeedCheck)))]
pub(super) async fn verify(State(app): State<App>) -> Reply<FeedCheck> {
    Ok(Json(app.node.feeds_verify().await?))
}

/// All documents.
#[utoipa::path(get, path = "/v1/docs", tag = "documents", responses((status = 200, body = Vec<DocRow>)))]
pub(super) async fn list(State(app): State<App>) -> Reply<Vec<DocRow>> {
    Ok(Json(app.node.docs().await?))
}

/// One document's registers and who wrote them.
#[utoipa::path(get, path = "/v1/docs/{id}", tag = "documents", params(("id" = String, Path, description = "Document or unambiguous prefix")),
    responses((status = 200, body = DocDetail)))]
pub(super) async fn show(State(app): State<App>, Named(id): Named) -> Reply<DocDetail> {
    Ok(Json(app.node.doc(&id).await?))
}

/// Every change of a document, oldest first.
#[utoipa::path(get, path = "/v1/docs/{id}/history", tag = "documents", params(("id" = String, Path, description = "Document or unambiguous prefix")),
    responses((status = 200, body = Vec<ChangeView>)))]
pub(super) async fn history(State(app): State<App>, Named(id): Named) -> Reply<Vec<ChangeView>> {
    Ok(Json(app.node.doc_history(&id).await?))
}

/// A notebook's text.
#[utoipa::path(get, path = "/v1/notes/{id}", tag = "documents", params(("id" = String, Path, description = "Notebook or job")),
    responses((status = 200, body = NoteView)))]
pub(super) async fn note(State(app): State<App>, Named(id): Named) -> Reply<NoteView> {
    Ok(Json(app.node.note(&id).await?))
}

/// Changes a notebook's text; what others wrote since `base` survives.
#[utoipa::path(put, path = "/v1/notes/{id}", tag = "documents", params(("id" = String, Path, description = "Notebook or job")),
    request_body = NoteEdit, responses((status = 200, body = NoteView)))]
pub(super) async fn note_edit(
    State(app): State<App>,
    Named(id): Named,
    JsonBody(edit): JsonBody<NoteEdit>,
) -> Reply<NoteView> {
    Ok(Json(app.node.note_edit(&id, edit).await?))
}
