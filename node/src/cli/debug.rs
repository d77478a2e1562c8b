//! `v6 debug`: what a node sees, for those who look for a mistake.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use futures::StreamExt;
use mesh::field_log::{self, FrameKind, MAGIC, Record, frame, frame_length};

use super::interrupt::Interrupts;
use super::status_line::StatusLine;
use super::{UsageError, output};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum DebugCommand {
    /// Record what the node sees into a file
    Record(RecordArgs),
}

/// Record what the node sees into a file, until Ctrl-C.
///
/// The file holds all that the node knows of its mesh (jobs, notes, members), and every message and every answer that reaches
/// its core from now on, with the time; not its key. `simulations replay FILE` plays it back, step by step, on any machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 debug record odd.log                until Ctrl-C\n  v6 debug record --seconds 60 odd.log   for a minute"
)]
pub(super) struct RecordArgs {
    /// The file; what it held is overwritten
    file: PathBuf,
    /// End after this time
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn main(command: DebugCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        DebugCommand::Record(args) => record(args, client).await,
    }
}

/// What a recording came to.
#[derive(Debug, serde::Serialize)]
struct Recorded {
    file: String,
    steps: u64,
    bytes: u64,
}

async fn record(args: RecordArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let file = create(&args.file)?;
    let mut interrupts = Interrupts::listen()?;
    let mut chunks = client.stream("/v1/debug/record").await?;
    let mut writer = FrameWriter::new(file);
    let mut status = StatusLine::new();
    let (begun, mut shown) = (Instant::now(), Instant::now());
    let end = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    status.show("recording; Ctrl-C ends it");
    let broken = loop {
        tokio::select! {
            _ = interrupts.next() => break None,
            () = &mut end => break None,
            chunk = chunks.next() => match chunk {
                Some(Ok(bytes)) => writer.take(&bytes).with_context(|| format!("cannot write {}", args.file.display()))?,
                Some(Err(error)) => break Some(format!("the node does not go on: {error}")),
                None => break Some("the node ended it: it stopped, was asked for another recording, or this disk is too slow".into()),
            },
        }
        if shown.elapsed() > Duration::from_millis(250) {
            shown = Instant::now();
            status.show(&format!("recording: {} steps, {}; Ctrl-C ends it", writer.steps, output::size(writer.bytes)));
        }
    };
    status.erase();
    if !writer.has_core {
        let why = broken.unwrap_or_else(|| "it was ended too soon".into());
        anyhow::bail!("{} holds no recording: the node's rows have not come whole: {why}", args.file.display());
    }
    writer.end().with_context(|| format!("cannot write {}", args.file.display()))?;
    let recorded = Recorded { file: args.file.display().to_string(), steps: writer.steps, bytes: writer.bytes };
    if args.json {
        output::json(&recorded)?;
    } else {
        let took = output::span(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let shown = output::shown(&recorded.file);
        output::say(&format!(
            "recorded {} steps in {took} into {shown} ({}); `simulations replay {shown}` plays it back",
            recorded.steps,
            output::size(recorded.bytes),
        ));
    }
    if let Some(broken) = broken {
        output::complain(&broken);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the file, for its owner alone.
fn create(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| UsageError(format!("cannot write {}: {error}", path.display())).into())
}

/// Writes whole frames only: a recording that is cut off is short, and not damaged.
struct FrameWriter {
    file: File,
    pending: Vec<u8>,
    /// Whether the magic bytes are behind us.
    has_begun: bool,
    /// Whether the core itself has come, and steps can follow.
    has_core: bool,
    steps: u64,
    bytes: u64,
}

impl FrameWriter {
    fn new(file: File) -> Self {
        Self { file, pending: Vec::new(), has_begun: false, has_core: false, steps: 0, bytes: 0 }
    }

    fn take(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.pending.extend_from_slice(bytes);
        let mut whole = 0;
        if !self.has_begun {
            if self.pending.len() < MAGIC.len() {
                return Ok(());
            }
            self.has_begun = true;
            whole = MAGIC.len();
        }
        while let Some(length) = frame_length(&self.pending[whole..]) {
            match field_log::kind(&self.pending[whole..]) {
                FrameKind::Step => self.steps += 1,
                FrameKind::Memory => self.has_core = true,
                FrameKind::Other => {}
            }
            whole += length;
        }
        self.file.write_all(&self.pending[..whole])?;
        self.bytes += whole as u64;
        self.pending.drain(..whole);
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        let end = frame(&Record::End(self.steps));
        self.bytes += end.len() as u64;
        self.file.write_all(&end)?;
        self.file.sync_all()
    }
}
