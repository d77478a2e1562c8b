//! The cell on Windows: a thread per task, a job object per task, no sandbox.
//!
//! Windows has no signal that asks a process to end, so that a kill is at once. The disk limit is not watched here.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::process::{Command as Program, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::now_ms;
use crate::cell::wire::{self, COMMAND_BYTES_MAX, Command, Hello, MARK_VARIABLE, Message};
use crate::cell::{
    CellEvent, CellSpec, Exit, KillReason, KillTarget, LimitKind, OUTPUT_BYTES_MAX, PARALLEL_TASKS_MAX, PRIVATE_DIR,
    Stream,
};
use crate::platform::process::{JobObject, system_environment};
use crate::sandbox::{self, Grants};

/// How often a running task's end is looked for, in milliseconds.
const LOOK_MS: u64 = 2;

/// Runs the cell until its node lets go of it. Ending the process closes every job object, and with it every task.
pub(super) fn run() -> io::Result<()> {
    let mut commands = Commands::default();
    let Some(Command::Hello(hello)) = commands.next()? else { return Ok(()) };
    let notes = match sandbox::confine(hello.spec.sandbox, &Grants::default()) {
        Ok(notes) => notes,
        Err(error) => return tell(&Message::Refused(error.to_string())),
    };
    for dir in ["", "home", "tmp"] {
        std::fs::create_dir_all(hello.spec.workspace.join(PRIVATE_DIR).join(dir))?;
    }
    std::fs::create_dir_all(&hello.spec.checkpoint_dir)?;
    tell(&Message::Event(CellEvent::Ready { notes }))?;
    let cell = Arc::new(Cell { hello: *hello, state: Mutex::default(), changed: Condvar::new() });
    let starter = Arc::clone(&cell);
    std::thread::spawn(move || starter.start_tasks());
    loop {
        match commands.next()? {
            Some(Command::Run(tasks, parallel)) => cell.enqueue(tasks, parallel),
            Some(Command::Kill(target, reason)) => cell.kill(target, reason)?,
            Some(Command::Shutdown) => return tell(&Message::Bye),
            Some(Command::Hello(_)) => return Err(io::Error::other("a command out of place")),
            None => return Ok(()),
        }
    }
}

/// Writes one frame; the lock of stdout keeps frames whole, a full pipe holds the writer back.
fn tell(message: &Message) -> io::Result<()> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    send(&bytes)
}

fn send(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// The commands on stdin.
#[derive(Debug, Default)]
struct Commands {
    bytes: Vec<u8>,
}

impl Commands {
    /// The next command; `None` when the node has gone.
    fn next(&mut self) -> io::Result<Option<Command>> {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            if let Some((content, taken)) = wire::split(&self.bytes, COMMAND_BYTES_MAX).map_err(io::Error::other)? {
                let command = Command::decode(content).map_err(io::Error::other)?;
                self.bytes.drain(..taken);
                return Ok(Some(command));
            }
            match io::stdin().lock().read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(len) => self.bytes.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(Debug)]
struct Cell {
    hello: Hello,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Range<u32>, u32)>,
    /// Why each running task is to end, if it is.
    running: BTreeMap<u32, Option<Exit>>,
    busy: bool,
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, tasks: Range<u32>, parallel: u32) {
        let mut state = self.lock();
        state.busy = true;
        if tasks.start < tasks.end {
            state.queue.push_back((tasks, parallel.clamp(1, PARALLEL_TASKS_MAX)));
        }
        self.changed.notify_all();
    }

    fn kill(&self, target: KillTarget, reason: KillReason) -> io::Result<()> {
        let mut state = self.lock();
        match target {
            KillTarget::All => {
                state.queue.clear();
                for verdict in state.running.values_mut() {
                    verdict.get_or_insert(Exit::Killed(reason));
                }
            }
            KillTarget::Task(task) => {
                if let Some(verdict) = state.running.get_mut(&task) {
                    verdict.get_or_insert(Exit::Killed(reason));
                } else if let Some(at) = state.queue.iter().position(|(tasks, _)| tasks.contains(&task)) {
                    let (tasks, parallel) = state.queue[at].clone();
                    state.queue.remove(at);
                    for part in [task + 1..tasks.end, tasks.start..task] {
                        if part.start < part.end {
                            state.queue.insert(at, (part, parallel));
                        }
                    }
                    tell(&ended(task, Exit::Killed(reason), now_ms()))?;
                }
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Starts tasks as room becomes free, and tells when all have ended.
    fn start_tasks(self: Arc<Self>) {
        loop {
            let mut state = self.lock();
            let parallel = state.queue.front().map_or(0, |(_, parallel)| *parallel as usize);
            if state.running.len() < parallel
                && let Some((tasks, _)) = state.queue.front_mut()
            {
                let task = tasks.start;
                tasks.start += 1;
                if tasks.start >= tasks.end {
                    state.queue.pop_front();
                }
                state.running.insert(task, None);
                drop(state);
                let cell = Arc::clone(&self);
                std::thread::spawn(move || cell.run_task(task));
                continue;
            }
            if state.busy && state.queue.is_empty() && state.running.is_empty() {
                state.busy = false;
                let _ = tell(&Message::Event(CellEvent::Idle));
            }
            drop(self.changed.wait(state));
        }
    }

    fn run_task(&self, task: u32) {
        let started_ms = now_ms();
        let message = match self.attempt(task, started_ms) {
            Ok(message) => message,
            Err(why) => ended(task, Exit::SpawnFailed(why.to_string()), started_ms),
        };
        let _ = tell(&message);
        self.lock().running.remove(&task);
        self.changed.notify_all();
    }

    fn attempt(&self, task: u32, started_ms: u64) -> io::Result<Message> {
        let spec = &self.hello.spec;
        let job = JobObject::new(spec.memory_bytes)?;
        let mut program = self.program(task)?;
        let name = spec.command.first().map_or("", String::as_str);
        let mut child = program.spawn().map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        job.add(&child)?;
        let pid = child.id();
        tell(&Message::Event(CellEvent::Started { task, pid, at_ms: started_ms }))?;
        let pumps = [
            child.stdout.take().map(|pipe| std::thread::spawn(move || pump(task, Stream::Stdout, pipe))),
            child.stderr.take().map(|pipe| std::thread::spawn(move || pump(task, Stream::Stderr, pipe))),
        ];
        let deadline = spec.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let (status, verdict) = loop {
            if let Some(status) = child.try_wait()? {
                break (status, self.lock().running.get(&task).cloned().flatten());
            }
            let late = deadline.filter(|at| *at <= Instant::now()).map(|_| Exit::Timeout);
            if let Some(verdict) = self.lock().running.get(&task).cloned().flatten().or(late) {
                job.kill()?;
                break (child.wait()?, Some(verdict));
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        };
        // What the task left behind goes before its output is complete.
        let _ = job.kill();
        for pump in pumps.into_iter().flatten() {
            let _ = pump.join();
        }
        let usage = job.usage();
        let over = spec.memory_bytes.is_some_and(|limit| usage.peak_bytes >= limit) && !status.success();
        let exit = verdict.unwrap_or(match status.code() {
            _ if over => Exit::LimitExceeded(LimitKind::Memory),
            Some(code) => Exit::Code(code),
            None => Exit::Signal(0),
        });
        Ok(Message::Event(CellEvent::Exited {
            task,
            exit,
            started_ms,
            ended_ms: now_ms(),
            cpu_ms: usage.cpu_ms,
            max_rss_bytes: usage.peak_bytes,
        }))
    }

    fn program(&self, task: u32) -> io::Result<Program> {
        let spec: &CellSpec = &self.hello.spec;
        let private = spec.workspace.join(PRIVATE_DIR);
        let mut dir = spec.workspace.clone();
        if spec.array {
            dir.push(task.to_string());
            std::fs::create_dir_all(&dir)?;
        }
        let mut program = Program::new(spec.command.first().map_or("", String::as_str));
        program.args(spec.command.iter().skip(1)).current_dir(dir).env_clear().envs(system_environment());
        program.env("USERPROFILE", private.join("home")).env("HOME", private.join("home"));
        program.env("TEMP", private.join("tmp")).env("TMP", private.join("tmp"));
        program.envs(spec.env.iter().map(|(key, value)| (key, value)));
        program.env("V6_JOB_ID", spec.job.to_string()).env("V6_TRACE_ID", spec.trace.to_string());
        program.env("V6_ATTEMPT", spec.attempt.to_string()).env("V6_TASK_ID", task.to_string());
        program.env("V6_CHECKPOINT_DIR", &spec.checkpoint_dir).env(MARK_VARIABLE, &self.hello.mark);
        match &spec.resume_dir {
            Some(resume) => program.env("V6_RESUME_DIR", resume),
            None => program.env_remove("V6_RESUME_DIR"),
        };
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(program)
    }
}

/// Passes a stream on until its end.
fn pump(task: u32, stream: Stream, mut pipe: impl Read) {
    let mut buffer = vec![0; OUTPUT_BYTES_MAX];
    let mut frame = Vec::new();
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => {
                frame.clear();
                wire::encode_output(task, stream, &buffer[..len], &mut frame);
                if send(&frame).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The end of a task that had no process.
fn ended(task: u32, exit: Exit, at_ms: u64) -> Message {
    let event = CellEvent::Exited { task, exit, started_ms: at_ms, ended_ms: at_ms, cpu_ms: 0, max_rss_bytes: 0 };
    Message::Event(event)
}
