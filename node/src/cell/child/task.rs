//! One running task: its process, its pipes, its deadlines.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::descendants;
use super::environment::Environment;
use super::output::Outbox;
use super::wait::{Ended, Status};
use crate::cell::{CellEvent, CellSpec, Exit, KILL_GRACE_MS, LimitKind, OUTPUT_BYTES_MAX, Stream, wire};

/// A task whose process has been started and whose end has not been told.
#[derive(Debug)]
pub(super) struct Running {
    /// Its index.
    pub(super) task: u32,
    /// Its main process, which leads a process group.
    pub(super) pid: i32,
    /// Readable once the main process has ended; gone when it is reaped.
    pub(super) exit_fd: Option<OwnedFd>,
    /// Stdout and stderr, until their end.
    pub(super) pipes: [Option<OwnedFd>; 2],
    /// When it was started, in milliseconds since 1970.
    pub(super) started_ms: u64,
    timeout_at: Option<Instant>,
    kill_at: Option<Instant>,
    verdict: Option<Exit>,
    ended: Option<(Ended, u64)>,
}

/// The streams in the order of [`Running::pipes`].
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Running {
    /// Starts a task, in a directory of its own where one is given.
    ///
    /// # Errors
    /// The system's reason, with what it is about.
    pub(super) fn start(
        spec: &CellSpec,
        env: &Environment,
        null: &File,
        (task, dir): (u32, Option<&Path>),
        started_ms: u64,
    ) -> Result<Self, String> {
        let name = spec.command.first().map_or("", String::as_str);
        let mut command = Command::new(env.program(name));
        command.arg0(name).args(spec.command.iter().skip(1)).env_clear().envs(env.variables());
        command.env("V6_TASK_ID", task.to_string()).process_group(0);
        command.stdin(null.try_clone().map_err(|e| e.to_string())?).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        let pid = i32::try_from(child.id()).expect("the kernel's process ids fit");
        let pipes = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        for pipe in pipes.iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|e| e.to_string())?;
        }
        let exit_fd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|e| e.to_string())?;
        let timeout_at = spec.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        Ok(Self {
            task,
            pid,
            exit_fd: Some(exit_fd),
            pipes,
            started_ms,
            timeout_at,
            kill_at: None,
            verdict: None,
            ended: None,
        })
    }

    /// Asks the task to end, and remembers why; the first reason stays.
    pub(super) fn terminate(&mut self, verdict: Exit) {
        if self.verdict.is_some() || self.ended.is_some() {
            return;
        }
        self.verdict = Some(verdict);
        self.kill_at = Some(Instant::now() + Duration::from_millis(KILL_GRACE_MS));
        self.signal_group(Signal::TERM);
        self.signal_group(Signal::CONT);
    }

    /// Ends the task and all its processes that are in reach, at once.
    pub(super) fn kill(&mut self) {
        self.kill_at = None;
        for pid in descendants::below(self.pid) {
            descendants::kill(pid);
        }
        self.signal_group(Signal::KILL);
    }

    /// The next moment at which [`Self::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.ended.is_some() {
            return None;
        }
        let timeout_at = self.timeout_at.filter(|_| self.verdict.is_none());
        timeout_at.into_iter().chain(self.kill_at).min()
    }

    /// Does what its deadlines ask for.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.terminate(Exit::Timeout);
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill();
        }
    }

    /// Signals the group while the main process is not reaped, so that the id cannot belong to anybody else.
    pub(super) fn signal_group(&self, signal: Signal) {
        if let (None, Some(pid)) = (&self.ended, Pid::from_raw(self.pid)) {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Notes that the main process was reaped.
    pub(super) fn set_ended(&mut self, ended: Ended, at_ms: u64) {
        self.exit_fd = None;
        self.ended = Some((ended, at_ms));
    }

    /// Whether the main process was reaped.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Passes on what a stream has, at most one event's bytes per call. Returns whether there may be more.
    pub(super) fn pump(&mut self, which: usize, buffer: &mut [u8], outbox: &mut Outbox) -> bool {
        let Some(pipe) = &self.pipes[which] else { return false };
        debug_assert_eq!(buffer.len(), OUTPUT_BYTES_MAX, "one event's bytes");
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipes[which] = None,
            Ok(len) => {
                wire::encode_output(self.task, STREAMS[which], &buffer[..len], outbox.frames());
                return true;
            }
            Err(rustix::io::Errno::INTR) => return true,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => self.pipes[which] = None,
        }
        false
    }

    /// Passes on what is left in the pipes of an ended task; whatever still holds them has no say any more. Returns
    /// whether all has been passed on.
    pub(super) fn drain(&mut self, buffer: &mut [u8], outbox: &mut Outbox) -> bool {
        for which in 0..self.pipes.len() {
            while !outbox.is_high() {
                if !self.pump(which, buffer, outbox) {
                    self.pipes[which] = None;
                    break;
                }
            }
        }
        self.pipes.iter().all(Option::is_none)
    }

    /// The event of its end, once it was reaped.
    pub(super) fn exited(&self, spec: &CellSpec) -> Option<CellEvent> {
        let (ended, ended_ms) = self.ended?;
        let exit = self.verdict.clone().unwrap_or(match ended.status {
            Status::Signal(libc::SIGXFSZ) if spec.disk_bytes.is_some() => Exit::LimitExceeded(LimitKind::Disk),
            Status::Signal(signal) => Exit::Signal(signal),
            Status::Code(code) => Exit::Code(code),
        });
        Some(CellEvent::Exited {
            task: self.task,
            exit,
            started_ms: self.started_ms,
            ended_ms,
            cpu_ms: ended.cpu_ms,
            max_rss_bytes: ended.max_rss_bytes,
        })
    }
}
