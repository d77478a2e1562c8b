//! `v6 run`: a command on the PC that offers best, as if it ran here.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use hyper::Method;
use web_gateway::api::{JobRequest, Submitted};

use super::follow::{Followed, follow};
use super::interrupt::{Interrupt, Interrupts};
use super::{CodedError, RUN_FAILED, UsageError, exit_code, output, values};
use crate::client::{Client, upload};

/// Run a command on the PC that offers best.
///
/// Its output comes here while it runs, stdout and stderr apart; Ctrl-C cancels it; `v6 run` ends with its exit code. The
/// command runs in an empty directory, or in a copy of the one that --input names.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 run -- uname -a                                  anywhere\n  v6 run --input . -- cargo test                      with this directory (.gitignore is respected)\n  v6 run --input . --output 'target/*.whl' -- make    and keep what matches; fetch it with `v6 get`\n  v6 run --label gpu --timeout 2h -- python train.py  only where the label gpu is, two hours at most\n  v6 run --array 100 -- sh -c 'echo $V6_TASK_ID'      100 tasks\n  v6 run --detach --json -- make                      do not wait: {\"job\",\"trace\",\"durable_on\"}\n\nEnds with the command's own code, 128 + N after signal N, 125 for a failure of v6 itself."
)]
pub(super) struct RunArgs {
    /// Directory to send along
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Send files that .gitignore names, too
    #[arg(long, requires = "input")]
    no_ignore: bool,
    /// Files to keep as artifacts (may be repeated)
    #[arg(long, value_name = "GLOB")]
    output: Vec<String>,
    /// Label that the node must have (may be repeated)
    #[arg(long, value_name = "L")]
    label: Vec<String>,
    /// Variable of the command's environment; KEY alone takes its value here
    #[arg(long, value_name = "K=V", value_parser = values::assignment)]
    env: Vec<(String, String)>,
    /// Longest time that an attempt may run, such as 90s, 10m, 2h
    #[arg(long, value_name = "D", value_parser = values::duration_ms)]
    timeout: Option<u64>,
    /// Further attempts after a failure
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Start each task at most once: most of three or five nodes agree on where; if that one is lost, it waits for a person
    #[arg(long, conflicts_with = "retries")]
    at_most_once: bool,
    /// Run N tasks, each with its index in V6_TASK_ID
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    array: Option<u32>,
    /// Wait until this job is done (may be repeated)
    #[arg(long, value_name = "JOB", value_parser = values::id)]
    after: Vec<String>,
    /// The same key is the same job, however often it is submitted
    #[arg(long)]
    key: Option<String>,
    /// Higher goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// What the result is worth, in micros
    #[arg(long, value_name = "V")]
    value: Option<u64>,
    /// Highest price to pay, in micros per hour
    #[arg(long, value_name = "M")]
    max_price: Option<u64>,
    /// Cores that it needs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cores: Option<u32>,
    /// Memory that it needs and is limited to, such as 2GiB
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    memory: Option<u64>,
    /// Operating system that it needs: linux, windows or macos
    #[arg(long)]
    os: Option<String>,
    /// Region that it must run in
    #[arg(long)]
    region: Option<String>,
    /// Let it use the network, where the node's owner allows it
    #[arg(long)]
    network: bool,
    /// Name of the job
    #[arg(long)]
    name: Option<String>,
    /// Idea that it works on
    #[arg(long, value_name = "ID")]
    idea: Option<String>,
    /// Do not wait for it
    #[arg(long)]
    detach: bool,
    /// Print the acknowledgement as JSON (with --detach)
    #[arg(long, requires = "detach")]
    json: bool,
    /// Write the job's id here once it is acknowledged
    #[arg(long, value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// Let all bytes of the output through to the terminal
    #[arg(long)]
    raw: bool,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn main(args: RunArgs, directory: PathBuf) -> anyhow::Result<ExitCode> {
    let detach = args.detach;
    let ended = super::block_on(async move {
        let mut interrupts = Interrupts::listen()?;
        let client = Client::open(&directory)?;
        let submitted = tokio::select! {
            submitted = submit(&args, &client) => submitted?,
            interrupt = interrupts.next() => return Ok(ExitCode::from(interrupt.exit_code())),
        };
        if args.detach {
            acknowledge(&args, &submitted)?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(warning) = &submitted.warning {
            output::complain(&format!("warning: {warning}"));
        }
        foreground(&args, &directory, client, &submitted.job, interrupts).await
    })
    .and_then(|ended| ended);
    // Codes other than usage are the command's own: a failure of `v6 run` itself has one that stands apart.
    ended.map_err(|error| {
        if detach || exit_code(&error) == super::USAGE {
            return error;
        }
        CodedError { code: RUN_FAILED, message: format!("{error:#}") }.into()
    })
}

async fn submit(args: &RunArgs, client: &Client) -> anyhow::Result<Submitted> {
    let mut request = request(args)?;
    if let Some(root) = &args.input {
        request.input = Some(send_input(client, root, args.no_ignore).await?);
    }
    let submitted: Submitted = client.send_json(Method::POST, "/v1/jobs", &request).await?;
    if let Some(file) = &args.id_file {
        write_id(file, &submitted.job)?;
    }
    Ok(submitted)
}

/// Sends a directory and returns the hash of its manifest.
pub(super) async fn send_input(client: &Client, root: &Path, no_ignore: bool) -> anyhow::Result<String> {
    if !root.is_dir() {
        return Err(UsageError(format!("--input {} is no directory", root.display())).into());
    }
    let scan = upload::scan(root, no_ignore)?;
    for (path, why) in &scan.skipped {
        output::complain(&format!("left out {}: {why}", path.display()));
    }
    Ok(upload::send_tree(client, scan).await?.tree)
}

fn request(args: &RunArgs) -> anyhow::Result<JobRequest> {
    for glob in &args.output {
        globset::Glob::new(glob).map_err(|error| UsageError(format!("--output: {error}")))?;
        if glob.starts_with('/') || glob.split(['/', '\\']).any(|part| part == "..") {
            let text = format!("--output {glob:?} leads out of the job's directory: write a path within it");
            return Err(UsageError(text).into());
        }
    }
    Ok(JobRequest {
        command: args.command.clone(),
        input: None,
        outputs: args.output.clone(),
        labels: args.label.clone(),
        env: args.env.iter().cloned().collect::<BTreeMap<_, _>>(),
        timeout_ms: args.timeout,
        retries: args.retries,
        at_most_once: args.at_most_once,
        array: args.array,
        after: args.after.clone(),
        key: args.key.clone(),
        priority: args.priority,
        value_micros: args.value,
        max_price_micros_per_hour: args.max_price,
        cores: args.cores,
        memory_bytes: args.memory,
        os: args.os.clone(),
        region: args.region.clone(),
        network: args.network,
        name: args.name.clone(),
        idea: args.idea.clone(),
    })
}

/// Written beside and renamed, so that who waits for the file never reads half an id.
fn write_id(file: &Path, id: &str) -> anyhow::Result<()> {
    let named = || format!("the job {id} is submitted, but its id cannot be written to {}", file.display());
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(directory).with_context(named)?;
    temporary.write_all(format!("{id}\n").as_bytes()).with_context(named)?;
    temporary.persist(file).with_context(named)?;
    Ok(())
}

fn acknowledge(args: &RunArgs, submitted: &Submitted) -> anyhow::Result<()> {
    if args.json {
        return output::json(submitted);
    }
    output::say(&submitted.job);
    if let Some(warning) = &submitted.warning {
        output::complain(&format!("warning: {warning}"));
    }
    Ok(())
}

/// Shows the job until it ends. The first interruption cancels it, the second leaves at once.
async fn foreground(
    args: &RunArgs,
    directory: &Path,
    client: Client,
    job: &str,
    mut interrupts: Interrupts,
) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/jobs/{job}/logs?follow=true");
    let following = follow(directory, client, &path, args.raw, true);
    let mut following = std::pin::pin!(following);
    let interrupt: Interrupt = tokio::select! {
        followed = following.as_mut() => return finish(directory, job, followed?).await,
        interrupt = interrupts.next() => interrupt,
    };
    let code = ExitCode::from(interrupt.exit_code());
    let rest = async {
        cancel(directory, job).await?;
        following.as_mut().await
    };
    tokio::select! {
        rest = rest => {
            rest.with_context(|| format!("the job {job} could not be cancelled in order: see `v6 job show {job}`"))?;
        }
        _ = interrupts.next() => {}
    }
    Ok(code)
}

async fn cancel(directory: &Path, job: &str) -> anyhow::Result<()> {
    let client = Client::open(directory)?;
    client.call(Method::POST, &format!("/v1/jobs/{job}/cancel"), bytes::Bytes::new()).await?;
    Ok(())
}

async fn finish(directory: &Path, job: &str, followed: Followed) -> anyhow::Result<ExitCode> {
    match followed {
        Followed::Ended { exit: Some(code), reason, .. } => {
            if let Some(reason) = reason {
                eprintln!("v6: the job {job} did not succeed: {reason}\nSee `v6 job explain {job}`.");
            }
            Ok(ExitCode::from(byte(code)))
        }
        Followed::Ended { state, exit: None, reason } => {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            if state == web_gateway::api::JobState::Done {
                return Ok(ExitCode::SUCCESS);
            }
            anyhow::bail!("the job {job} is {}{reason}\nSee `v6 job explain {job}`.", state.as_str())
        }
        Followed::SoFar => anyhow::bail!("the node stopped telling about the job {job}: see `v6 job show {job}`"),
        Followed::ReaderGone => {
            cancel(directory, job).await?;
            Ok(ExitCode::from(141))
        }
    }
}

/// The exit code as a process can have it.
fn byte(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(1)
}
