//! `v6 blob`: what this node holds, by hash.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use crdt::ids::BlobHash;
use hyper::Method;
use web_gateway::api::{BlobAdded, BlobRow, GcReport};

use super::output::{self, ReadArgs, Table, size};
use super::{UsageError, get};
use crate::client::{Client, upload};

#[derive(Debug, Subcommand)]
pub(super) enum BlobCommand {
    /// List the blobs held here
    List(ReadArgs),
    /// Store files as blobs
    Add(AddArgs),
    /// Fetch a blob, from here or from who holds it
    Get(BlobGetArgs),
    /// Drop blobs that nothing needs
    Gc(ReadArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct BlobGetArgs {
    /// Hash of the blob
    hash: String,
    /// Where to write it [default: stdout]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn main(command: BlobCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        BlobCommand::List(args) => list(args, client).await?,
        BlobCommand::Add(args) => add(args, client).await?,
        BlobCommand::Get(args) => fetch(args, client).await?,
        BlobCommand::Gc(args) => {
            let body = client.call(Method::POST, "/v1/blobs/gc", Bytes::new()).await?;
            let report: GcReport = serde_json::from_slice(&body)?;
            if args.json {
                output::json(&report)?;
            } else {
                let (dropped, freed) = (report.blobs_dropped, size(report.bytes_freed));
                output::say(&format!("dropped {dropped} blobs, freed {freed}, {} held", size(report.bytes_held)));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: ReadArgs, client: &Client) -> anyhow::Result<()> {
    let blobs: Vec<BlobRow> = client.get_pages("/v1/blobs", None).await?;
    if args.json {
        return output::json(&blobs);
    }
    let mut table = Table::new(&["BLOB", "SIZE", "PINNED BY"]);
    for blob in &blobs {
        table.row(&[&blob.blob, &size(blob.size), &blob.pinned_by.join(", ")]);
    }
    table.print();
    Ok(())
}

async fn add(args: AddArgs, client: &Client) -> anyhow::Result<()> {
    let mut added = Vec::new();
    for path in &args.files {
        let file = upload::hash_file(path).with_context(|| format!("cannot read {}", path.display()))?;
        upload::send_file(client, &file).await?;
        added.push(BlobAdded { blob: file.hash.to_string(), size: file.size });
    }
    if args.json {
        return match added.as_slice() {
            [only] => output::json(only),
            several => output::json(&several),
        };
    }
    for (blob, path) in added.iter().zip(&args.files) {
        output::say(&format!("{}  {}", blob.blob, output::shown(&path.display().to_string())));
    }
    Ok(())
}

async fn fetch(args: BlobGetArgs, client: &Client) -> anyhow::Result<()> {
    let hash: BlobHash =
        args.hash.parse().map_err(|error| UsageError(format!("{:?} is not the hash of a blob: {error}", args.hash)))?;
    match args.file {
        Some(path) => get::write_file(client, &hash, &path, false).await.map(|_| ()),
        None => get::copy(client, &hash, |bytes| {
            output::emit(bytes);
            Ok(())
        })
        .await
        .map(|_| ()),
    }
}
