//! The command line: every command of V6, its help and its exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or not built yet, 3 no node is reachable, 4 not allowed. `v6 run` ends with the
//! command's own code, 128 + N after signal N, 125 for a failure of its own.

#![allow(clippy::wildcard_enum_match_arm, reason = "commands are dealt with in steps, each of which knows its own")]

mod bench;
mod blob;
mod debug;
mod docs;
mod follow;
pub mod gateway;
mod get;
mod idea;
mod interrupt;
mod jobs;
mod later;
mod logs;
mod mcp;
mod mesh;
mod mirror;
mod open;
mod output;
mod run;
mod sink;
mod status_line;
mod submit;
mod top;
pub mod up;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::client::{Client, ClientError, data_directory};

/// Exit code of a failure of `v6 run` itself, as `docker run` has it.
const RUN_FAILED: u8 = 125;
/// Exit code of a wrong or not yet built use.
const USAGE: u8 = 2;

/// One machine out of all your PCs.
///
/// Every PC runs `v6 up`. PCs that know a ticket form a mesh: they share a job queue, run each other's jobs and keep each
/// other's results. There is no server.
#[derive(Debug, Parser)]
#[command(
    name = "v6",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  v6 up                              run a node here, and found a mesh if there is none\n  v6 invite                          print a ticket for the next PC\n  v6 up --join TICKET                join from the next PC\n  v6 run --input . -- cargo test     run a command on the best PC, with this directory\n  v6 jobs                            what runs and what ran\n  v6 top                             watch it\n\nExit codes: 0 done, 1 failed, 2 usage, 3 no node is reachable, 4 not allowed.\n`v6 run` ends with the command's own code, 128 + N after signal N, 125 for a failure of its own."
)]
struct Cli {
    /// Data directory of the node [default: the platform's]
    #[arg(long, global = true, env = "V6_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground
    Up(Box<up::UpArgs>),
    /// Print a ticket that lets another PC join
    Invite(mesh::InviteArgs),
    /// Run a command on the PC that offers best, as if it ran here
    Run(Box<run::RunArgs>),
    /// Submit the jobs of a TOML file
    Submit(submit::SubmitArgs),
    /// List jobs, newest first
    Jobs(jobs::JobsArgs),
    /// Show, explain, cancel or retry one job
    #[command(subcommand)]
    Job(jobs::JobCommand),
    /// Show a job's output
    Logs(logs::LogsArgs),
    /// Fetch a job's artifacts
    Get(get::GetArgs),
    /// The idea ledger
    #[command(subcommand)]
    Idea(idea::IdeaCommand),
    /// Show this node and its mesh
    Status(output::ReadArgs),
    /// Show the other nodes
    Peers(output::ReadArgs),
    /// Watch nodes, jobs and a log in the terminal
    Top(top::TopArgs),
    /// Name problems of this node, and their mends
    Doctor(output::ReadArgs),
    /// Show what is known about a trace, from every node
    Trace(docs::IdArgs),
    /// Look into the documents that the mesh shares
    #[command(subcommand)]
    Doc(docs::DocCommand),
    /// Look at and check the feeds
    #[command(subcommand)]
    Feed(docs::FeedCommand),
    /// Show or edit the notebook of a job
    #[command(subcommand)]
    Note(docs::NoteCommand),
    /// List, add, fetch and collect blobs
    #[command(subcommand)]
    Blob(blob::BlobCommand),
    /// Show the roster
    Members(output::ReadArgs),
    /// Shut a member out of the mesh
    Revoke(mesh::RevokeArgs),
    /// Show or set what the mesh as a whole wants
    #[command(subcommand)]
    Policy(mesh::PolicyCommand),
    /// Open the dashboard in the browser
    Open(open::OpenArgs),
    /// Run V6 as a service of the system
    #[command(subcommand)]
    Service(later::ServiceCommand),
    /// Run a node that serves people on the network
    Gateway(Box<gateway::GatewayArgs>),
    /// Restore a node from a mirror
    Restore(later::RestoreArgs),
    /// Let an assistant read the idea ledger and write to it, by the Model Context Protocol
    Mcp(mcp::McpArgs),
    /// Measure what V6 promises, on nodes of its own
    Bench(bench::BenchArgs),
    /// Lend a right to another program
    Delegate(later::DelegateArgs),
    /// Look at the mirrors of a gateway
    #[command(subcommand)]
    Mirror(mirror::MirrorCommand),
    /// Record what a node sees
    #[command(subcommand)]
    Debug(debug::DebugCommand),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man,
    /// Run the tasks of a job (started by the node itself)
    #[command(hide = true, disable_help_flag = true)]
    Cell {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<std::ffi::OsString>,
    },
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    // A cell is started for each job: it does not wait for the whole command line to be built.
    match std::env::args_os().nth(1) {
        Some(word) if word == "cell" => return crate::cell::child::main(),
        #[cfg(target_os = "linux")]
        Some(word) if word == crate::cell::nursery::WORD => return crate::cell::nursery::main(),
        Some(_) | None => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let directory = data_directory(cli.data_dir.as_deref());
    match dispatch(cli.command, directory) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// What the user did wrong, or asked for too early: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct CodedError {
    code: u8,
    message: String,
}

fn exit_code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| {
            if let Some(error) = cause.downcast_ref::<ClientError>() {
                Some(error.exit_code())
            } else if let Some(error) = cause.downcast_ref::<CodedError>() {
                Some(error.code)
            } else {
                cause.downcast_ref::<UsageError>().map(|_| USAGE)
            }
        })
        .unwrap_or(1)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let message = format!("{error:#}");
    if !message.is_empty() {
        output::complain(&message);
    }
    ExitCode::from(exit_code(error))
}

/// Commands that need no node first, then those that are not built, then those that ask the node.
fn dispatch(command: Command, directory: PathBuf) -> anyhow::Result<ExitCode> {
    if let Some(what) = later::unbuilt(&command) {
        return Err(later::not_built(what).into());
    }
    match command {
        Command::Up(args) => up::run(*args, directory, None),
        Command::Gateway(args) => gateway::run(*args, directory),
        Command::Cell { .. } => Ok(crate::cell::child::main()),
        Command::Run(args) => run::main(*args, directory),
        Command::Bench(args) => bench::main(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "v6", &mut script);
            output::emit(&script);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            output::emit(&manual()?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Mcp(args) => block_on(async move { mcp::main(args, Client::open(&directory)?).await })?,
        asking => block_on(async move {
            let client = Client::open(&directory)?;
            ask(asking, &client).await
        })?,
    }
}

async fn ask(command: Command, client: &Client) -> anyhow::Result<ExitCode> {
    match command {
        Command::Invite(args) => mesh::invite(args, client).await,
        Command::Submit(args) => submit::main(args, client).await,
        Command::Jobs(args) => jobs::list(args, client).await,
        Command::Job(command) => jobs::job(command, client).await,
        Command::Logs(args) => logs::main(args, client).await,
        Command::Get(args) => get::main(args, client).await,
        Command::Status(args) => mesh::status(args, client).await,
        Command::Peers(args) => mesh::peers(args, client).await,
        Command::Members(args) => mesh::members(args, client).await,
        Command::Revoke(args) => mesh::revoke(args, client).await,
        Command::Policy(command) => mesh::policy(command, client).await,
        Command::Doctor(args) => docs::doctor(args, client).await,
        Command::Trace(args) => docs::trace(args, client).await,
        Command::Doc(command) => docs::doc(command, client).await,
        Command::Feed(command) => docs::feed(command, client).await,
        Command::Note(command) => docs::note(command, client).await,
        Command::Idea(command) => idea::main(command, client).await,
        Command::Blob(command) => blob::main(command, client).await,
        Command::Debug(command) => debug::main(command, client).await,
        Command::Top(args) => top::main(args, client).await,
        Command::Open(args) => open::main(args, client).await,
        Command::Mirror(command) => mirror::main(command, client).await,
        other => Err(UsageError(format!("{other:?} asks no node")).into()),
    }
}

/// Runs a future on this thread: a command speaks to one socket, more threads would only cost start-up.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let value = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(value)
}

/// The manual page of `v6` with a section for each command.
fn manual() -> std::io::Result<Vec<u8>> {
    let mut roff = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut roff)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone().display_name(format!("v6-{}", sub.get_name())));
        man.render(&mut roff)?;
    }
    Ok(roff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
