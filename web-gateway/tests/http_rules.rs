//! The HTTP rules over a real socket: who may ask, how much, and how every answer looks. Requests are written byte by byte,
//! for no client library would send most of them.

#[path = "support/fake_node.rs"]
mod fake_node;
#[path = "support/http.rs"]
mod http;

use std::sync::atomic::Ordering;
use std::time::Duration;

use fake_node::TOKEN;
use http::{Server, read_reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_without_the_token_is_refused_everywhere() {
    let server = Server::start().await;
    for path in ["/v1/status", "/v1/openapi.json", "/metrics", "/nowhere"] {
        for header in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic YTpi\r\n"] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{header}Connection: close\r\n\r\n", server.host());
            let reply = server.raw(request.as_bytes()).await;
            assert_eq!((reply.status, reply.code().as_str()), (401, "unauthorized"), "{path} {header}");
            assert!(reply.head.contains("www-authenticate: bearer"));
        }
    }
    assert_eq!(server.get("/v1/status").await.status, 200);
}

#[tokio::test]
async fn a_foreign_host_is_refused_before_the_token_is_looked_at() {
    let server = Server::start().await;
    for host in ["evil.example", "127.0.0.1:1", "localhost", ""] {
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(server.raw(request.as_bytes()).await.status, 421, "{host}");
    }
    let none = server.raw(b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert_eq!(none.status, 400);
    let port = server.handle.address().port();
    let request = format!(
        "GET /v1/status HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(server.raw(request.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn a_foreign_origin_is_refused_before_the_body_is_sent() {
    let server = Server::start().await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let more = format!("Origin: {origin}\r\nContent-Length: 1000\r\n");
        let mut socket = server.connect().await;
        socket.write_all(server.head("POST /v1/jobs", &more).as_bytes()).await.expect("to send");
        let mut start = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(3), socket.read_exact(&mut start)).await;
        read.expect("an answer without the body").expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 403", "{origin}");
    }
    let own = format!("Origin: http://{}\r\n", server.host());
    assert_eq!(server.raw(server.head("GET /v1/status", &own).as_bytes()).await.status, 200);
    assert!(server.node.jobs.lock().expect("no poison").is_empty());
}

#[tokio::test]
async fn a_body_above_eight_mebibytes_is_refused_and_the_refusal_is_readable() {
    let server = Server::start().await;
    let body = vec![b' '; 9 * 1024 * 1024];
    let reply = server.send("POST", "/v1/jobs", &body).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "too_large"));
    let mut request = server.head("POST /v1/jobs", "Transfer-Encoding: chunked\r\n").into_bytes();
    for chunk in body.chunks(1024 * 1024) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(server.raw(&request).await.status, 413);
}

#[tokio::test]
async fn every_mistake_gets_json_with_a_code() {
    let server = Server::start().await;
    for (method, path, body, status, code) in [
        ("GET", "/nowhere", "", 404, "no_such_path"),
        ("DELETE", "/v1/status", "", 405, "no_such_method"),
        ("POST", "/v1/jobs", "{", 400, "malformed_json"),
        ("POST", "/v1/jobs", "{\"command\": 7}", 422, "unprocessable"),
        ("POST", "/v1/jobs", "{\"command\": [\"true\"], \"tiemout\": 1}", 422, "unprocessable"),
        ("POST", "/v1/jobs", "{\"command\": []}", 400, "bad_request"),
        ("POST", "/v1/jobs", "[]", 400, "bad_request"),
        ("POST", "/v1/jobs", "{\"command\": [\"true\"], \"at_most_once\": true, \"retries\": 1}", 400, "bad_request"),
        ("GET", "/v1/jobs?state=lazy", "", 400, "bad_request"),
        ("GET", "/v1/jobs/zz", "", 404, "not_found"),
        ("GET", "/v1/jobs/00ff", "", 404, "not_found"),
        ("POST", "/v1/jobs/00/retry", "", 409, "conflict"),
        ("POST", "/v1/invites", "{\"role\":\"admin\"}", 403, "not_allowed"),
        ("GET", "/v1/ideas/00ff", "", 404, "not_found"),
        ("POST", "/v1/ideas", "{}", 400, "bad_request"),
        ("POST", "/v1/ideas", "{\"titel\": \"x\"}", 422, "unprocessable"),
        ("POST", "/v1/delegations", "{}", 501, "not_built"),
        ("GET", "/v1/blobs/short", "", 400, "bad_request"),
        ("GET", "/v1/jobs/%ff", "", 400, "bad_request"),
    ] {
        let reply = server.send(method, path, body.as_bytes()).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{method} {path} {body}");
        assert!(reply.head.contains("content-type: application/json"), "{path}");
        assert!(reply.json()["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

#[tokio::test]
async fn one_job_gets_one_acknowledgement_and_a_list_gets_a_list_in_its_order() {
    let server = Server::start().await;
    let one = server.send("POST", "/v1/jobs", b"{\"command\":[\"true\"]}").await;
    assert_eq!(one.status, 201);
    assert_eq!(one.json()["durable_on"], 2);
    let list = br#"[{"name":"b","command":["true"],"after":["@a"]},{"name":"a","command":["true"]}]"#;
    let many = server.send("POST", "/v1/jobs", list).await.json();
    assert_eq!((&many[0]["name"], &many[1]["name"]), (&"b".into(), &"a".into()));
    let page = server.get("/v1/jobs").await;
    assert_eq!(page.json().as_array().map(Vec::len), Some(2));
    assert!(page.head.contains("v6-next: 2"));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = Server::start().await;
    for reply in [server.get("/v1/status").await, server.get("/nowhere").await] {
        for header in [
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "content-security-policy: default-src 'none'",
        ] {
            assert!(reply.head.contains(header), "{header}");
        }
    }
}

#[tokio::test]
async fn an_upload_in_chunks_arrives_whole_and_wrong_bytes_are_refused() {
    let server = Server::start().await;
    let body: Vec<u8> = (0..12 * 1024 * 1024_u32).map(|n| n.to_le_bytes()[1]).collect();
    let hash = blake3::hash(&body).to_hex();
    let mut request = server.head(&format!("PUT /v1/blobs/{hash}"), "Transfer-Encoding: chunked\r\n").into_bytes();
    for chunk in body.chunks(777_777) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let reply = server.raw(&request).await;
    assert_eq!((reply.status, reply.json()["size"].as_u64()), (201, Some(body.len() as u64)));
    assert!(server.node.uploads.load(Ordering::Relaxed) > 10, "it came in pieces");
    let wrong = server.send("PUT", &format!("/v1/blobs/{}", "00".repeat(32)), b"x").await;
    assert_eq!(wrong.status, 400);
    let ranged = server.raw(server.head(&format!("GET /v1/blobs/{hash}"), "Range: bytes=5-9\r\n").as_bytes()).await;
    assert_eq!((ranged.status, ranged.body.as_slice()), (206, &body[5..10]));
    assert!(ranged.head.contains(&format!("content-range: bytes 5-9/{}", body.len())));
    let behind =
        server.raw(server.head(&format!("GET /v1/blobs/{hash}"), "Range: bytes=99999999-\r\n").as_bytes()).await;
    assert_eq!(behind.status, 416);
}

#[tokio::test]
async fn an_upload_that_is_refused_halfway_still_gets_its_refusal() {
    let server = Server::start().await;
    let body = vec![7; 80 * 1024 * 1024];
    let reply = server.send("POST", "/v1/blobs", &body).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "not_ready"));
}

#[tokio::test]
async fn a_batch_of_blobs_is_stored_and_a_torn_one_refused() {
    let server = Server::start().await;
    let mut batch = Vec::new();
    for text in ["one", "two", ""] {
        batch.extend_from_slice(blake3::hash(text.as_bytes()).as_bytes());
        batch.extend_from_slice(&(text.len() as u64).to_le_bytes());
        batch.extend_from_slice(text.as_bytes());
    }
    assert_eq!(server.send("POST", "/v1/blobs/batch", &batch).await.status, 204);
    assert_eq!(server.node.blobs.lock().expect("no poison").len(), 3);
    assert_eq!(server.send("POST", "/v1/blobs/batch", &batch[..50]).await.status, 400);
    let mut huge = vec![0; 32];
    huge.extend_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(server.send("POST", "/v1/blobs/batch", &huge).await.status, 413);
    let known = blake3::hash(b"one").to_hex();
    let query = format!("{{\"hashes\":[\"{known}\",\"{}\"]}}", "00".repeat(32));
    let missing = server.send("POST", "/v1/blobs/missing", query.as_bytes()).await.json();
    assert_eq!(missing["missing"], serde_json::json!(["00".repeat(32)]));
}

/// Reads from an open stream until a text has come.
async fn read_until(socket: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains(wanted) {
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut bytes)).await;
        let count = read.expect("something in time").expect("to read");
        assert!(count > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    text
}

#[tokio::test]
async fn events_go_on_where_the_client_left_them() {
    let server = Server::start().await;
    let mut first = server.connect().await;
    first.write_all(server.head("GET /v1/events", "").as_bytes()).await.expect("to send");
    read_until(&mut first, ": events").await;
    server.node.happen(2);
    let text = read_until(&mut first, "id: 2").await;
    assert!(text.contains("event: job") && text.contains("data: {\"n\":1}"), "{text}");
    drop(first);
    server.node.happen(4);
    let mut second = server.connect().await;
    second.write_all(server.head("GET /v1/events", "Last-Event-ID: 2\r\n").as_bytes()).await.expect("to send");
    let text = read_until(&mut second, "id: 4").await;
    assert!(text.contains("id: 3") && !text.contains("id: 2\n"), "{text}");
    let bad = server.raw(server.head("GET /v1/events", "Last-Event-ID: yesterday\r\n").as_bytes()).await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn logs_keep_every_byte_as_lines_and_as_plain_text() {
    let server = Server::start().await;
    let job =
        server.send("POST", "/v1/jobs", b"{\"command\":[\"hello\"]}").await.json()["job"].as_str().map(str::to_owned);
    let path = format!("/v1/jobs/{}/logs?follow=true", job.expect("an id"));
    let lines = server.get(&path).await;
    let mut stdout = Vec::new();
    for line in lines.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: web_gateway::api::LogLine = serde_json::from_slice(line).expect("a line of JSON");
        if let web_gateway::api::LogLine::Bytes { stream: web_gateway::api::LogStream::Stdout, .. } = &line {
            stdout.extend_from_slice(&line.into_bytes().expect("bytes"));
        }
    }
    assert_eq!(stdout, [b"out\n", fake_node::BINARY].concat());
    let plain = server.raw(server.head(&format!("GET {path}"), "Accept: text/plain\r\n").as_bytes()).await;
    assert_eq!(plain.body, [b"out\nerr\n", fake_node::BINARY].concat());
}

#[tokio::test]
async fn an_artifact_is_downloaded_and_never_shown_as_a_page() {
    let server = Server::start().await;
    let job = server.send("POST", "/v1/jobs", b"{\"command\":[\"x\",\"a/b.html\"]}").await.json()["job"].clone();
    let path = format!("/v1/jobs/{}/artifacts/a/b.html", job.as_str().expect("an id"));
    let reply = server.get(&path).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"an artifact".as_slice()));
    assert!(reply.head.contains("content-disposition: attachment; filename*=utf-8''b.html"), "{}", reply.head);
    assert!(reply.head.contains("content-security-policy: sandbox"));
}

#[tokio::test]
async fn the_description_names_every_path_and_its_parameters() {
    let server = Server::start().await;
    let description = server.get("/v1/openapi.json").await.json();
    for path in [
        "/v1/status",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/peers",
        "/v1/ideas",
        "/v1/events",
        "/metrics",
        "/v1/blobs/{hash}",
    ] {
        assert!(description["paths"][path].is_object(), "{path}");
    }
    let paths = description["paths"].as_object().expect("paths");
    let operations = paths.values().flat_map(|path| path.as_object().expect("operations").values());
    let names: Vec<&str> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
    let each: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(each.len(), names.len(), "every operation has a name of its own");
    assert!(description["paths"]["/v1/jobs"]["post"]["responses"]["default"].is_object());
    assert!(description["components"]["schemas"]["JobRequest"]["properties"]["command"].is_object());
    assert!(description["components"]["securitySchemes"]["bearer"].is_object());
    assert!(server.get("/metrics").await.head.contains("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn too_many_headers_close_the_connection_with_431() {
    let server = Server::start().await;
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let mut socket = server.connect().await;
    socket.write_all(server.head("GET /v1/status", &many).as_bytes()).await.expect("to send");
    let reply = read_reply(&mut socket).await;
    assert_eq!(reply.status, 431);
}

#[tokio::test]
async fn shutdown_ends_streams_and_frees_the_port() {
    let server = Server::start().await;
    let address = server.handle.address();
    let mut stream = server.connect().await;
    stream.write_all(server.head("GET /v1/events", "").as_bytes()).await.expect("to send");
    read_until(&mut stream, ": events").await;
    tokio::time::timeout(Duration::from_secs(5), server.handle.shutdown()).await.expect("an end in time");
    assert!(TcpStream::connect(address).await.is_err());
}
