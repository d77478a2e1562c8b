//! What `v6 debug record` writes is played back to the node's own state.

#![cfg(unix)]

mod mesh_support;

use std::process::{Command, Stdio};

use mesh::field_log::Playback;
use mesh_support::Node;

#[test]
fn a_recording_of_a_busy_node_is_played_back_to_its_state() {
    let root = tempfile::tempdir().expect("a directory");
    let alpha = Node::up(root.path(), "alpha", &["--slots", "2"]);
    let beta = Node::up(root.path(), "beta", &["--slots", "1", "--join", &alpha.ticket("worker")]);
    assert!(alpha.v6(&["run", "--", "true"]).status.success());
    let file = root.path().join("field.log");
    let mut recorder = Command::new(env!("CARGO_BIN_EXE_v6"))
        .env("V6_DATA_DIR", &alpha.dir)
        .args(["debug", "record", "--json"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("v6 starts");
    alpha.wait("the first frames", |_| std::fs::metadata(&file).is_ok_and(|file| file.len() > 1_000));
    for node in [&alpha, &beta] {
        for _ in 0..4 {
            node.v6(&["run", "--detach", "--", "sh", "-c", "sleep 0.2; echo done"]);
        }
        assert!(node.v6(&["run", "--array", "5", "--", "true"]).status.success());
        assert!(!node.v6(&["run", "--", "false"]).status.success());
    }
    alpha.wait("the end of all jobs", |alpha| {
        let jobs = alpha.json(&["jobs", "--json"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done" || job["state"] == "failed")
    });
    let interrupted = Command::new("kill").args(["-INT", &recorder.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    let mut told = String::new();
    std::io::Read::read_to_string(&mut recorder.stdout.take().expect("piped"), &mut told).expect("UTF-8");
    assert!(recorder.wait().expect("it ends").success());
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");

    let mut playback = Playback::open(std::fs::File::open(&file).expect("it is there")).expect("a field log");
    while let Some(played) = playback.step().expect("whole") {
        assert!(played.is_same, "step {}: {:?}", playback.steps(), played.step);
    }
    assert_eq!(told["steps"], playback.steps());
    assert!(playback.has_ended() && playback.steps() > 20);
    assert_eq!(playback.core().me().to_string(), alpha.id);
    let state = playback.core().replica().state_hash().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(alpha.json(&["status", "--json"])["state_hash"], state);

    let refused = alpha.refused(&["debug", "record", "/nowhere/at/all"]);
    assert!(refused.starts_with("v6: cannot write /nowhere/at/all"), "{refused}");
}
