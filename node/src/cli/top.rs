//! `v6 top`: a live view of nodes, jobs, running tasks, throughput and a log.
//!
//! Three parts: `model` is what is known (pure), `view` draws it (pure), and this file feeds the one and runs the other. The
//! terminal is put back in order however the program ends.

mod model;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use clap::Args;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use web_gateway::api::{JobRow, LogLine, PeerView, StatusView};

use super::UsageError;
use super::interrupt::Interrupts;
use crate::client::{Client, ClientError};
use model::{Model, Snapshot};

/// Pieces of news between the network and the screen. At the bound the network waits.
const NEWS: usize = 256;
/// Jobs that are asked for.
const JOBS: usize = 200;
/// Pause before a log that broke off is asked for again.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Watch nodes, jobs and a log in the terminal.
///
/// Arrow keys choose a job, whose log is shown; q quits.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Milliseconds between two looks
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval: u64,
}

enum News {
    Snapshot(Box<Snapshot>),
    Trouble(String),
    Log { job: String, line: Box<LogLine> },
}

pub(super) async fn main(args: TopArgs, client: &Client) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() {
        return Err(UsageError(
            "`v6 top` needs a terminal: use `v6 status --json` or `v6 jobs --json` in scripts".into(),
        )
        .into());
    }
    // The first look is taken before the screen is touched, so that a missing node is told as everywhere else.
    let first = look(client).await?;
    let mut interrupts = Interrupts::listen()?;
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let ended = watch(args, client, first, &mut terminal, &mut interrupts).await;
    ratatui::restore();
    ended.map(|()| ExitCode::SUCCESS)
}

async fn watch(
    args: TopArgs,
    client: &Client,
    first: Snapshot,
    terminal: &mut ratatui::DefaultTerminal,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    let (sender, mut news) = mpsc::channel(NEWS);
    let directory: Arc<std::path::Path> = client.directory().into();
    let looking =
        Task(tokio::spawn(look_again(directory.clone(), Duration::from_millis(args.interval), sender.clone())));
    let mut model = Model::new(first);
    let mut log: Option<(String, Task)> = None;
    let mut keys = EventStream::new();
    loop {
        let chosen = model.chosen().map(str::to_owned);
        if chosen.as_deref() != log.as_ref().map(|(job, _)| job.as_str()) {
            log = chosen.map(|job| {
                let task = tokio::spawn(follow_log(directory.clone(), job.clone(), sender.clone()));
                (job, Task(task))
            });
        }
        terminal.draw(|frame| view::draw(frame, &model))?;
        tokio::select! {
            _ = interrupts.next() => break,
            key = keys.next() => match key {
                Some(Ok(event)) => if !obey(&event, &mut model) { break },
                Some(Err(error)) => return Err(error).context("the terminal's keys cannot be read"),
                None => break,
            },
            item = news.recv() => {
                let Some(item) = item else { break };
                take(item, &mut model);
                // What came together is drawn together.
                while let Ok(item) = news.try_recv() {
                    take(item, &mut model);
                }
            }
        }
    }
    drop(looking);
    Ok(())
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn take(item: News, model: &mut Model) {
    match item {
        News::Snapshot(snapshot) => model.look(*snapshot),
        News::Trouble(text) => model.trouble(text),
        News::Log { job, line } => model.log(&job, *line),
    }
}

/// Does what a key says; `false`: quit.
fn obey(event: &Event, model: &mut Model) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event else {
        return true;
    };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Up | KeyCode::Char('k') => model.choose(-1),
        KeyCode::Down | KeyCode::Char('j') => model.choose(1),
        KeyCode::PageUp => model.choose(-10),
        KeyCode::PageDown => model.choose(10),
        KeyCode::Home => model.choose(isize::MIN),
        KeyCode::End => model.choose(isize::MAX),
        _ => {}
    }
    true
}

async fn look(client: &Client) -> Result<Snapshot, ClientError> {
    let status: StatusView = client.get("/v1/status").await?;
    let peers: Vec<PeerView> = client.get("/v1/peers").await?;
    let jobs: Vec<JobRow> = client.get_pages("/v1/jobs", Some(JOBS)).await?;
    Ok(Snapshot { at: std::time::Instant::now(), status, peers, jobs })
}

/// Looks again and again; a node that was restarted is found under its new address.
async fn look_again(directory: Arc<std::path::Path>, interval: Duration, news: mpsc::Sender<News>) {
    let mut client = None;
    loop {
        tokio::time::sleep(interval).await;
        let result = async {
            let open = match client.take() {
                Some(open) => open,
                None => Client::open(&directory)?,
            };
            let snapshot = look(&open).await?;
            client = Some(open);
            Ok::<_, ClientError>(snapshot)
        };
        let item = match result.await {
            Ok(snapshot) => News::Snapshot(Box::new(snapshot)),
            Err(error) => News::Trouble(error.to_string()),
        };
        if news.send(item).await.is_err() {
            return;
        }
    }
}

async fn follow_log(directory: Arc<std::path::Path>, job: String, news: mpsc::Sender<News>) {
    let mut started_again = false;
    loop {
        if started_again {
            tokio::time::sleep(LOG_PAUSE).await;
        }
        started_again = true;
        let ended = one_log(&directory, &job, &news).await;
        if news.is_closed() || matches!(ended, Ok(true)) {
            return;
        }
    }
}

/// One connection's worth of a log. `true`: the job has ended.
async fn one_log(directory: &std::path::Path, job: &str, news: &mpsc::Sender<News>) -> anyhow::Result<bool> {
    let client = Client::open(directory)?;
    let mut chunks = client.stream(&format!("/v1/jobs/{job}/logs?follow=true")).await?;
    let mut pending = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        pending.extend_from_slice(&chunk?);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: LogLine = serde_json::from_slice(&pending.split_to(end + 1))?;
            let last = matches!(line, LogLine::End { .. });
            news.send(News::Log { job: job.to_owned(), line: Box::new(line) }).await?;
            if last {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
