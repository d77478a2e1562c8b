//! A node that serves the mesh to people on the network and mirrors it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Run a node that also lets people in over the network. It takes every option of `v6 up`; the mesh goes on without it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 gateway --api 0.0.0.0:8000                  serve the dashboard to the LAN, by TLS\n  v6 gateway --api 0.0.0.0:8000 --join TICKET    with a ticket of `v6 invite --role gateway`"
)]
pub(super) struct GatewayArgs {
    /// PostgreSQL to mirror to, such as postgres://USER:PASSWORD@HOST/DATABASE; a password stands in no list of processes if it
    /// comes by V6_POSTGRES
    #[arg(long, value_name = "URL", env = "V6_POSTGRES", hide_env_values = true)]
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
        let mirrors = [(self.s3.is_some(), "v6 gateway --s3"), (self.nats.is_some(), "v6 gateway --nats")];
        mirrors.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, what)| what)
    }
}

/// What a gateway mirrors into.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// Address of a database in PostgreSQL.
    pub postgres: Option<String>,
}

/// Addresses may hold passwords: they are not shown.
impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirrors").field("postgres", &self.postgres.is_some()).finish()
    }
}

pub(super) fn run(args: GatewayArgs, data_dir: PathBuf) -> anyhow::Result<ExitCode> {
    super::up::run(args.up, data_dir, Some(Mirrors { postgres: args.postgres }))
}
