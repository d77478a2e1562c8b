//! Jobs name the idea that they serve, and the idea keeps what came of them.

#![cfg(unix)]

mod mesh_support;

use mesh_support::Node;
use serde_json::{Value, json};

/// An admin's node that only submits, and another person's that runs.
fn two(root: &std::path::Path) -> (Node, Node) {
    let alpha = Node::up(root, "alpha", &["--slots", "0"]);
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root, "beta", &["--slots", "2", "--join", &ticket]);
    alpha.wait("beta", |node| node.json(&["peers", "--json"])[0]["online"] == true);
    (alpha, beta)
}

fn idea_of(node: &Node, job: &Value) -> String {
    let job = job.as_str().expect("an id");
    node.json(&["job", "show", job, "--json"])["idea"].as_str().expect("an idea").to_owned()
}

#[test]
fn what_came_of_a_job_stands_by_its_idea_on_every_node_once() {
    let root = tempfile::tempdir().expect("a directory");
    let (alpha, beta) = two(root.path());
    let idea = beta.json(&["idea", "add", "Warm the cache", "--json"])["id"].as_str().expect("an id").to_owned();
    alpha.wait("the idea", |node| node.v6(&["idea", "show", &idea]).status.success());
    let write = "printf made > out.txt; exit 3";
    let job =
        alpha.json(&["run", "--detach", "--json", "--idea", &idea[..12], "--output", "*.txt", "--", "sh", "-c", write]);
    assert_eq!(job["idea"], json!(idea));
    for node in [&alpha, &beta] {
        node.wait("one outcome", |node| {
            let shown = node.json(&["idea", "show", &idea, "--json"]);
            shown["outcomes"].as_array().is_some_and(|outcomes| outcomes.len() == 1)
        });
        let shown = node.json(&["idea", "show", &idea, "--json"]);
        let outcome = &shown["outcomes"][0];
        assert_eq!((&outcome["job"], &outcome["state"], &outcome["exit"]), (&job["job"], &json!("failed"), &json!(3)));
        assert_eq!((&outcome["trace"], &outcome["author"]), (&job["trace"], &json!(alpha.id)));
        assert_eq!(outcome["nodes"], json!([beta.id]));
        assert_eq!(
            (&outcome["artifacts"][0]["path"], &outcome["artifacts"][0]["size"]),
            (&json!("out.txt"), &json!(4))
        );
        assert_eq!(shown["jobs"], json!([job["job"]]));
        assert_eq!(node.json(&["idea", "search", "--has-job", "--kind", "idea", "--json"])[0]["id"], json!(idea));
        assert_eq!(idea_of(node, &job["job"]), idea);
    }
    let text = String::from_utf8_lossy(&alpha.v6(&["idea", "show", &idea]).stdout).into_owned();
    assert!(text.contains("failed, exit 3") && text.contains("out.txt  4 bytes"), "{text}");
    // It goes where the ledger goes.
    let file = root.path().join("ledger.jsonl");
    let path = file.to_str().expect("a path");
    assert!(alpha.v6(&["idea", "export", path]).status.success());
    assert!(alpha.v6(&["idea", "verify", path]).status.success());
    let other = Node::up(root.path(), "other", &["--slots", "0"]);
    assert!(other.v6(&["idea", "import", path]).status.success());
    assert_eq!(other.json(&["idea", "show", &idea, "--json"])["outcomes"][0]["job"], job["job"]);
}

#[test]
fn a_job_without_an_idea_serves_the_observation_of_its_command() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "2"]);
    let run = |words: &[&str]| {
        let args: Vec<&str> = ["run", "--detach", "--json", "--"].iter().chain(words).copied().collect();
        alpha.json(&args)
    };
    let (one, two, other) = (run(&["echo", "hello"]), run(&["echo", "hello"]), run(&["echo", "bye"]));
    assert_eq!(one["idea"], two["idea"], "the same command, the same observation");
    assert_ne!(one["idea"], other["idea"]);
    let idea = one["idea"].as_str().expect("an idea").to_owned();
    alpha.wait("both outcomes", |node| {
        let shown = node.json(&["idea", "show", &idea, "--json"]);
        shown["outcomes"].as_array().is_some_and(|outcomes| outcomes.len() == 2)
    });
    let shown = alpha.json(&["idea", "show", &idea, "--json"]);
    assert_eq!((&shown["kind"], &shown["title"]), (&json!("observation"), &json!("echo hello")));
    // Lists are for what people wrote.
    assert_eq!(alpha.json(&["idea", "list", "--json"]), json!([]));
    assert_eq!(alpha.json(&["idea", "list", "--commands", "--json"]).as_array().map(Vec::len), Some(2));
    let added = alpha.json(&["idea", "add", "echo hello", "--json"]);
    assert_eq!(added["similar"], json!([]));
    let refused = alpha.refused(&["idea", "add", "x", "--key", "v6/command/x"]);
    assert!(refused.contains("V6's own"), "{refused}");
    // Many at the same moment write it once too.
    let at_once: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| run(&["echo", "at once"])["idea"].to_string())).collect();
        threads.into_iter().map(|thread| thread.join().expect("submitted")).collect()
    });
    assert_eq!(at_once.len(), 1, "{at_once:?}");
    // The same key is the same job, and serves one idea.
    let keyed =
        |idea: &str| ["run", "--detach", "--json", "--key", "k", "--idea", idea, "--", "true"].map(str::to_owned);
    let words = keyed(&idea);
    let first = alpha.json(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(alpha.json(&["run", "--detach", "--json", "--key", "k", "--", "true"])["idea"], first["idea"]);
    let words = keyed(other["idea"].as_str().expect("an idea"));
    let refused = alpha.refused(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.contains("serves the idea"), "{refused}");
}

#[test]
fn where_ideas_are_required_a_job_without_one_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let (alpha, beta) = two(root.path());
    let refused = alpha.refused(&["run", "--idea", "00ff00", "--", "true"]);
    assert!(refused.contains("v6 idea list"), "{refused}");
    let refused = beta.refused(&["policy", "set", "require-idea", "on"]);
    assert!(refused.contains("only an admin"), "{refused}");
    for (name, value, says) in [
        ("require-idea", "maybe", "on or off"),
        ("mood", "good", "there are require-idea"),
        ("weights", "x=1", "value"),
    ] {
        let refused = alpha.refused(&["policy", "set", name, value]);
        assert!(refused.contains(says), "{refused}");
    }
    assert!(alpha.v6(&["policy", "set", "require-idea", "on"]).status.success());
    beta.wait("the policy", |node| node.json(&["policy", "list", "--json"])[0]["value"] == "on");
    for node in [&alpha, &beta] {
        let refused = node.refused(&["run", "--", "true"]);
        assert!(refused.contains("--idea"), "{refused}");
    }
    let idea = alpha.json(&["idea", "add", "Say true", "--json"])["id"].as_str().expect("an id").to_owned();
    assert!(alpha.v6(&["run", "--idea", &idea, "--", "true"]).status.success());
    assert!(alpha.v6(&["policy", "unset", "require-idea"]).status.success());
    assert!(alpha.v6(&["run", "--", "true"]).status.success());
    alpha.kill();
    let alpha = Node::again(root.path(), "alpha", &["--slots", "1", "--require-idea"]);
    let refused = alpha.refused(&["run", "--", "true"]);
    assert!(refused.contains("--idea"), "{refused}");
}
