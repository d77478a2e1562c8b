//! The cell's event loop: one thread, one `poll`, no task waits for another's and none for the node but by a full pipe.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::disk::DiskMeter;
use super::environment::Environment;
use super::free_dir::FreeDir;
use super::output::Outbox;
use super::task::Running;
use super::wait::{Reaped, ignore_requests, reap};
use super::{descendants, now_ms, setup};
use crate::cell::wire::{self, COMMAND_BYTES_MAX, Command, Hello, Message};
use crate::cell::{CellEvent, CellSpec, Exit, KillReason, KillTarget, LimitKind, OUTPUT_BYTES_MAX, PARALLEL_TASKS_MAX};

/// Pause between two looks at the tasks' memory, in milliseconds.
const MEMORY_LOOK_MS: u64 = 100;
/// Pause between two attempts to kill what a sweep left, in milliseconds.
const SWEEP_AGAIN_MS: u64 = 50;
/// Ranges of tasks that wait; further ones are refused by ending.
const RANGES_MAX: usize = 64 * 1024;
/// Tasks started per round of the loop, so that commands and output are not kept waiting.
const STARTS_PER_ROUND_MAX: u32 = 16;

/// Runs the cell until its node lets go of it.
pub(super) fn run() -> io::Result<()> {
    ignore_requests();
    let mut inbox = Vec::new();
    let Some(hello) = read_hello(&mut inbox)? else { return Ok(()) };
    let mut outbox = Outbox::new();
    let notes = match setup::confine(&hello) {
        Ok(notes) => notes,
        Err(error) => {
            Message::Refused(error.to_string()).encode(outbox.frames());
            outbox.flush(true)?;
            return Ok(());
        }
    };
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout()] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Message::Event(CellEvent::Ready { notes }).encode(outbox.frames());
    outbox.flush(true)?;
    let mut cell = Cell {
        env: Environment::new(&hello),
        null: File::open("/dev/null")?,
        disk: hello.spec.disk_bytes.map(|_| DiskMeter::new(&hello.spec.workspace)),
        spec: hello.spec,
        inbox,
        outbox,
        queue: VecDeque::new(),
        running: Vec::new(),
        buffer: vec![0; OUTPUT_BYTES_MAX],
        memory_at: None,
        sweep_at: None,
        busy: false,
        free: FreeDir::default(),
    };
    let ended = cell.serve();
    let left = descendants::sweep_all();
    cell.free.clear();
    // "Bye" says that no process of the job is left.
    if ended? && !left {
        Message::Bye.encode(cell.outbox.frames());
        cell.outbox.flush(true)?;
    }
    Ok(())
}

/// Waits for the first frame; `None` when the node has gone again.
fn read_hello(inbox: &mut Vec<u8>) -> io::Result<Option<Hello>> {
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some((content, taken)) = wire::split(inbox, COMMAND_BYTES_MAX).map_err(io::Error::other)? {
            let command = Command::decode(content).map_err(io::Error::other)?;
            inbox.drain(..taken);
            return match command {
                Command::Hello(hello) => Ok(Some(*hello)),
                Command::Run(..) | Command::Kill(..) | Command::Shutdown => {
                    Err(io::Error::other("the first command is no specification"))
                }
            };
        }
        match rustix::io::read(rustix::stdio::stdin(), &mut chunk[..]) {
            Ok(0) => return Ok(None),
            Ok(len) => inbox.extend_from_slice(&chunk[..len]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[derive(Debug)]
struct Cell {
    spec: CellSpec,
    env: Environment,
    null: File,
    inbox: Vec<u8>,
    outbox: Outbox,
    queue: VecDeque<(Range<u32>, u32)>,
    running: Vec<Running>,
    buffer: Vec<u8>,
    disk: Option<DiskMeter>,
    memory_at: Option<Instant>,
    sweep_at: Option<Instant>,
    busy: bool,
    free: FreeDir,
}

/// What became ready, by index into `running`.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Commands,
    Pipe(usize, usize),
    Exit(usize),
}

impl Cell {
    /// Serves until told to end (true) or abandoned (false).
    fn serve(&mut self) -> io::Result<bool> {
        // The first commands may have come together with the specification.
        if let Some(told) = self.obey()? {
            return Ok(told);
        }
        loop {
            self.start_tasks();
            self.finish_tasks();
            if self.busy && self.running.is_empty() && self.queue.is_empty() {
                self.busy = false;
                Message::Event(CellEvent::Idle).encode(self.outbox.frames());
            }
            match self.outbox.flush(false) {
                Ok(()) => {}
                Err(Errno::PIPE) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            for ready in self.wait()? {
                match ready {
                    Ready::Commands => {
                        if let Some(told) = self.read_commands()? {
                            return Ok(told);
                        }
                    }
                    Ready::Pipe(index, which) => {
                        self.running[index].pump(which, &mut self.buffer, &mut self.outbox);
                    }
                    Ready::Exit(index) => self.reap_task(index)?,
                }
            }
            self.tick();
        }
    }

    fn can_start(&self) -> bool {
        let parallel = self.queue.front().map_or(0, |(_, parallel)| *parallel as usize);
        self.running.len() < parallel && !self.outbox.is_high()
    }

    fn start_tasks(&mut self) {
        for _ in 0..STARTS_PER_ROUND_MAX {
            if !self.can_start() {
                return;
            }
            let Some((tasks, _)) = self.queue.front_mut() else { return };
            let Some(task) = tasks.next() else { return };
            if tasks.start >= tasks.end {
                self.queue.pop_front();
            }
            self.start_task(task);
        }
    }

    fn start_task(&mut self, task: u32) {
        let at_ms = now_ms();
        let event = match self.start_in(task, at_ms) {
            Ok(running) => {
                let pid = running.pid.unsigned_abs();
                self.running.push(running);
                CellEvent::Started { task, pid, at_ms }
            }
            Err(why) => never_ran(task, Exit::SpawnFailed(why), at_ms),
        };
        Message::Event(event).encode(self.outbox.frames());
    }

    /// Starts a task's process in its directory.
    fn start_in(&mut self, task: u32, at_ms: u64) -> Result<Running, String> {
        let dir = self.spec.array.then(|| self.spec.workspace.join(task.to_string()));
        if let Some(dir) = &dir {
            self.free.make(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        Running::start(&self.spec, &self.env, &self.null, (task, dir.as_deref()), at_ms)
    }

    /// Waits until something is ready or due.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut what = vec![Ready::Commands];
        let mut fds = vec![PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN)];
        let high = self.outbox.is_high();
        for (index, task) in self.running.iter().enumerate() {
            if let Some(fd) = &task.exit_fd {
                what.push(Ready::Exit(index));
                fds.push(PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
            }
            for (which, pipe) in task.pipes.iter().enumerate() {
                if let (Some(pipe), false) = (pipe, high) {
                    what.push(Ready::Pipe(index, which));
                    fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
                }
            }
        }
        if self.outbox.is_blocked() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::OUT));
        }
        let timeout = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = what.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(what, _)| what).collect())
    }

    fn next_due(&self) -> Option<Instant> {
        if self.can_start() {
            return Some(Instant::now());
        }
        let tasks = self.running.iter().filter_map(Running::due);
        let disk = self.disk.as_ref().filter(|_| !self.running.is_empty()).map(DiskMeter::due);
        // A task may begin after the turn's look at the memory: without this nobody would come back to look.
        let watched = self.spec.memory_bytes.is_some() && !self.running.is_empty();
        let first_look = || watched.then(|| Instant::now() + Duration::from_millis(MEMORY_LOOK_MS));
        let memory = self.memory_at.or_else(first_look);
        tasks.chain(disk).chain(memory).chain(self.sweep_at).chain(self.outbox.due()).min()
    }

    /// Reads and obeys commands. `Some` when the cell is to end: told to (true) or abandoned (false).
    fn read_commands(&mut self) -> io::Result<Option<bool>> {
        match rustix::io::read(rustix::stdio::stdin(), &mut self.buffer[..]) {
            Ok(0) => return Ok(Some(false)),
            Ok(len) => self.inbox.extend_from_slice(&self.buffer[..len]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        self.obey()
    }

    fn obey(&mut self) -> io::Result<Option<bool>> {
        loop {
            let Some((content, taken)) = wire::split(&self.inbox, COMMAND_BYTES_MAX).map_err(io::Error::other)? else {
                return Ok(None);
            };
            let command = Command::decode(content).map_err(io::Error::other)?;
            self.inbox.drain(..taken);
            match command {
                Command::Run(tasks, parallel) if self.queue.len() < RANGES_MAX => self.enqueue(tasks, parallel),
                Command::Kill(target, reason) => self.kill(target, reason),
                Command::Shutdown => return Ok(Some(true)),
                Command::Run(..) | Command::Hello(_) => return Err(io::Error::other("a command out of place")),
            }
        }
    }

    fn enqueue(&mut self, tasks: Range<u32>, parallel: u32) {
        self.busy = true;
        if !tasks.is_empty() {
            self.queue.push_back((tasks, parallel.clamp(1, PARALLEL_TASKS_MAX)));
        }
    }

    fn kill(&mut self, target: KillTarget, reason: KillReason) {
        match target {
            KillTarget::All => {
                self.queue.clear();
                self.running.iter_mut().for_each(|task| task.terminate(Exit::Killed(reason)));
            }
            KillTarget::Task(wanted) => {
                if let Some(task) = self.running.iter_mut().find(|task| task.task == wanted) {
                    task.terminate(Exit::Killed(reason));
                } else if self.unqueue(wanted) {
                    let event = never_ran(wanted, Exit::Killed(reason), now_ms());
                    Message::Event(event).encode(self.outbox.frames());
                }
            }
        }
    }

    /// Takes a task out of the queue; whether it was there.
    fn unqueue(&mut self, task: u32) -> bool {
        let Some(at) = self.queue.iter().position(|(tasks, _)| tasks.contains(&task)) else { return false };
        let (tasks, parallel) = self.queue[at].clone();
        let parts = [tasks.start..task, task + 1..tasks.end];
        self.queue.remove(at);
        for part in parts.into_iter().rev().filter(|part| !part.is_empty()) {
            self.queue.insert(at, (part, parallel));
        }
        true
    }

    /// The main process has ended: its group goes before its id is free for others, then what it left behind.
    fn reap_task(&mut self, index: usize) -> io::Result<()> {
        let task = &mut self.running[index];
        task.signal_group(Signal::KILL);
        match reap(task.pid)? {
            Reaped::One(ended) => task.set_ended(ended, now_ms()),
            Reaped::Running => return Ok(()),
            Reaped::NoChild => return Err(io::Error::other("a task's process was reaped by somebody else")),
        }
        let number = task.task;
        let others: Vec<i32> = self.running.iter().filter(|t| !t.has_ended()).map(|t| t.pid).collect();
        let left = if others.is_empty() {
            descendants::sweep_all()
        } else {
            descendants::sweep(&others, |pid| descendants::task_of(pid) == Some(number))
        };
        if left {
            self.sweep_at = Some(Instant::now() + Duration::from_millis(SWEEP_AGAIN_MS));
        }
        Ok(())
    }

    /// Tells the end of tasks whose output has all been passed on.
    fn finish_tasks(&mut self) {
        let mut index = 0;
        while index < self.running.len() {
            let task = &mut self.running[index];
            if !task.has_ended() || self.outbox.is_high() || !task.drain(&mut self.buffer, &mut self.outbox) {
                index += 1;
                continue;
            }
            let task = self.running.remove(index);
            if let Some(event) = task.exited(&self.spec) {
                Message::Event(event).encode(self.outbox.frames());
            }
            if self.spec.array {
                self.free.keep(self.spec.workspace.join(task.task.to_string()));
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.running.iter_mut().for_each(|task| task.tick(now));
        if self.sweep_at.is_some_and(|at| at <= now) {
            let alive: Vec<i32> = self.running.iter().filter(|t| !t.has_ended()).map(|t| t.pid).collect();
            let left = alive.is_empty() && descendants::sweep_all();
            self.sweep_at = left.then(|| now + Duration::from_millis(SWEEP_AGAIN_MS));
        }
        self.watch_memory(now);
        self.watch_disk();
    }

    fn watch_memory(&mut self, now: Instant) {
        let Some(limit_bytes) = self.spec.memory_bytes else { return };
        if self.running.is_empty() {
            self.memory_at = None;
            return;
        }
        if self.memory_at.is_some_and(|at| at > now) {
            return;
        }
        // A task that just began is looked at after a pause, so that short tasks pay nothing.
        if self.memory_at.is_some() {
            let tasks: Vec<_> = self.running.iter().filter(|t| !t.has_ended()).map(|t| (t.task, t.pid)).collect();
            let over = descendants::resident_bytes(&tasks);
            for task in &mut self.running {
                if over.get(&task.task).is_some_and(|bytes| *bytes > limit_bytes) {
                    task.terminate(Exit::LimitExceeded(LimitKind::Memory));
                    task.kill();
                }
            }
        }
        self.memory_at = Some(now + Duration::from_millis(MEMORY_LOOK_MS));
    }

    fn watch_disk(&mut self) {
        let (Some(limit_bytes), Some(disk)) = (self.spec.disk_bytes, &mut self.disk) else { return };
        if !self.running.is_empty() && disk.step().is_some_and(|bytes| bytes > limit_bytes) {
            for task in &mut self.running {
                task.terminate(Exit::LimitExceeded(LimitKind::Disk));
            }
        }
    }
}

/// The end of a task that had no process.
fn never_ran(task: u32, exit: Exit, at_ms: u64) -> CellEvent {
    CellEvent::Exited { task, exit, started_ms: at_ms, ended_ms: at_ms, cpu_ms: 0, max_rss_bytes: 0 }
}
