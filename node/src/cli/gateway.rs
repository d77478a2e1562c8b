//! A node that serves the mesh to people on the network and, one day, mirrors it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Run a node that also lets people in over the network. It takes every option of `v6 up`; the mesh goes on without it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 gateway --api 0.0.0.0:8000                  serve the dashboard to the LAN, by TLS\n  v6 gateway --api 0.0.0.0:8000 --join TICKET    with a ticket of `v6 invite --role gateway`"
)]
pub(super) struct GatewayArgs {
    /// PostgreSQL to mirror to
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Bucket to mirror to
    #[arg(long, value_name = "URL")]
    s3: Option<String>,
    /// NATS to mirror to
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    #[command(flatten)]
    up: super::up::UpArgs,
}

impl GatewayArgs {
    /// The first option that is not built yet.
    pub(super) fn unbuilt(&self) -> Option<&'static str> {
        let mirrors = [
            (self.postgres.is_some(), "v6 gateway --postgres"),
            (self.s3.is_some(), "v6 gateway --s3"),
            (self.nats.is_some(), "v6 gateway --nats"),
        ];
        mirrors.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, what)| what)
    }
}

pub(super) fn run(args: GatewayArgs, data_dir: PathBuf) -> anyhow::Result<ExitCode> {
    super::up::run(args.up, data_dir, true)
}
