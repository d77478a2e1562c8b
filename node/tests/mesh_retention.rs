//! Old jobs on real nodes: sealed after their retention, dropped everywhere, and still shown, listed and waited for.

#![cfg(unix)]

mod mesh_support;

use mesh_support::Node;
use serde_json::Value;

const SHORT: [&str; 2] = ["--retention", "2s"];

fn run(node: &Node, args: &[&str]) -> String {
    let output = node.v6(&[&["run", "--detach", "--json"], args].concat());
    let submitted: Value = serde_json::from_slice(&output.stdout).expect("it is submitted");
    submitted["job"].as_str().expect("an id").to_owned()
}

fn show(node: &Node, job: &str) -> Value {
    node.json(&["job", "show", job, "--json"])
}

fn wait_state(node: &Node, job: &str, state: &str) {
    node.wait(state, |node| show(node, job)["state"] == state);
}

/// Waits until a node has dropped the history of a job.
fn wait_dropped(node: &Node, job: &str) {
    node.wait("the history to go", |node| !node.v6(&["logs", job]).status.success());
}

fn hash(node: &Node) -> Value {
    node.json(&["status", "--json"])["state_hash"].clone()
}

/// What scripts rely on of a job (DESIGN 9), without the files that went with the history.
fn relied_on(job: &Value) -> Value {
    let mut job = job.clone();
    for attempt in job["tasks"][0]["attempts"].as_array_mut().expect("a list") {
        for field in ["artifacts", "cost_micros", "holders"] {
            attempt[field] = Value::Null;
        }
    }
    let field = |name: &str| job[name].clone();
    ["id", "state", "trace", "submitter", "command", "created", "ended", "reason", "tasks"].map(field).to_vec().into()
}

#[test]
fn an_old_job_leaves_its_record_and_nothing_else_behind() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &[&["--slots", "0"], &SHORT[..]].concat());
    let ticket = alpha.ticket("worker");
    let beta = Node::up(root.path(), "beta", &[&["--slots", "2", "--join", &ticket], &SHORT[..]].concat());

    let long = "x".repeat(20_000);
    let script = format!("head -c 100000 /dev/zero > out; echo {long}");
    let file = run(&alpha, &["--output", "out", "--key", "nightly", "--", "sh", "-c", &script]);
    wait_state(&alpha, &file, "done");
    let bad = run(&alpha, &["--", "sh", "-c", "echo no >&2; exit 7"]);
    let skipped = run(&alpha, &["--after", &bad, "--", "true"]);
    let array = run(&alpha, &["--array", "12", "--", "sh", "-c", "exit $((V6_TASK_ID / 11))"]);
    alpha.v6(&["note", "edit", &bad, "--text", "ملاحظة\n"]);
    for (job, state) in [(&bad, "failed"), (&skipped, "skipped"), (&array, "failed")] {
        wait_state(&alpha, job, state);
    }
    let before: Vec<Value> = [&file, &bad, &skipped].map(|job| show(&alpha, job)).to_vec();
    assert!(!before[0]["tasks"][0]["attempts"][0]["artifacts"].as_array().expect("a list").is_empty());
    let whole_bytes = alpha.json(&["status", "--json"])["history_bytes"].as_u64().expect("a number");

    for node in [&alpha, &beta] {
        for job in [&file, &bad, &array] {
            wait_dropped(node, job);
        }
    }
    let less_bytes = alpha.json(&["status", "--json"])["history_bytes"].as_u64().expect("a number");
    assert!(less_bytes + 20_000 < whole_bytes, "{whole_bytes} bytes of history became {less_bytes}");
    for (job, before) in [&file, &bad, &skipped].into_iter().zip(&before) {
        for node in [&alpha, &beta] {
            let after = show(node, job);
            assert!(after["sealed"].is_string(), "{after}");
            if job == &file {
                // The script was too long for a record.
                assert_eq!(after["command"][0], "sh");
                assert!(
                    after["command"][2]
                        .as_str()
                        .is_some_and(|script| before["command"][2].as_str().expect("a text").starts_with(script))
                );
                assert_eq!(relied_on(&after)[8], relied_on(before)[8]);
            } else {
                assert_eq!(relied_on(&after), relied_on(before));
            }
        }
    }
    let tasks = show(&beta, &array)["tasks"].as_array().expect("a list").clone();
    let states: Vec<&str> = tasks.iter().filter_map(|task| task["state"].as_str()).collect();
    assert_eq!((states.len(), states[11], states.iter().filter(|state| **state == "done").count()), (12, "failed", 11));
    assert_eq!(alpha.json(&["jobs", "--json"]).as_array().map(Vec::len), Some(4));
    assert_eq!(hash(&alpha), hash(&beta));

    // What people meet when they want more than is left.
    assert!(alpha.refused(&["logs", &file]).contains("was sealed"));
    assert!(alpha.refused(&["job", "retry", &file]).contains("submit it again"));
    assert!(alpha.v6(&["get", &file, root.path().join("got").to_str().expect("UTF-8")]).status.success());
    assert!(String::from_utf8_lossy(&alpha.v6(&["job", "explain", &file]).stdout).contains("no longer kept"));
    assert_eq!(String::from_utf8_lossy(&alpha.v6(&["note", "show", &bad]).stdout), "ملاحظة\n", "notes stay");
    for node in [&alpha, &beta] {
        assert!(node.v6(&["feed", "verify"]).status.success());
        let blobs = node.json(&["blob", "list", "--json"]).to_string();
        assert!(!blobs.contains(&format!("job {file}")), "{blobs}");
    }

    // It is still the same job for its idempotency key and for those that wait for it.
    assert_eq!(run(&alpha, &["--output", "out", "--key", "nightly", "--", "sh", "-c", &script]), file);
    assert!(alpha.refused(&["run", "--detach", "--key", "nightly", "--", "false"]).contains("nightly"));
    let next = run(&alpha, &["--after", &file, "--", "true"]);
    wait_state(&alpha, &next, "done");
    let late = run(&alpha, &["--after", &bad, "--", "true"]);
    wait_state(&alpha, &late, "skipped");

    // Who joins now, and who starts again, sees the same.
    let gamma = Node::up(root.path(), "gamma", &["--slots", "0", "--join", &alpha.ticket("worker")]);
    gamma.wait("the history", |gamma| gamma.json(&["jobs", "--json"]).as_array().map(Vec::len) == Some(6));
    gamma.wait("one state", |gamma| hash(gamma) == hash(&alpha));
    assert_eq!(relied_on(&show(&gamma, &bad)), relied_on(&before[1]));
    alpha.kill();
    let alpha = Node::again(root.path(), "alpha", &["--slots", "0"]);
    alpha.wait("one state", |alpha| hash(alpha) == hash(&gamma));
    assert_eq!(relied_on(&show(&alpha, &bad)), relied_on(&before[1]));
}
