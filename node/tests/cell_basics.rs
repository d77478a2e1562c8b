//! A real cell, started from the real binary, without a sandbox: tasks, output, exits, kills, leftovers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::too_many_lines, reason = "tests")]

#[path = "cell_support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use node::cell::{CellEvent, Exit, KillReason, KillTarget, LimitKind, SandboxKind, Stream};
use support::{Rig, gone};

#[tokio::test]
async fn a_task_runs_with_its_environment_and_its_output_comes_before_its_exit() {
    let rig = Rig::new(SandboxKind::None);
    let mut spec = rig.shell("echo out; echo err >&2; env; pwd; exit 7");
    spec.env.push(("MINE".into(), "سلام".into()));
    spec.env.push(("V6_JOB_ID".into(), "forged".into()));
    let run = rig.run(spec, 0..1, 1).await;
    let out = run.text(0, Stream::Stdout);
    assert_eq!(run.text(0, Stream::Stderr), "err\n");
    assert_eq!(run.exit(0), Exit::Code(7));
    for wanted in ["out\n", "MINE=سلام\n", "V6_TASK_ID=0\n", "V6_ATTEMPT=3\n"] {
        assert!(out.contains(wanted), "{wanted} in {out}");
    }
    assert!(out.contains(&format!("V6_JOB_ID={}\n", rig.job)) && !out.contains("forged"));
    assert!(out.contains(&format!("V6_CHECKPOINT_DIR={}\n", rig.checkpoints().display())));
    assert!(out.contains(&format!("HOME={}\n", rig.workspace().join(".v6/home").display())));
    assert!(!out.contains("V6_RESUME_DIR") && !out.contains("TERM="));
    assert!(out.ends_with(&format!("{}\n", rig.workspace().display())), "{out}");
}

#[tokio::test]
async fn every_task_of_an_array_has_its_own_directory_and_index() {
    let rig = Rig::new(SandboxKind::None);
    let mut spec = rig.shell("echo $V6_TASK_ID > index; pwd");
    spec.array = true;
    let run = rig.run(spec, 2..12, 3).await;
    for task in 2..12u32 {
        assert_eq!(run.exit(task), Exit::Code(0));
        let dir = rig.workspace().join(task.to_string());
        assert_eq!(run.text(task, Stream::Stdout), format!("{}\n", dir.display()));
        assert_eq!(std::fs::read_to_string(dir.join("index")).unwrap(), format!("{task}\n"));
    }
}

#[tokio::test]
async fn a_program_that_is_missing_or_dies_by_a_signal_is_told_as_such() {
    let rig = Rig::new(SandboxKind::None);
    let run = rig.run(rig.spec(&["no-such-program-anywhere"]), 0..1, 1).await;
    assert!(matches!(run.exit(0), Exit::SpawnFailed(why) if why.contains("no-such-program-anywhere")));
    let run = rig.run(rig.shell("kill -SEGV $$"), 0..1, 1).await;
    assert_eq!(run.exit(0), Exit::Signal(11));
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_killed_even_when_it_ignores_sigterm() {
    let rig = Rig::new(SandboxKind::None);
    let mut spec = rig.shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
    spec.timeout_ms = Some(200);
    let began = Instant::now();
    let run = rig.run(spec, 0..1, 1).await;
    assert_eq!(run.exit(0), Exit::Timeout);
    assert!(began.elapsed() >= Duration::from_millis(2_000), "the grace was kept");
}

#[tokio::test]
async fn a_killed_task_can_clean_up_and_a_queued_one_never_starts() {
    let rig = Rig::new(SandboxKind::None);
    let spec = rig.shell("trap 'echo bye; exit 1' TERM; echo up; while :; do sleep 0.02; done");
    let (handle, mut events) = rig.spawn(spec);
    handle.run(0..3, 1).unwrap();
    let mut run = support::Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
    handle.kill(KillTarget::Task(1), KillReason::LeaseLost).unwrap();
    handle.kill(KillTarget::Task(0), KillReason::Cancelled).unwrap();
    run.until(&mut events, |event| matches!(event, CellEvent::Output { task: 2, .. })).await;
    assert_eq!(run.exit(0), Exit::Killed(KillReason::Cancelled));
    assert_eq!(run.text(0, Stream::Stdout), "up\nbye\n");
    assert_eq!(run.exit(1), Exit::Killed(KillReason::LeaseLost));
    assert!(!run.started.contains_key(&1));
    handle.kill(KillTarget::All, KillReason::NodeStopping).unwrap();
    run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
    handle.shutdown();
    assert_eq!(events.recv().await, None, "an ordered end is no death");
}

#[tokio::test]
async fn daemons_that_a_task_leaves_behind_die_with_it() {
    let rig = Rig::new(SandboxKind::None);
    // Double fork, own session, output away from the pipes.
    let script = "setsid sh -c 'sh -c \"echo \\$\\$ > deep; exec sleep 1000\" & echo $$ > top; exec sleep 1000' \
                  >/dev/null 2>&1 & while [ ! -s deep ] || [ ! -s top ]; do sleep 0.01; done; exit 0";
    for parallel in [1, 2] {
        let (handle, mut events) = rig.spawn(rig.shell(script));
        let mut run = support::Run::default();
        handle.run(0..1, parallel).unwrap();
        if parallel == 2 {
            handle.run(1..2, 2).unwrap();
        }
        run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
        for name in ["deep", "top"] {
            let pid: u32 = std::fs::read_to_string(rig.workspace().join(name)).unwrap().trim().parse().unwrap();
            assert!(gone(pid).await, "{name} outlived its task");
            std::fs::remove_file(rig.workspace().join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn one_tasks_end_leaves_another_tasks_daemons_alone() {
    let rig = Rig::new(SandboxKind::None);
    let script = "if [ $V6_TASK_ID = 0 ]; then setsid sleep 1000 >/dev/null 2>&1 & echo $! > pid; \
                  while [ ! -e done ]; do sleep 0.01; done; kill -0 $(cat pid) && echo alive; \
                  else while [ ! -s pid ]; do sleep 0.01; done; setsid sleep 1000 >/dev/null 2>&1 & exit 0; fi";
    let (handle, mut events) = rig.spawn(rig.shell(script));
    handle.run(0..2, 2).unwrap();
    let mut run = support::Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Exited { task: 1, .. })).await;
    std::fs::write(rig.workspace().join("done"), "").unwrap();
    run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
    assert_eq!(run.text(0, Stream::Stdout), "alive\n");
    let pid: u32 = std::fs::read_to_string(rig.workspace().join("pid")).unwrap().trim().parse().unwrap();
    assert!(gone(pid).await);
}

#[tokio::test]
async fn dropping_the_handle_ends_every_process_of_the_job() {
    let rig = Rig::new(SandboxKind::None);
    let script = "setsid sh -c 'echo $$ > pid; trap \"\" TERM HUP; while :; do sleep 1; done' & \
                  while [ ! -s pid ]; do sleep 0.01; done; echo up; sleep 1000";
    let (handle, mut events) = rig.spawn(rig.shell(script));
    handle.run(0..1, 1).unwrap();
    let mut run = support::Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
    drop(handle);
    let pid: u32 = std::fs::read_to_string(rig.workspace().join("pid")).unwrap().trim().parse().unwrap();
    assert!(gone(pid).await && gone(run.started[&0]).await);
    run.until(&mut events, |event| matches!(event, CellEvent::Died { .. })).await;
}

#[tokio::test]
async fn a_cell_killed_from_outside_takes_its_tasks_along() {
    let rig = Rig::new(SandboxKind::None);
    let script = "echo $PPID; setsid sleep 1000 & echo $!; sleep 1000";
    let (handle, mut events) = rig.spawn(rig.shell(script));
    handle.run(0..1, 1).unwrap();
    let mut run = support::Run::default();
    while run.text(0, Stream::Stdout).lines().count() < 2 {
        run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
    }
    let pids: Vec<u32> = run.text(0, Stream::Stdout).lines().map(|n| n.parse().unwrap()).collect();
    support::kill(pids[0]);
    run.until(&mut events, |event| matches!(event, CellEvent::Died { .. })).await;
    assert!(gone(pids[1]).await && gone(run.started[&0]).await);
    drop(handle);
}

#[tokio::test]
async fn a_cell_is_deaf_to_sigterm_but_its_tasks_are_not() {
    let rig = Rig::new(SandboxKind::None);
    let run = rig.run(rig.shell("kill -TERM $PPID; kill -TERM $$; echo still here"), 0..2, 1).await;
    assert_eq!((run.exit(0), run.exit(1)), (Exit::Signal(15), Exit::Signal(15)));
}

#[tokio::test]
async fn a_flood_of_output_arrives_whole_and_is_held_back_while_nobody_listens() {
    let rig = Rig::new(SandboxKind::None);
    let (handle, mut events) = rig.spawn(rig.shell("head -c 50000000 /dev/zero; echo done >&2"));
    handle.run(0..1, 1).unwrap();
    let mut run = support::Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
    // Nobody listens: the task cannot end, for the pipes are full.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut bytes = run.text(0, Stream::Stdout).len();
    while let Some(event) = events.recv().await {
        match event {
            CellEvent::Output { stream: Stream::Stdout, bytes: more, .. } => bytes += more.len(),
            CellEvent::Idle => break,
            other => run.note(other),
        }
    }
    assert_eq!((bytes, run.exit(0)), (50_000_000, Exit::Code(0)));
    assert_eq!(run.text(0, Stream::Stderr), "done\n");
}

#[tokio::test]
async fn a_kill_gets_through_while_output_is_held_back() {
    let rig = Rig::new(SandboxKind::None);
    let (handle, mut events) = rig.spawn(rig.shell("exec yes"));
    handle.run(0..1, 1).unwrap();
    let mut run = support::Run::default();
    run.until(&mut events, |event| matches!(event, CellEvent::Output { .. })).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    handle.kill(KillTarget::All, KillReason::Preempted).unwrap();
    assert!(gone(run.started[&0]).await, "killed although nobody listens");
    run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
    assert_eq!(run.exit(0), Exit::Killed(KillReason::Preempted));
}

#[tokio::test]
async fn a_task_beyond_its_memory_or_disk_is_ended() {
    let rig = Rig::new(SandboxKind::None);
    let mut spec = rig.shell("a=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 30; :");
    spec.memory_bytes = Some(64 << 20);
    assert_eq!(rig.run(spec, 0..1, 1).await.exit(0), Exit::LimitExceeded(LimitKind::Memory));
    let mut spec = rig.shell("exec head -c 20000000 /dev/zero > big");
    spec.disk_bytes = Some(8 << 20);
    assert_eq!(rig.run(spec, 0..1, 1).await.exit(0), Exit::LimitExceeded(LimitKind::Disk));
    std::fs::remove_file(rig.workspace().join("big")).unwrap();
    let mut spec = rig.shell("for i in 1 2 3 4; do head -c 4000000 /dev/zero > part$i; done; sleep 30");
    spec.disk_bytes = Some(8 << 20);
    assert_eq!(rig.run(spec, 0..1, 1).await.exit(0), Exit::LimitExceeded(LimitKind::Disk));
}

#[tokio::test]
async fn time_and_memory_of_a_task_are_told() {
    let rig = Rig::new(SandboxKind::None);
    let run = rig.run(rig.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"), 0..1, 1).await;
    let (cpu_ms, max_rss_bytes) = run.usage(0);
    assert!((20..20_000).contains(&cpu_ms), "{cpu_ms}");
    assert!((500_000..200_000_000).contains(&max_rss_bytes), "{max_rss_bytes}");
}

#[tokio::test]
#[ignore = "a measurement: 5,000 processes"]
async fn five_thousand_tasks_are_fast() {
    for (kind, parallel) in [(SandboxKind::None, 1), (SandboxKind::Landlock, 1), (SandboxKind::Landlock, 2)] {
        let rig = Rig::new(kind);
        let mut spec = rig.spec(&["true"]);
        spec.array = true;
        let began = Instant::now();
        let run = rig.run(spec, 0..5_000, parallel).await;
        let took = began.elapsed();
        assert_eq!(run.exits.len(), 5_000);
        println!("{kind:?}, {parallel} side by side: {took:?}, {:?} each", took / 5_000);
    }
}

#[tokio::test]
#[ignore = "a measurement: 60 cells"]
async fn a_cell_starts_its_first_task_quickly() {
    for kind in [SandboxKind::None, SandboxKind::Landlock, SandboxKind::Bwrap] {
        if node::sandbox::probe(kind).is_err() {
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..20 {
            let rig = Rig::new(kind);
            let began = Instant::now();
            let (handle, mut events) = rig.spawn(rig.spec(&["true"]));
            handle.run(0..1, 1).unwrap();
            let mut run = support::Run::default();
            run.until(&mut events, |event| matches!(event, CellEvent::Started { .. })).await;
            times.push(began.elapsed());
            run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
            handle.shutdown();
        }
        times.sort();
        println!("{kind:?}: median {:?}, worst {:?}", times[10], times[19]);
    }
}
