//! `v6 up`: what the owner of a PC says about his node.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::gateway::Mirrors;
use super::{UsageError, values};
use crate::ledger::meaning::Endpoint;

/// Where jobs are locked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SandboxChoice {
    /// Landlock, seccomp and limits (Linux).
    Landlock,
    /// bubblewrap: own process, mount and network namespaces (Linux).
    Bwrap,
    /// None: only the owner's own jobs are accepted.
    None,
}

/// Everything that `v6 up` was told. What is `None` keeps the value of the last start, or its default.
#[derive(Debug, Clone, PartialEq)]
pub struct UpOptions {
    /// Data directory.
    pub data_dir: PathBuf,
    /// The node's name.
    pub name: Option<String>,
    /// Slots to sell; 0 only submits.
    pub slots: Option<u32>,
    /// Labels of its offer.
    pub labels: Option<Vec<String>>,
    /// Price of a slot.
    pub price_micros_per_hour: Option<u64>,
    /// Region of its offer.
    pub region: Option<String>,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Where the API listens; port 0 takes a free one.
    pub api: SocketAddr,
    /// Ticket of a mesh to join.
    pub join: Option<String>,
    /// Whether it was started as a gateway.
    pub is_gateway: bool,
    /// What it mirrors into.
    pub mirrors: Mirrors,
    /// Whether other machines are served without TLS.
    pub insecure_lan: bool,
    /// Files of a certificate chain and its key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Further addresses of members; with a peer id at their end they are kept as that member's.
    pub peers: Vec<String>,
    /// Whether to look for peers on the LAN.
    pub mdns: bool,
    /// Sandbox for jobs.
    pub sandbox: Option<SandboxChoice>,
    /// File that signs this node in as admin of a restored mesh.
    pub recovery_key: Option<PathBuf>,
    /// Most bytes of blobs to hold.
    pub blob_quota_bytes: Option<u64>,
    /// How long the history of this node's finished jobs stays.
    pub retention: mesh::Retention,
    /// Whether to refuse jobs that name no idea.
    pub require_idea: bool,
    /// The model that tells which ideas mean the same.
    pub embeddings: Option<Endpoint>,
    /// Print the ready line as JSON.
    pub json: bool,
}

/// Run a node in the foreground. On an empty data directory it founds a mesh, with --join it joins one; on a used one it
/// goes on in its mesh. Ctrl-C and SIGTERM stop it in order.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 up                                    found a mesh, or go on in it\n  v6 up --join TICKET --labels gpu,fast    join with two labels\n  v6 up --slots 0                          submit only\n  v6 up --api 127.0.0.1:0 --json           take a free port and print it as JSON"
)]
pub(super) struct UpArgs {
    /// Name of this node [default: the host's]
    #[arg(long)]
    name: Option<String>,
    /// Jobs to run at a time; 0 only submits [default: the number of cores]
    #[arg(long)]
    slots: Option<u32>,
    /// Labels that jobs can ask for, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    labels: Option<Vec<String>>,
    /// Price of a slot, in micros per hour
    #[arg(long, value_name = "MICROS_PER_HOUR")]
    price: Option<u64>,
    /// Region of this node
    #[arg(long)]
    region: Option<String>,
    /// Address to listen on for peers (may be repeated)
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Address of the API and the dashboard; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000")]
    api: String,
    /// Serve the API and the dashboard to other machines without TLS too: whoever listens on the LAN reads along
    #[arg(long)]
    insecure_lan: bool,
    /// Certificate chain for TLS, PEM [default: one that this node makes itself]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Join the mesh of this ticket
    #[arg(long, value_name = "TICKET", env = "V6_TICKET", hide_env_values = true)]
    join: Option<String>,
    /// A further address at which a member may be reached, beside those of the ticket (may be repeated)
    #[arg(long, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// Relay between members that cannot reach each other
    #[arg(long)]
    relay: bool,
    /// Do not look for peers on the LAN
    #[arg(long)]
    no_mdns: bool,
    /// Sandbox of jobs [default: landlock on Linux, none elsewhere]
    #[arg(long, value_enum)]
    sandbox: Option<SandboxChoice>,
    /// Sign this node in as admin with the mesh's recovery key
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
    /// Most bytes of blobs to hold, such as 50GiB
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    blob_quota: Option<u64>,
    /// Keep history, logs and files of a finished job that this node submitted for so long; then its record stays
    #[arg(long, value_name = "D", value_parser = values::duration_ms, default_value = "30d")]
    retention: u64,
    /// Most history of jobs to hold; beyond it the oldest finished ones are sealed whatever their age
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, default_value = "1GiB")]
    history_max: u64,
    /// Refuse jobs that name no idea (`v6 policy set require-idea on` does so for the whole mesh)
    #[arg(long)]
    require_idea: bool,
    /// Compare ideas by their meaning too, with a model on this machine that answers like OpenAI's /v1/embeddings
    #[arg(long, value_name = "URL")]
    embeddings: Option<String>,
    /// Name of that model
    #[arg(long, value_name = "NAME", default_value = "default", requires = "embeddings")]
    embeddings_model: String,
    /// Cosine from which on two ideas mean the same, from 0 to 1; it depends on the model
    #[arg(long, value_name = "COSINE", default_value_t = 0.8, requires = "embeddings")]
    embeddings_min: f64,
    /// Print one line of JSON when ready
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: UpArgs, data_dir: PathBuf, gateway: Option<Mirrors>) -> anyhow::Result<ExitCode> {
    crate::daemon::run(options(args, data_dir, gateway)?)
}

fn options(args: UpArgs, data_dir: PathBuf, gateway: Option<Mirrors>) -> anyhow::Result<UpOptions> {
    if args.relay {
        return Err(super::later::not_built("--relay").into());
    }
    let api = args.api.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()).ok_or_else(|| {
        UsageError(format!("--api {:?} is no address: write HOST:PORT, such as 127.0.0.1:8000", args.api))
    })?;
    let labels = args.labels.map(|labels| {
        labels.into_iter().map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect()
    });
    let endpoint = |url: String| {
        Endpoint::parse(&url, args.embeddings_model, args.embeddings_min)
            .map_err(|why| UsageError(format!("--embeddings: {why}")))
    };
    let embeddings = args.embeddings.map(endpoint).transpose()?;
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("the data directory {} cannot be made", data_dir.display()))?;
    Ok(UpOptions {
        data_dir,
        name: args.name,
        slots: args.slots,
        labels,
        price_micros_per_hour: args.price,
        region: args.region,
        listen: args.listen,
        api,
        join: args.join,
        peers: args.peer,
        is_gateway: gateway.is_some(),
        mirrors: gateway.unwrap_or_default(),
        insecure_lan: args.insecure_lan,
        tls: args.tls_cert.zip(args.tls_key),
        mdns: !args.no_mdns,
        sandbox: args.sandbox,
        recovery_key: args.recovery_key,
        blob_quota_bytes: args.blob_quota,
        retention: mesh::Retention { keep_ms: args.retention, history_bytes_max: args.history_max },
        require_idea: args.require_idea,
        embeddings,
        json: args.json,
    })
}
