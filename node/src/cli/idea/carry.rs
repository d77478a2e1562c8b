//! The ledger as a file: verify, export, import.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use hyper::Method;
use serde_json::json;
use tempfile::NamedTempFile;
use web_gateway::api::{IdeaAdded, IdeaRequest, IdeasImport, IdeasImported};

use super::intake::{self, Format};
use crate::cli::output;
use crate::cli::status_line::StatusLine;
use crate::client::Client;
use crate::ledger::file::{self, Bad, Checked};

/// Entries that are sent together, and their bytes.
const ENTRIES_PER_REQUEST: usize = 1_000;
const BYTES_PER_REQUEST: usize = 4 << 20;
/// Entries after which the status line says how many there were.
const TELL_EVERY: u64 = 500;
/// Faults that are told one by one without --json.
const TOLD_MAX: usize = 50;

/// Check every entry's name and signature, and where its links lead.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// An exported file [default: what the node holds]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write the ledger to a file: every entry with its signature, one per line.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// The file [default: stdout]
    file: Option<PathBuf>,
}

/// Read a ledger from a file that `v6 idea export` wrote: all of it or nothing. Or ideas from another program's file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 idea import ledger.jsonl\n  v6 idea import notes.md --format markdown          tells what would be added\n  v6 idea import notes.md --format markdown --yes    adds it; again, it adds only what is new"
)]
pub(in crate::cli) struct ImportArgs {
    /// The file; `-` is stdin
    file: PathBuf,
    /// What the file is
    #[arg(long, value_enum, default_value = "ledger")]
    format: Format,
    /// Add what another program's file holds; without it that is only told
    #[arg(long)]
    yes: bool,
    /// Leave bad entries out and take the others
    #[arg(long)]
    skip_bad: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Brings the node's ledger into a file that goes when it is dropped.
async fn fetch(client: &Client) -> anyhow::Result<NamedTempFile> {
    let mut fetched = NamedTempFile::new().context("there is no room for the ledger")?;
    let mut pieces = client.stream("/v1/ideas/export").await?;
    while let Some(piece) = pieces.next().await {
        fetched.write_all(&piece?).context("there is no room for the ledger")?;
    }
    Ok(fetched)
}

/// Checks a file; `each` gets the good entries.
fn check(
    path: &Path,
    what: &str,
    each: impl FnMut(crdt::ledger::Signed) -> anyhow::Result<()>,
) -> anyhow::Result<Checked> {
    let reader = BufReader::new(File::open(path).with_context(|| format!("{} cannot be read", path.display()))?);
    let mut status = StatusLine::new();
    let (all, mut each, mut done) = (std::cell::Cell::new(0), each, 0);
    let started = |head: &file::Head| all.set(head.entries);
    let checked = file::check(reader, started, |signed| {
        done += 1;
        if done % TELL_EVERY == 0 {
            status.show(&format!("{what} {done} of {} entries", all.get().max(done)));
        }
        each(signed)
    });
    checked.with_context(|| format!("{}", path.display()))
}

fn tell(bad: &[Bad]) {
    for one in bad.iter().take(TOLD_MAX) {
        output::complain(&output::shown(&one.to_string()));
    }
    if bad.len() > TOLD_MAX {
        output::complain(&format!("and {} more", bad.len() - TOLD_MAX));
    }
}

fn bad_json(bad: &[Bad]) -> Vec<serde_json::Value> {
    bad.iter().map(|one| json!({ "line": one.line, "id": one.id, "reason": one.reason })).collect()
}

pub(super) async fn verify(args: VerifyArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let fetched = if args.file.is_none() { Some(fetch(client).await?) } else { None };
    let path = args.file.or_else(|| fetched.as_ref().map(|file| file.path().to_owned())).unwrap_or_default();
    let checked = tokio::task::spawn_blocking(move || check(&path, "checked", |_| Ok(()))).await??;
    let ok = checked.bad.is_empty();
    if args.json {
        let Checked { entries, subjects, links, bad } = &checked;
        output::json(
            &json!({ "ok": ok, "entries": entries, "subjects": subjects, "links": links, "bad": bad_json(bad) }),
        )?;
    } else if ok {
        output::say(&format!("{} entries and {} links are as they were signed", checked.entries, checked.links));
    }
    tell(&checked.bad);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) async fn export(args: ExportArgs, client: &Client) -> anyhow::Result<()> {
    let Some(path) = args.file else {
        let mut pieces = client.stream("/v1/ideas/export").await?;
        while let Some(piece) = pieces.next().await {
            output::emit(&piece?);
        }
        return Ok(());
    };
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || format!("{} cannot be written", path.display());
    // Whole, or not at all.
    let mut fresh = NamedTempFile::new_in(beside).with_context(written)?;
    let mut pieces = client.stream("/v1/ideas/export").await?;
    {
        let mut out = BufWriter::new(&mut fresh);
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece?).with_context(written)?;
        }
        out.flush().with_context(written)?;
    }
    fresh.as_file().sync_all().with_context(written)?;
    let temporary = fresh.path().to_owned();
    let checked = tokio::task::spawn_blocking(move || check(&temporary, "checked", |_| Ok(()))).await??;
    fresh.persist(&path).with_context(written)?;
    output::complain(&format!("{} entries are in {}", checked.entries, path.display()));
    Ok(())
}

/// What became of the ideas of another program's file.
#[derive(Default)]
struct Taken {
    new: u64,
    known: u64,
    bad: Vec<Bad>,
}

/// Adds ideas, or with `dry_run` asks what would be added.
async fn add_each(ideas: &[IdeaRequest], dry_run: bool, tells: bool, client: &Client) -> Taken {
    let (mut taken, mut status) = (Taken::default(), StatusLine::new());
    let doing = if dry_run { "checked" } else { "added" };
    for (at, idea) in ideas.iter().enumerate() {
        status.show(&format!("{doing} {at} of {} ideas", ideas.len()));
        let request = IdeaRequest { dry_run, ..idea.clone() };
        let answer: Result<IdeaAdded, _> = client.send_json(Method::POST, "/v1/ideas", &request).await;
        match answer {
            Ok(answer) if answer.known => taken.known += 1,
            Ok(answer) => {
                taken.new += 1;
                if tells {
                    let like = answer.similar.first();
                    let like = like.map(|like| format!("  (like {} {})", output::short(&like.id), like.title));
                    output::say(&output::shown(&format!("+ {}{}", idea.title, like.unwrap_or_default())));
                }
            }
            Err(error) => {
                let line = u64::from(idea.line.unwrap_or(0));
                taken.bad.push(Bad { line, id: None, reason: format!("{:?}: {error}", idea.title) });
            }
        }
    }
    taken
}

/// Adds the ideas of another program's file, or tells what would be added.
async fn take_in(args: ImportArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let (path, format) = (args.file.clone(), args.format);
    let ideas = tokio::task::spawn_blocking(move || intake::read(&path, format)).await??;
    // All of it is checked first: where something is bad nothing is added.
    let checked = add_each(&ideas, true, !args.json, client).await;
    let is_good = checked.bad.is_empty() || args.skip_bad;
    let is_done = args.yes && is_good;
    let taken = if is_done { add_each(&ideas, false, false, client).await } else { checked };
    tell(&taken.bad);
    let Taken { new, known, bad } = taken;
    if args.json {
        let added = if is_done { new } else { 0 };
        output::json(&json!({ "added": added, "new": new, "known": known, "bad": bad_json(&bad) }))?;
    } else if is_done {
        output::say(&format!("{new} ideas were added, {known} were here already"));
    } else if is_good {
        output::say(&format!("{new} ideas would be added, {known} are here already: add them with --yes"));
    } else {
        output::complain("nothing was added: leave out what is bad with --skip-bad");
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) async fn import(args: ImportArgs, client: &Client) -> anyhow::Result<ExitCode> {
    if args.format != Format::Ledger {
        return take_in(args, client).await;
    }
    let mut copy = None;
    let path = if args.file.as_os_str() == "-" {
        let mut file = NamedTempFile::new().context("there is no room for the file")?;
        std::io::copy(&mut std::io::stdin().lock(), &mut file).context("stdin cannot be read")?;
        copy.insert(file).path().to_owned()
    } else {
        args.file
    };
    // First all of it is checked, then it is sent: a bad file changes nothing.
    let first = path.clone();
    let checked = tokio::task::spawn_blocking(move || check(&first, "checked", |_| Ok(()))).await??;
    tell(&checked.bad);
    if !checked.bad.is_empty() && !args.skip_bad {
        let these = if checked.bad.len() == 1 { "this is" } else { "these are" };
        output::complain(&format!("nothing was taken: leave out what {these} with --skip-bad"));
        if args.json {
            output::json(&json!({ "added": 0, "known": 0, "bad": bad_json(&checked.bad) }))?;
        }
        return Ok(ExitCode::FAILURE);
    }
    let left_out: Vec<String> = checked.bad.iter().filter_map(|bad| bad.id.clone()).collect();
    let (send, mut batches) = tokio::sync::mpsc::channel::<Vec<String>>(2);
    let reading = tokio::task::spawn_blocking(move || {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        check(&path, "sent", |signed| {
            let orphaned = signed.says.about.is_some_and(|about| left_out.contains(&about.to_string()));
            if orphaned || left_out.contains(&signed.id.to_string()) {
                return Ok(());
            }
            let text = file::encode(&signed);
            bytes += text.len();
            batch.push(text);
            if batch.len() >= ENTRIES_PER_REQUEST || bytes >= BYTES_PER_REQUEST {
                bytes = 0;
                send.blocking_send(std::mem::take(&mut batch)).context("the node took no more")?;
            }
            Ok(())
        })?;
        if !batch.is_empty() {
            send.blocking_send(batch).context("the node took no more")?;
        }
        anyhow::Ok(())
    });
    let mut all = IdeasImported::default();
    while let Some(entries) = batches.recv().await {
        let done: IdeasImported = client.send_json(Method::POST, "/v1/ideas/import", &IdeasImport { entries }).await?;
        all.added += done.added;
        all.known += done.known;
        all.durable_on = done.durable_on;
    }
    reading.await??;
    drop(copy);
    if args.json {
        output::json(
            &json!({ "added": all.added, "known": all.known, "durable_on": all.durable_on, "bad": bad_json(&checked.bad) }),
        )?;
    } else {
        output::say(&format!("{} entries came in, {} were here already", all.added, all.known));
    }
    Ok(ExitCode::SUCCESS)
}
