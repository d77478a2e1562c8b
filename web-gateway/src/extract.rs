//! What a request carries, read within bounds: JSON bodies, uploads as streams, query and path. Every mistake is a JSON
//! refusal.

use std::time::Instant;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::api::ByteStream;
use crate::refusal::Refusal;
use crate::server::limits::{
    BODY_BYTES_MAX, BODY_TIMEOUT, DRAIN_BYTES_MAX, DRAIN_TIMEOUT, NAME_BYTES_MAX, UPLOAD_CHUNKS, UPLOAD_SILENCE_MAX,
};

/// Reads and forgets what is left of a refused body, within bounds and in the background: a client that is still sending
/// would otherwise see a reset instead of the refusal. One that waits for `100 Continue` is left to wait for nothing.
pub(crate) fn drain(headers: &HeaderMap, body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(tokio::time::timeout(DRAIN_TIMEOUT, forget(body.into_data_stream(), 0)));
}

async fn forget(mut stream: BodyDataStream, mut seen_bytes: usize) {
    while seen_bytes < DRAIN_BYTES_MAX {
        match stream.next().await {
            Some(Ok(chunk)) => seen_bytes += chunk.len(),
            Some(Err(_)) | None => return,
        }
    }
}

/// A JSON body of at most 8 MiB.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = collect(&parts.headers, body, BODY_BYTES_MAX).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads JSON; malformed text is 400, well-formed text of another shape 422.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unprocessable",
            format!("the JSON has not the form that this path takes: {error}"),
        ),
        serde_json::error::Category::Io | serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            Refusal::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is not JSON: {error}"))
        }
    })
}

/// Reads a whole body of at most `bytes_max`, within [`BODY_TIMEOUT`].
pub(crate) async fn collect(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    let deadline = tokio::time::Instant::from_std(Instant::now() + BODY_TIMEOUT);
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    loop {
        let next = tokio::time::timeout_at(deadline, stream.next()).await.map_err(|_| {
            Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body did not arrive in time: send the request again",
            )
        })?;
        match next {
            None => return Ok(whole.freeze()),
            Some(Err(error)) => return Err(Refusal::bad_request(format!("the body broke off: {error}"))),
            Some(Ok(chunk)) if whole.len() + chunk.len() > bytes_max => {
                let seen_bytes = whole.len() + chunk.len();
                if !headers.contains_key(header::EXPECT) {
                    tokio::spawn(tokio::time::timeout(DRAIN_TIMEOUT, forget(stream, seen_bytes)));
                }
                return Err(Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    format!("the body has more than {bytes_max} bytes: send data as a blob (PUT /v1/blobs/HASH)"),
                ));
            }
            Some(Ok(chunk)) => whole.extend_from_slice(&chunk),
        }
    }
}

/// An upload as a stream. When its reader stops early, the rest is read and forgotten within the bounds of [`drain`].
pub(crate) struct Upload {
    pub(crate) size_bytes: Option<u64>,
    pub(crate) stream: ByteStream,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Refusal> {
        let size_bytes =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (sender, mut receiver) = mpsc::channel(UPLOAD_CHUNKS);
        tokio::spawn(pump(request.into_body().into_data_stream(), sender));
        let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed();
        Ok(Self { size_bytes, stream })
    }
}

async fn pump(mut stream: BodyDataStream, sender: mpsc::Sender<std::io::Result<Bytes>>) {
    loop {
        let item = match tokio::time::timeout(UPLOAD_SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(chunk))) => Ok(chunk),
            Ok(Some(Err(error))) => Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, error)),
            Ok(None) => return,
            Err(_) => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the upload fell silent")),
        };
        let broken = item.is_err();
        if sender.send(item).await.is_err() {
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, forget(stream, 0)).await;
            return;
        }
        if broken {
            return;
        }
    }
}

/// The query, read into a struct.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => Err(Refusal::bad_request(format!("the query is not understood: {}", error.body_text()))),
        }
    }
}

/// One segment of the path (or a tail of it) that names something.
pub(crate) struct Named(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Refusal::bad_request(format!("the path is not understood: {}", error.body_text())))?;
        bounded(name).map(Self)
    }
}

/// Two named parts of the path.
pub(crate) struct NamedPair(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for NamedPair {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|error| Refusal::bad_request(format!("the path is not understood: {}", error.body_text())))?;
        Ok(Self(bounded(first)?, bounded(second)?))
    }
}

fn bounded(name: String) -> Result<String, Refusal> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(Refusal::bad_request(format!("a name has 1 to {NAME_BYTES_MAX} bytes and no NUL")));
    }
    Ok(name)
}

/// A job's or trace's identifier or a prefix of it: hexadecimal.
pub(crate) fn hex_id(what: &str, name: String) -> Result<String, Refusal> {
    let id = name.to_ascii_lowercase();
    if id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!(
                "{:?} is not the identifier of a {what}: identifiers are hexadecimal, as `v6 jobs` shows them",
                shorten(&name)
            ),
        ));
    }
    Ok(id)
}

fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}
