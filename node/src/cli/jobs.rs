//! `v6 jobs` and `v6 job`: list, show, explain, cancel, retry.

use std::fmt::Write as _;
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::Method;
use web_gateway::api::{AttemptView, Cancelled, Explain, JobRow, JobView, Submitted, TaskView};

use super::output::{self, Table, ago, command_line, paint, short, shown, took};
use super::values;
use crate::client::{Client, percent_encode};

/// Rows that people see without asking for more.
const ROWS_DEFAULT: usize = 50;
/// Tasks asked for at a time.
const TASKS_PER_PAGE: u32 = 10_000;
/// Tasks that people see without asking for JSON.
const TASKS_SHOWN_MAX: usize = 50;

/// List jobs, newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  v6 jobs\n  v6 jobs --state running\n  v6 jobs --json | jq '.[].id'")]
pub(super) struct JobsArgs {
    /// Only jobs in this state: queued, claimed, running, done, failed, cancelled or skipped
    #[arg(long, value_parser = ["queued", "claimed", "running", "done", "failed", "cancelled", "skipped"])]
    state: Option<String>,
    /// Only jobs that this node submitted
    #[arg(long, value_name = "NODE", value_parser = values::id)]
    submitter: Option<String>,
    /// Only jobs with this label
    #[arg(long)]
    label: Option<String>,
    /// Most rows [default: 50, with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Show a job with its tasks and attempts
    Show(JobArgs),
    /// Say why a job runs where it runs, or why it still waits
    Explain(JobArgs),
    /// Cancel a job
    Cancel(JobArgs),
    /// Submit an ended job again
    Retry(JobArgs),
}

#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// The job, or the beginning of its id
    #[arg(value_parser = values::id)]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(args: JobsArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let mut path = "/v1/jobs".to_owned();
    let mut sign = '?';
    for (name, value) in [("state", &args.state), ("submitter", &args.submitter), ("label", &args.label)] {
        if let Some(value) = value {
            path.push_str(&format!("{sign}{name}={}", percent_encode(value)));
            sign = '&';
        }
    }
    if args.json {
        let rows: Vec<serde_json::Value> = client.get_pages(&path, args.limit).await?;
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let limit = args.limit.unwrap_or(ROWS_DEFAULT);
    let mut rows: Vec<JobRow> = client.get_pages(&path, Some(limit.saturating_add(1))).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    if rows.is_empty() {
        output::say("no jobs: start one with `v6 run -- COMMAND`");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["JOB", "STATE", "TASKS", "OWNER", "AGE", "COMMAND"]);
    for row in &rows {
        table.row(&[
            short(&row.id).to_owned(),
            row.state.as_str().to_owned(),
            format!("{}/{}", row.done, row.tasks),
            row.owner.as_deref().map_or("-", short).to_owned(),
            ago(&row.created),
            row.name.clone().unwrap_or_else(|| command_line(&row.command, 60)),
        ]);
    }
    table.print();
    if more {
        output::say(&format!("… and more: --limit {}", limit * 2));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn job(command: JobCommand, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        JobCommand::Show(args) => show(&args, client).await?,
        JobCommand::Explain(args) => explain(&args, client).await?,
        JobCommand::Cancel(args) => {
            let answer: Cancelled = act(&args, "cancel", client).await?;
            let text = if answer.state == web_gateway::api::JobState::Cancelled {
                format!("cancelled {}", answer.job)
            } else {
                format!("{} is {}", answer.job, answer.state.as_str())
            };
            print(args.json, &answer, &text)?;
        }
        JobCommand::Retry(args) => {
            let answer: Submitted = act(&args, "retry", client).await?;
            print(args.json, &answer, &answer.job)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(json: bool, answer: &impl serde::Serialize, text: &str) -> anyhow::Result<()> {
    if json {
        return output::json(answer);
    }
    output::say(&shown(text));
    Ok(())
}

async fn act<T: serde::de::DeserializeOwned>(args: &JobArgs, what: &str, client: &Client) -> anyhow::Result<T> {
    let path = format!("/v1/jobs/{}/{what}", percent_encode(&args.id));
    Ok(serde_json::from_slice(&client.call(Method::POST, &path, Bytes::new()).await?)?)
}

/// A job with all its tasks, however many pages they take.
pub(super) async fn fetch(client: &Client, id: &str) -> anyhow::Result<JobView> {
    let id = percent_encode(id);
    let page = |from: usize| format!("/v1/jobs/{id}?tasks_from={from}&tasks_max={TASKS_PER_PAGE}");
    let mut job: JobView = client.get(&page(0)).await?;
    while job.tasks.len() < usize::try_from(job.tasks_total).unwrap_or(usize::MAX) {
        let next: JobView = client.get(&page(job.tasks.len())).await?;
        if next.tasks.is_empty() {
            break;
        }
        job.tasks.extend(next.tasks);
    }
    Ok(job)
}

async fn show(args: &JobArgs, client: &Client) -> anyhow::Result<()> {
    let job = fetch(client, &args.id).await?;
    if args.json {
        return output::json(&job);
    }
    let state = job.state.as_str();
    let state = output::state_colour(state).map_or_else(|| state.to_owned(), |colour| paint(colour, state));
    output::say(&format!("job        {}", job.id));
    if let Some(name) = &job.name {
        output::say(&format!("name       {}", shown(name)));
    }
    output::say(&format!("command    {}", command_line(&job.command, 400)));
    output::say(&format!("state      {state}{}", notes(&job)));
    if let Some(reason) = &job.reason {
        output::say(&format!("because    {}", shown(reason)));
    }
    output::say(&format!("submitter  {}", job.submitter));
    output::say(&format!("created    {} ({})", job.created, ago(&job.created)));
    output::say(&format!("trace      {}", job.trace));
    if let Some(idea) = &job.idea {
        output::say(&format!("idea       {idea}"));
    }
    tasks(&job);
    artifacts(&job);
    Ok(())
}

fn notes(job: &JobView) -> String {
    let mut notes = String::new();
    if job.provisional {
        notes.push_str(" (provisional: its submitter is away)");
    }
    if job.at_risk {
        notes.push_str(" (at risk: the result has one holder)");
    }
    if let Some(sealed) = &job.sealed {
        let _ = write!(notes, " (sealed {}: of its history this record stays)", ago(sealed));
    }
    notes
}

fn tasks(job: &JobView) {
    let mut table = Table::new(&["TASK", "ATTEMPT", "STATE", "NODE", "EXIT", "TOOK", "NOTE"]);
    for task in job.tasks.iter().take(TASKS_SHOWN_MAX) {
        if task.attempts.is_empty() {
            table.row(&[&task.index.to_string(), "-", task.state.as_str(), "-", "", "", ""]);
        }
        for attempt in &task.attempts {
            table.row(&attempt_row(task, attempt));
        }
    }
    if !table.is_empty() {
        output::say("");
        table.print();
    }
    if job.tasks.len() > TASKS_SHOWN_MAX {
        output::say(&format!("… {} tasks in all: --json shows them", job.tasks.len()));
    }
}

fn attempt_row(task: &TaskView, attempt: &AttemptView) -> [String; 7] {
    let mut note = attempt.reason.clone().unwrap_or_default();
    if attempt.duplicate {
        note = format!("duplicate {note}");
    } else if task.accepted_attempt == Some(attempt.attempt) && note.is_empty() {
        note = "accepted".to_owned();
    }
    [
        task.index.to_string(),
        attempt.attempt.to_string(),
        attempt.state.as_str().to_owned(),
        short(&attempt.node).to_owned(),
        attempt.exit.map(|exit| exit.to_string()).unwrap_or_default(),
        if attempt.ended.is_some() || attempt.state == web_gateway::api::AttemptState::Running {
            took(attempt.started.as_deref(), attempt.ended.as_deref())
        } else {
            String::new()
        },
        note.trim_end().to_owned(),
    ]
}

fn artifacts(job: &JobView) {
    let mut table = Table::new(&["ARTIFACT", "TASK", "ATTEMPT", "SIZE", "BLOB"]);
    for task in job.tasks.iter().take(TASKS_SHOWN_MAX) {
        for attempt in &task.attempts {
            for artifact in &attempt.artifacts {
                table.row(&[
                    artifact.path.clone(),
                    task.index.to_string(),
                    attempt.attempt.to_string(),
                    output::size(artifact.size),
                    short(&artifact.blob).to_owned(),
                ]);
            }
        }
    }
    if !table.is_empty() {
        output::say("");
        table.print();
        output::say(&format!("fetch them with `v6 get {}`", short(&job.id)));
    }
}

async fn explain(args: &JobArgs, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/jobs/{}/explain", percent_encode(&args.id));
    let answer: Explain = client.get(&path).await?;
    if args.json {
        return output::json(&answer);
    }
    output::say(&shown(&answer.summary));
    for reason in &answer.reasons {
        output::say(&format!("  {}", shown(reason)));
    }
    if answer.offers.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["RANK", "NODE", "NAME", "BID", "WHY"]);
    for offer in &answer.offers {
        let mut why = if offer.fits { offer.detail.clone().unwrap_or_default() } else { offer.lacks.join("; ") };
        if offer.won {
            why = format!("won {why}");
        }
        table.row(&[
            offer.rank.map_or("-".to_owned(), |rank| rank.to_string()),
            short(&offer.node).to_owned(),
            offer.name.clone(),
            offer.bid_micros.map(|bid| bid.to_string()).unwrap_or_default(),
            why.trim_end().to_owned(),
        ]);
    }
    output::say("");
    table.print();
    Ok(())
}
