//! Real nodes as a user starts them: a mesh, a job across, its output, files and replay.

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
            let ready = |p: &&serde_json::Value| p["online"] == true && p["slots"].as_u64() > Some(0);
            peers.as_array().is_some_and(|peers| peers.iter().filter(ready).count() == count)
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_job_runs_on_another_node_and_its_output_and_files_come_home() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("1");
    let _beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    alpha.wait_peers(1);
    let ran = alpha.v6(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(ran.status.code(), Some(7));

    let project = root.path().join("project");
    std::fs::create_dir(&project).expect("a directory");
    std::fs::write(project.join("نص.txt"), "سلام").expect("a file");
    let (project, id_file) = (project.to_str().expect("UTF-8"), root.path().join("id"));
    let id_path = id_file.to_str().expect("UTF-8");
    let script = "mkdir out && cat نص.txt > out/copy.txt";
    let ran =
        alpha.v6(&["run", "--input", project, "--output", "out/**", "--id-file", id_path, "--", "sh", "-c", script]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let id = std::fs::read_to_string(id_file).expect("an id");
    let got = root.path().join("got");
    let get = alpha.v6(&["get", id.trim(), got.to_str().expect("UTF-8")]);
    assert!(get.status.success(), "{}", String::from_utf8_lossy(&get.stderr));
    assert_eq!(std::fs::read_to_string(got.join("out/copy.txt")).expect("the file came home"), "سلام");
}

#[test]
fn a_killed_worker_is_replaced_and_its_output_stays_readable() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("2");
    let mut workers = [
        Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]),
        Node::up(root.path(), "gamma", &["--slots", "1", "--join", &ticket]),
    ];
    alpha.wait_peers(2);
    let script = "echo begun; sleep 3; echo ended";
    let job = alpha.json(&["run", "--detach", "--json", "--", "sh", "-c", script]);
    let job = job["job"].as_str().expect("an id").to_owned();
    alpha.wait("the first line", |node| node.v6(&["logs", &job]).stdout == b"begun\n");
    let attempts = |node: &Node| node.json(&["job", "show", &job, "--json"])["tasks"][0]["attempts"].clone();
    let running = attempts(&alpha).as_array().and_then(|all| all.iter().find(|a| a["state"] == "running").cloned());
    let owner = running.expect("it runs")["node"].as_str().expect("an owner").to_owned();
    let victim = workers.iter_mut().find(|w| w.id == owner).expect("one of the workers");
    victim.child.kill().expect("killed");
    alpha.wait("the replay", |node| node.json(&["job", "show", &job, "--json"])["state"] == "done");
    let after = attempts(&alpha);
    let states: Vec<_> = after.as_array().expect("a list").iter().map(|a| a["state"].clone()).collect();
    assert!(states.contains(&"lost".into()) && states.last() == Some(&"done".into()), "{after}");
    let output = String::from_utf8_lossy(&alpha.v6(&["logs", &job]).stdout).into_owned();
    assert!(output.starts_with("begun\nbegun\n") && output.ends_with("ended\n"), "{output}");
}

#[test]
fn a_damaged_store_is_moved_aside_and_rebuilt_from_peers() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("1");
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    alpha.wait_peers(1);
    assert!(alpha.v6(&["run", "--", "true"]).status.success());
    let seq = |node: &Node, author: &str| node.json(&["status", "--json"])["feeds"][author]["seq"].as_u64();
    let author = alpha.id.clone();
    beta.wait("the feed's end", |beta| seq(beta, &author) == seq(&alpha, &author));
    drop(alpha);
    std::fs::write(root.path().join("alpha/v6.redb"), vec![7; 65_536]).expect("damaged");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    assert_eq!(alpha.id, author);
    alpha.wait("the feed", |alpha| seq(alpha, &author) == seq(&beta, &author));
    alpha.wait_peers(1);
    assert!(alpha.v6(&["run", "--", "true"]).status.success());
    let feeds = alpha.json(&["status", "--json"])["feeds"].clone();
    assert!(feeds.as_object().is_some_and(|feeds| feeds.values().all(|feed| feed["frozen"] == false)), "{feeds}");
    let aside = std::fs::read_dir(root.path().join("alpha")).expect("a directory");
    assert!(aside.flatten().any(|e| e.file_name().to_string_lossy().starts_with("v6.redb.damaged-")));
}

#[test]
fn a_ticket_is_good_for_as_many_nodes_as_it_says() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("1");
    let _beta = Node::up(root.path(), "beta", &["--join", &ticket]);
    let refused = |ticket: &str| {
        let output = Command::new(V6)
            .args(["up", "--api", "127.0.0.1:0", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--join", ticket])
            .arg("--data-dir")
            .arg(root.path().join("gamma"))
            .output()
            .expect("v6 runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&ticket).contains("used up"));
    assert!(refused(&ticket[..ticket.len() - 1]).contains("damaged"));
    assert!(refused("hello").contains("not a V6 ticket"));
}

#[test]
fn a_dead_workers_output_reads_the_same_on_a_node_that_had_no_part_in_it() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("2");
    let mut beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    let gamma = Node::up(root.path(), "gamma", &["--slots", "0", "--join", &ticket]);
    alpha.wait_peers(1);
    let job = alpha.json(&["run", "--detach", "--json", "--", "sh", "-c", "echo one; echo two; sleep 30"]);
    let job = job["job"].as_str().expect("an id").to_owned();
    gamma.wait("the output of a running job", |node| node.v6(&["logs", &job]).stdout == b"one\ntwo\n");
    alpha.wait("the copy", |node| node.v6(&["logs", &job]).stdout == b"one\ntwo\n");
    beta.child.kill().expect("killed");
    let lost = |node: &Node| node.json(&["job", "show", &job, "--json"])["tasks"][0]["attempts"][0]["state"] == "lost";
    gamma.wait("the loss", lost);
    std::fs::remove_dir_all(root.path().join("gamma/logs")).expect("what it copied is gone");
    assert_eq!(gamma.v6(&["logs", &job]).stdout, b"one\ntwo\n");
}

#[test]
fn an_owner_that_lost_its_logs_reads_them_from_the_others() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &alpha.ticket("1")]);
    alpha.wait_peers(1);
    let short = ["run", "--detach", "--json", "--", "echo", "short"];
    let long = ["run", "--detach", "--json", "--", "seq", "100000"];
    let jobs = [&short[..], &long].map(|args| alpha.json(args)["job"].as_str().expect("an id").to_owned());
    let outputs = jobs.clone().map(|job| alpha.v6(&["logs", "-f", &job]).stdout);
    assert!(outputs[0] == b"short\n" && outputs[1].len() == 588_895);
    drop(beta);
    for gone in ["logs", "blobs"] {
        std::fs::remove_dir_all(root.path().join("beta").join(gone)).expect("gone");
    }
    let beta = Node::up(root.path(), "beta", &["--slots", "1"]);
    beta.wait("alpha", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    for (job, output) in jobs.iter().zip(&outputs) {
        assert!(beta.v6(&["logs", job]).stdout == *output, "what {job} wrote");
    }
}
