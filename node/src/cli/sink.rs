//! Where a job's output goes: a thread of its own, so that a reader that pauses never keeps Ctrl-C from being heard.
//!
//! To a pipe or a file every byte goes as it came. On a terminal a filter lets only what cannot harm it pass.

use std::io::{IsTerminal, Write};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use web_gateway::api::LogStream;

use crate::joblog::ansi::Filter;

/// Chunks between the network and the terminal. At the bound the network waits.
const CHUNKS: usize = 64;

/// A terminal's way in: the filter, and whether a colour has passed that must be undone.
#[derive(Debug, Default)]
struct Terminal {
    filter: Filter,
    coloured: bool,
}

/// The reader is gone (a closed pipe).
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(super) struct SinkClosed;

enum Order {
    Write(LogStream, Bytes),
    Flush(oneshot::Sender<()>),
}

/// The way to stdout and stderr.
pub(super) struct Sink {
    orders: mpsc::Sender<Order>,
}

impl Sink {
    /// With `raw` nothing is filtered on a terminal either.
    pub(super) fn new(raw: bool) -> Self {
        let (orders, receiver) = mpsc::channel(CHUNKS);
        let filtered = |is_terminal: bool| (is_terminal && !raw).then(Terminal::default);
        let stdout = filtered(std::io::stdout().is_terminal());
        let stderr = filtered(std::io::stderr().is_terminal());
        std::thread::spawn(move || write_all(receiver, stdout, stderr));
        Self { orders }
    }

    pub(super) async fn write(&self, stream: LogStream, bytes: Bytes) -> Result<(), SinkClosed> {
        self.orders.send(Order::Write(stream, bytes)).await.map_err(|_| SinkClosed)
    }

    /// Waits until everything has been written.
    pub(super) async fn flush(&self) -> Result<(), SinkClosed> {
        let (done, wait) = oneshot::channel();
        self.orders.send(Order::Flush(done)).await.map_err(|_| SinkClosed)?;
        wait.await.map_err(|_| SinkClosed)
    }
}

/// Ends at the first error: the orders behind it are then refused.
fn write_all(mut orders: mpsc::Receiver<Order>, mut stdout: Option<Terminal>, mut stderr: Option<Terminal>) {
    let mut safe = Vec::new();
    while let Some(order) = orders.blocking_recv() {
        let written = match order {
            Order::Write(LogStream::Stdout, bytes) => put(std::io::stdout().lock(), &bytes, &mut stdout, &mut safe),
            Order::Write(LogStream::Stderr, bytes) => put(std::io::stderr().lock(), &bytes, &mut stderr, &mut safe),
            Order::Flush(done) => {
                let undone =
                    undo(std::io::stdout().lock(), &mut stdout).and(undo(std::io::stderr().lock(), &mut stderr));
                let _ = done.send(());
                undone
            }
        };
        if written.is_err() {
            return;
        }
    }
}

fn put(mut out: impl Write, bytes: &[u8], terminal: &mut Option<Terminal>, safe: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(terminal) = terminal else {
        out.write_all(bytes)?;
        return out.flush();
    };
    safe.clear();
    terminal.filter.filter(bytes, safe);
    terminal.coloured |= safe.contains(&0x1b);
    out.write_all(safe)?;
    out.flush()
}

/// Takes the log's colours back before text of another's.
fn undo(mut out: impl Write, terminal: &mut Option<Terminal>) -> std::io::Result<()> {
    match terminal {
        Some(terminal) if terminal.coloured => {
            terminal.coloured = false;
            out.write_all(Filter::reset().as_bytes())?;
            out.flush()
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_every_byte_and_a_terminal_only_what_cannot_harm_it() {
        let (mut safe, mut piped, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        let hostile = b"\x1b]52;c;eA==\x07\x1b[31mred\x1b[2J\n";
        put(&mut piped, hostile, &mut None, &mut safe).expect("memory");
        assert_eq!(piped, hostile);
        let mut terminal = Some(Terminal::default());
        put(&mut shown, hostile, &mut terminal, &mut safe).expect("memory");
        undo(&mut shown, &mut terminal).expect("memory");
        assert_eq!(shown, b"\x1b[31mred\n\x1b[0m");
    }
}
