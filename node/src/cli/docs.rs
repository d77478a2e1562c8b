//! What the CRDTs hold and who wrote it: documents, feeds, notebooks, traces, findings.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use web_gateway::api::{
    ChangeView, DocDetail, DocRow, FeedCheck, FeedView, Finding, NoteEdit, NoteView, Severity, TraceView,
};

use super::output::{self, Colour, ReadArgs, Table, paint, short, shown};
use super::{UsageError, values};
use crate::client::{Client, percent_encode};

/// Most bytes of a notebook's text that are read from stdin or an editor.
const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// The identifier, or its beginning
    #[arg(value_parser = values::id)]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum DocCommand {
    /// List the documents
    List(ReadArgs),
    /// Show a document's registers and who wrote them
    Show(IdArgs),
    /// Show every change of a document
    History(IdArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum FeedCommand {
    /// List the feeds
    List(ReadArgs),
    /// Read every bundle again and check hashes, links and signatures
    Verify(ReadArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum NoteCommand {
    /// Show a notebook's text
    Show(IdArgs),
    /// Edit a notebook: in $EDITOR, or with --text, or from stdin
    #[command(
        after_help = "Examples:\n  v6 note edit 3f2a                       in $VISUAL or $EDITOR\n  v6 note edit 3f2a --text 'seen by Mona'\n  v6 note edit 3f2a < remarks.txt\nWhat others write at the same time survives."
    )]
    Edit(EditArgs),
}

#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// The notebook, or the job or idea that it is about
    #[arg(value_parser = values::id)]
    pub(super) id: String,
    /// The whole text as it shall read
    #[arg(long, allow_hyphen_values = true)]
    text: Option<String>,
    /// Put the text behind what is there
    #[arg(long)]
    append: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn doc(command: DocCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        DocCommand::List(args) => {
            let docs: Vec<DocRow> = client.get("/v1/docs").await?;
            if args.json {
                output::json(&docs)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(&["DOCUMENT", "KIND", "CHANGES", "AUTHORS", "TITLE"]);
            for doc in &docs {
                let title = doc.title.clone().unwrap_or_default();
                table.row(&[&doc.id, &doc.kind, &doc.changes.to_string(), &doc.authors.to_string(), &title]);
            }
            table.print();
        }
        DocCommand::Show(args) => doc_show(&args, client).await?,
        DocCommand::History(args) => {
            let path = format!("/v1/docs/{}/history", percent_encode(&args.id));
            let changes: Vec<ChangeView> = client.get(&path).await?;
            if args.json {
                output::json(&changes)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(&["AT", "AUTHOR", "SEQ", "KEY", "CHANGE"]);
            for change in &changes {
                let what = change.summary.clone().or_else(|| change.value.as_ref().map(ToString::to_string));
                table.row(&[
                    change.at.as_str(),
                    short(&change.author),
                    &change.seq.to_string(),
                    change.key.as_deref().unwrap_or("-"),
                    &what.unwrap_or_else(|| "(its body has been dropped)".to_owned()),
                ]);
            }
            table.print();
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn doc_show(args: &IdArgs, client: &Client) -> anyhow::Result<()> {
    let doc: DocDetail = client.get(&format!("/v1/docs/{}", percent_encode(&args.id))).await?;
    if args.json {
        return output::json(&doc);
    }
    output::say(&format!("{} {}", shown(&doc.kind), shown(&doc.id)));
    if let Some(text) = &doc.text {
        output::say(&output::multiline(text));
    }
    let mut table = Table::new(&["KEY", "AUTHOR", "SEQ", "AT", "VALUE"]);
    for register in &doc.registers {
        let mut value = register.value.to_string();
        if let Some(why) = &register.ignored {
            value = format!("(ignored: {why}) {value}");
        }
        table.row(&[&register.key, short(&register.author), &register.seq.to_string(), &register.at, &value]);
    }
    if !table.is_empty() {
        table.print();
    }
    Ok(())
}

pub(super) async fn feed(command: FeedCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        FeedCommand::List(args) => {
            let feeds: Vec<FeedView> = client.get("/v1/feeds").await?;
            if args.json {
                output::json(&feeds)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(&["AUTHOR", "NAME", "SEQ", "HASH", "STATE"]);
            for feed in &feeds {
                let state = match (&feed.reason, feed.frozen) {
                    (Some(reason), true) => format!("frozen: {reason}"),
                    (None, true) => "frozen".to_owned(),
                    (_, false) => String::new(),
                };
                let name = feed.name.as_deref().unwrap_or("");
                table.row(&[&feed.author, name, &feed.seq.to_string(), short(&feed.hash), &state]);
            }
            table.print();
            Ok(ExitCode::SUCCESS)
        }
        FeedCommand::Verify(args) => {
            let check: FeedCheck = client.get("/v1/feeds/verify").await?;
            if args.json {
                output::json(&check)?;
            } else {
                let mut table = Table::new(&["AUTHOR", "BUNDLES", "RESULT"]);
                for feed in &check.feeds {
                    let result = match (&feed.problem, feed.ok) {
                        (Some(problem), _) => problem.as_str(),
                        (None, true) => "whole",
                        (None, false) => "damaged",
                    };
                    table.row(&[feed.author.as_str(), &feed.bundles.to_string(), result]);
                }
                table.print();
            }
            Ok(if check.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

pub(super) async fn note(command: NoteCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        NoteCommand::Show(args) => {
            let note: NoteView = client.get(&note_path(&args.id)).await?;
            if args.json {
                output::json(&note)?;
            } else if std::io::stdout().is_terminal() {
                output::say(&output::multiline(&note.text));
            } else {
                output::emit(note.text.as_bytes());
            }
        }
        NoteCommand::Edit(args) => {
            let path = note_path(&args.id);
            note_edit(args, &path, client).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn note_path(id: &str) -> String {
    format!("/v1/notes/{}", percent_encode(id))
}

pub(super) async fn note_edit(args: EditArgs, path: &str, client: &Client) -> anyhow::Result<()> {
    let before: NoteView = client.get(path).await?;
    let given = match &args.text {
        Some(text) => Some(text.clone()),
        None if std::io::stdin().is_terminal() => None,
        // An editor that is named and an empty input: a script that means the editor.
        None => Some(read_text(std::io::stdin().lock())?).filter(|text| !text.is_empty()),
    };
    if given.is_none() && !std::io::stdin().is_terminal() && editor_named().is_none() {
        return Err(UsageError("nothing came on stdin: pipe the text in, use --text, or set EDITOR".to_owned()).into());
    }
    let text = match given {
        Some(text) if args.append => format!("{}{text}", before.text),
        Some(text) => text,
        None => in_editor(&before.text)?,
    };
    if text == before.text {
        output::complain("the text is as it was: nothing was changed");
        return if args.json { output::json(&before) } else { Ok(()) };
    }
    let edit = NoteEdit { text, base: Some(before.heads) };
    let after: NoteView = client.send_json(Method::PUT, path, &edit).await?;
    if args.json {
        return output::json(&after);
    }
    let on = after.durable_on.map(|nodes| format!(", on {nodes} nodes by now")).unwrap_or_default();
    output::say(&format!("saved{on}"));
    Ok(())
}

fn read_text(from: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text).context("the text is not UTF-8")?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(UsageError(format!("the text has more than {TEXT_BYTES_MAX} bytes")).into());
    }
    Ok(text)
}

fn editor_named() -> Option<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    named("VISUAL").or_else(|| named("EDITOR"))
}

/// Opens the text in the user's editor, in a file that only he can read.
pub(super) fn in_editor(text: &str) -> anyhow::Result<String> {
    let fallback = if cfg!(windows) { "notepad" } else { "vi" };
    let editor = editor_named().unwrap_or_else(|| fallback.to_owned());
    let file = tempfile::Builder::new().prefix("v6-note-").suffix(".md").tempfile()?;
    std::fs::write(file.path(), text)?;
    let path: PathBuf = file.path().to_owned();
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or(fallback);
    let status = std::process::Command::new(program)
        .args(words)
        .arg(&path)
        .status()
        .with_context(|| format!("the editor {editor:?} cannot be started: set EDITOR, or use --text"))?;
    anyhow::ensure!(status.success(), "the editor {editor:?} ended with {status}: nothing was changed");
    read_text(std::fs::File::open(&path)?)
}

pub(super) async fn trace(args: IdArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let trace: TraceView = client.get(&format!("/v1/traces/{}", percent_encode(&args.id))).await?;
    if args.json {
        output::json(&trace)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["AT", "NODE", "JOB", "TASK", "ATTEMPT", "WHAT", "DETAIL"]);
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    for step in &trace.steps {
        table.row(&[
            step.at.clone(),
            short(&step.node).to_owned(),
            short(&step.job).to_owned(),
            number(step.task),
            number(step.attempt),
            step.what.clone(),
            step.detail.clone().unwrap_or_default(),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn doctor(args: ReadArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let findings: Vec<Finding> = client.get("/v1/doctor").await?;
    let broken = findings.iter().any(|finding| finding.severity == Severity::Error);
    if args.json {
        output::json(&findings)?;
    } else if findings.is_empty() {
        output::say("all is well");
    }
    for finding in findings.iter().filter(|_| !args.json) {
        let (colour, word) = match finding.severity {
            Severity::Error => (Colour::Red, "error"),
            Severity::Warning => (Colour::Yellow, "warning"),
            Severity::Info => (Colour::Dim, "note"),
        };
        output::say(&format!("{} {}: {}", paint(colour, word), shown(&finding.check), shown(&finding.problem)));
        output::say(&format!("  mend: {}", shown(&finding.mend)));
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        assert!(read_text(std::io::repeat(b'a')).is_err());
        assert_eq!(read_text(&b"abc"[..]).expect("short"), "abc");
    }
}
