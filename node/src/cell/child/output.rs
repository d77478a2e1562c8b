//! The cell's stdout: frames are gathered for a few milliseconds, and a full pipe holds the tasks back.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// Bytes that wait for the node before tasks' output is no longer read and no task is started.
const WAITING_BYTES_HIGH: usize = 256 * 1024;
/// The longest that a frame waits for company, in milliseconds; after a pause it leaves at once.
const GATHER_MS: u64 = 3;

/// Bytes on their way to the node.
#[derive(Debug)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    flushed: Instant,
    full: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), sent: 0, flushed: Instant::now(), full: false }
    }

    /// Where frames are written.
    pub(super) fn frames(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether the node lags so far behind that the tasks must wait.
    pub(super) fn is_high(&self) -> bool {
        self.bytes.len() - self.sent >= WAITING_BYTES_HIGH
    }

    /// Whether a write would block: wait for the pipe.
    pub(super) fn is_blocked(&self) -> bool {
        self.full
    }

    /// When what waits must leave.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.bytes.len() > self.sent && !self.full).then(|| self.flushed + Duration::from_millis(GATHER_MS))
    }

    /// Writes what is due, as far as the pipe takes it.
    ///
    /// # Errors
    /// The node is gone.
    pub(super) fn flush(&mut self, force: bool) -> Result<(), Errno> {
        let now = Instant::now();
        if self.bytes.len() == self.sent || (!force && !self.full && self.due().is_some_and(|due| now < due)) {
            return Ok(());
        }
        self.full = false;
        while self.sent < self.bytes.len() {
            match rustix::io::write(rustix::stdio::stdout().as_fd(), &self.bytes[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.full = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= WAITING_BYTES_HIGH {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.flushed = now;
        Ok(())
    }
}
