//! `v6 logs`: a job's output, stdout and stderr kept apart.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use super::follow::{self, Followed};
use super::values;
use crate::client::Client;

/// Show a job's output.
///
/// All attempts in order, those of dead nodes too. stdout and stderr are kept apart.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 logs 3f2a            what there is\n  v6 logs -f 3f2a         and what comes, until the job ends\n  v6 logs --task 7 3f2a   of one task of an array"
)]
pub(super) struct LogsArgs {
    /// Go on until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Only this attempt
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Only this task
    #[arg(long, value_name = "I")]
    task: Option<u32>,
    /// Let all bytes through to the terminal
    #[arg(long)]
    raw: bool,
    /// The job, or the beginning of its id
    #[arg(value_parser = values::id)]
    id: String,
}

pub(super) async fn main(args: LogsArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let mut path = format!("/v1/jobs/{}/logs?follow={}", crate::client::percent_encode(&args.id), args.follow);
    if let Some(attempt) = args.attempt {
        path.push_str(&format!("&attempt={attempt}"));
    }
    if let Some(task) = args.task {
        path.push_str(&format!("&task={task}"));
    }
    // A file that holds the output holds nothing else.
    let announce = std::io::stderr().is_terminal();
    let followed = if args.follow {
        let directory = client.directory().to_owned();
        let client = Client::open(&directory)?;
        follow::follow(&directory, client, &path, args.raw, announce).await?
    } else {
        follow::show(client, &path, args.raw, announce).await?
    };
    Ok(match followed {
        Followed::Ended { .. } | Followed::SoFar => ExitCode::SUCCESS,
        Followed::ReaderGone => ExitCode::from(141),
    })
}
