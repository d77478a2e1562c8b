//! Paths and what they call: each handler reads its request, asks the node and writes the answer. OpenAPI is generated from
//! the handlers themselves.

mod artifacts;
mod blobs;
mod docs;
mod events;
mod ideas;
mod jobs;
mod logs;
mod mesh;
mod mirrors;
pub(crate) mod pages;
mod session;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{self, NodeApi};
use crate::refusal::{ErrorBody, Refusal};
use crate::server::limits::STREAMS_MAX;
use crate::server::sessions::Sessions;

pub use session::SignInLink;
pub(crate) use session::cookie_name;

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct App {
    node: Arc<dyn NodeApi>,
    streams: Arc<Semaphore>,
    openapi: Bytes,
    sessions: Arc<Sessions>,
    /// The beginning of the node's id, which its cookies bear.
    name: String,
}

impl App {
    /// A place for a stream that lasts.
    fn stream_place(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                format!("{STREAMS_MAX} log and event streams are open: close some and try again"),
            )
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "V6",
        description = "A node of a V6 mesh: jobs, peers, blobs, documents and events. Every request needs the bearer token of the file `api.token` in the node's data directory, this description and /metrics too."
    ),
    components(schemas(ErrorBody, api::Event, api::LogLine))
)]
struct Description;

/// The router and, as JSON, its description.
pub(crate) fn router(node: Arc<dyn NodeApi>, sessions: Arc<Sessions>, name: String) -> axum::Router {
    let (router, _) = parts();
    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    let app = App { node, streams, openapi: Bytes::from(openapi_json()), sessions, name };
    router.fallback(page_or_nothing).method_not_allowed_fallback(no_such_method).with_state(app)
}

/// The OpenAPI description as JSON, the same bytes that `/v1/openapi.json` serves.
#[must_use]
pub fn openapi_json() -> String {
    let (_, mut description) = parts();
    if let Some(components) = &mut description.components {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        components.add_security_scheme("bearer", bearer);
    }
    description.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    let refusal = ResponseBuilder::new()
        .description("Refused: the code is for programs, the message for people.")
        .content("application/json", ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build())
        .build();
    for (address, path) in &mut description.paths.paths {
        let words: Vec<&str> =
            address.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let operations =
            [("get", &mut path.get), ("put", &mut path.put), ("post", &mut path.post), ("delete", &mut path.delete)];
        for (method, operation) in
            operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
        {
            // Handlers of several modules have one name; the description wants each once.
            operation.operation_id = Some(format!("{method}_{}", words.join("_")));
            operation.responses.responses.entry("default".to_owned()).or_insert_with(|| refusal.clone().into());
        }
    }
    description.to_pretty_json().expect("a description of our own making is JSON")
}

fn parts() -> (axum::Router<App>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(mesh::status))
        .routes(routes!(mesh::peers))
        .routes(routes!(jobs::list, jobs::submit))
        .routes(routes!(jobs::waiting))
        .routes(routes!(jobs::preview))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::explain))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(logs::logs))
        .routes(routes!(artifacts::list))
        .routes(routes!(artifacts::download))
        .routes(routes!(blobs::list, blobs::add))
        .routes(routes!(blobs::get, blobs::put))
        .routes(routes!(blobs::missing))
        .routes(routes!(blobs::batch))
        .routes(routes!(blobs::gc))
        .routes(routes!(blobs::tree))
        .routes(routes!(mesh::join))
        .routes(routes!(mesh::invites, mesh::invite))
        .routes(routes!(mesh::members))
        .routes(routes!(mesh::revoke))
        .routes(routes!(mesh::policies))
        .routes(routes!(mesh::set_policy))
        .routes(routes!(mesh::delegate))
        .routes(routes!(ideas::list, ideas::add))
        .routes(routes!(ideas::show))
        .routes(routes!(ideas::say))
        .routes(routes!(ideas::search))
        .routes(routes!(ideas::top))
        .routes(routes!(ideas::graph))
        .routes(routes!(ideas::export))
        .routes(routes!(ideas::import))
        .routes(routes!(docs::feeds))
        .routes(routes!(docs::verify))
        .routes(routes!(docs::list))
        .routes(routes!(docs::show))
        .routes(routes!(docs::history))
        .routes(routes!(docs::note, docs::note_edit))
        .routes(routes!(events::events))
        .routes(routes!(events::trace))
        .routes(routes!(events::doctor))
        .routes(routes!(events::metrics))
        .routes(routes!(events::record))
        .routes(routes!(mirrors::list))
        .routes(routes!(mirrors::verify))
        .routes(routes!(mirrors::rebuild))
        .routes(routes!(session::link))
        .routes(routes!(session::open))
        .routes(routes!(session::end))
        .routes(routes!(openapi))
        .split_for_parts()
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "node", responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
async fn openapi(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi).into_response()
}

async fn page_or_nothing(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let asks = matches!(method, Method::GET | Method::HEAD);
    match pages::answer(&uri, &headers).filter(|_| asks) {
        Some(answer) => answer,
        None => no_such_path(&uri).into_response(),
    }
}

fn no_such_path(uri: &Uri) -> Refusal {
    let path: String = uri.path().chars().take(120).collect();
    Refusal::new(StatusCode::NOT_FOUND, "no_such_path", format!("there is nothing at {path}: see /v1/openapi.json"))
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> Refusal {
    let path: String = uri.path().chars().take(120).collect();
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        format!("{method} is not possible at {path}: see /v1/openapi.json"),
    )
}

/// A page as a bare list, with the cursor of the next one in the header `v6-next`.
fn page<T: serde::Serialize>(page: api::Page<T>) -> Response {
    let mut response = axum::Json(page.items).into_response();
    if let Some(next) = page.next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert("v6-next", next);
    }
    response
}
