//! `v6 bench` on real nodes: it reports what it measured, and leaves nothing behind when it is interrupted.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const V6: &str = env!("CARGO_BIN_EXE_v6");

fn bench(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(V6);
    command.env("TMPDIR", root).arg("bench").args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn entries(root: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(root).expect("a directory").flatten().map(|entry| entry.path()).collect()
}

#[test]
fn a_row_has_its_bar_its_numbers_and_a_verdict() {
    let root = tempfile::tempdir().expect("a directory");
    let output = bench(root.path(), &["--only", "start", "--repeats", "2", "--json"]).output().expect("v6 runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let row = &report["rows"][0];
    assert_eq!(row["name"], "start");
    assert!(row["met"].is_boolean(), "{row}");
    assert_eq!(output.status.code(), Some(i32::from(row["met"] == false)));
    let (name, summary) = (&row["numbers"][0][0], &row["numbers"][0][1]);
    assert_eq!((name, &summary["count"]), (&"outside_ms".into(), &2.into()));
    assert!(summary["median"].as_f64() > Some(0.0) && summary["median"].as_f64() < Some(10_000.0), "{summary}");
    assert!(entries(root.path()).is_empty());
}

#[test]
fn a_changed_file_of_a_tree_moves_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let output = bench(root.path(), &["--only", "tree", "--quick", "--json"]).output().expect("v6 runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["rows"][0]["met"], true, "{report}");
}

/// Node processes that the interrupted benchmark had started.
fn node_pids(root: &Path) -> Vec<String> {
    let nodes = entries(root).into_iter().flat_map(|mesh| entries(&mesh));
    let files = nodes.filter_map(|node| std::fs::read(node.join("api.json")).ok());
    files
        .filter_map(|bytes| Some(serde_json::from_slice::<serde_json::Value>(&bytes).ok()?["pid"].to_string()))
        .collect()
}

fn wait_nodes(root: &Path, child: &mut Child, count: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let pids = node_pids(root);
        if pids.len() == count {
            return pids;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "{pids:?}");
        assert_eq!(child.try_wait().expect("its state"), None);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_run_leaves_no_node_and_no_directory() {
    let root = tempfile::tempdir().expect("a directory");
    let mut child = bench(root.path(), &["--only", "idle"]).spawn().expect("v6 starts");
    let pids = wait_nodes(root.path(), &mut child, 5);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(entries(root.path()).is_empty());
    assert!(pids.iter().all(|pid| !Path::new("/proc").join(pid).exists()), "{pids:?}");
}
