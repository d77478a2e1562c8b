//! Signing in and out: the node's owner makes a link, a browser uses it up and gets a cookie, a person ends it.

use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{App, pages};
use crate::api::ApiError;
use crate::extract::Named;
use crate::refusal::Refusal;
use crate::server::Local;
use crate::server::limits::LINK_LIFE;
use crate::server::sessions::{COOKIE_LIFE, Session};

/// A link that signs a browser in, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignInLink {
    /// The address to open.
    pub url: String,
    /// When it opens nothing any more.
    pub expires: String,
}

/// The name of a node's cookie; over TLS browsers see to it that only this host can set it.
pub(crate) fn cookie_name(node: &str, is_tls: bool) -> String {
    format!("{}v6_session_{node}", if is_tls { "__Host-" } else { "" })
}

fn no_randomness(error: getrandom::Error) -> Refusal {
    ApiError::Internal(format!("the system gives no randomness: {error}")).into()
}

/// Makes a link that signs a browser in. It takes the API's token: a session cannot make further ones.
#[utoipa::path(post, path = "/v1/session/links", tag = "session", responses((status = 201, body = SignInLink)))]
pub(super) async fn link(
    State(app): State<App>,
    Extension(local): Extension<Local>,
    session: Option<Extension<Session>>,
) -> Result<(StatusCode, Json<SignInLink>), Refusal> {
    if session.is_some() {
        let text = "a sign-in link is made on the node itself: use `v6 open` there";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not_allowed", text));
    }
    let secret = app.sessions.new_link(Instant::now()).map_err(no_randomness)?;
    let until = SystemTime::now() + LINK_LIFE;
    let expires = humantime::format_rfc3339_millis(until).to_string();
    let scheme = if local.is_tls { "https" } else { "http" };
    Ok((StatusCode::CREATED, Json(SignInLink { url: format!("{scheme}://{}/open/{secret}", local.address), expires })))
}

/// Uses a link up: a cookie and the way to the first page, so that the secret does not stay in the address.
#[utoipa::path(get, path = "/open/{secret}", tag = "session", security(()), params(("secret" = String, Path, description = "As `v6 open --print` printed it")),
    responses((status = 303, description = "Signed in"), (status = 410, description = "The link was used or is over", content_type = "text/html", body = String)))]
pub(super) async fn open(
    State(app): State<App>,
    Extension(local): Extension<Local>,
    Named(secret): Named,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Some(cookie) = app.sessions.redeem(&secret, Instant::now()).map_err(no_randomness)? else {
        return Ok(pages::page(StatusCode::GONE, &headers));
    };
    let mut response = (StatusCode::SEE_OTHER, set_cookie(&app, local, &cookie, COOKIE_LIFE.as_secs())).into_response();
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/"));
    Ok(response)
}

/// Ends the session that the request came with, and its event streams.
#[utoipa::path(post, path = "/v1/session/end", tag = "session", responses((status = 204, description = "Signed out")))]
pub(super) async fn end(
    State(app): State<App>,
    Extension(local): Extension<Local>,
    session: Option<Extension<Session>>,
) -> Response {
    if let Some(Extension(session)) = session {
        app.sessions.end(&session);
    }
    (StatusCode::NO_CONTENT, set_cookie(&app, local, "", 0)).into_response()
}

fn set_cookie(app: &App, local: Local, value: &str, seconds: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let (name, secure) = (cookie_name(&app.name, local.is_tls), if local.is_tls { "; Secure" } else { "" });
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.insert(header::SET_COOKIE, text);
    }
    headers
}
