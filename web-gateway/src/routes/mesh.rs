//! The node, its peers, the roster, invites.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use crdt::ids::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use crate::api::{
    DelegateRequest, Delegated, InviteRequest, InviteRow, Invited, JoinView, MemberRow, PeerView, PolicyRequest,
    PolicySet, PolicyView, Revoked, StatusView,
};
use crate::extract::{JsonBody, Named};
use crate::refusal::Refusal;

type Reply<T> = Result<Json<T>, Refusal>;

/// The node, its mesh and the heads of all feeds.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(app): State<App>) -> Reply<StatusView> {
    Ok(Json(app.node.status().await?))
}

/// The other members, with their offers and how they are reached.
#[utoipa::path(get, path = "/v1/peers", tag = "mesh", responses((status = 200, body = Vec<PeerView>)))]
pub(super) async fn peers(State(app): State<App>) -> Reply<Vec<PeerView>> {
    Ok(Json(app.node.peers().await?))
}

/// Where the mesh is reached, for a PC that has a ticket. It needs no session.
#[utoipa::path(get, path = "/v1/join", tag = "mesh", security(()), responses((status = 200, body = JoinView)))]
pub(super) async fn join(State(app): State<App>) -> Reply<JoinView> {
    Ok(Json(app.node.join_view().await?))
}

/// Invites that the mesh knows; tickets are not shown again.
#[utoipa::path(get, path = "/v1/invites", tag = "mesh", responses((status = 200, body = Vec<InviteRow>)))]
pub(super) async fn invites(State(app): State<App>) -> Reply<Vec<InviteRow>> {
    Ok(Json(app.node.invites().await?))
}

/// Issues an invite.
#[utoipa::path(post, path = "/v1/invites", tag = "mesh", request_body = InviteRequest, responses((status = 201, body = Invited)))]
pub(super) async fn invite(
    State(app): State<App>,
    JsonBody(request): JsonBody<InviteRequest>,
) -> Result<(StatusCode, Json<Invited>), Refusal> {
    if request.uses == Some(0) || request.expires_ms == Some(0) {
        return Err(Refusal::bad_request("an invite needs at least one use and some time before it expires"));
    }
    Ok((StatusCode::CREATED, Json(app.node.invite(request).await?)))
}

/// The roster, revoked members too.
#[utoipa::path(get, path = "/v1/members", tag = "mesh", responses((status = 200, body = Vec<MemberRow>)))]
pub(super) async fn members(State(app): State<App>) -> Reply<Vec<MemberRow>> {
    Ok(Json(app.node.members().await?))
}

/// Why a member is revoked.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RevokeRequest {
    /// For people.
    reason: Option<String>,
}

/// Revokes a member.
#[utoipa::path(post, path = "/v1/members/{node}/revoke", tag = "mesh", params(("node" = String, Path, description = "Whole node id")),
    request_body = RevokeRequest, responses((status = 200, body = Revoked)))]
pub(super) async fn revoke(
    State(app): State<App>,
    Named(node): Named,
    JsonBody(request): JsonBody<RevokeRequest>,
) -> Reply<Revoked> {
    let node: NodeId =
        node.parse().map_err(|error| Refusal::bad_request(format!("{node:?} is not a whole node id: {error}")))?;
    Ok(Json(app.node.revoke(node, request.reason).await?))
}

/// What the mesh as a whole wants.
#[utoipa::path(get, path = "/v1/policies", tag = "mesh", responses((status = 200, body = Vec<PolicyView>)))]
pub(super) async fn policies(State(app): State<App>) -> Reply<Vec<PolicyView>> {
    Ok(Json(app.node.policies().await?))
}

/// Sets a policy of the mesh.
#[utoipa::path(put, path = "/v1/policies/{name}", tag = "mesh", params(("name" = String, Path, description = "Its name")),
    request_body = PolicyRequest, responses((status = 200, body = PolicySet)))]
pub(super) async fn set_policy(
    State(app): State<App>,
    Named(name): Named,
    JsonBody(request): JsonBody<PolicyRequest>,
) -> Reply<PolicySet> {
    Ok(Json(app.node.set_policy(name, request.value).await?))
}

/// Issues a delegation.
#[utoipa::path(post, path = "/v1/delegations", tag = "mesh", request_body = DelegateRequest, responses((status = 201, body = Delegated)))]
pub(super) async fn delegate(
    State(app): State<App>,
    JsonBody(request): JsonBody<DelegateRequest>,
) -> Result<(StatusCode, Json<Delegated>), Refusal> {
    Ok((StatusCode::CREATED, Json(app.node.delegate(request).await?)))
}
