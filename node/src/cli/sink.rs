//! Where a job's output goes: a thread of its own, so that a reader that pauses never keeps Ctrl-C from being heard.
//!
//! To a pipe or a file every byte goes as it came. On a terminal a filter lets only what cannot harm it pass.

use std::io::{IsTerminal, Write};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use web_gateway::api::LogStream;

/// Chunks between the network and the terminal. At the bound the network waits.
const CHUNKS: usize = 64;

/// What stands between a log and a terminal.
pub(super) trait Filter: Send {
    /// Appends what may pass of `input` to `output`; keeps state between calls.
    fn filter(&mut self, input: &[u8], output: &mut Vec<u8>);
}

/// Lets text, tabs and line ends pass and nothing else.
#[derive(Debug, Default)]
struct TextOnly;

impl Filter for TextOnly {
    fn filter(&mut self, input: &[u8], output: &mut Vec<u8>) {
        output.extend(input.iter().copied().filter(|byte| *byte >= 0x20 && *byte != 0x7f || b"\t\n\r".contains(byte)));
    }
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
        let filter = |terminal: bool| -> Option<Box<dyn Filter>> {
            if terminal && !raw { Some(Box::new(TextOnly)) } else { None }
        };
        let stdout = filter(std::io::stdout().is_terminal());
        let stderr = filter(std::io::stderr().is_terminal());
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

fn write_all(
    mut orders: mpsc::Receiver<Order>,
    mut stdout_filter: Option<Box<dyn Filter>>,
    mut stderr_filter: Option<Box<dyn Filter>>,
) {
    let mut filtered = Vec::new();
    while let Some(order) = orders.blocking_recv() {
        let (stream, bytes) = match order {
            Order::Write(stream, bytes) => (stream, bytes),
            Order::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let filter = match stream {
            LogStream::Stdout => &mut stdout_filter,
            LogStream::Stderr => &mut stderr_filter,
        };
        filtered.clear();
        let bytes: &[u8] = match filter {
            None => &bytes,
            Some(filter) => {
                filter.filter(&bytes, &mut filtered);
                &filtered
            }
        };
        let written = match stream {
            LogStream::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            LogStream::Stderr => std::io::stderr().lock().write_all(bytes),
        };
        if written.is_err() {
            return;
        }
    }
}
