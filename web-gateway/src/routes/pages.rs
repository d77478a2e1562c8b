//! The dashboard: files that were built into the binary, and the one page that all of its paths are.
//!
//! They hold nothing of the mesh, so that everybody may have them; what a page shows it asks the API for.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

/// What `npm run build` made. Without it the binary has no dashboard, and says so.
#[derive(RustEmbed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Dist;

/// On every page. Nothing is run but what this node sends, nothing is framed, nothing is asked elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; \
     font-src 'self'; connect-src 'self'; worker-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";
const ABSENT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>V6</title><main><h1>No dashboard</h1>\
     <p>This binary was built without its pages: build them with <code>make ui</code>, then the binary again.</p></main></html>";

/// Whether a path is one of the files that pages are made of.
pub(crate) fn is_file(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|name| !name.is_empty() && !name.ends_with(".br") && Dist::get(name).is_some())
}

/// Whether somebody asks for a page: a path that is not the API's, by who wants HTML.
pub(crate) fn is_page(path: &str, headers: &HeaderMap) -> bool {
    let of_api = path == "/metrics" || path == "/v1" || path.starts_with("/v1/");
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    !of_api && (path == "/" || accept.is_some_and(|accept| accept.contains("text/html")))
}

/// A file or the page; `None`: the path is neither.
pub(super) fn answer(uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let path = uri.path();
    if is_file(path) {
        return Some(file(path.trim_start_matches('/'), headers));
    }
    is_page(path, headers).then(|| page(StatusCode::OK, headers))
}

/// The page, whatever is shown on it.
pub(super) fn page(status: StatusCode, headers: &HeaderMap) -> Response {
    let mut response = if Dist::get("index.html").is_some() {
        file("index.html", headers)
    } else {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], ABSENT).into_response()
    };
    // What the client has already is answered with 304, and that stays.
    if status != StatusCode::OK {
        *response.status_mut() = status;
    }
    response
}

/// A file, in its small form where the client takes it.
fn file(name: &str, headers: &HeaderMap) -> Response {
    let takes_small = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|one| one.trim().split(';').next() == Some("br")));
    let small = takes_small.then(|| Dist::get(&format!("{name}.br"))).flatten();
    let (is_small, found) = (small.is_some(), small.or_else(|| Dist::get(name)));
    let Some(EmbeddedFile { data, metadata }) = found else { return StatusCode::NOT_FOUND.into_response() };
    let etag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&metadata.sha256_hash()[..16]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if known == Some(etag.as_str()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(data.into_owned()).into_response()
    };
    // Files under assets have the hash of their content in their name.
    let cache = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let answer = response.headers_mut();
    let kind = kind_of(name);
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if kind.starts_with("text/html") {
        answer.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    if is_small {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    if let Ok(etag) = HeaderValue::try_from(etag) {
        answer.insert(header::ETAG, etag);
    }
    response
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("woff2") => "font/woff2",
        Some(_) | None => "application/octet-stream",
    }
}
