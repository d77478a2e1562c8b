//! The HTTP/1.1 server: connections, their bounds and their end. What is answered is the business of `routes`, who may ask
//! that of `guard`.

mod guard;
pub mod limits;
pub(crate) mod sessions;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, header};
use axum::response::IntoResponse;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::NodeApi;
use crate::extract;
use crate::routes;
use guard::{Guard, Opened};
use limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, SHUTDOWN_GRACE};
use sessions::{Session, Sessions};

/// What the server must know besides the node.
#[derive(Clone, Default)]
pub struct ServerConfig {
    /// The bearer token that opens everything.
    pub token: String,
    /// The first 8 characters of the node's id: browsers share cookies among the ports of a host, so each node has its own.
    pub node: String,
    /// Further values of `Host` to accept (`host:port`), beside loopback names and the address that was connected to.
    pub allowed_hosts: Vec<String>,
    /// What TLS is spoken with on the same port: the first byte of a connection tells. Without it there is none.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Serves everything without TLS to other machines too. Else they get nothing without it but `GET /v1/join`.
    pub insecure_lan: bool,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig").field("allowed_hosts", &self.allowed_hosts).finish_non_exhaustive()
    }
}

/// A running server. Dropping it stops the server at once; [`ServerHandle::shutdown`] lets open requests end.
#[derive(Debug)]
pub struct ServerHandle {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl ServerHandle {
    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing any more, lets open requests end for 1.5 s, closes the rest.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the API's server did not end in order");
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Serves a node on a listener until the handle says stop.
///
/// # Errors
/// When the listener cannot tell its own address.
pub fn serve(listener: TcpListener, node: Arc<dyn NodeApi>, config: ServerConfig) -> std::io::Result<ServerHandle> {
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let sessions = Arc::new(Sessions::default());
    let router = routes::router(node, sessions.clone(), config.node.clone());
    let (tls, insecure_lan) = (config.tls.clone(), config.insecure_lan);
    let shared = Arc::new(Shared { guard: Guard::new(config, sessions), router, tls, insecure_lan });
    let task = tokio::spawn(accept_loop(listener, shared, stop.clone()));
    Ok(ServerHandle { stop, task: Some(task), address })
}

struct Shared {
    guard: Guard,
    router: axum::Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    insecure_lan: bool,
}

/// The first byte of a TLS connection: a handshake record (RFC 8446 §5.1). No HTTP method begins so.
const TLS_HANDSHAKE: u8 = 0x16;

async fn accept_loop(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let socket = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        while connections.try_join_next().is_some() {}
        let (shared, stop) = (shared.clone(), stop.clone());
        connections.spawn(async move {
            connection(socket, shared, stop).await;
            drop(place);
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, rest).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection(socket: TcpStream, shared: Arc<Shared>, stop: CancellationToken) {
    let (Ok(address), Ok(from)) = (socket.local_addr(), socket.peer_addr()) else { return };
    let _ = socket.set_nodelay(true);
    let tls = shared.tls.clone().map(TlsAcceptor::from);
    let is_tls = match tls {
        None => false,
        Some(_) => {
            let mut first = [0];
            let peeked = tokio::time::timeout(HEAD_TIMEOUT, socket.peek(&mut first));
            let is_tls = tokio::select! {
                () = stop.cancelled() => return,
                peeked = peeked => matches!(peeked, Ok(Ok(1))) && first[0] == TLS_HANDSHAKE,
            };
            is_tls
        }
    };
    let (near, far) = (address.ip().to_canonical(), from.ip().to_canonical());
    let on_this_machine = far.is_loopback() || near == far;
    let local = Local { address, is_tls, is_open: is_tls || on_this_machine || shared.insecure_lan };
    match tls.filter(|_| is_tls) {
        None => talk(TokioIo::new(socket), local, shared, stop).await,
        Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(socket)).await {
            Ok(Ok(socket)) => talk(TokioIo::new(socket), local, shared, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS connection to the API was not made"),
            Err(_) => tracing::debug!("a TLS connection to the API was not made in time"),
        },
    }
}

async fn talk<I>(io: I, local: Local, shared: Arc<Shared>, stop: CancellationToken)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, local, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API broke");
    }
}

async fn answer(shared: &Shared, local: Local, request: Request<Incoming>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let body = Body::new(body);
    let mut response = match shared.guard.check(local, &parts) {
        Ok(opened) => {
            parts.extensions.insert(local);
            let session = match opened {
                Opened::Session(session) => Some(session),
                Opened::Token | Opened::Public => None,
            };
            if let Some(session) = &session {
                parts.extensions.insert(session.clone());
            }
            let response = match shared.router.clone().oneshot(Request::from_parts(parts, body)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            match session {
                Some(session) => bound_to(session, response),
                None => response,
            }
        }
        Err(refusal) => {
            extract::drain(&parts.headers, body);
            refusal.into_response()
        }
    };
    guard::harden(response.headers_mut());
    response
}

/// How a client is connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local {
    /// The address that it connected to.
    pub(crate) address: SocketAddr,
    /// By TLS.
    pub(crate) is_tls: bool,
    /// Whether it may ask for anything at all: by TLS, from this machine, or because the owner said so.
    pub(crate) is_open: bool,
}

/// What streams to a session ends with it.
fn bound_to(session: Session, response: Response<Body>) -> Response<Body> {
    let streams =
        response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
            kind.starts_with("text/event-stream")
                || kind.starts_with("application/x-ndjson")
                || kind.starts_with("text/plain")
        });
    if !streams {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(session.ended.cancelled_owned())))
}
