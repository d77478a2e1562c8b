//! Nodes that went away and come back.

#![cfg(unix)]

mod mesh_support;

use mesh_support::Node;

#[test]
fn a_node_that_dies_as_soon_as_it_joined_finds_the_others_again_from_another_port() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--join", &ticket]);
    beta.kill();
    let beta = Node::again(root.path(), "beta", &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    alpha.wait("beta's return", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    assert_eq!(alpha.json(&["peers", "--json"])[0]["node"], beta.id);
}

#[test]
fn a_mesh_over_quic_alone_runs_jobs_and_comes_back() {
    const QUIC: [&str; 2] = ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::start(&root.path().join("alpha"), &[&QUIC[..], &["--slots", "0"]].concat());
    let listens = alpha.json(&["status", "--json"])["listen"].clone();
    assert!(listens.as_array().is_some_and(|all| all.iter().all(|a| a.to_string().contains("quic-v1"))), "{listens}");
    let ticket = alpha.ticket("worker");
    let beta = Node::start(&root.path().join("beta"), &[&QUIC[..], &["--join", &ticket]].concat());
    let runs = |alpha: &Node, words: &str| {
        alpha.wait("beta", |node| node.json(&["peers", "--json"])[0]["online"] == true);
        let ran = alpha.v6(&["run", "--", "echo", words]);
        assert_eq!((ran.status.code(), ran.stdout), (Some(0), format!("{words}\n").into_bytes()));
    };
    runs(&alpha, "over QUIC");
    beta.stop();
    alpha.kill();
    // Both come back, on other ports, the one that was asked to first last.
    let beta = Node::start(&root.path().join("beta"), &[]);
    let alpha = Node::start(&root.path().join("alpha"), &["--slots", "0"]);
    runs(&alpha, "again");
    drop(beta);
}

#[test]
fn members_find_each_other_after_every_order_of_restarts() {
    let root = tempfile::tempdir().expect("a directory");
    let place = |name: &str| root.path().join(name);
    let fresh = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    let alpha = Node::up(root.path(), "a", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "b", &["--join", &ticket]);
    let ticket = alpha.ticket("worker");
    let gamma = Node::up(root.path(), "c", &["--join", &ticket]);
    let whole = |nodes: &[&Node], online: usize| {
        for node in nodes {
            node.wait("all others", |node| {
                let peers = node.json(&["peers", "--json"]);
                peers.as_array().is_some_and(|all| all.iter().filter(|p| p["online"] == true).count() == online)
            });
        }
    };
    whole(&[&alpha, &beta, &gamma], 2);
    // One after the other, each on another port.
    beta.kill();
    let beta = Node::start(&place("b"), &fresh);
    whole(&[&alpha, &beta, &gamma], 2);
    // The founder and another at once, both on other ports; the third one stays and is what they know.
    alpha.kill();
    beta.kill();
    let (beta, alpha) = (Node::start(&place("b"), &fresh), Node::start(&place("a"), &fresh));
    whole(&[&alpha, &beta, &gamma], 2);
    // All at once, on their old ports, the last to join first.
    for node in [alpha, beta, gamma] {
        node.kill();
    }
    let (gamma, beta) = (Node::start(&place("c"), &[]), Node::start(&place("b"), &[]));
    whole(&[&beta, &gamma], 1);
    let alpha = Node::start(&place("a"), &[]);
    whole(&[&alpha, &beta, &gamma], 2);
    // The founder goes for good; the others restart without it.
    alpha.stop();
    beta.stop();
    gamma.stop();
    let (beta, gamma) = (Node::start(&place("b"), &[]), Node::start(&place("c"), &fresh));
    whole(&[&beta, &gamma], 1);
}

#[test]
fn a_graph_ends_while_its_submitter_is_away_and_is_accepted_when_it_is_back() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &alpha.ticket("worker")]);
    let run = |args: &[&str]| {
        let submitted = alpha.json(&[&["run", "--detach", "--json"], args].concat());
        submitted["job"].as_str().expect("an id").to_owned()
    };
    let first = run(&["--", "sh", "-c", "sleep 2; echo first"]);
    let second = run(&["--after", &first, "--output", "out", "--", "sh", "-c", "echo second | tee out"]);
    let show = |node: &Node, job: &str| node.json(&["job", "show", job, "--json"]);
    beta.wait("its start", |beta| show(beta, &first)["state"] == "running");
    beta.wait("the graph", |beta| beta.json(&["jobs", "--json"]).as_array().is_some_and(|jobs| jobs.len() == 2));
    alpha.kill();
    for job in [&first, &second] {
        let followed = beta.v6(&["logs", "-f", job]);
        assert!(followed.status.success());
        let shown = show(&beta, job);
        assert_eq!((&shown["state"], &shown["provisional"]), (&"done".into(), &true.into()), "{shown}");
        assert_eq!(shown["tasks"][0]["accepted_attempt"], 1);
    }
    assert_eq!(String::from_utf8_lossy(&beta.v6(&["logs", &second]).stdout), "second\n");
    let done = |node: &Node| node.json(&["status", "--json"])["jobs"]["done"] == 2;
    assert!(done(&beta));
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    for node in [&alpha, &beta] {
        node.wait("acceptance", |node| {
            [&first, &second]
                .iter()
                .all(|job| show(node, job)["state"] == "done" && show(node, job)["provisional"] == false)
        });
        assert!(done(node));
    }
}

#[test]
fn a_store_that_was_written_over_with_its_backup_forks_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &ticket]);
    let run = |node: &Node| node.wait("a job", |node| node.v6(&["run", "--", "true"]).status.success());
    run(&alpha);
    alpha.stop();
    let files = std::fs::read_dir(root.path().join("alpha")).expect("a directory");
    let files = files.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    let old: Vec<_> = files.map(|file| (std::fs::read(&file).expect("is there"), file)).collect();
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    (0..3).for_each(|_| run(&alpha));
    alpha.kill();
    for (old, file) in &old {
        // As `cp` does it: the same file, with the old content.
        std::fs::write(file, old).expect("written over");
    }
    beta.kill();
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    let waits = alpha.json(&["status", "--json"])["paused"].clone();
    assert!(waits.as_str().is_some_and(|why| why.contains("other members")), "{waits}");
    let refused = alpha.refused(&["run", "--detach", "--", "true"]);
    assert!(refused.contains("store was lost or restored") && refused.contains("another node"), "{refused}");
    let beta = std::thread::scope(|scope| {
        // Asked for while nobody is there who knows what is missing.
        scope.spawn(|| run(&alpha));
        std::thread::sleep(std::time::Duration::from_millis(500));
        Node::again(root.path(), "beta", &["--slots", "1"])
    });
    for node in [&alpha, &beta] {
        let feeds = node.json(&["status", "--json"])["feeds"].clone();
        assert!(feeds.as_object().is_some_and(|feeds| feeds.values().all(|feed| feed["frozen"] == false)), "{feeds}");
    }
}

/// The library that shows a program another time, where it is installed.
#[cfg(target_os = "linux")]
fn other_clock() -> Option<String> {
    let homes = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let library = |home: std::fs::DirEntry| home.path().join("faketime/libfaketimeMT.so.1");
    homes.map(library).find(|path| path.exists()).map(|path| path.display().to_string())
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_whose_clock_was_set_back_before_it_started_again_takes_part() {
    let Some(library) = other_clock() else {
        eprintln!("skipped: libfaketime is not installed");
        return;
    };
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &["--join", &ticket]);
    let online = |node: &Node| node.json(&["peers", "--json"])[0]["online"] == true;
    alpha.wait("beta", online);
    beta.kill();
    alpha.wait("beta's end", |node| !online(node));
    let clock = [
        ("LD_PRELOAD", &library[..]),
        ("FAKETIME", "-2h"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    let beta = Node::start_in(&clock, &root.path().join("beta"), &[]);
    alpha.wait("beta's return", online);
    beta.wait("alpha", online);
    let ran = alpha.v6(&["run", "--", "echo", "here"]);
    assert_eq!((ran.status.code(), ran.stdout), (Some(0), b"here\n".to_vec()));
}
