//! How the mirrors of a gateway stand, whether they hold what the mesh holds, and filling them again.

use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use serde::de::DeserializeOwned;
use web_gateway::api::{MirrorCheck, MirrorView};

use super::output::{self, Table};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum MirrorCommand {
    /// Show how the mirrors stand
    Status(MirrorArgs),
    /// Compare mirrors with the mesh; exit code 1 names what differs
    Verify(MirrorArgs),
    /// Drop what mirrors hold and fill them again
    Rebuild(MirrorArgs),
}

#[derive(Debug, Args)]
pub(super) struct MirrorArgs {
    /// postgres; without it all that this gateway has
    kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn main(command: MirrorCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        MirrorCommand::Status(args) => status(&args, client).await,
        MirrorCommand::Verify(args) => verify(&args, client).await,
        MirrorCommand::Rebuild(args) => {
            let views: Vec<MirrorView> = each(&args, client, "rebuild").await?;
            if args.json {
                output::json(&views)?;
            } else {
                for view in views {
                    output::say(&format!("{} is filled again; see `v6 mirror status`", view.kind));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn status(args: &MirrorArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let mut views: Vec<MirrorView> = client.get("/v1/mirrors").await?;
    views.retain(|view| args.kind.as_ref().is_none_or(|kind| *kind == view.kind));
    if args.json {
        output::json(&views)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["MIRROR", "BEHIND", "BUNDLES TO COME", "PROBLEM"]);
    for view in &views {
        let behind = output::span(view.lag_ms);
        table.row(&[
            &view.kind,
            &behind,
            &view.pending.to_string(),
            &view.error.as_deref().map_or_else(String::new, output::shown),
        ]);
    }
    if table.is_empty() {
        output::say("this node has no mirrors: `v6 gateway --postgres URL` has one");
    } else {
        table.print();
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(args: &MirrorArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let checks: Vec<MirrorCheck> = each(args, client, "verify").await?;
    if args.json {
        output::json(&checks)?;
    }
    for check in &checks {
        if !args.json {
            let word = if check.ok { "holds what the mesh holds" } else { "differs" };
            output::say(&format!("{} {word}: {} jobs and {} ideas compared", check.kind, check.jobs, check.ideas));
        }
        for difference in &check.differences {
            output::complain(difference);
        }
    }
    Ok(if checks.iter().all(|check| check.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The named mirror, or all of them, one after the other.
async fn each<T: DeserializeOwned>(args: &MirrorArgs, client: &Client, what: &str) -> anyhow::Result<Vec<T>> {
    let kinds = match &args.kind {
        Some(kind) => vec![kind.clone()],
        None => client.get::<Vec<MirrorView>>("/v1/mirrors").await?.into_iter().map(|view| view.kind).collect(),
    };
    anyhow::ensure!(!kinds.is_empty(), "this node has no mirrors: `v6 gateway --postgres URL` has one");
    let mut answers = Vec::new();
    for kind in kinds {
        let path = format!("/v1/mirrors/{}/{what}", crate::client::percent_encode(&kind));
        answers.push(serde_json::from_slice(&client.call(Method::POST, &path, Bytes::new()).await?)?);
    }
    Ok(answers)
}
