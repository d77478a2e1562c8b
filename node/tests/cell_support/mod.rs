//! What the cell tests share: a workspace, a specification, and what the events add up to.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crdt::ids::{JobId, TraceId};
use node::cell::{Cell, CellEvent, CellHandle, CellSpec, Cradle, Exit, SandboxKind, Stream};
use tokio::sync::mpsc::Receiver;

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub job: JobId,
    kind: SandboxKind,
    cradle: Cradle,
}

pub fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_v6"))
}

impl Rig {
    pub fn new(kind: SandboxKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        let mut job = [0; 16];
        let name = dir.path().file_name().unwrap().as_encoded_bytes();
        job[..10].copy_from_slice(&name[..10]);
        let cradle = Cradle::new(kind, vec![dir.path().to_owned()]);
        Self { dir, job: JobId(job), kind, cradle }
    }

    pub fn workspace(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("work")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("checkpoints")
    }

    pub fn spec(&self, command: &[&str]) -> CellSpec {
        CellSpec {
            job: self.job,
            trace: TraceId([7; 16]),
            attempt: 3,
            workspace: self.workspace(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            sandbox: self.kind,
            network: false,
            cpu_cores: None,
            memory_bytes: None,
            disk_bytes: None,
            timeout_ms: Some(60_000),
            checkpoint_dir: self.checkpoints(),
            resume_dir: None,
            array: false,
            nice: false,
            read_only: Vec::new(),
            hidden: vec![self.dir.path().to_owned()],
        }
    }

    pub fn shell(&self, script: &str) -> CellSpec {
        self.spec(&["sh", "-c", script])
    }

    pub fn spawn(&self, spec: CellSpec) -> (CellHandle, Receiver<CellEvent>) {
        // As the node does: forked by the nursery, but for bwrap.
        Cell::spawn_in(Some(self.cradle.warm(exe()).unwrap()), exe(), spec).unwrap()
    }

    pub async fn run(&self, spec: CellSpec, tasks: Range<u32>, parallel: u32) -> Run {
        let (handle, mut events) = self.spawn(spec);
        handle.run(tasks, parallel).unwrap();
        let mut run = Run::default();
        run.until(&mut events, |event| matches!(event, CellEvent::Idle)).await;
        handle.shutdown();
        run
    }
}

#[derive(Debug, Default)]
pub struct Run {
    pub started: BTreeMap<u32, u32>,
    pub output: BTreeMap<(u32, Stream), Vec<u8>>,
    pub exits: BTreeMap<u32, CellEvent>,
    pub notes: Vec<String>,
}

impl Run {
    pub async fn until(&mut self, events: &mut Receiver<CellEvent>, is_last: impl Fn(&CellEvent) -> bool) {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(50), events.recv()).await.expect("an event in time");
            let event = event.unwrap_or_else(|| panic!("the cell ended early: {self:?}"));
            let last = is_last(&event);
            self.note(event);
            if last {
                return;
            }
        }
    }

    pub fn note(&mut self, event: CellEvent) {
        match event {
            CellEvent::Ready { notes } => self.notes = notes,
            CellEvent::Started { task, pid, .. } => {
                assert!(self.started.insert(task, pid).is_none(), "started once");
            }
            CellEvent::Output { task, stream, bytes } => {
                assert!(!self.exits.contains_key(&task), "output comes before the exit");
                self.output.entry((task, stream)).or_default().extend(bytes);
            }
            CellEvent::Exited { task, .. } => {
                assert!(self.exits.insert(task, event).is_none(), "ended once");
            }
            CellEvent::Idle => {}
            CellEvent::Died { reason } => self.notes.push(format!("{reason:?}")),
        }
    }

    pub fn text(&self, task: u32, stream: Stream) -> String {
        self.output.get(&(task, stream)).map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default()
    }

    pub fn exit(&self, task: u32) -> Exit {
        match self.exits.get(&task) {
            Some(CellEvent::Exited { exit, started_ms, ended_ms, .. }) => {
                assert!(ended_ms >= started_ms && *started_ms > 1_700_000_000_000);
                exit.clone()
            }
            _ => panic!("task {task} has not ended: {self:?}"),
        }
    }

    pub fn usage(&self, task: u32) -> (u64, u64) {
        match self.exits.get(&task) {
            Some(CellEvent::Exited { cpu_ms, max_rss_bytes, .. }) => (*cpu_ms, *max_rss_bytes),
            _ => panic!("task {task} has not ended"),
        }
    }
}

/// Whether a process ends within five seconds (a zombie that its parent has not reaped has ended).
pub async fn gone(pid: u32) -> bool {
    for _ in 0..500 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
        if matches!(state, None | Some('Z')) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[cfg(unix)]
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
