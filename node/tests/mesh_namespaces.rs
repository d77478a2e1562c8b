//! Nodes on hosts of their own: two network namespaces with one cable between them, made by the test and removed again.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const V6: &str = env!("CARGO_BIN_EXE_v6");
const PATIENCE: Duration = Duration::from_secs(40);

fn ip(args: &[&str]) -> bool {
    let run = Command::new("ip").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

/// Two hosts and the cable. Dropping it removes them.
struct Lan {
    hosts: [String; 2],
    cables: [String; 2],
}

impl Lan {
    /// `None` where this system makes no namespaces: then the test says so and ends.
    fn lay(name: &str) -> Option<Self> {
        let id = std::process::id();
        let hosts = ["a", "b"].map(|end| format!("v6-{name}-{id}-{end}"));
        let cables = ["a", "b"].map(|end| format!("v{name}{}{end}", id % 100_000));
        let lan = Self { hosts, cables };
        if !lan.hosts.iter().all(|host| ip(&["netns", "add", host])) {
            println!("SKIPPED: no network namespaces here (needs root and iproute2)");
            return None;
        }
        let [a, b] = &lan.cables;
        assert!(ip(&["link", "add", a, "type", "veth", "peer", "name", b]), "a cable");
        for (host, cable) in lan.hosts.iter().zip(&lan.cables) {
            assert!(ip(&["link", "set", cable, "netns", host]), "one end for each");
            assert!(ip(&["-n", host, "link", "set", "lo", "up", "multicast", "on"]), "loopback");
        }
        lan.address("10.77.1");
        Some(lan)
    }

    /// Gives both hosts new addresses in a network.
    fn address(&self, network: &str) {
        for (at, (host, cable)) in self.hosts.iter().zip(&self.cables).enumerate() {
            assert!(ip(&["-n", host, "addr", "flush", "dev", cable]));
            let addr = format!("{network}.{}/24", at + 1);
            assert!(ip(&["-n", host, "addr", "add", &addr, "dev", cable]), "an address");
            assert!(ip(&["-n", host, "link", "set", cable, "up"]));
            assert!(ip(&["-n", host, "route", "replace", "224.0.0.0/4", "dev", cable]), "a way for multicast");
        }
    }

    fn pull(&self, out: bool) {
        assert!(ip(&["-n", &self.hosts[0], "link", "set", &self.cables[0], if out { "down" } else { "up" }]));
        if !out {
            ip(&["-n", &self.hosts[0], "route", "replace", "224.0.0.0/4", "dev", &self.cables[0]]);
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            ip(&["netns", "del", host]);
        }
    }
}

struct Node {
    host: String,
    dir: PathBuf,
    child: Child,
}

impl Node {
    fn up(lan: &Lan, host: usize, root: &Path, more: &[&str]) -> Self {
        let (host, dir) = (lan.hosts[host].clone(), root.join(host.to_string()));
        let mut child = Command::new("ip")
            .args(["netns", "exec", &host, V6, "up", "--api", "127.0.0.1:0", "--json", "--data-dir"])
            .arg(&dir)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.contains("\"ready\""), "{line}");
        Self { host, dir, child }
    }

    fn v6(&self, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host, V6]).args(args).env("V6_DATA_DIR", &self.dir);
        command.stdin(Stdio::null()).output().expect("v6 runs")
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.v6(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn sees_the_other(&self) -> bool {
        self.json(&["peers", "--json"]).as_array().is_some_and(|peers| peers.iter().any(|p| p["online"] == true))
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `ip netns exec` becomes the program itself: the process is the node.
    fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs").success());
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A mesh of two, one on each host.
fn mesh(lan: &Lan, root: &Path) -> [Node; 2] {
    let alpha = Node::up(lan, 0, root, &["--slots", "0", "--no-mdns"]);
    let ticket = alpha.json(&["invite", "--json"])["ticket"].as_str().expect("a ticket").to_owned();
    let beta = Node::up(lan, 1, root, &["--slots", "1", "--no-mdns", "--join", &ticket]);
    alpha.wait("the mesh", Node::sees_the_other);
    beta.wait("the mesh", Node::sees_the_other);
    [alpha, beta]
}

#[test]
fn members_whose_addresses_all_changed_find_each_other_by_multicast_and_not_without() {
    let Some(lan) = Lan::lay("m") else { return };
    let root = tempfile::tempdir().expect("a directory");
    mesh(&lan, root.path()).into_iter().for_each(Node::stop);
    lan.address("10.77.2");
    let quiet = [0, 1].map(|host| Node::up(&lan, host, root.path(), &["--no-mdns"]));
    std::thread::sleep(Duration::from_secs(4));
    assert!(!quiet[0].sees_the_other(), "without multicast nothing tells where the other is");
    quiet.into_iter().for_each(Node::stop);
    let [alpha, beta] = [0, 1].map(|host| Node::up(&lan, host, root.path(), &[]));
    alpha.wait("the other by multicast", Node::sees_the_other);
    beta.wait("the other by multicast", Node::sees_the_other);
}

#[test]
fn two_sides_of_a_pulled_cable_go_on_and_agree_when_it_is_back() {
    let Some(lan) = Lan::lay("c") else { return };
    let root = tempfile::tempdir().expect("a directory");
    let [alpha, beta] = mesh(&lan, root.path());
    lan.pull(true);
    alpha.wait("silence", |node| !node.sees_the_other());
    beta.wait("silence", |node| !node.sees_the_other());
    // The side with a slot runs its own job; the other's is acknowledged and waits.
    assert!(beta.v6(&["run", "--", "true"]).status.success());
    let waiting = alpha.json(&["run", "--detach", "--json", "--", "echo", "later"]);
    assert_eq!(waiting["durable_on"], 1);
    lan.pull(false);
    let job = waiting["job"].as_str().expect("an id").to_owned();
    alpha.wait("its job", |node| node.json(&["job", "show", &job, "--json"])["state"] == "done");
    let hash = |node: &Node| node.json(&["status", "--json"])["state_hash"].clone();
    alpha.wait("one state", |node| hash(node) == hash(&beta));
    assert_eq!(alpha.json(&["jobs", "--json"]).as_array().map(Vec::len), Some(2));
}
