//! Where cells come from: forked by a nursery or started, they are the same; and whoever dies, nobody is left over.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "cell_support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node::cell::{Cell, CellEvent, Cradle, Death, SandboxKind, Stream};
use support::{Rig, Run, exe, gone};

/// The direct children of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

fn command_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// Whether a process is a nursery: what it forks has its command line, but not its socket.
fn is_nursery(pid: u32) -> bool {
    let stdin = std::fs::read_link(format!("/proc/{pid}/fd/0"));
    command_of(pid).contains(" nursery ") && stdin.is_ok_and(|at| at.to_string_lossy().starts_with("socket:"))
}

/// The nurseries of this process.
fn nurseries() -> Vec<u32> {
    children(std::process::id()).into_iter().filter(|pid| is_nursery(*pid)).collect()
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

async fn run(cell: (node::cell::CellHandle, tokio::sync::mpsc::Receiver<CellEvent>)) -> Run {
    let (handle, mut events) = cell;
    handle.run(0..1, 1).unwrap();
    let mut run = Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
    handle.shutdown();
    assert!(events.recv().await.is_none(), "it ends in order");
    run
}

#[tokio::test]
async fn a_started_cell_and_a_forked_one_are_the_same_to_a_job() {
    let rig = Rig::new(SandboxKind::Landlock);
    let spec =
        rig.shell("env | grep -v ^V6_ | sort; pwd; umask; ulimit -a | grep -v ^process; ls -l /proc/self/fd | wc -l; cat /etc/shadow");
    let forked = run(rig.spawn(spec.clone())).await;
    let started = run(Cell::spawn(exe(), spec).unwrap()).await;
    for stream in [Stream::Stdout, Stream::Stderr] {
        assert_eq!(forked.text(0, stream), started.text(0, stream));
    }
    assert_eq!(forked.exit(0), started.exit(0));
    assert!(!forked.text(0, Stream::Stdout).is_empty());
}

#[tokio::test]
async fn a_nursery_that_was_killed_takes_no_cell_along_and_is_replaced() {
    let (cradle, rig) = (Cradle::new(SandboxKind::Landlock, Vec::new()), Rig::new(SandboxKind::Landlock));
    let spec = rig.shell("sleep 0.5; echo done");
    let first = Cell::spawn_in(Some(cradle.warm(exe()).unwrap()), exe(), spec.clone()).unwrap();
    let nursery = nurseries()[0];
    kill(nursery);
    assert_eq!(run(first).await.text(0, Stream::Stdout), "done\n");
    // The first that finds it gone starts a cell without one, the next a nursery again.
    for _ in 0..2 {
        let other = Rig::new(SandboxKind::Landlock);
        let cell = Cell::spawn_in(Some(cradle.warm(exe()).unwrap()), exe(), other.shell("echo done")).unwrap();
        assert_eq!(run(cell).await.text(0, Stream::Stdout), "done\n");
    }
    assert!(nurseries().iter().any(|pid| *pid != nursery), "there is a nursery again");
    drop(cradle);
    assert!(nurseries().is_empty(), "it ends with its cradle");
}

#[tokio::test]
async fn a_nursery_that_hangs_is_replaced() {
    let cradle = Cradle::new(SandboxKind::Landlock, Vec::new());
    drop(cradle.warm(exe()).unwrap());
    let nursery = nurseries()[0];
    assert!(Command::new("kill").args(["-STOP", &nursery.to_string()]).status().unwrap().success());
    for _ in 0..2 {
        let rig = Rig::new(SandboxKind::Landlock);
        let cell = Cell::spawn_in(Some(cradle.warm(exe()).unwrap()), exe(), rig.shell("echo done")).unwrap();
        assert_eq!(run(cell).await.text(0, Stream::Stdout), "done\n");
    }
    assert!(nurseries().iter().all(|pid| *pid != nursery), "it is gone");
}

#[tokio::test]
async fn the_end_of_a_forked_cell_is_heard_with_its_cause() {
    let rig = Rig::new(SandboxKind::None);
    let (handle, mut events) = rig.spawn(rig.shell("sleep 600"));
    handle.run(0..1, 1).unwrap();
    let mut run = Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Started { .. })).await;
    let task = run.started[&0];
    let stat = std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap();
    kill(stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap());
    let died = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
    let CellEvent::Died { reason: Death::Ended(why) } = died else { panic!("{died:?}") };
    assert!(why.contains("SIGKILL"), "{why}");
    assert!(gone(task).await, "its task is gone with it");
}

#[tokio::test]
async fn dropping_a_cell_that_nobody_used_ends_it() {
    let cradle = Cradle::new(SandboxKind::Landlock, Vec::new());
    let warm = cradle.warm(exe()).unwrap();
    // Right after the fork it still has the nursery's socket.
    let begun = std::time::Instant::now();
    let own = loop {
        let nursery = nurseries();
        let own: Vec<u32> = children(std::process::id()).into_iter().filter(|pid| !nursery.contains(pid)).collect();
        if !own.is_empty() {
            break own;
        }
        assert!(begun.elapsed().as_secs() < 10, "a forked cell is this process's own child");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    drop(warm);
    assert!(own.iter().all(|pid| !Path::new("/proc").join(pid.to_string()).exists()), "{own:?}");
}

/// A process that does not outlive its test.
struct Guarded(std::process::Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that is killed leaves nothing: no nursery, no cell, no task.
#[test]
fn a_killed_node_leaves_no_process() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Guarded(
        Command::new(exe())
            .args([
                "up",
                "--api",
                "127.0.0.1:0",
                "--no-mdns",
                "--json",
                "--listen",
                "/ip4/127.0.0.1/tcp/0",
                "--data-dir",
            ])
            .arg(root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(node.0.stdout.take().unwrap()), &mut line).unwrap();
    let script = "(setsid sleep 600 &) ; sleep 600";
    let v6 = |args: &[&str]| Command::new(exe()).env("V6_DATA_DIR", root.path()).args(args).output().unwrap();
    assert!(v6(&["run", "--detach", "--", "sh", "-c", script]).status.success());
    let below = |pid: u32| {
        let mut found = children(pid);
        let mut at = 0;
        while at < found.len() {
            found.extend(children(found[at]));
            at += 1;
        }
        found
    };
    let begun = Instant::now();
    let family = loop {
        let family = below(node.0.id());
        if family.iter().filter(|pid| command_of(**pid).starts_with("sleep 600")).count() == 2 {
            break family;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the job does not run");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(family.iter().any(|pid| is_nursery(*pid)), "the nursery is one of them");
    node.0.kill().unwrap();
    node.0.wait().unwrap();
    let killed = Instant::now();
    let alive = |pid: &&u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
    };
    while family.iter().any(|pid| alive(&pid)) {
        let left: Vec<String> = family.iter().filter(alive).map(|pid| command_of(*pid)).collect();
        assert!(killed.elapsed() < Duration::from_secs(5), "{left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
