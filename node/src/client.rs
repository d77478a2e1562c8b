//! How the CLI speaks to its node: it finds the node by its data directory and asks over the loopback API, never by reading
//! the node's files. Start-up is kept light: one thread, one connection, no pool.

pub mod upload;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// File in the data directory that says where the running node's API is.
pub const API_FILE: &str = "api.json";
/// File in the data directory that holds the API's token.
pub const TOKEN_FILE: &str = "api.token";
/// Time to connect to a node on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer that is read whole. A larger one is an error.
const ANSWER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Why a request to the node got no good answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No node runs on this data directory, or it cannot be reached.
    #[error("no node is reachable for {}: {detail}\nStart one with `v6 up`, or name its directory with --data-dir or V6_DATA_DIR.", directory.display())]
    NoNode {
        /// The data directory.
        directory: PathBuf,
        /// What was tried.
        detail: String,
    },
    /// The node said no.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The connection broke in the middle of an answer.
    #[error("the node's answer broke off ({0}): see `v6 doctor`")]
    Broken(String),
}

impl ClientError {
    /// The exit code that stands for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoNode { .. } => 3,
            Self::Refused { status: 401 | 403, .. } => 4,
            Self::Refused { status: 501, .. } => 2,
            Self::Refused { .. } | Self::Broken(_) => 1,
        }
    }
}

/// What `api.json` holds. The node writes it once its API listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFile {
    /// `http://HOST:PORT`.
    pub api: String,
    /// Process id of the node.
    pub pid: u32,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A connection to the node of one data directory.
#[derive(Debug)]
pub struct Client {
    directory: PathBuf,
    authority: String,
    token: String,
    idle: Mutex<Option<SendRequest<Body>>>,
}

/// The data directory that was named, else the platform's.
#[must_use]
pub fn data_directory(named: Option<&Path>) -> PathBuf {
    named.map_or_else(
        || {
            use etcetera::BaseStrategy;
            // A key belongs to one device: on Windows the directory that does not roam.
            etcetera::base_strategy::choose_native_strategy().map_or_else(
                |_| PathBuf::from(".v6"),
                |dirs| if cfg!(windows) { dirs.cache_dir() } else { dirs.data_dir() }.join("v6"),
            )
        },
        Path::to_owned,
    )
}

impl Client {
    /// Finds the node of a data directory. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::NoNode`] when the directory does not say where its node is.
    pub fn open(directory: &Path) -> Result<Self, ClientError> {
        let no_node = |detail: String| ClientError::NoNode { directory: directory.to_owned(), detail };
        let read = |name: &str| {
            std::fs::read_to_string(directory.join(name)).map_err(|error| {
                if error.kind() == std::io::ErrorKind::NotFound {
                    no_node(format!("it has no file {name}"))
                } else {
                    no_node(format!("{name} cannot be read: {error}"))
                }
            })
        };
        let file: ApiFile = serde_json::from_str(&read(API_FILE)?)
            .map_err(|error| no_node(format!("{API_FILE} is not readable: {error}")))?;
        let token = read(TOKEN_FILE)?.trim().to_owned();
        let authority = file.api.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
        let authority = authority.ok_or_else(|| no_node(format!("{API_FILE} names {:?}, not http://", file.api)))?;
        Ok(Self { directory: directory.to_owned(), authority, token, idle: Mutex::new(None) })
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `http://HOST:PORT`.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// Asks and reads JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.call(Method::GET, path, Bytes::new()).await?)
    }

    /// Asks for every page of a list, `limit` rows at most.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_pages<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: Option<usize>,
    ) -> Result<Vec<T>, ClientError> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        while rows.len() < limit {
            let page_rows = (limit - rows.len()).min(10_000);
            let sign = if path.contains('?') { '&' } else { '?' };
            let mut page = format!("{path}{sign}limit={page_rows}");
            if let Some(cursor) = &cursor {
                page.push_str("&cursor=");
                page.push_str(&percent_encode(cursor));
            }
            let response = self.send(Method::GET, &page, None, empty()).await?;
            cursor = response.headers().get("v6-next").and_then(|next| next.to_str().ok()).map(str::to_owned);
            let fresh: Vec<T> = decode(&collect(response).await?)?;
            let ended = cursor.is_none() || fresh.is_empty();
            rows.extend(fresh);
            if ended {
                break;
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// Sends JSON and reads JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Broken(error.to_string()))?;
        decode(&self.call(method, path, body.into()).await?)
    }

    /// Sends bytes and reads the answer's bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let size_bytes = Some(body.len() as u64);
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        collect(self.send(method, path, size_bytes, body).await?).await
    }

    /// Sends a stream and reads the answer's bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload(
        &self,
        method: Method,
        path: &str,
        size_bytes: Option<u64>,
        body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Bytes, ClientError> {
        let body = StreamBody::new(body.map_ok(Frame::data)).boxed_unsync();
        collect(self.send(method, path, size_bytes, body).await?).await
    }

    /// Asks and reads the answer's bytes as they come.
    ///
    /// # Errors
    /// [`ClientError`]; one that happens later ends the stream.
    pub async fn stream(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let response = good(self.send(Method::GET, path, None, empty()).await?).await?;
        Ok(response.into_body().into_data_stream().map_err(|error| ClientError::Broken(error.to_string())).boxed())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        size_bytes: Option<u64>,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        // A question may be asked twice.
        let may_repeat = method == Method::GET;
        let mut request = self.request(method, path, size_bytes, body)?;
        let (mut connection, mut reused) = self.connection().await?;
        let response = loop {
            match connection.try_send_request(request).await {
                Ok(response) => break response,
                Err(mut failure) => match failure.take_message() {
                    // The node closes idle connections; nothing of the request has left yet.
                    Some(unsent) if reused => {
                        request = unsent;
                        connection = self.connect().await?;
                        reused = false;
                    }
                    Some(_) => return Err(self.no_node(failure.into_error().to_string())),
                    // It may have closed this one while the request was on its way.
                    None if reused && may_repeat => {
                        request = self.request(Method::GET, path, None, empty())?;
                        connection = self.connect().await?;
                        reused = false;
                    }
                    None => return Err(broken(&failure.into_error())),
                },
            }
        };
        *self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(connection);
        Ok(response)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        size_bytes: Option<u64>,
        body: Body,
    ) -> Result<Request<Body>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, &self.authority)
            .header(hyper::header::AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(size_bytes) = size_bytes {
            request = request.header(hyper::header::CONTENT_LENGTH, size_bytes);
        }
        request.body(body).map_err(|error| ClientError::Broken(error.to_string()))
    }

    /// The idle connection if it can carry a request at once, else another; and whether it is the idle one.
    async fn connection(&self) -> Result<(SendRequest<Body>, bool), ClientError> {
        let idle = self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match idle {
            Some(connection) if connection.is_ready() => Ok((connection, true)),
            _ => Ok((self.connect().await?, false)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let connect = TcpStream::connect(&self.authority);
        let socket = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| self.no_node("the connection timed out".into()))?
            .map_err(|error| self.no_node(error.to_string()))?;
        let _ = socket.set_nodelay(true);
        let (connection, driver) =
            handshake(TokioIo::new(socket)).await.map_err(|error| self.no_node(error.to_string()))?;
        tokio::spawn(driver);
        Ok(connection)
    }

    fn no_node(&self, detail: String) -> ClientError {
        ClientError::NoNode { directory: self.directory.clone(), detail: format!("{}: {detail}", self.base()) }
    }
}

fn broken(error: &hyper::Error) -> ClientError {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    ClientError::Broken(format!("{error}{cause}"))
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::Broken(format!("not the JSON expected: {error}")))
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    read_whole(good(response).await?).await
}

async fn read_whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    body.collect().await.map(|whole| whole.to_bytes()).map_err(|error| ClientError::Broken(error.to_string()))
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorInfo,
}

#[derive(Deserialize)]
struct ErrorInfo {
    code: String,
    message: String,
}

async fn good(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = read_whole(response).await?;
    let info = serde_json::from_slice::<ErrorBody>(&bytes).map(|body| body.error).unwrap_or_else(|_| ErrorInfo {
        code: "unknown".into(),
        message: format!("the node answered {status} without saying why"),
    });
    Err(ClientError::Refused { status: status.as_u16(), code: info.code, message: info.message })
}

/// Percent-encodes one segment of a path or one value of a query.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_question_on_a_connection_that_the_node_just_closed_is_asked_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dir = tempfile::tempdir().expect("a directory");
        let api = ApiFile { api: format!("http://{}", listener.local_addr().expect("its address")), pid: 1 };
        std::fs::write(dir.path().join(API_FILE), serde_json::to_vec(&api).expect("JSON")).expect("written");
        std::fs::write(dir.path().join(TOKEN_FILE), "token").expect("written");
        let node = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut socket, _) = listener.accept().await.expect("a client");
                let mut question = [0; 1_024];
                assert!(socket.read(&mut question).await.expect("a question") > 0);
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7").await.expect("answered");
                // The next one comes, and nobody answers it.
                drop(socket.read(&mut question).await);
            }
        });
        let client = Client::open(dir.path()).expect("named");
        assert_eq!(client.get::<u32>("/v1/one").await.expect("answered"), 7);
        assert_eq!(client.get::<u32>("/v1/two").await.expect("answered on another connection"), 7);
        // What changes something is not repeated.
        let sent = client.send_json::<u32>(Method::POST, "/v1/three", &()).await;
        assert!(matches!(sent, Err(ClientError::Broken(_))), "{sent:?}");
        drop(client);
        node.await.expect("it ends");
    }
}
