//! The node's side of a cell: starting it, commanding it, hearing it, and making sure that it ends.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::process::{Life, Process};
use super::wire::{self, COMMAND_BYTES_MAX, Command, EVENT_BYTES_MAX, Hello, MARK_VARIABLE, Message};
use super::{
    COMMANDS_QUEUED_MAX, CellError, CellEvent, CellSpec, Death, EVENTS_QUEUED_MAX, KillReason, KillTarget,
    SHUTDOWN_GRACE_MS,
};
use crate::platform::cores::CoreLease;
use crate::platform::process;
use crate::sandbox::SandboxKind;

/// Bytes read from a cell at a time.
const READ_BYTES: usize = 128 * 1024;
/// Bytes kept of what a cell writes to stderr (the reason why it or bwrap failed).
const STDERR_BYTES_MAX: usize = 4096;

/// Starts cells.
#[derive(Debug, Clone, Copy)]
pub struct Cell;

/// A cell's process that was started ahead and waits to hear what it is for. Dropping it ends it.
#[derive(Debug)]
pub struct WarmCell(Process);

/// Where cells come from: on Linux they are forked by a process that is started once, elsewhere each is a program's start.
#[derive(Debug)]
pub struct Cradle {
    /// How most cells will be confined, and what they will not see.
    #[cfg(target_os = "linux")]
    expected: (SandboxKind, Vec<PathBuf>),
    #[cfg(target_os = "linux")]
    nursery: std::sync::Mutex<Option<super::nursery::Nursery>>,
}

/// A running cell. Dropping it kills the cell and every process of its job.
#[derive(Debug)]
pub struct CellHandle {
    commands: mpsc::Sender<Command>,
    _alive: oneshot::Sender<()>,
}

impl Cell {
    /// Starts a cell by running `exe cell`; needs a tokio runtime.
    ///
    /// Returns before the cell is ready, so that the first tasks can be sent without a round trip: a sandbox that is not
    /// to be had comes as [`CellEvent::Died`] with [`Death::Refused`]. Hear the events out: a full queue slows the job.
    /// After [`CellHandle::shutdown`] they just end; in any other case the last one is [`CellEvent::Died`].
    ///
    /// # Errors
    /// [`CellError::Spec`] and [`CellError::Spawn`].
    pub fn spawn(exe: &Path, spec: CellSpec) -> Result<(CellHandle, mpsc::Receiver<CellEvent>), CellError> {
        Self::spawn_in(None, exe, spec)
    }

    /// As [`Cell::spawn`], in a process that was started ahead, where there is one that serves.
    ///
    /// # Errors
    /// As [`Cell::spawn`].
    pub fn spawn_in(
        warm: Option<WarmCell>,
        exe: &Path,
        spec: CellSpec,
    ) -> Result<(CellHandle, mpsc::Receiver<CellEvent>), CellError> {
        let cores = CoreLease::take(spec.cpu_cores);
        let hello = Hello {
            owner_home: process::home_dir(),
            cores: cores.cores().to_vec(),
            inside_bwrap: spec.sandbox == SandboxKind::Bwrap,
            mark: fresh_mark(),
            spec,
        };
        check(&hello.spec)?;
        let mut first = Vec::new();
        Command::Hello(Box::new(hello.clone())).encode(&mut first);
        if first.len() > COMMAND_BYTES_MAX {
            return Err(CellError::Spec(format!(
                "its command and environment take more than {COMMAND_BYTES_MAX} bytes"
            )));
        }
        let serves = |warm: &mut WarmCell| !hello.inside_bwrap && warm.0.is_alive();
        let Process { stdin, stdout, stderr, life } = match warm.and_then(|mut warm| serves(&mut warm).then_some(warm))
        {
            Some(warm) => warm.0,
            None => Process::start(&command_line(exe, &hello)?)?,
        };
        let (commands, command_rx) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let (events, event_rx) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (alive, dropped) = oneshot::channel();
        tokio::spawn(command(stdin, first, command_rx, dropped));
        let marks = Marks { pid: life.id(), mark: hello.mark };
        tokio::spawn(oversee(life, stdout, stderr, events, marks, cores));
        Ok((CellHandle { commands, _alive: alive }, event_rx))
    }
}

impl Cradle {
    /// A cradle for cells that will mostly be confined like this: they are made faster. It serves any other as well.
    #[must_use]
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "there a cell is a program's start"))]
    pub fn new(sandbox: SandboxKind, hidden: Vec<PathBuf>) -> Self {
        Self {
            #[cfg(target_os = "linux")]
            expected: (sandbox, hidden),
            #[cfg(target_os = "linux")]
            nursery: std::sync::Mutex::default(),
        }
    }

    /// A cell's process for any job that runs in no namespaces of its own (not [`SandboxKind::Bwrap`]); needs a tokio runtime.
    ///
    /// # Errors
    /// [`CellError::Spawn`].
    pub fn warm(&self, exe: &Path) -> Result<WarmCell, CellError> {
        #[cfg(target_os = "linux")]
        match self.forked(exe) {
            Ok(process) => return Ok(WarmCell(process)),
            Err(error) => tracing::debug!(%error, "a cell is started without its nursery"),
        }
        Process::start(&[exe.into(), "cell".into()]).map(WarmCell)
    }

    /// A cell from the nursery, which is started when there is none.
    #[cfg(target_os = "linux")]
    fn forked(&self, exe: &Path) -> std::io::Result<Process> {
        let mut nursery = self.nursery.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if nursery.is_none() {
            *nursery = Some(super::nursery::Nursery::start(exe, self.expected.0, &self.expected.1)?);
        }
        let forked = nursery.as_ref().map(super::nursery::Nursery::fork);
        match forked {
            Some(Ok(process)) => Ok(process),
            Some(Err(error)) => {
                *nursery = None;
                Err(error)
            }
            None => Err(std::io::Error::other("there is none")),
        }
    }
}

impl CellHandle {
    /// Starts these tasks after those asked for before, `parallel` of them side by side (1..=256).
    ///
    /// # Errors
    /// [`CellError::Busy`] and [`CellError::Gone`].
    pub fn run(&self, tasks: Range<u32>, parallel: u32) -> Result<(), CellError> {
        self.send(Command::Run(tasks, parallel))
    }

    /// Ends tasks: SIGTERM to their process groups, SIGKILL after [`super::KILL_GRACE_MS`].
    ///
    /// # Errors
    /// [`CellError::Busy`] and [`CellError::Gone`].
    pub fn kill(&self, target: KillTarget, reason: KillReason) -> Result<(), CellError> {
        self.send(Command::Kill(target, reason))
    }

    /// Kills what still runs, at once and without events, and ends the cell. To end tasks in order, [`Self::kill`] them
    /// and wait for [`CellEvent::Idle`] before.
    pub fn shutdown(self) {
        // Where the queue is full, dropping the handle closes stdin, which ends the cell as well.
        let _ = self.commands.try_send(Command::Shutdown);
    }

    fn send(&self, command: Command) -> Result<(), CellError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CellError::Busy,
            mpsc::error::TrySendError::Closed(_) => CellError::Gone,
        })
    }
}

fn check(spec: &CellSpec) -> Result<(), CellError> {
    let fail = |why: &str| Err(CellError::Spec(why.to_owned()));
    if spec.command.first().is_none_or(String::is_empty) {
        return fail("it has no command");
    }
    if spec.command.iter().any(|word| word.contains('\0')) {
        return fail("its command has a NUL character");
    }
    if spec.env.iter().any(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')) {
        return fail("its environment has a name that is empty or has `=`, or a NUL character");
    }
    let paths = [&spec.workspace, &spec.checkpoint_dir];
    if paths.into_iter().chain(&spec.resume_dir).any(|path| !path.is_absolute()) {
        return fail("its directories are not absolute paths");
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn command_line(exe: &Path, hello: &Hello) -> Result<Vec<OsString>, CellError> {
    if hello.spec.sandbox != SandboxKind::Bwrap {
        return Ok(vec![exe.into(), "cell".into()]);
    }
    // bwrap binds what exists.
    match std::fs::create_dir(&hello.spec.checkpoint_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(CellError::Spawn(error)),
        Ok(()) | Err(_) => {}
    }
    let grants = super::child::grants(&hello.spec, hello.owner_home.as_deref());
    Ok(crate::sandbox::bwrap_command(exe, &["cell"], &grants))
}

#[cfg(not(target_os = "linux"))]
fn command_line(exe: &Path, _hello: &Hello) -> Result<Vec<OsString>, CellError> {
    Ok(vec![exe.into(), "cell".into()])
}

/// Writes commands until the handle is dropped; then stdin closes, which is the cell's order to die.
async fn command(
    mut stdin: impl AsyncWrite + Unpin,
    first: Vec<u8>,
    mut commands: mpsc::Receiver<Command>,
    mut dropped: oneshot::Receiver<()>,
) {
    if stdin.write_all(&first).await.is_err() {
        return;
    }
    let mut bytes = Vec::new();
    loop {
        // None once the handle is dropped and what it sent before is written.
        let Some(command) = commands.recv().await else { return };
        bytes.clear();
        command.encode(&mut bytes);
        // A cell that does not read is stuck: its overseer kills it once this end is closed.
        let written = tokio::select! {
            biased;
            written = stdin.write_all(&bytes) => written.is_ok(),
            _ = &mut dropped => false,
        };
        if !written {
            return;
        }
    }
}

/// What tells the job's processes from others' once their cell is gone.
#[derive(Debug)]
struct Marks {
    pid: Option<u32>,
    mark: String,
}

/// A value for [`MARK_VARIABLE`] that no other cell of this machine has.
fn fresh_mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{count}", std::process::id(), since.as_micros())
}

/// Hears the cell until it ends, and cleans up after it.
async fn oversee(
    mut life: Life,
    stdout: impl AsyncRead + Unpin,
    stderr: impl AsyncRead + Send + Unpin + 'static,
    events: mpsc::Sender<CellEvent>,
    marks: Marks,
    cores: CoreLease,
) {
    let complaints = tokio::spawn(tail(stderr));
    let end = hear(stdout, &events).await;
    let grace = Duration::from_millis(SHUTDOWN_GRACE_MS);
    let mut status = None;
    if !matches!(end, End::Garbled(_)) && !events.is_closed() {
        status = tokio::time::timeout(grace, life.wait()).await.ok();
    }
    let status = match status {
        Some(status) => status,
        None => {
            life.kill();
            life.wait().await
        }
    };
    let orderly = matches!(end, End::Bye);
    if !orderly {
        let _ = tokio::task::spawn_blocking(move || {
            process::kill_strays(marks.pid, &format!("{MARK_VARIABLE}={}", marks.mark));
        })
        .await;
    }
    drop(cores);
    let complaint = tokio::time::timeout(Duration::from_millis(200), complaints).await;
    let complaint = complaint.ok().and_then(Result::ok).unwrap_or_default();
    let reason = match end {
        End::Bye => return,
        End::Refused(why) => Death::Refused(why),
        End::Garbled(why) => Death::Garbled(why),
        End::Closed => Death::Ended(match status {
            Ok(status) => format!("{status}{}{}", if complaint.is_empty() { "" } else { ": " }, complaint),
            Err(error) => error.to_string(),
        }),
    };
    let _ = events.send(CellEvent::Died { reason }).await;
}

/// How a cell's stdout ended.
enum End {
    Bye,
    Refused(String),
    Garbled(String),
    Closed,
}

async fn hear(mut stdout: impl AsyncRead + Unpin, events: &mpsc::Sender<CellEvent>) -> End {
    let mut bytes: Vec<u8> = Vec::with_capacity(READ_BYTES);
    loop {
        let mut at = 0;
        loop {
            match wire::split(&bytes[at..], EVENT_BYTES_MAX) {
                Ok(None) => break,
                Err(error) => return End::Garbled(error.to_string()),
                Ok(Some((content, taken))) => {
                    let message = Message::decode(content);
                    at += taken;
                    match message {
                        Ok(Message::Event(event)) => {
                            // A caller that does not listen any more has no use for the cell.
                            if events.send(event).await.is_err() {
                                return End::Closed;
                            }
                        }
                        Ok(Message::Refused(why)) => return End::Refused(why),
                        Ok(Message::Bye) => return End::Bye,
                        Err(error) => return End::Garbled(error.to_string()),
                    }
                }
            }
        }
        bytes.drain(..at);
        bytes.reserve(READ_BYTES);
        match stdout.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(_) => {}
        }
    }
}

/// The last bytes that a cell or bwrap wrote to stderr.
async fn tail(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    while let Ok(1..) = stderr.read_buf(&mut kept).await {
        let surplus = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
