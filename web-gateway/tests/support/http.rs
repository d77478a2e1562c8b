//! A server over a node of the tests, and requests that are written byte by byte.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use web_gateway::{ServerConfig, ServerHandle, serve};

use crate::fake_node::{COOKIE, FakeNode, TOKEN};

pub(crate) struct Server {
    pub(crate) node: Arc<FakeNode>,
    pub(crate) handle: ServerHandle,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// As it came.
    pub(crate) raw_head: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error's code").to_owned()
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let node = Arc::new(FakeNode::default());
        let config = ServerConfig { token: TOKEN.into(), node: COOKIE.into(), ..ServerConfig::default() };
        let handle = serve(listener, node.clone(), config).expect("a server");
        Self { node, handle }
    }

    pub(crate) fn host(&self) -> String {
        self.handle.address().to_string()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.handle.address()).await.expect("a connection")
    }

    /// A head with Host and token, and further lines.
    pub(crate) fn head(&self, line: &str, more: &str) -> String {
        format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n{more}\r\n",
            self.host()
        )
    }

    pub(crate) async fn raw(&self, request: &[u8]) -> Reply {
        let mut socket = self.connect().await;
        socket.write_all(request).await.expect("to send");
        read_reply(&mut socket).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.raw(self.head(&format!("GET {path}"), "").as_bytes()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let length = format!("Content-Length: {}\r\n", body.len());
        let mut request = self.head(&format!("{method} {path}"), &length).into_bytes();
        request.extend_from_slice(body);
        self.raw(&request).await
    }
}

pub(crate) async fn read_reply(socket: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut bytes)).await;
    read.expect("an answer in time").expect("an answer");
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let raw_head = String::from_utf8(bytes[..split].to_vec()).expect("a head in ASCII");
    let head = raw_head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = bytes[split + 4..].to_vec();
    let body = if head.contains("transfer-encoding: chunked") { dechunk(&body) } else { body };
    Reply { status, head, body, raw_head }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|size| *size > 0) else { break };
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    whole
}
