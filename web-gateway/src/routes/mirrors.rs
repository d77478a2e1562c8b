//! The mirrors of a gateway.

use axum::Json;
use axum::extract::State;

use super::App;
use crate::api::{MirrorCheck, MirrorView};
use crate::extract::Named;
use crate::refusal::Refusal;

/// How this node's mirrors stand.
#[utoipa::path(get, path = "/v1/mirrors", tag = "mirrors", responses((status = 200, body = Vec<MirrorView>)))]
pub(super) async fn list(State(app): State<App>) -> Result<Json<Vec<MirrorView>>, Refusal> {
    Ok(Json(app.node.mirrors().await?))
}

/// Compares a mirror with the mesh.
#[utoipa::path(post, path = "/v1/mirrors/{kind}/verify", tag = "mirrors", params(("kind" = String, Path, description = "postgres")),
    responses((status = 200, body = MirrorCheck)))]
pub(super) async fn verify(State(app): State<App>, Named(kind): Named) -> Result<Json<MirrorCheck>, Refusal> {
    Ok(Json(app.node.mirror_verify(&kind).await?))
}

/// Drops what a mirror holds and fills it again.
#[utoipa::path(post, path = "/v1/mirrors/{kind}/rebuild", tag = "mirrors", params(("kind" = String, Path, description = "postgres")),
    responses((status = 200, body = MirrorView)))]
pub(super) async fn rebuild(State(app): State<App>, Named(kind): Named) -> Result<Json<MirrorView>, Refusal> {
    Ok(Json(app.node.mirror_rebuild(&kind).await?))
}
