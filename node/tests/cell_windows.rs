//! A real cell on Windows: tasks, exits, kills, process trees.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "cell_support/mod.rs"]
mod support;

use node::cell::{CellEvent, Death, Exit, KillReason, KillTarget, SandboxKind, Stream};
use support::Rig;

#[tokio::test]
async fn a_task_runs_with_its_environment_and_its_exit_code() {
    let rig = Rig::new(SandboxKind::None);
    let mut spec = rig.spec(&["cmd", "/c", "echo %V6_TASK_ID%-%MINE%& exit 7"]);
    spec.env.push(("MINE".into(), "yes".into()));
    spec.array = true;
    let run = rig.run(spec, 0..3, 2).await;
    for task in 0..3 {
        assert_eq!(run.exit(task), Exit::Code(7));
        assert_eq!(run.text(task, Stream::Stdout).trim_end(), format!("{task}-yes"));
    }
}

#[tokio::test]
async fn a_missing_program_is_told() {
    let rig = Rig::new(SandboxKind::None);
    let run = rig.run(rig.spec(&["no-such-program-anywhere"]), 0..1, 1).await;
    assert!(matches!(run.exit(0), Exit::SpawnFailed(_)));
}

#[tokio::test]
async fn a_kill_and_a_timeout_take_the_whole_tree() {
    let rig = Rig::new(SandboxKind::None);
    let tree = ["cmd", "/c", "echo up& ping -n 1000 127.0.0.1 >nul"];
    let mut spec = rig.spec(&tree);
    spec.timeout_ms = Some(1_500);
    assert_eq!(rig.run(spec, 0..1, 1).await.exit(0), Exit::Timeout);
    let (handle, mut events) = rig.spawn(rig.spec(&tree));
    handle.run(0..1, 1).unwrap();
    let mut run = support::Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
    handle.kill(KillTarget::All, KillReason::Cancelled).unwrap();
    run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
    assert_eq!(run.exit(0), Exit::Killed(KillReason::Cancelled));
    let pid = run.started[&0];
    assert!(!node::platform::process::exists(pid));
}

#[tokio::test]
async fn a_sandbox_that_windows_lacks_is_refused() {
    let rig = Rig::new(SandboxKind::Landlock);
    let (_handle, mut events) = rig.spawn(rig.spec(&["cmd", "/c", "echo hi"]));
    match events.recv().await {
        Some(CellEvent::Died { reason: Death::Refused(why) }) => assert!(why.contains("landlock"), "{why}"),
        other => panic!("{other:?}"),
    }
}
