//! Reaping with the resources that a process used, and deafness to polite signals: what has no safe wrapper.

use std::io;
use std::mem::MaybeUninit;

/// A process that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its id, free for others from here on.
    pub(super) pid: i32,
    /// The exit code, or the signal that killed it.
    pub(super) status: Status,
    /// User and system time of it and of the children it waited for, in milliseconds.
    pub(super) cpu_ms: u64,
    /// The largest resident size of it or of a child it waited for, in bytes.
    pub(super) max_rss_bytes: u64,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// By exit.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// What [`reap`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaped {
    /// This one ended.
    One(Ended),
    /// Children are there, none has ended.
    Running,
    /// There is no such child.
    NoChild,
}

/// Reaps one ended child without waiting: the one with this id, or any for -1.
#[allow(unsafe_code, reason = "wait4 has no safe wrapper and is the only call that tells a child's resources")]
pub(super) fn reap(pid: i32) -> io::Result<Reaped> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live, writable values of the right types for the length of the call.
        let got = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        match got {
            0 => return Ok(Reaped::Running),
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(Reaped::NoChild),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            pid => {
                // SAFETY: zeroed is a valid `rusage`, and the kernel has filled it in.
                let usage = unsafe { usage.assume_init() };
                return Ok(Reaped::One(ended(pid, status, &usage)));
            }
        }
    }
}

fn ended(pid: i32, status: i32, usage: &libc::rusage) -> Ended {
    let status = if libc::WIFEXITED(status) {
        Status::Code(libc::WEXITSTATUS(status))
    } else {
        Status::Signal(libc::WTERMSIG(status))
    };
    let ms = |time: libc::timeval| time.tv_sec.unsigned_abs() * 1000 + time.tv_usec.unsigned_abs() / 1000;
    Ended {
        pid,
        status,
        cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss.unsigned_abs() * 1024,
    }
}

/// Makes this process deaf to requests to end: whoever stops the machine's services asks node and cell at once, and the cell
/// must outlive that to end its tasks. Its node ends it by closing its stdin. A handler that does nothing, unlike a mask or
/// an ignored signal, is not inherited by the tasks.
#[allow(unsafe_code, reason = "signal handlers have no safe wrapper")]
pub(in crate::cell) fn ignore_requests() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask. The handler does nothing, which is safe at any point.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}
