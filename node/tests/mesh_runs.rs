//! Runs on real nodes: large files, the owner's accept file, checkpoints, copies, and what a crash leaves behind.

#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const V6: &str = env!("CARGO_BIN_EXE_v6");

struct Node {
    dir: PathBuf,
    child: Child,
    id: String,
}

impl Node {
    fn up(root: &Path, name: &str, more: &[&str]) -> Self {
        let dir = root.join(name);
        let mut child = Command::new(V6)
            .args(["up", "--name", name, "--api", "127.0.0.1:0", "--no-mdns", "--json"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"])
            .arg(&dir)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("v6 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the ready line is JSON");
        assert_eq!(ready["event"], "ready");
        Self { dir, child, id: ready["node"].as_str().expect("an id").to_owned() }
    }

    fn v6(&self, args: &[&str]) -> Output {
        Command::new(V6).env("V6_DATA_DIR", &self.dir).args(args).output().expect("v6 runs")
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let output = self.v6(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn ticket(&self, uses: &str) -> String {
        self.json(&["invite", "--uses", uses, "--json"])["ticket"].as_str().expect("a ticket").to_owned()
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come about");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_peers(&self, count: usize) {
        self.wait("a mesh", |node| {
            let peers = node.json(&["peers", "--json"]);
            let ready = |p: &&serde_json::Value| p["online"] == true;
            peers.as_array().is_some_and(|peers| peers.iter().filter(ready).count() == count)
        });
    }

    /// Submits a shell script and gives its id.
    fn submit(&self, options: &[&str], script: &str) -> String {
        let mut args = vec!["run", "--detach", "--json"];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        self.json(&args)["job"].as_str().expect("an id").to_owned()
    }

    fn state(&self, job: &str) -> String {
        self.json(&["job", "show", job, "--json"])["state"].as_str().expect("a state").to_owned()
    }

    fn wait_state(&self, job: &str, state: &str) {
        self.wait(state, |node| node.state(job) == state);
    }

    fn attempts(&self, job: &str) -> serde_json::Value {
        self.json(&["job", "show", job, "--json"])["tasks"][0]["attempts"].clone()
    }

    /// Fetches a job's artifacts into a fresh directory.
    fn get(&self, job: &str, into: &str) -> PathBuf {
        let dir = self.dir.with_file_name(into);
        let got = self.v6(&["get", job, dir.to_str().expect("UTF-8")]);
        assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
        dir
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Bytes that no two places share.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn files_of_several_parts_travel_both_ways() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("1");
    let _beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    alpha.wait_peers(1);
    let project = root.path().join("project");
    std::fs::create_dir(&project).expect("a directory");
    let bytes = noise(33 * 1024 * 1024 + 5);
    std::fs::write(project.join("large"), &bytes).expect("a file");
    std::fs::write(project.join("part"), &bytes[..16 * 1024 * 1024]).expect("a file");
    let options = ["--input", project.to_str().expect("UTF-8"), "--output", "copy", "--output", "part"];
    let job = alpha.submit(&options, "cat large > copy");
    alpha.wait_state(&job, "done");
    let got = alpha.get(&job, "got");
    assert!(std::fs::read(got.join("copy")).expect("it came home") == bytes);
    assert!(std::fs::read(got.join("part")).expect("it came home") == bytes[..16 * 1024 * 1024]);
}
