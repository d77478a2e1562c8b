//! The idea ledger: add, list, show, find; what is said about ideas and how they travel is beside it.

mod carry;
mod graph;
mod intake;
mod provenance;
mod say;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use hyper::Method;
use web_gateway::api::{
    EntryView, IdeaAdded, IdeaFound, IdeaRanked, IdeaRequest, IdeaRow, IdeaView, LinkView, NoteView, OutcomeView,
};

use super::UsageError;
use super::output::{self, Table, ago, short, shown, span};
use crate::client::{Client, percent_encode};

const ROWS_DEFAULT: usize = 50;
const FOUND: usize = 20;
/// What stands in the editor at first.
const ADD_TEMPLATE: &str =
    "\n\n<!-- The first line is the title; below it, after an empty line, the text. An empty title adds nothing. -->\n";
/// Jobs that are shown of an idea.
const JOBS_SHOWN: usize = 20;
const FOUND_JSON: usize = 1_000;
/// Most bytes of a body that are read from stdin; the ledger takes less and says how much.
const BODY_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum IdeaCommand {
    /// Add an idea: it is kept for ever
    Add(AddArgs),
    /// List ideas, oldest first
    List(ListArgs),
    /// Show an idea, what was said about it, and what it is linked to
    Show {
        /// The idea, or the beginning of its id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Find ideas by their words, in any spelling
    Search(SearchArgs),
    /// List the ideas that are worth most
    Top(TopArgs),
    /// Link an idea to another, to a job or to a blob
    Link(say::LinkArgs),
    /// Say what speaks for an idea, or against it
    Argue(say::ArgueArgs),
    /// Add what was seen to an idea
    Observe(say::ObserveArgs),
    /// Say what an idea would be worth and cost
    Evaluate(say::EvaluateArgs),
    /// Vote for an idea, or against it
    Vote(say::VoteArgs),
    /// Decide what becomes of an idea
    Decide(say::DecideArgs),
    /// Hand an idea to another person, or take one that is offered
    Transfer(say::TransferArgs),
    /// Take an idea back, or what you said about it: it is hidden, and stays
    Retract(say::RetractArgs),
    /// Write the text of an idea together: in $EDITOR, or with --text, or from stdin
    #[command(
        after_help = "Examples:\n  v6 idea edit 3f2a                       in $VISUAL or $EDITOR\n  v6 idea edit 3f2a --append --text 'seen by Mona'\nWhat others write at the same time, or write offline, survives; `v6 doc history note/ID` shows who wrote what."
    )]
    Edit(super::docs::EditArgs),
    /// Write how ideas hang together, as DOT, JSON or SVG
    Graph(graph::GraphArgs),
    /// Write where an idea comes from and what came of it: PROV-O as JSON-LD
    Provenance(provenance::ProvenanceArgs),
    /// Check every entry's name and signature, and where its links lead
    Verify(carry::VerifyArgs),
    /// Write the ledger to a file
    Export(carry::ExportArgs),
    /// Read a ledger from a file
    Import(carry::ImportArgs),
}

/// Find ideas by their words, in any spelling.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 idea search toolchain cache\n  v6 idea search '\"night run\"' --without backup --kind issue\n  v6 idea search --tag ui --since 2026-01-01T00:00:00Z"
)]
pub(super) struct SearchArgs {
    /// Words, all of which are wanted; "in quotes" in this order
    words: Vec<String>,
    /// A word that is not to be there (may be repeated)
    #[arg(long, value_name = "WORD")]
    without: Vec<String>,
    /// Only idea, observation or issue
    #[arg(long)]
    kind: Option<String>,
    /// Only what is open, accepted, rejected, deferred, done or retracted
    #[arg(long)]
    status: Option<String>,
    /// Only this person's: the whole id
    #[arg(long, value_name = "PERSON")]
    owner: Option<String>,
    /// Only with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only in this language
    #[arg(long)]
    language: Option<String>,
    /// Only what was written then or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was written then or before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those that a job serves
    #[arg(long)]
    has_job: bool,
    /// Retracted ones too
    #[arg(long)]
    all: bool,
    /// Most rows [default: 20; with --json 1000]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the ideas that are worth most.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Most rows
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Show what each rank is made of
    #[arg(long)]
    explain: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Add an idea: it is kept for ever.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 idea add 'Cache the toolchains'\n  v6 idea add 'ترجمة لوحة التحكم' --language ar --tag ui\n  v6 idea add 'The nightly run is slow' --kind observation --body - < measurements.md\n  v6 idea add 'Build of main fails' --join --program scout    from a script: once, and each time that it is seen"
)]
pub(super) struct AddArgs {
    /// Its title: one line; `-` reads title and text from stdin; without it $EDITOR opens
    title: Option<String>,
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
    /// Address that it comes from
    #[arg(long)]
    url: Option<String>,
    /// Name under which it is added once, however often this runs
    #[arg(long)]
    key: Option<String>,
    /// If it is there already, add to it that it was seen again
    #[arg(long)]
    join: bool,
    /// Sign it as this program, with a key and a delegation of its own
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List ideas, oldest first.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Retracted ones and observations of commands too
    #[arg(long)]
    all: bool,
    /// Observations of commands too, which jobs serve that name no idea
    #[arg(long)]
    commands: bool,
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
        IdeaCommand::Search(args) => search(&args, client).await?,
        IdeaCommand::Top(args) => top(&args, client).await?,
        IdeaCommand::Link(args) => say::link(args, client).await?,
        IdeaCommand::Argue(args) => say::argue(args, client).await?,
        IdeaCommand::Observe(args) => say::observe(args, client).await?,
        IdeaCommand::Evaluate(args) => say::evaluate(args, client).await?,
        IdeaCommand::Vote(args) => say::vote(args, client).await?,
        IdeaCommand::Decide(args) => say::decide(args, client).await?,
        IdeaCommand::Transfer(args) => say::transfer(args, client).await?,
        IdeaCommand::Retract(args) => say::retract(args, client).await?,
        IdeaCommand::Edit(args) => {
            let path = super::docs::note_path(&format!("idea:{}", args.id));
            super::docs::note_edit(args, &path, client).await?;
        }
        IdeaCommand::Graph(args) => graph::graph(args, client).await?,
        IdeaCommand::Provenance(args) => provenance::provenance(args, client).await?,
        IdeaCommand::Verify(args) => return carry::verify(args, client).await,
        IdeaCommand::Export(args) => carry::export(args, client).await?,
        IdeaCommand::Import(args) => return carry::import(args, client).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(args: AddArgs, client: &Client) -> anyhow::Result<()> {
    let is_dash = |text: &Option<String>| text.as_deref() == Some("-");
    if is_dash(&args.title) && is_dash(&args.body) {
        return Err(UsageError("stdin is either title and text (`v6 idea add -`) or the text alone".into()).into());
    }
    let (title, body) = match args.title {
        Some(title) if title == "-" => titled(&stdin()?),
        Some(title) if is_dash(&args.body) => (title, stdin()?),
        Some(title) => (title, args.body.unwrap_or_default()),
        None if std::io::stdin().is_terminal() => titled(&super::docs::in_editor(ADD_TEMPLATE)?),
        None => {
            let says = "an idea has a title: `v6 idea add TITLE`, or `v6 idea add -` to read it from stdin";
            return Err(UsageError(says.into()).into());
        }
    };
    let request = IdeaRequest {
        title,
        body,
        kind: args.kind,
        language: args.language,
        tags: args.tags,
        url: args.url,
        key: args.key,
        join: args.join,
        program: args.program,
        ..IdeaRequest::default()
    };
    let added: IdeaAdded = client.send_json(Method::POST, "/v1/ideas", &request).await?;
    if args.json {
        return output::json(&added);
    }
    output::say(&added.id);
    for similar in &added.similar {
        let how = if similar.method == "exact" { "says the same as" } else { "is like" };
        output::complain(&format!(
            "it {how} {} {} ({:.0} %)",
            short(&similar.id),
            shown(&similar.title),
            similar.score * 100.0
        ));
    }
    Ok(())
}

fn stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(BODY_BYTES_MAX).read_to_string(&mut text).context("the text is not UTF-8")?;
    Ok(text)
}

/// The first line is the title, what follows after it the text; comments of the template are left out.
fn titled(text: &str) -> (String, String) {
    let text = text.replace(ADD_TEMPLATE, "");
    let (title, body) = text.trim_start().split_once('\n').unwrap_or((text.trim_start(), ""));
    (title.trim().trim_start_matches("# ").to_owned(), body.trim().to_owned())
}

async fn list(args: &ListArgs, client: &Client) -> anyhow::Result<()> {
    let path = match (args.all, args.commands) {
        (true, _) => "/v1/ideas?all=true",
        (false, true) => "/v1/ideas?commands=true",
        (false, false) => "/v1/ideas",
    };
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
    let program = view.program.as_ref().map(|name| format!(", program {}", shown(name))).unwrap_or_default();
    output::say(&format!(
        "author   {} (person {}{program}), {}",
        short(&row.author),
        short(&row.person),
        ago(&row.created)
    ));
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
    if view.has_note {
        let note: NoteView = client.get(&super::docs::note_path(&format!("idea:{}", row.id))).await?;
        output::say("\nwritten together (`v6 idea edit`):");
        output::say(&output::multiline(&note.text));
    }
    for handover in view.handovers.iter().chain(&view.offers) {
        let how = if handover.acceptance.is_some() { "came to" } else { "is offered to" };
        output::say(&format!("handed   from {} it {how} {}", short(&handover.from), short(&handover.to)));
    }
    for handover in &view.forestalled {
        output::say(&format!("handed   to {} too late: it had gone to another", short(&handover.to)));
    }
    for line in neighbours(&view) {
        output::say(&line);
    }
    let hidden = view.about.iter().filter(|entry| entry.retracted).count();
    let says_more =
        |entry: &&EntryView| !entry.retracted && !matches!(entry.kind.as_str(), "link" | "transfer" | "retraction");
    for entry in view.about.iter().filter(says_more) {
        output::say("");
        let detail = detail(entry);
        let program = entry.program.as_ref().map(|name| format!(" ({})", shown(name))).unwrap_or_default();
        output::say(&format!(
            "{}{detail} {} by {}{program}, {}",
            shown(&entry.kind),
            short(&entry.id),
            short(&entry.person),
            ago(&entry.created)
        ));
        if !entry.title.is_empty() {
            output::say(&shown(&entry.title));
        }
        if !entry.body.is_empty() {
            output::say(&output::multiline(&entry.body));
        }
    }
    for line in served(&view) {
        output::say(&line);
    }
    if hidden > 0 {
        output::say(&format!("\n{hidden} taken back (`--json` shows them)"));
    }
    Ok(())
}

/// The jobs that serve an idea, with what came of them; of many, the last.
fn served(view: &IdeaView) -> Vec<String> {
    let over: BTreeSet<&str> = view.outcomes.iter().map(|outcome| outcome.job.as_str()).collect();
    let open = view.jobs.iter().filter(|job| !over.contains(job.as_str()));
    let of_open = open.map(|job| vec![format!("job {}  not over yet", short(job))]);
    let of_outcome = |outcome: &OutcomeView| {
        let exit = outcome.exit.map(|code| format!(", exit {code}")).unwrap_or_default();
        let tasks =
            if outcome.tasks > 1 { format!(", {} of {} tasks", outcome.done, outcome.tasks) } else { String::new() };
        let head = format!(
            "job {}  {}{exit}{tasks}, ran {}, {}",
            short(&outcome.job),
            shown(&outcome.state),
            span(outcome.duration_ms),
            ago(&outcome.created)
        );
        let files = outcome.artifacts.iter().map(|file| format!("    {}  {} bytes", shown(&file.path), file.size));
        std::iter::once(head).chain(files).collect()
    };
    let mut all: Vec<Vec<String>> = view.outcomes.iter().map(of_outcome).chain(of_open).collect();
    let left_out = all.len().saturating_sub(JOBS_SHOWN);
    all.drain(..left_out);
    let mut lines = if all.is_empty() { Vec::new() } else { vec![String::new()] };
    if left_out > 0 {
        lines.push(format!("{left_out} earlier jobs (`--json` shows them)"));
    }
    lines.extend(all.into_iter().flatten());
    lines
}

/// What an entry says beside its text.
fn detail(entry: &EntryView) -> String {
    let detail = &entry.detail;
    let mut words = Vec::new();
    if let Some(is_for) = detail["for"].as_bool() {
        words.push(if is_for { "for".to_owned() } else { "against".to_owned() });
    }
    for name in ["value", "effort", "confidence"] {
        words.extend(detail["evaluation"][name].as_u64().map(|number| format!("{name} {number}")));
    }
    words.extend(
        detail["evaluation"]["vote"].as_bool().map(|vote| if vote { "vote for" } else { "vote against" }.to_owned()),
    );
    words.extend(detail["verdict"].as_str().map(shown));
    if let Some(outcome) = detail["outcome"].as_object() {
        words.extend(outcome.get("state").and_then(|state| state.as_str()).map(shown));
        words.extend(outcome.get("job").and_then(|job| job.as_str()).map(|job| format!("job {}", short(job))));
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// The links from and to an idea, as a tree of one level.
fn neighbours(view: &IdeaView) -> Vec<String> {
    let other = |id: &str, title: Option<&String>| {
        let title = title.map(|title| format!("  {}", shown(title))).unwrap_or_default();
        let id = match id.split_once(':') {
            Some((kind, id)) => format!("{kind} {}", short(id)),
            None => short(id).to_owned(),
        };
        format!("{id}{title}")
    };
    // What was only found is not said by anybody yet.
    let found = |link: &LinkView| match (&link.method, link.score) {
        (Some(method), score) if !link.accepted => {
            let sure = score.map(|score| format!("{} %, ", score / 10)).unwrap_or_default();
            let (from, entry) = (short(&link.from), short(&link.entry));
            format!("  ({sure}{}; not so: v6 idea retract {from} {entry})", shown(method))
        }
        (Some(_) | None, _) => String::new(),
    };
    let out = |link: &LinkView| {
        format!("{} → {}{}", shown(&link.relation), other(&link.to, link.title.as_ref()), found(link))
    };
    let back = |link: &LinkView| {
        format!("{} ← {}{}", shown(&link.relation), other(&link.from, link.title.as_ref()), found(link))
    };
    let mut lines: Vec<String> = view.links.iter().map(out).chain(view.backlinks.iter().map(back)).collect();
    let last = lines.len().saturating_sub(1);
    for (at, line) in lines.iter_mut().enumerate() {
        *line = format!("{} {line}", if at == last { "└─" } else { "├─" });
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

async fn search(args: &SearchArgs, client: &Client) -> anyhow::Result<()> {
    let without = args.without.iter().map(|word| format!("-{word}"));
    let words: Vec<String> = args.words.iter().cloned().chain(without).collect();
    let mut path = format!("/v1/ideas/search?q={}", percent_encode(&words.join(" ")));
    for (name, value) in [
        ("kind", &args.kind),
        ("status", &args.status),
        ("owner", &args.owner),
        ("tag", &args.tag),
        ("language", &args.language),
        ("since", &args.since),
        ("until", &args.until),
    ] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", percent_encode(value)));
        }
    }
    for (name, is_set) in [("has_job", args.has_job), ("all", args.all)] {
        if is_set {
            path.push_str(&format!("&{name}=true"));
        }
    }
    if args.json {
        let rows: Vec<serde_json::Value> = client.get_pages(&path, Some(args.limit.unwrap_or(FOUND_JSON))).await?;
        return output::json(&rows);
    }
    let rows: Vec<IdeaFound> = client.get_pages(&path, Some(args.limit.unwrap_or(FOUND))).await?;
    if rows.is_empty() {
        output::say("nothing was found: try fewer words");
    }
    for found in &rows {
        output::say(&format!("{}  {}", short(&found.row.id), shown(&found.row.title)));
        if !found.snippet.is_empty() {
            output::say(&format!("          {}", marked(found)));
        }
    }
    Ok(())
}

/// A snippet with what was found in it, which a terminal shows in another colour.
fn marked(found: &IdeaFound) -> String {
    let chars: Vec<char> = found.snippet.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    let text =
        |from: usize, to: usize| shown(&chars[from.min(chars.len())..to.min(chars.len())].iter().collect::<String>());
    let (mut line, mut at) = (String::new(), 0);
    for &(from, to) in &found.highlights {
        if from < at || to < from {
            continue;
        }
        line.push_str(&text(at, from));
        line.push_str(&output::paint(output::Colour::Yellow, &text(from, to)));
        at = to;
    }
    line.push_str(&text(at, chars.len()));
    line
}

async fn top(args: &TopArgs, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/ideas/top?limit={}", args.limit);
    if args.json {
        let rows: Vec<serde_json::Value> = client.get(&path).await?;
        return output::json(&rows);
    }
    let rows: Vec<IdeaRanked> = client.get(&path).await?;
    if rows.is_empty() {
        output::say("no open ideas: add one with `v6 idea add TITLE`");
        return Ok(());
    }
    let mut table = Table::new(&["IDEA", "STATUS", "SCORE", "TITLE"]);
    for ranked in &rows {
        let score = thousandths(ranked.score);
        table.row(&[short(&ranked.row.id), &ranked.row.status, &score, &ranked.row.title]);
        if args.explain {
            let terms: Vec<String> = ranked.terms.iter().map(|(name, part)| format!("{name} {part:.2}")).collect();
            table.row(&["", "", "", &terms.join(" + ")]);
        }
    }
    table.print();
    Ok(())
}

fn thousandths(millionths: i64) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    let all = millionths.unsigned_abs() / 1_000;
    format!("{sign}{}.{:03}", all / 1_000, all % 1_000)
}
