//! A nursery: one process of this binary that forks cells, for a fork costs a short job a fraction of a program's start.
//!
//! It is single-threaded, holds nothing but its socket, and confines nothing: each cell confines itself as ever. The node
//! sends it the far ends of a cell's pipes and hears the process id. A cell is made as the node's own child (`CLONE_PARENT`),
//! so that the node alone reaps it and its id stays its own until then. The nursery ends with its socket, as a cell with its
//! stdin.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair, sockopt,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::process::{Life, Process};
use crate::platform::process;
use crate::sandbox::{self, SandboxKind};

/// The word with which the binary becomes a nursery.
pub(crate) const WORD: &str = "nursery";
/// Pipes of a cell: stdin, stdout, stderr.
const PIPES: usize = 3;
/// Bytes of the answer: a process id, or zero.
const ANSWER_BYTES: usize = 4;
/// Time for it. Longer: the nursery hangs, and another is started.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The node's end of a nursery. Dropping it ends the nursery.
#[derive(Debug)]
pub(super) struct Nursery {
    socket: Mutex<OwnedFd>,
    child: Child,
}

/// A process that the nursery forked: a child of this one.
#[derive(Debug)]
pub(super) struct Forked {
    pid: Pid,
    fd: AsyncFd<OwnedFd>,
    ended: Option<ExitStatus>,
}

impl Nursery {
    /// Starts a nursery by running `exe nursery`. For cells under Landlock with these hidden directories it opens ahead what
    /// all of them may reach.
    pub(super) fn start(exe: &Path, sandbox: SandboxKind, hidden: &[PathBuf]) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(ANSWER_WAIT))?;
        let mut command = Command::new(exe);
        command.arg(WORD);
        if sandbox == SandboxKind::Landlock {
            command.arg(process::home_dir().unwrap_or_default()).args(hidden);
        }
        let child = command
            .env_clear()
            .envs(process::system_environment())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket: Mutex::new(ours), child })
    }

    /// Forks a cell; needs a tokio runtime. Blocks for about 0.2 ms.
    ///
    /// # Errors
    /// The nursery has ended or cannot fork: start another, or a cell without one.
    pub(super) fn fork(&self) -> io::Result<Process> {
        let near = || pipe_with(PipeFlags::CLOEXEC);
        let ((stdin_far, stdin), (stdout, stdout_far), (stderr, stderr_far)) = (near()?, near()?, near()?);
        let far = [stdin_far.as_fd(), stdout_far.as_fd(), stderr_far.as_fd()];
        let mut answer = [0; ANSWER_BYTES];
        {
            let socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&far));
            sendmsg(&*socket, &[IoSlice::new(&[1])], &mut control, SendFlags::NOSIGNAL)?;
            let (len, _) = recv(&*socket, &mut answer[..], RecvFlags::empty())?;
            if len != ANSWER_BYTES {
                return Err(io::Error::other("the nursery has ended"));
            }
        }
        let Some(pid) = Pid::from_raw(i32::from_ne_bytes(answer)) else {
            return Err(io::Error::other("the nursery cannot fork"));
        };
        // It is a child of ours that nobody has reaped: the id cannot be another's.
        let forked = Forked::new(pid)?;
        let nonblocking = |fd: &OwnedFd| rustix::io::ioctl_fionbio(fd, true);
        [&stdin, &stdout, &stderr].into_iter().try_for_each(nonblocking)?;
        Ok(Process {
            stdin: Box::new(pipe::Sender::from_owned_fd_unchecked(stdin)?),
            stdout: Box::new(pipe::Receiver::from_owned_fd_unchecked(stdout)?),
            stderr: Box::new(pipe::Receiver::from_owned_fd_unchecked(stderr)?),
            life: Life::Forked(forked),
        })
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Forked {
    #[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    fn new(pid: Pid) -> io::Result<Self> {
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: an `OwnedFd` owns its descriptor, which is neither closed nor replaced before both are dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { pid, fd, ended: None })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.try_wait(WaitIdOptions::NOHANG), Ok(None))
    }

    pub(super) fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = pidfd_send_signal(&self.fd, Signal::KILL);
        }
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait(WaitIdOptions::NOHANG)? {
                return Ok(status);
            }
            self.fd.readable().await?.clear_ready();
        }
    }

    fn try_wait(&mut self, how: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let status = waitid(WaitId::PidFd(self.fd.as_fd()), how | WaitIdOptions::EXITED)?;
            // As wait(2) encodes it.
            let raw = status.map(|status| match status.exit_status() {
                Some(code) => (code & 0xff) << 8,
                None => status.terminating_signal().unwrap_or(0),
            });
            self.ended = raw.map(ExitStatus::from_raw);
        }
        Ok(self.ended)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.kill();
        // A killed process ends within a moment, and nobody else reaps it.
        drop(self.try_wait(WaitIdOptions::empty()));
    }
}

/// The nursery's own side: forks until its socket is closed.
#[must_use]
pub(crate) fn main() -> ExitCode {
    super::child::ignore_requests();
    let socket = rustix::stdio::stdin();
    let mut words = std::env::args_os().skip(2).map(PathBuf::from);
    let home = words.next();
    let sandbox = if home.is_some() { SandboxKind::Landlock } else { SandboxKind::None };
    let (home, hidden) = (home.filter(|home| !home.as_os_str().is_empty()), words.collect::<Vec<_>>());
    sandbox::prepare(sandbox, &hidden, home.as_deref());
    loop {
        let request = next(socket);
        sandbox::prepare(sandbox, &hidden, home.as_deref());
        match request {
            Ok(Some(pipes)) => match fork() {
                Ok(None) => return become_cell(pipes),
                Ok(Some(pid)) => drop(send(socket, &pid.to_ne_bytes(), SendFlags::NOSIGNAL)),
                Err(_) => drop(send(socket, &[0; ANSWER_BYTES], SendFlags::NOSIGNAL)),
            },
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("v6 {WORD}: {error} (it is started by the node itself)");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// The next cell's pipes; `None` once the node has gone.
fn next(socket: BorrowedFd<'_>) -> io::Result<Option<[OwnedFd; PIPES]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PIPES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let pipes: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None })
        .flatten()
        .collect();
    pipes.try_into().map(Some).map_err(|_| io::Error::other("a cell has three pipes"))
}

/// Forks a child of this process's parent: `None` in the child.
#[allow(unsafe_code, reason = "no safe wrapper forks")]
fn fork() -> io::Result<Option<i32>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT);
    // SAFETY: without a stack and without CLONE_VM this is fork(2) but for the parent: the child goes on here with a copy of
    // the memory. This process has one thread, so no lock can be held in the copy by a thread that it does not have.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid @ 1..) => Ok(Some(pid)),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

fn become_cell([stdin, stdout, stderr]: [OwnedFd; PIPES]) -> ExitCode {
    let placed = rustix::stdio::dup2_stdin(&stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(&stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(&stderr));
    drop((stdin, stdout, stderr));
    let _ = rustix::thread::set_name(c"v6-cell");
    if placed.is_err() {
        return ExitCode::FAILURE;
    }
    super::child::main()
}
