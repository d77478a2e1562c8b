//! Documents, notebooks, traces and events of real nodes.

#![cfg(unix)]

mod mesh_support;

use mesh_support::Node;
use serde_json::Value;

fn text(node: &Node, id: &str) -> String {
    String::from_utf8(node.v6(&["note", "show", id]).stdout).expect("UTF-8")
}

fn submit(node: &Node, command: &[&str]) -> (String, String) {
    let submitted = node.json(&[&["run", "--detach", "--json", "--"], command].concat());
    let field = |name: &str| submitted[name].as_str().expect("a text").to_owned();
    (field("job"), field("trace"))
}

fn wait_state(node: &Node, job: &str, state: &str) -> Value {
    node.wait(state, |node| node.json(&["job", "show", job, "--json"])["state"] == state);
    node.json(&["job", "show", job, "--json"])
}

#[test]
fn what_two_nodes_wrote_while_neither_saw_the_other_is_in_both_notebooks() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &alpha.ticket("worker")]);
    let (job, _) = submit(&alpha, &["true"]);
    beta.wait("membership", |beta| beta.json(&["status", "--json"])["role"] == "worker");
    let saved = alpha.json(&["note", "edit", &job[..8], "--text", "قائمة\nmilk\n", "--json"]);
    assert_eq!((&saved["text"], &saved["durable_on"]), (&"قائمة\nmilk\n".into(), &2.into()));
    beta.wait("the first text", |beta| text(beta, &job) == "قائمة\nmilk\n");

    beta.kill();
    alpha.v6(&["note", "edit", &job, "--text", "قائمة\nmilk and honey\n"]);
    assert_eq!(text(&alpha, &job), "قائمة\nmilk and honey\n");
    alpha.stop();
    let beta = Node::again(root.path(), "beta", &["--slots", "0"]);
    assert_eq!(text(&beta, &job), "قائمة\nmilk\n");
    let alone = beta.json(&["note", "edit", &job, "--append", "--text", "bread 🍞\n", "--json"]);
    assert_eq!(alone["durable_on"], 1);
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    for node in [&alpha, &beta] {
        node.wait("both texts", |node| text(node, &job) == "قائمة\nmilk and honey\nbread 🍞\n");
    }
    let shown = |node: &Node| node.json(&["note", "show", &job, "--json"]);
    assert_eq!(shown(&alpha), shown(&beta));
    assert_eq!(shown(&alpha)["authors"].as_array().map(Vec::len), Some(2));
    let hash = |node: &Node| node.json(&["status", "--json"])["state_hash"].clone();
    alpha.wait("one state", |alpha| hash(alpha) == hash(&beta));

    let history = alpha.json(&["doc", "history", &format!("note/{job}"), "--json"]);
    let authors: Vec<_> = history.as_array().expect("a list").iter().map(|c| c["author"].clone()).collect();
    assert_eq!(authors, [alpha.id.as_str(), &alpha.id, &beta.id]);
    assert_eq!(history[2]["summary"], "8 characters inserted, 0 deleted");
    let heads: Vec<_> = shown(&alpha)["heads"].as_array().expect("a list").clone();
    assert!(heads.contains(&history[1]["hash"]) && heads.contains(&history[2]["hash"]));
}

#[test]
fn an_edit_is_made_to_the_version_that_its_editor_saw() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let (job, _) = submit(&alpha, &["true"]);
    alpha.json(&["note", "edit", &job, "--text", "one\ntwo\n", "--json"]);
    let base = alpha.json(&["note", "show", &job, "--json"])["heads"].clone();
    alpha.json(&["note", "edit", &job, "--text", "zero\none\ntwo\n.", "--json"]);
    let put = |body: Value| alpha.put(&format!("/v1/notes/{job}"), &body);
    let (status, merged) = put(serde_json::json!({"text": "one\n2\n", "base": base}));
    assert_eq!((status, &merged["text"]), (200, &"zero\none\n2\n.".into()));
    let (status, refused) = put(serde_json::json!({"text": "x", "base": ["00".repeat(32)]}));
    assert_eq!((status, &refused["error"]["code"]), (409, &"conflict".into()), "{refused}");
    assert_eq!(put(serde_json::json!({"text": "x", "base": ["hello"]})).0, 400);
    assert_eq!(put(serde_json::json!({"text": "x".repeat(70_000)})).0, 413);
    assert!(alpha.refused(&["note", "show", "ffff"]).contains("no notebook, job or idea"));
}

#[test]
fn edits_at_the_same_time_on_one_node_all_count() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let id = format!("note/{}", "ab".repeat(16));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (alpha, id) = (&alpha, &id);
            scope.spawn(move || {
                alpha.json(&["note", "edit", id, "--append", "--text", &format!("line {n}\n"), "--json"])
            });
        }
    });
    let whole = text(&alpha, &id);
    assert_eq!(whole.lines().count(), 8, "{whole}");
    assert!((0..8).all(|n| whole.contains(&format!("line {n}\n"))), "{whole}");
}

#[test]
fn an_observer_reads_notebooks_and_writes_none() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &alpha.ticket("observer")]);
    let (job, _) = submit(&alpha, &["true"]);
    alpha.json(&["note", "edit", &job, "--text", "read me", "--json"]);
    beta.wait("the text", |beta| text(beta, &job) == "read me");
    assert!(beta.refused(&["note", "edit", &job, "--text", "mine"]).contains("role does not allow"));
    assert_eq!(text(&beta, &job), "read me");
}

#[test]
fn documents_say_what_they_hold_and_who_wrote_it() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    let (job, _) = submit(&alpha, &["sh", "-c", "exit 3"]);
    let shown = wait_state(&alpha, &job, "failed");
    alpha.json(&["note", "edit", &job, "--text", "why?", "--json"]);
    let attempt = &shown["tasks"][0]["attempts"][0];
    assert_eq!((&attempt["exit"], &shown["ended"]), (&3.into(), &attempt["ended"]));
    assert!(shown["ended"].is_string());
    assert_eq!(alpha.json(&["jobs", "--json"])[0]["ended"], shown["ended"]);
    let listed = alpha.json(&["doc", "list", "--json"]);
    let ids: Vec<_> = listed.as_array().expect("a list").iter().map(|doc| doc["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["roster".to_owned(), format!("note/{job}"), format!("job/{job}")]);
    let roster = alpha.json(&["doc", "show", "roster", "--json"]);
    assert_eq!(roster["registers"][0]["key"], "mesh");
    assert_eq!(roster["registers"][0]["value"]["node_name"], "alpha");
    let detail = alpha.json(&["doc", "show", &job[..10], "--json"]);
    let registers = detail["registers"].as_array().expect("a list");
    let keys: Vec<_> = registers.iter().map(|r| r["key"].as_str().expect("a key")).collect();
    assert_eq!(keys, ["accept/0-1", "claim/1/0-1", "run/1/0-1", "spec"].map(String::from).to_vec());
    assert!(registers.iter().all(|r| r["author"] == alpha.id.as_str() && r["ignored"].is_null()));
    let history = alpha.json(&["doc", "history", &job, "--json"]);
    let history = history.as_array().expect("a list");
    assert_eq!(history[0]["key"], "spec");
    assert_eq!(history[0]["value"]["command"], serde_json::json!(["sh", "-c", "exit 3"]));
    assert!(history.iter().any(|c| c["key"] == "accept/0-1") && history.len() >= registers.len());
    assert_eq!(alpha.json(&["doc", "show", &format!("note/{job}"), "--json"])["text"], "why?");
    assert_eq!(alpha.json(&["status", "--json"])["api"], alpha.api.as_str());
}

#[test]
fn a_trace_tells_every_step_with_its_node() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "0"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &alpha.ticket("worker")]);
    let (job, trace) = submit(&alpha, &["sh", "-c", "exit 3"]);
    wait_state(&alpha, &job, "failed");
    for word in [&trace, &job, &trace[..12], &job[..12]] {
        let told = alpha.json(&["trace", word, "--json"]);
        assert_eq!(told["id"], trace.as_str());
        let steps = told["steps"].as_array().expect("a list");
        let what: Vec<_> = steps.iter().map(|s| (s["what"].as_str().unwrap_or(""), &s["node"])).collect();
        let (a, b) = (Value::from(alpha.id.as_str()), Value::from(beta.id.as_str()));
        let wanted = [("submitted", &a), ("claimed", &b), ("started", &b), ("ended", &b), ("accepted", &a)];
        assert_eq!(what, wanted);
        assert_eq!(
            (&steps[3]["detail"], &steps[3]["task"], &steps[3]["attempt"]),
            (&"exit 3".into(), &0.into(), &1.into())
        );
    }
    assert!(alpha.refused(&["trace", "ffffffffffff"]).contains("no trace or job"));
}

#[test]
fn events_tell_what_changed_and_the_state_of_jobs() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "1"]);
    let events = alpha.events();
    let (job, _) = submit(&alpha, &["true"]);
    wait_state(&alpha, &job, "done");
    alpha.json(&["note", "edit", &job, "--text", "seen", "--json"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "0", "--join", &alpha.ticket("worker")]);
    let mut wanted: Vec<String> = vec![
        "\"state\":\"done\"".into(),
        format!("\"note/{job}\""),
        "event: roster".into(),
        format!("\"node\":\"{}\",\"online\":true", beta.id),
    ];
    for line in events {
        wanted.retain(|wanted| !line.contains(wanted.as_str()));
        if wanted.is_empty() {
            return;
        }
    }
    panic!("these were not told: {wanted:?}");
}

#[test]
fn an_empty_input_does_not_wipe_a_note() {
    let root = tempfile::tempdir().expect("a directory");
    let node = Node::up(root.path(), "alone", &[]);
    let (job, _) = submit(&node, &["true"]);
    assert!(node.v6(&["note", "edit", &job, "--text", "kept"]).status.success());
    // The tests' commands read from /dev/null, and name no editor.
    let edit = std::process::Command::new(env!("CARGO_BIN_EXE_v6"))
        .args(["note", "edit", &job])
        .env("V6_DATA_DIR", &node.dir)
        .env_remove("EDITOR")
        .env_remove("VISUAL")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("v6 runs");
    assert_eq!(edit.status.code(), Some(2), "{}", String::from_utf8_lossy(&edit.stderr));
    assert_eq!(text(&node, &job), "kept");
}
