//! The HTTP/1.1 server: connections, their bounds and their end. What is answered is the business of `routes`, who may ask
//! that of `guard`.

mod guard;
pub mod limits;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::NodeApi;
use crate::extract;
use crate::routes;
use guard::Guard;
use limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, SHUTDOWN_GRACE};

/// What the server must know besides the node.
#[derive(Clone, Default)]
pub struct ServerConfig {
    /// The bearer token that opens everything.
    pub token: String,
    /// Further values of `Host` to accept (`host:port`), beside loopback names and the address that was connected to.
    pub allowed_hosts: Vec<String>,
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
    let shared = Arc::new(Shared { guard: Guard::new(config), router: routes::router(node) });
    let task = tokio::spawn(accept_loop(listener, shared, stop.clone()));
    Ok(ServerHandle { stop, task: Some(task), address })
}

struct Shared {
    guard: Guard,
    router: axum::Router,
}

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
    let Ok(local) = socket.local_addr() else { return };
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, local, request).await) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
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

async fn answer(shared: &Shared, local: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = Body::new(body);
    let mut response = match shared.guard.check(local, &parts) {
        Ok(()) => match shared.router.clone().oneshot(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(refusal) => {
            extract::drain(&parts.headers, body);
            refusal.into_response()
        }
    };
    guard::harden(response.headers_mut());
    response
}
