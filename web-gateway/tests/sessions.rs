//! People sign in by a link that works once; what their browser's cookie may do, and what pages of others may not.

#[path = "support/fake_node.rs"]
mod fake_node;
#[path = "support/http.rs"]
mod http;

use std::time::Duration;

use fake_node::COOKIE;
use http::{Reply, Server, read_reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The path of a new link.
async fn link(server: &Server) -> String {
    let made = server.send("POST", "/v1/session/links", b"").await;
    assert_eq!(made.status, 201);
    let url = made.json()["url"].as_str().expect("an address").to_owned();
    assert!(made.json()["expires"].is_string());
    let base = format!("http://{}", server.host());
    url.strip_prefix(&base).expect("on the API's own host and port").to_owned()
}

async fn open(server: &Server, path: &str) -> Reply {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\nConnection: close\r\n\r\n", server.host());
    server.raw(request.as_bytes()).await
}

fn cookie_of(reply: &Reply) -> String {
    let line =
        reply.raw_head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).expect("a cookie");
    let value = line.split_once(':').expect("a value").1.trim();
    assert!(value.starts_with(&format!("v6_session_{COOKIE}=")), "{value}");
    for word in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(value.contains(word), "{word}: {value}");
    }
    value.split(';').next().expect("a pair").to_owned()
}

async fn sign_in(server: &Server) -> String {
    let reply = open(server, &link(server).await).await;
    assert_eq!(reply.status, 303);
    assert!(reply.head.contains("location: /"), "{}", reply.head);
    cookie_of(&reply)
}

fn with_cookie(server: &Server, line: &str, cookie: &str, more: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nCookie: other=1; {cookie}\r\nConnection: close\r\n{more}\r\n",
        server.host()
    )
}

#[tokio::test]
async fn a_link_signs_one_browser_in_and_only_one() {
    let server = Server::start().await;
    let path = link(&server).await;
    let cookie = cookie_of(&open(&server, &path).await);
    let again = open(&server, &path).await;
    assert_eq!(again.status, 410);
    assert!(!again.head.contains("set-cookie"));
    assert_eq!(server.raw(with_cookie(&server, "GET /v1/status", &cookie, "").as_bytes()).await.status, 200);
    for wrong in [format!("v6_session_{COOKIE}=x"), cookie.replace(COOKIE, "ffffffff")] {
        let reply = server.raw(with_cookie(&server, "GET /v1/status", &wrong, "").as_bytes()).await;
        assert_eq!(reply.status, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_session_changes_something_only_from_a_page_of_the_node() {
    let server = Server::start().await;
    let cookie = sign_in(&server).await;
    let own = format!("Origin: http://{}\r\n", server.host());
    let cases = [
        (own.as_str(), 200),
        ("Sec-Fetch-Site: same-origin\r\n", 200),
        ("Sec-Fetch-Site: none\r\n", 200),
        ("", 403),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Origin: null\r\nSec-Fetch-Site: same-origin\r\n", 403),
        ("Origin: http://127.0.0.1:1\r\nSec-Fetch-Site: same-site\r\n", 403),
    ];
    for (headers, status) in cases {
        let request = with_cookie(&server, "POST /v1/blobs/gc", &cookie, &format!("{headers}Content-Length: 0\r\n"));
        assert_eq!(server.raw(request.as_bytes()).await.status, status, "{headers}");
    }
}

#[tokio::test]
async fn a_session_makes_no_links() {
    let server = Server::start().await;
    let cookie = sign_in(&server).await;
    let request =
        with_cookie(&server, "POST /v1/session/links", &cookie, "Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n");
    assert_eq!(server.raw(request.as_bytes()).await.status, 403);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_its_event_streams() {
    let server = Server::start().await;
    let cookie = sign_in(&server).await;
    let mut stream = server.connect().await;
    let request = format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\nCookie: {cookie}\r\n\r\n", server.host());
    stream.write_all(request.as_bytes()).await.expect("to send");
    let mut seen = vec![0; 4096];
    let first = stream.read(&mut seen).await.expect("a beginning");
    assert!(String::from_utf8_lossy(&seen[..first]).starts_with("HTTP/1.1 200"));
    let end =
        with_cookie(&server, "POST /v1/session/end", &cookie, "Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n");
    let ended = server.raw(end.as_bytes()).await;
    assert_eq!(ended.status, 204);
    assert!(ended.head.contains("max-age=0"), "the browser forgets it: {}", ended.head);
    let rest = tokio::time::timeout(Duration::from_secs(5), async {
        let mut rest = Vec::new();
        while !rest.ends_with(b"0\r\n\r\n") && stream.read_buf(&mut rest).await.expect("to read") > 0 {}
    });
    rest.await.expect("the stream ends with the session");
    assert_eq!(server.raw(with_cookie(&server, "GET /v1/status", &cookie, "").as_bytes()).await.status, 401);
}

#[tokio::test]
async fn pages_are_for_everybody_and_hold_nothing_of_the_mesh() {
    let server = Server::start().await;
    for path in ["/", "/jobs", "/jobs/new", "/ideas/abc", "/nowhere"] {
        let reply = open(&server, path).await;
        assert_eq!(reply.status, 200, "{path}");
        for rule in
            ["default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            let built = reply.head.contains("content-security-policy") && reply.head.contains(rule);
            assert!(built || String::from_utf8_lossy(&reply.body).contains("No dashboard"), "{path}: {rule}");
        }
        assert!(reply.head.contains("x-content-type-options: nosniff") && reply.head.contains("text/html"));
    }
    let page = open(&server, "/").await;
    if let Some(etag) = page.raw_head.lines().find_map(|line| line.strip_prefix("etag: ")) {
        let known =
            format!("GET / HTTP/1.1\r\nHost: {}\r\nIf-None-Match: {etag}\r\nConnection: close\r\n\r\n", server.host());
        let again = server.raw(known.as_bytes()).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "a page that the browser has is not sent again");
    }
    for path in ["/v1/status", "/v1/nowhere", "/metrics"] {
        assert_eq!(open(&server, path).await.status, 401, "{path} is the API's, whatever is accepted");
    }
    let mut socket = server.connect().await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        server.host()
    );
    socket.write_all(request.as_bytes()).await.expect("to send");
    assert_eq!(read_reply(&mut socket).await.status, 401);
}
