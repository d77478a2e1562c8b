//! Real nodes as a user starts them.

#![allow(dead_code, reason = "each test target uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const V6: &str = env!("CARGO_BIN_EXE_v6");
const PATIENCE: Duration = Duration::from_secs(30);

/// A running node; it is killed when it is dropped.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    child: Child,
    pub(crate) id: String,
    pub(crate) api: String,
}

impl Node {
    /// Starts a new node.
    pub(crate) fn up(root: &Path, name: &str, more: &[&str]) -> Self {
        let args = [&["--name", name, "--listen", "/ip4/127.0.0.1/tcp/0"], more].concat();
        Self::start(&root.join(name), &args)
    }

    /// Starts a node where one has been.
    pub(crate) fn again(root: &Path, name: &str, more: &[&str]) -> Self {
        Self::start(&root.join(name), more)
    }

    /// Starts a node in a directory.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_in(&[], dir, args)
    }

    /// The same, with more of an environment.
    pub(crate) fn start_in(env: &[(&str, &str)], dir: &Path, args: &[&str]) -> Self {
        Self::start_as("up", env, dir, args)
    }

    /// The same by another command, such as `gateway`.
    pub(crate) fn start_as(command: &str, env: &[(&str, &str)], dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(V6)
            .envs(env.iter().copied())
            .args([command, "--api", "127.0.0.1:0", "--no-mdns", "--json", "--data-dir"])
            .arg(dir)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("v6 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the ready line is JSON");
        let text = |field: &str| ready[field].as_str().expect("a text").to_owned();
        Self { dir: dir.to_owned(), child, id: text("node"), api: text("api") }
    }

    /// Stops it in order.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().expect("kill runs").success());
        assert!(self.child.wait().expect("it ends").success());
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        drop(self.child.wait());
    }

    pub(crate) fn v6(&self, args: &[&str]) -> Output {
        let mut command = Command::new(V6);
        command.env("V6_DATA_DIR", &self.dir).args(args).stdin(Stdio::null()).output().expect("v6 runs")
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.v6(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What a refused command says.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.v6(args);
        assert!(!output.status.success(), "{args:?} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) fn ticket(&self, role: &str) -> String {
        self.json(&["invite", "--role", role, "--json"])["ticket"].as_str().expect("a ticket").to_owned()
    }

    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts a JSON body; answers status and body.
    pub(crate) fn put(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let body = body.to_string();
        let head = format!("Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let mut answer = String::new();
        self.request("PUT", path, &head, &body).read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    fn request(&self, method: &str, path: &str, head: &str, body: &str) -> TcpStream {
        let host = self.api.strip_prefix("http://").expect("HTTP");
        let token = std::fs::read_to_string(self.dir.join("api.token")).expect("a token");
        let mut stream = TcpStream::connect(host).expect("the API listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let token = token.trim();
        let first = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n");
        stream.write_all(format!("{first}{head}\r\n{body}").as_bytes()).expect("sent");
        stream
    }

    /// The events that come from now on, line by line.
    pub(crate) fn events(&self) -> impl Iterator<Item = String> + use<> {
        let mut stream = self.request("GET", "/v1/events", "", "");
        let mut first = [0; 1];
        stream.read_exact(&mut first).expect("an answer");
        let begun = Instant::now();
        BufReader::new(stream).lines().map_while(Result::ok).take_while(move |_| begun.elapsed() < PATIENCE)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
