//! The idea ledger: add, list, show.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use web_gateway::api::{IdeaAdded, IdeaRequest, IdeaRow, IdeaView};

use super::UsageError;
use super::output::{self, Table, ago, short, shown};
use crate::client::{Client, percent_encode};

const ROWS_DEFAULT: usize = 50;
/// Most bytes of a body that are read from stdin; the ledger takes less and says how much.
const BODY_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum IdeaCommand {
    /// Add an idea: it is kept for ever
    Add(AddArgs),
    /// List ideas, oldest first
    List(ListArgs),
    /// Show an idea and what was said about it
    Show {
        /// The idea, or the beginning of its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Search ideas
    Search {
        /// Words
        words: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Link two ideas
    Link {
        /// From
        from: String,
        /// To
        to: String,
    },
    /// Hand an idea to another person
    Transfer {
        /// The idea
        id: String,
        /// The person
        person: String,
    },
    /// Check the ledger
    Verify {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the ledger to a file
    Export {
        /// The file [default: stdout]
        file: Option<PathBuf>,
    },
    /// Read a ledger from a file
    Import {
        /// The file
        file: PathBuf,
        /// Leave bad entries out
        #[arg(long)]
        skip_bad: bool,
    },
}

impl IdeaCommand {
    /// The name of what is part of the contract and not built yet.
    pub(super) fn unbuilt(&self) -> Option<&'static str> {
        match self {
            Self::Add(_) | Self::List(_) | Self::Show { .. } => None,
            Self::Search { .. } => Some("v6 idea search"),
            Self::Link { .. } => Some("v6 idea link"),
            Self::Transfer { .. } => Some("v6 idea transfer"),
            Self::Verify { .. } => Some("v6 idea verify"),
            Self::Export { .. } => Some("v6 idea export"),
            Self::Import { .. } => Some("v6 idea import"),
        }
    }
}

/// Add an idea: it is kept for ever.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 idea add 'Cache the toolchains'\n  v6 idea add 'ترجمة لوحة التحكم' --language ar --tag ui\n  v6 idea add 'The nightly run is slow' --kind observation --body - < measurements.md"
)]
pub(super) struct AddArgs {
    /// Its title: one line
    title: String,
    /// Its text; `-` reads it from stdin
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// idea, observation or issue
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Its language, such as ar or en
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    /// A word to find it by (may be repeated)
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List ideas, oldest first.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Retracted ones too
    #[arg(long)]
    all: bool,
    /// Most rows [default: 50; with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn main(command: IdeaCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        IdeaCommand::Add(args) => add(args, client).await?,
        IdeaCommand::List(args) => list(&args, client).await?,
        IdeaCommand::Show { id, json } => show(&id, json, client).await?,
        other => return Err(UsageError(format!("{other:?} asks no node")).into()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: AddArgs, client: &Client) -> anyhow::Result<()> {
    let body = match args.body {
        Some(body) if body == "-" => {
            let mut text = String::new();
            std::io::stdin().take(BODY_BYTES_MAX).read_to_string(&mut text).context("the text is not UTF-8")?;
            text
        }
        body => body.unwrap_or_default(),
    };
    let request = IdeaRequest { title: args.title, body, kind: args.kind, language: args.language, tags: args.tags };
    let added: IdeaAdded = client.send_json(Method::POST, "/v1/ideas", &request).await?;
    if args.json {
        return output::json(&added);
    }
    output::say(&added.id);
    for similar in &added.similar {
        output::complain(&format!("like {} ({:.0} %)", short(&similar.id), similar.score * 100.0));
    }
    Ok(())
}

async fn list(args: &ListArgs, client: &Client) -> anyhow::Result<()> {
    let path = if args.all { "/v1/ideas?all=true" } else { "/v1/ideas" };
    if args.json {
        let rows: Vec<serde_json::Value> = client.get_pages(path, args.limit).await?;
        return output::json(&rows);
    }
    let limit = args.limit.unwrap_or(ROWS_DEFAULT);
    let mut rows: Vec<IdeaRow> = client.get_pages(path, Some(limit.saturating_add(1))).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    if rows.is_empty() {
        output::say("no ideas: add one with `v6 idea add TITLE`");
        return Ok(());
    }
    let mut table = Table::new(&["IDEA", "KIND", "STATUS", "AGE", "TITLE"]);
    for row in &rows {
        table.row(&[short(&row.id), &row.kind, &row.status, &ago(&row.created), &row.title]);
    }
    table.print();
    if more {
        output::say(&format!("… and more: --limit {}", limit * 2));
    }
    Ok(())
}

async fn show(id: &str, json: bool, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/ideas/{}", percent_encode(id));
    if json {
        let view: serde_json::Value = client.get(&path).await?;
        return output::json(&view);
    }
    let view: IdeaView = client.get(&path).await?;
    let row = &view.row;
    output::say(&shown(&row.title));
    output::say(&format!("{}     {}, {}", shown(&row.kind), row.id, shown(&row.status)));
    output::say(&format!("author   {} (person {}), {}", short(&row.author), short(&row.person), ago(&row.created)));
    if row.owner != row.person {
        output::say(&format!("owner    person {}", short(&row.owner)));
    }
    if !view.tags.is_empty() {
        output::say(&format!("tags     {}", view.tags.iter().map(|tag| shown(tag)).collect::<Vec<_>>().join(", ")));
    }
    if !view.body.is_empty() {
        output::say("");
        output::say(&output::multiline(&view.body));
    }
    for entry in &view.about {
        output::say("");
        output::say(&format!(
            "{} {} by {}, {}",
            shown(&entry.kind),
            short(&entry.id),
            short(&entry.author),
            ago(&entry.created)
        ));
        if !entry.title.is_empty() {
            output::say(&shown(&entry.title));
        }
        if !entry.body.is_empty() {
            output::say(&output::multiline(&entry.body));
        }
    }
    Ok(())
}
