//! The users' quick start, on hosts of their own: a gateway on port 8000, three desktops with the launcher, one of them killed.
//! The hosts are network namespaces on one switch, made by the test and removed again.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const V6: &str = env!("CARGO_BIN_EXE_v6");
const LAUNCHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/launcher/start_v6_desktop_node.sh");
const PATIENCE: Duration = Duration::from_secs(40);
const SERVER: &str = "10.78.1.1";

fn ip(args: &[&str]) -> bool {
    let run = Command::new("ip").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// A server's host with a switch, and desktops that hang on it. Dropping it removes them.
struct Lan {
    hosts: Vec<String>,
}

impl Lan {
    /// `None` where this system makes no namespaces: then the test says so and ends.
    fn lay(desktops: usize) -> Option<Self> {
        let id = std::process::id();
        let hosts: Vec<String> = (0..=desktops).map(|at| format!("v6-desk-{id}-{at}")).collect();
        let lan = Self { hosts };
        if !lan.hosts.iter().all(|host| ip(&["netns", "add", host])) {
            println!("SKIPPED: no network namespaces here (needs root and iproute2)");
            return None;
        }
        let server = &lan.hosts[0];
        assert!(ip(&["-n", server, "link", "add", "br0", "type", "bridge"]), "a switch");
        assert!(ip(&["-n", server, "addr", "add", &format!("{SERVER}/24"), "dev", "br0"]));
        assert!(ip(&["-n", server, "link", "set", "br0", "up"]));
        for (at, host) in lan.hosts.iter().enumerate() {
            assert!(ip(&["-n", host, "link", "set", "lo", "up"]), "loopback");
            if at == 0 {
                continue;
            }
            let (near, far) = (format!("d{at}"), format!("vd{}{at}", id % 100_000));
            assert!(ip(&["-n", server, "link", "add", &near, "type", "veth", "peer", "name", &far]), "a cable");
            assert!(ip(&["-n", server, "link", "set", &near, "master", "br0", "up"]));
            assert!(ip(&["-n", server, "link", "set", &far, "netns", host]));
            assert!(ip(&["-n", host, "addr", "add", &format!("10.78.1.{}/24", at + 1), "dev", &far]));
            assert!(ip(&["-n", host, "link", "set", &far, "up"]));
        }
        Some(lan)
    }

    fn on(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hosts[host], program]).stdin(Stdio::null());
        command
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            ip(&["netns", "del", host]);
        }
    }
}

struct Running(Child);

impl Running {
    /// Asks it to end, and says how it did.
    fn end(mut self) -> Option<i32> {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().expect("kill runs").success());
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(12) {
            if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(200));
    }
}

struct Stage {
    lan: Lan,
    root: tempfile::TempDir,
}

impl Stage {
    fn dir(&self, host: usize) -> PathBuf {
        self.root.path().join(host.to_string())
    }

    fn gateway(&self) -> Running {
        let mut child = self
            .lan
            .on(0, V6)
            .args(["gateway", "--api", "0.0.0.0:8000", "--name", "server", "--slots", "0", "--no-mdns", "--json"])
            .arg("--data-dir")
            .arg(self.dir(0))
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the ready line");
        assert_eq!((&ready["event"], &ready["role"]), (&"ready".into(), &"gateway".into()), "{line}");
        assert_eq!(ready["mirrors"], serde_json::json!([]));
        assert_eq!(
            ready["api"], "http://127.0.0.1:8000",
            "where the command line and scripts of this machine reach it"
        );
        Running(child)
    }

    fn v6(&self, host: usize, args: &[&str]) -> Output {
        self.lan.on(host, V6).args(args).env("V6_DATA_DIR", self.dir(host)).output().expect("v6 runs")
    }

    fn json(&self, host: usize, args: &[&str]) -> serde_json::Value {
        let output = self.v6(host, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn launcher(&self, host: usize, ticket: &str) -> Command {
        let mut command = self.lan.on(host, LAUNCHER);
        command
            .args(["--server-url", &format!("http://{SERVER}:8000"), "--token", ticket, "--poll-sec", "1"])
            .args(["--worker-name", &format!("desktop-0{host}"), "--labels", "desktop,builder"])
            .env("V6_BIN", V6)
            .env("V6_DATA_DIR", self.dir(host))
            .stdout(Stdio::null());
        command
    }

    fn online(&self) -> usize {
        let peers = self.json(0, &["peers", "--json"]);
        peers.as_array().map_or(0, |peers| peers.iter().filter(|peer| peer["online"] == true).count())
    }

    fn said(&self, host: usize) -> String {
        std::fs::read_to_string(self.dir(host).join("launcher.log")).unwrap_or_default()
    }

    /// The node of a desktop, by its process id.
    fn pid(&self, host: usize) -> Option<u64> {
        let file = std::fs::read(self.dir(host).join("api.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&file).ok()?["pid"].as_u64()
    }

    /// What an address answers to another machine: its status, and its body.
    fn fetch(&self, host: usize, url: &str, more: &[&str]) -> (String, String) {
        let output = self
            .lan
            .on(host, "curl")
            .args(["-sk", "--max-time", "10", "-w", "\n%{http_code}", url])
            .args(more)
            .output();
        let text = String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }
}

fn exists(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn three_desktops_join_by_the_launcher_and_one_that_is_killed_comes_back() {
    let Some(lan) = Lan::lay(3) else { return };
    let stage = Stage { lan, root: tempfile::tempdir().expect("a directory") };
    let gateway = stage.gateway();
    let ticket = stage.json(0, &["invite", "--role", "worker", "--uses", "3", "--json"])["ticket"]
        .as_str()
        .expect("a ticket")
        .to_owned();

    let (plain, safe) = (format!("http://{SERVER}:8000"), format!("https://{SERVER}:8000"));
    let (status, body) = stage.fetch(1, &format!("{plain}/v1/join"), &[]);
    assert_eq!(status, "200", "{body}");
    let join: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert!(join["mesh"].is_string() && join["addresses"].as_array().is_some_and(|all| !all.is_empty()), "{body}");
    for path in ["/v1/status", "/", "/open/x"] {
        let (status, body) = stage.fetch(1, &format!("{plain}{path}"), &[]);
        assert!(status == "403" && body.contains("tls_required"), "{path}: {status} {body}");
    }
    let token = std::fs::read_to_string(stage.dir(0).join("api.token")).expect("a token");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    assert_eq!(stage.fetch(1, &format!("{safe}/v1/status"), &["-H", &bearer]).0, "200", "by TLS, on the same port");
    assert_eq!(stage.fetch(1, &format!("{safe}/v1/status"), &[]).0, "401");

    let mut desktops: Vec<Running> =
        (1..=3).map(|host| Running(stage.launcher(host, &ticket).spawn().expect("it starts"))).collect();
    wait("a mesh with three desktops", || stage.online() == 3);
    let names: Vec<String> = stage
        .json(0, &["peers", "--json"])
        .as_array()
        .expect("peers")
        .iter()
        .filter_map(|p| p["name"].as_str().map(str::to_owned))
        .collect();
    for host in 1..=3 {
        assert!(names.contains(&format!("desktop-0{host}")), "{names:?}");
        assert!(stage.said(host).contains("accept.toml narrows whose"), "{}", stage.said(host));
        assert!(stage.dir(host).join("accept.toml").exists());
    }
    let ran = stage.v6(0, &["run", "--label", "builder", "--", "echo", "from a desktop"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "from a desktop\n", "{}", String::from_utf8_lossy(&ran.stderr));

    let twice = stage.launcher(2, &ticket).stdout(Stdio::piped()).output().expect("it runs");
    assert!(twice.status.success() && String::from_utf8_lossy(&twice.stdout).contains("already running"));

    let pid = stage.pid(1).expect("a node");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success());
    wait("another node in its place", || stage.pid(1).is_some_and(|new| new != pid && exists(new)));
    assert!(stage.said(1).contains("starting it again"), "{}", stage.said(1));
    wait("all three again", || stage.online() == 3);

    let node = stage.pid(3).expect("a node");
    assert_eq!(desktops.pop().expect("three").end(), Some(0), "SIGTERM ends it in order");
    assert!(!exists(node), "and its node with it");

    assert_eq!(gateway.end(), Some(0));
    let node = stage.pid(1).expect("a node");
    std::thread::sleep(Duration::from_secs(3));
    assert!(exists(node) && stage.pid(1) == Some(node), "the desktops go on without the server");
    let peers = stage.json(1, &["peers", "--json"]);
    assert!(
        peers.as_array().is_some_and(|all| all.iter().any(|p| p["name"] == "desktop-02" && p["online"] == true)),
        "{peers}"
    );
}

#[test]
fn the_launcher_says_what_is_missing() {
    let run = |args: &[&str]| Command::new(LAUNCHER).args(args).env("V6_BIN", V6).output().expect("it runs");
    for (args, words) in [
        (&[][..], "--server-url is missing"),
        (&["--server-url", "ftp://x"], "begins with http"),
        (&["--server-url", "http://x"], "--token is missing"),
        (&["--server-url", "http://x", "--token"], "wants a value"),
        (&["--server-url", "http://x", "--token", "t", "--poll-sec", "soon"], "no number of seconds"),
        (&["--sideways"], "unknown option"),
    ] {
        let ended = run(args);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(2) && said.contains(words), "{args:?}: {said}");
    }
    assert!(run(&["--help"]).status.success());
}
