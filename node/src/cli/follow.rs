//! A job's output, followed to its end: every byte once, whatever happens to the connection in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use web_gateway::api::{AttemptState, JobState, LogLine, LogStream};

use super::output;
use super::sink::Sink;
use super::status_line::StatusLine;
use crate::client::{Client, ClientError};

/// Pause before the node is looked for again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(300);
/// Times that the node is looked for again, without a line in between.
const RECONNECTS_MAX: u32 = 100;
/// Longest line of the log stream. A longer one is an error.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How following ended.
#[derive(Debug)]
pub(super) enum Followed {
    /// The job has ended.
    Ended { state: JobState, exit: Option<i32>, reason: Option<String> },
    /// Everything that there is has been shown, but the job has not ended.
    SoFar,
    /// Nobody reads the output any more.
    ReaderGone,
}

/// Shows a job's output on stdout and stderr until it ends. `path` asks for it with `follow=true`; with `announce` the loss of
/// an attempt is told on stderr.
pub(super) async fn follow(
    directory: &Path,
    client: Client,
    path: &str,
    raw: bool,
    announce: bool,
) -> anyhow::Result<Followed> {
    let mut shower = Shower::new(raw, announce);
    let mut client = Some(client);
    let mut failures = 0;
    loop {
        let round = async {
            let client = match client.take() {
                Some(client) => client,
                None => Client::open(directory)?,
            };
            once(&client, path, &mut shower, &mut failures).await
        };
        match round.await {
            Ok(Some(followed)) => return Ok(followed),
            Ok(None) => {}
            Err(error) if !is_passing(&error) => return Err(error),
            Err(error) if failures >= RECONNECTS_MAX => {
                return Err(error).context("the job goes on without us: `v6 logs -f JOB` shows it again");
            }
            Err(_) => {}
        }
        failures += 1;
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Shows what there is of a job's output, without a second try.
pub(super) async fn show(client: &Client, path: &str, raw: bool, announce: bool) -> anyhow::Result<Followed> {
    let mut shower = Shower::new(raw, announce);
    if let Some(followed) = once(client, path, &mut shower, &mut 0).await? {
        return Ok(followed);
    }
    Ok(match shower.sink.flush().await {
        Ok(()) => Followed::SoFar,
        Err(_) => Followed::ReaderGone,
    })
}

/// Whether another try may help: the node was restarted, or is about to be.
fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::NoNode { .. } | ClientError::Broken(_)) => true,
        Some(ClientError::Refused { status, .. }) => *status == 503,
        None => false,
    }
}

/// One connection's worth. `None`: it ended without the job's end.
async fn once(
    client: &Client,
    path: &str,
    shower: &mut Shower,
    failures: &mut u32,
) -> anyhow::Result<Option<Followed>> {
    let mut chunks = client.stream(path).await?;
    let mut pending = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        pending.extend_from_slice(&chunk?);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(end + 1);
            let line: LogLine = serde_json::from_slice(&line).context("the node's answer is not understood")?;
            *failures = 0;
            if let Some(followed) = shower.line(line).await? {
                return Ok(Some(followed));
            }
        }
        anyhow::ensure!(
            pending.len() <= LINE_BYTES_MAX,
            "the node's answer has a line of more than {LINE_BYTES_MAX} bytes"
        );
    }
    Ok(None)
}

struct Shower {
    sink: Sink,
    status: StatusLine,
    /// Bytes shown, by attempt, task and stream: what a second connection sends again is left out.
    seen: BTreeMap<(u32, u32, LogStream), u64>,
    lost: BTreeSet<(u32, u32)>,
    announce: bool,
}

impl Shower {
    fn new(raw: bool, announce: bool) -> Self {
        let (sink, status) = (Sink::new(raw), StatusLine::new());
        Self { sink, status, seen: BTreeMap::new(), lost: BTreeSet::new(), announce }
    }

    async fn line(&mut self, line: LogLine) -> anyhow::Result<Option<Followed>> {
        match line {
            LogLine::Waiting { text } => self.status.show(&text),
            LogLine::Attempt { attempt, node, state, .. } => self.attempt(attempt, &node, state),
            LogLine::Lost { attempt, task, node } => {
                if !self.announce || !self.lost.insert((attempt, task)) {
                    return Ok(None);
                }
                self.status.erase();
                if self.sink.flush().await.is_err() {
                    return Ok(Some(Followed::ReaderGone));
                }
                let of = if task == 0 { String::new() } else { format!(" of task {task}") };
                output::complain(&format!(
                    "attempt {attempt}{of} was lost with its node {}; the next one starts from the beginning",
                    output::short(&node)
                ));
            }
            LogLine::End { state, exit, reason } => {
                self.status.erase();
                return Ok(Some(match self.sink.flush().await {
                    Ok(()) => Followed::Ended { state, exit, reason },
                    Err(_) => Followed::ReaderGone,
                }));
            }
            LogLine::Error { code, message } => {
                let status = if code == "not_ready" { 503 } else { 500 };
                return Err(ClientError::Refused { status, code, message }.into());
            }
            LogLine::Beat => {}
            line @ LogLine::Bytes { .. } => return self.bytes(line).await,
        }
        Ok(None)
    }

    fn attempt(&mut self, attempt: u32, node: &str, state: AttemptState) {
        let node = output::short(node);
        match state {
            AttemptState::Claimed => self.status.show(&format!("node {node} has claimed it (attempt {attempt})")),
            AttemptState::Running => self.status.show(&format!("runs on node {node} (attempt {attempt})")),
            AttemptState::Done | AttemptState::Failed | AttemptState::Cancelled | AttemptState::Lost => {}
        }
    }

    async fn bytes(&mut self, line: LogLine) -> anyhow::Result<Option<Followed>> {
        let LogLine::Bytes { attempt, task, stream, offset, .. } = line else { return Ok(None) };
        let bytes: Bytes = line.into_bytes().context("the node's answer has output that is neither text nor base64")?;
        let seen = self.seen.entry((attempt, task, stream)).or_insert(0);
        let skip = usize::try_from(seen.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let fresh = bytes.slice(skip..);
        *seen = (*seen).max(offset + bytes.len() as u64);
        if fresh.is_empty() {
            return Ok(None);
        }
        self.status.erase();
        Ok(self.sink.write(stream, fresh).await.is_err().then_some(Followed::ReaderGone))
    }
}
