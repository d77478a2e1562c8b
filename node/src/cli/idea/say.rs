//! What people say about an idea.

use clap::{ArgGroup, Args};
use hyper::Method;
use web_gateway::api::{EntryAdded, EntryRequest};

use crate::cli::{UsageError, output};
use crate::client::{Client, percent_encode};

/// Link an idea to another, to a job or to a blob.
#[derive(Debug, Args)]
#[command(
    after_help = "Links: broader, narrower, related, derived-from, revises, duplicates, answers, supports, objects-to, blocks,\nexecuted-by (a job), produced (an idea or a blob), implements.\n\nExamples:\n  v6 idea link 4f3a supports 9c21\n  v6 idea link 4f3a 9c21\n  v6 idea link 4f3a executed-by JOB"
)]
pub(in crate::cli) struct LinkArgs {
    /// From this idea
    from: String,
    /// The link (`related` without one) and what it leads to: an idea, a job, blob:HASH
    #[arg(num_args = 1..=2, required = true, value_name = "RELATION] [TO")]
    rest: Vec<String>,
    /// The link, in place of a word before the target
    #[arg(long, value_name = "RELATION")]
    relation: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Say what speaks for an idea, or against it.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("side").required(true).args(["is_for", "against"])))]
pub(in crate::cli) struct ArgueArgs {
    /// The idea
    id: String,
    /// Why
    text: String,
    /// It speaks for the idea
    #[arg(long = "for")]
    is_for: bool,
    /// It speaks against it
    #[arg(long)]
    against: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Add what was seen to an idea.
#[derive(Debug, Args)]
pub(in crate::cli) struct ObserveArgs {
    /// The idea
    id: String,
    /// What was seen
    text: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Say what an idea would be worth and cost, each from 0 to 100.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["value", "effort", "confidence"])))]
pub(in crate::cli) struct EvaluateArgs {
    /// The idea
    id: String,
    /// What it would be worth
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u8).range(0..=100))]
    value: Option<u8>,
    /// What it would cost
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u8).range(0..=100))]
    effort: Option<u8>,
    /// How sure you are
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u8).range(0..=100))]
    confidence: Option<u8>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Vote for an idea, or against it: each person's last vote counts.
#[derive(Debug, Args)]
pub(in crate::cli) struct VoteArgs {
    /// The idea
    id: String,
    /// Against it
    #[arg(long)]
    against: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Decide what becomes of an idea: its owner does, or an admin.
#[derive(Debug, Args)]
pub(in crate::cli) struct DecideArgs {
    /// The idea
    id: String,
    /// accepted, rejected, deferred, done or open
    verdict: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    because: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Hand an idea to another person, who takes it with --accept.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  v6 idea transfer 4f3a layla\n  v6 idea transfer 4f3a --accept")]
pub(in crate::cli) struct TransferArgs {
    /// The idea
    id: String,
    /// The person, by id or by the name of one of the person's nodes
    #[arg(required_unless_present = "accept", conflicts_with = "accept")]
    person: Option<String>,
    /// Take an idea that is offered to you
    #[arg(long)]
    accept: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Take an idea back, or what you said about it: it is hidden, and stays.
#[derive(Debug, Args)]
pub(in crate::cli) struct RetractArgs {
    /// The idea
    id: String,
    /// The entry about it, such as a link [default: the idea itself]
    entry: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    because: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

async fn send(id: &str, request: EntryRequest, json: bool, client: &Client) -> anyhow::Result<()> {
    let path = format!("/v1/ideas/{}/entries", percent_encode(id));
    let added: EntryAdded = client.send_json(Method::POST, &path, &request).await?;
    if json {
        return output::json(&added);
    }
    output::say(&added.id);
    Ok(())
}

fn of(kind: &str) -> EntryRequest {
    EntryRequest { kind: kind.to_owned(), ..EntryRequest::default() }
}

pub(super) async fn link(args: LinkArgs, client: &Client) -> anyhow::Result<()> {
    let mut rest = args.rest.into_iter();
    let (relation, to) = match (rest.next(), rest.next()) {
        (Some(_), Some(_)) if args.relation.is_some() => {
            return Err(UsageError("the link is named twice: as a word and as --relation".into()).into());
        }
        (Some(relation), Some(to)) => (Some(relation), Some(to)),
        (to, _) => (args.relation, to),
    };
    send(&args.from, EntryRequest { relation, to, ..of("link") }, args.json, client).await
}

pub(super) async fn argue(args: ArgueArgs, client: &Client) -> anyhow::Result<()> {
    let request = EntryRequest { body: args.text, is_for: Some(!args.against), ..of("argument") };
    send(&args.id, request, args.json, client).await
}

pub(super) async fn observe(args: ObserveArgs, client: &Client) -> anyhow::Result<()> {
    send(&args.id, EntryRequest { body: args.text, ..of("observation") }, args.json, client).await
}

pub(super) async fn evaluate(args: EvaluateArgs, client: &Client) -> anyhow::Result<()> {
    let EvaluateArgs { value, effort, confidence, .. } = args;
    send(&args.id, EntryRequest { value, effort, confidence, ..of("evaluation") }, args.json, client).await
}

pub(super) async fn vote(args: VoteArgs, client: &Client) -> anyhow::Result<()> {
    send(&args.id, EntryRequest { vote: Some(!args.against), ..of("evaluation") }, args.json, client).await
}

pub(super) async fn decide(args: DecideArgs, client: &Client) -> anyhow::Result<()> {
    let request = EntryRequest { verdict: Some(args.verdict), body: args.because, ..of("decision") };
    send(&args.id, request, args.json, client).await
}

pub(super) async fn transfer(args: TransferArgs, client: &Client) -> anyhow::Result<()> {
    send(&args.id, EntryRequest { to: args.person, ..of("transfer") }, args.json, client).await
}

pub(super) async fn retract(args: RetractArgs, client: &Client) -> anyhow::Result<()> {
    send(&args.id, EntryRequest { on: args.entry, body: args.because, ..of("retraction") }, args.json, client).await
}
