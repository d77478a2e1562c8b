//! Commands that are part of the contract and not built yet: they are parsed, and say so with exit code 2.

use clap::{Args, Subcommand};

use super::{Command, UsageError};

/// The sentence for what is not built yet.
pub(super) fn not_built(what: &str) -> UsageError {
    UsageError(format!("`{what}` is not built yet: nothing was done"))
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Install the service
    Install,
    /// Show its state
    Status,
    /// Remove it
    Remove,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Bucket to restore from
    #[arg(long, value_name = "URL")]
    s3: String,
}

#[derive(Debug, Args)]
pub(super) struct DelegateArgs {
    /// Role to lend
    #[arg(long, default_value = "submitter")]
    role: String,
    /// How long
    #[arg(long, default_value = "1h")]
    expires: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The name of a command that is not built yet.
pub(super) fn unbuilt(command: &Command) -> Option<&'static str> {
    match command {
        Command::Service(_) => Some("v6 service"),
        Command::Gateway(args) => args.unbuilt(),
        Command::Restore(_) => Some("v6 restore"),
        Command::Delegate(_) => Some("v6 delegate"),
        _ => None,
    }
}
