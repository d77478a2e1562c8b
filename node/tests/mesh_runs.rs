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
        let begun = Instant::now();
        while self.state(job) != state {
            let shown = || self.json(&["job", "show", job, "--json"]).to_string();
            assert!(begun.elapsed() < Duration::from_secs(30), "{state} did not come about: {}", shown());
            std::thread::sleep(Duration::from_millis(20));
        }
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

#[test]
fn a_killed_workers_files_stay_and_the_next_attempt_goes_on_from_its_checkpoint() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("2");
    let mut workers = [
        Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]),
        Node::up(root.path(), "gamma", &["--slots", "1", "--join", &ticket]),
    ];
    alpha.wait_peers(2);
    let script = "mkdir out\n\
        if [ -n \"$V6_RESUME_DIR\" ]; then cat \"$V6_RESUME_DIR/deep/state\" > out/b; exit; fi\n\
        echo one > out/a\n\
        cd \"$V6_CHECKPOINT_DIR\"; mkdir -p .next/deep; echo attempt $V6_ATTEMPT > .next/deep/state; mv .next step-7\n\
        sleep 300";
    let job = alpha.submit(&["--output", "out/**"], script);
    let mut owner = String::new();
    alpha.wait("two copies of everything", |node| {
        // Where two claimed at once, only one of them runs.
        let attempts = node.attempts(&job);
        let Some(attempt) = attempts.as_array().and_then(|all| all.iter().find(|a| a["checkpoint"] == 7)) else {
            return false;
        };
        owner = attempt["node"].as_str().expect("an owner").to_owned();
        attempt["holders"].as_array().is_some_and(|holders| holders.len() == 2)
    });
    let victim = workers.iter_mut().find(|w| w.id == owner).expect("one of the workers");
    victim.child.kill().expect("killed");
    let got = alpha.get(&job, "first");
    assert_eq!(std::fs::read_to_string(got.join("out/a")).expect("it outlives its worker"), "one\n");
    alpha.wait_state(&job, "done");
    let got = alpha.get(&job, "second");
    assert_eq!(std::fs::read_to_string(got.join("out/b")).expect("the accepted attempt's"), "attempt 1\n");
    assert!(!got.join("out/a").exists());
}

#[test]
fn a_result_without_a_second_holder_is_at_risk_and_one_with_a_copy_is_not() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    let at_risk = |job: &str| alpha.json(&["job", "show", job, "--json"])["at_risk"] == true;
    let script = "echo $V6_JOB_ID > out";
    let ran = alpha.v6(&["run", "--output", "out", "--", "sh", "-c", "echo here; echo x > out"]);
    assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(0), &b"here\n"[..]));
    let job = alpha.submit(&["--output", "out"], script);
    alpha.wait_state(&job, "done");
    assert!(at_risk(&job));
    assert_eq!(std::fs::read_to_string(alpha.get(&job, "got").join("out")).expect("a file").trim(), job);

    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &alpha.ticket("1")]);
    alpha.wait_peers(1);
    let job = alpha.submit(&["--output", "out"], script);
    alpha.wait_state(&job, "done");
    assert!(!at_risk(&job));
    let blob = blake3::hash(format!("{job}\n").as_bytes()).to_hex().to_string();
    assert!(String::from_utf8_lossy(&beta.v6(&["blob", "list", "--json"]).stdout).contains(&blob));
}

#[test]
fn a_file_that_a_job_removed_or_replaced_is_not_among_its_artifacts() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    let script = "mkdir out; echo old > out/kept; echo gone > out/gone; sleep 2.5; rm out/gone; echo new > out/kept";
    let job = alpha.submit(&["--output", "out/**"], script);
    alpha.wait("the first look", |node| {
        node.attempts(&job)[0]["artifacts"].as_array().is_some_and(|files| files.len() == 2)
    });
    alpha.wait_state(&job, "done");
    let got = alpha.get(&job, "got").join("out");
    assert_eq!(std::fs::read_to_string(got.join("kept")).expect("a file"), "new\n");
    assert!(!got.join("gone").exists());
}

#[test]
fn the_owners_file_decides_whose_jobs_and_which_commands_run() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("1");
    let accept = root.path().join("beta/accept.toml");
    std::fs::create_dir(root.path().join("beta")).expect("a directory");
    let say = |text: &str| std::fs::write(&accept, text).expect("written");
    say("members = ['nobody']\n");
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    alpha.wait_peers(1);
    let explained = |job: &str, words: &str| {
        alpha.wait(words, |node| String::from_utf8_lossy(&node.v6(&["job", "explain", job]).stdout).contains(words));
    };
    let job = alpha.submit(&[], "true");
    explained(&job, "does not take this person's jobs");
    say("members = ['alpha']\ncommands = ['make']\n");
    explained(&job, "does not take this command");
    say("members = ['alpha']\ncommands = 'sh'\n");
    explained(&job, "accept.toml, line 2");
    assert!(String::from_utf8_lossy(&beta.v6(&["doctor"]).stdout).contains("accept.toml, line 2"));
    assert_eq!(alpha.state(&job), "queued");
    say("members = ['alpha']\ncommands = ['sh']\n");
    alpha.wait_state(&job, "done");
}

#[test]
fn a_node_does_not_start_with_an_accept_file_that_it_does_not_understand() {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::write(root.path().join("accept.toml"), "network = false\nmember = []\n").expect("written");
    let output = Command::new(V6)
        .args(["up", "--api", "127.0.0.1:0", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"])
        .arg(root.path())
        .output()
        .expect("v6 runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && complaint.contains("accept.toml, line 2: unknown field"), "{complaint}");
}

#[test]
fn what_a_killed_node_left_is_gone_when_it_starts_again() {
    let root = tempfile::tempdir().expect("a directory");
    let mut alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    let job = alpha.submit(&[], "echo $V6_ATTEMPT; [ $V6_ATTEMPT != 1 ] || sleep 300");
    alpha.wait("the first line", |node| node.v6(&["logs", &job]).stdout == b"1\n");
    alpha.child.kill().expect("killed");
    alpha.child.wait().expect("it ends");
    let work = alpha.dir.join("work");
    let left = std::fs::read_dir(&work).expect("a directory").next().expect("the run's directory").expect("readable");
    let mut stray = Command::new("sleep").arg("300").current_dir(left.path()).spawn().expect("sleep starts");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    assert!(!stray.wait().expect("it ends").success());
    assert!(!left.path().exists());
    alpha.wait_state(&job, "done");
}

#[test]
fn a_run_that_leaves_thousands_of_files_keeps_them_all_when_its_node_is_gone() {
    const FILES: usize = 2_000;
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("2");
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    let gamma = Node::up(root.path(), "gamma", &["--slots", "0", "--join", &ticket]);
    alpha.wait_peers(2);
    let script = format!("mkdir out; i=0; while [ $i -lt {FILES} ]; do echo file $i > out/$i.txt; i=$((i+1)); done");
    let job = alpha.submit(&["--output", "out/**"], &script);
    alpha.wait("its end", |node| node.state(&job) == "done");
    drop(beta);
    let shown = alpha.json(&["job", "show", &job, "--json"]);
    assert_eq!(shown["tasks"][0]["attempts"][0]["artifacts"].as_array().map(Vec::len), Some(FILES));
    for (node, name) in [(&alpha, "a"), (&gamma, "g")] {
        let got = root.path().join(name);
        let get = node.v6(&["get", &job, got.to_str().expect("UTF-8")]);
        assert!(get.status.success(), "{}", String::from_utf8_lossy(&get.stderr));
        assert_eq!(std::fs::read_dir(got.join("out")).expect("a directory").count(), FILES);
        assert_eq!(std::fs::read_to_string(got.join("out/1999.txt")).expect("a file"), "file 1999\n");
    }
}

#[test]
fn a_blob_is_had_from_whoever_holds_it() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("1");
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &ticket]);
    alpha.wait_peers(1);
    let file = root.path().join("file");
    std::fs::write(&file, "from beta").expect("a file");
    let added = beta.json(&["blob", "add", file.to_str().expect("UTF-8"), "--json"]);
    let hash = added["blob"].as_str().expect("a hash");
    assert_eq!(alpha.v6(&["blob", "get", hash]).stdout, b"from beta");
    let nobody = alpha.v6(&["blob", "get", &hash.chars().rev().collect::<String>()]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(nobody.status.code() == Some(1) && said.contains("by the 1 members that are online"), "{said}");
}

#[test]
fn what_may_start_once_is_not_started_again_when_its_owner_dies() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("2");
    let mut workers: Vec<Node> = ["beta", "gamma"]
        .map(|name| Node::up(root.path(), name, &["--slots", "1", "--join", &ticket]))
        .into_iter()
        .collect();
    alpha.wait_peers(2);
    let done = alpha.v6(&["run", "--at-most-once", "--", "sh", "-c", "exit 7"]);
    assert_eq!(done.status.code(), Some(7), "{}", String::from_utf8_lossy(&done.stderr));
    let job = alpha.submit(&["--at-most-once"], "sleep 60");
    alpha.wait_state(&job, "running");
    let owner = alpha.attempts(&job)[0]["node"].as_str().expect("an owner").to_owned();
    workers.retain(|worker| worker.id != owner);
    alpha.wait("its loss", |node| node.attempts(&job)[0]["state"] == "lost");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(alpha.attempts(&job).as_array().map(Vec::len), Some(1), "nobody starts it again");
    let why = alpha.json(&["job", "explain", &job, "--json"]).to_string();
    assert!(why.contains("waits for a person"), "{why}");
    assert!(alpha.v6(&["job", "cancel", &job]).status.success());
    alpha.wait_state(&job, "cancelled");
    let refused = alpha.v6(&["run", "--at-most-once", "--retries", "1", "--", "true"]);
    assert_eq!(refused.status.code(), Some(2));
}
