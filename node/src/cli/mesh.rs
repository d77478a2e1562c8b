//! The node and its mesh: status, peers, invites, members.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use web_gateway::api::{
    InviteRequest, Invited, MemberRow, PeerPath, PeerView, PolicyRequest, PolicySet, PolicyView, Revoked, Role,
    StatusView,
};

use super::output::{self, ReadArgs, Table, ago, paint, short, shown, span};
use super::{UsageError, values};
use crate::client::{Client, percent_encode};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleChoice {
    /// Everything, running jobs too
    Admin,
    /// Submit jobs, add ideas
    Submitter,
    /// Run jobs, submit jobs, add ideas
    Worker,
    /// Read
    Observer,
    /// Mirror and serve
    Gateway,
}

impl RoleChoice {
    fn role(self) -> Role {
        match self {
            Self::Admin => Role::Admin,
            Self::Submitter => Role::Submitter,
            Self::Worker => Role::Worker,
            Self::Observer => Role::Observer,
            Self::Gateway => Role::Gateway,
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Submitter => "submitter",
        Role::Worker => "worker",
        Role::Observer => "observer",
        Role::Gateway => "gateway",
    }
}

/// Print a ticket that lets another PC join.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  v6 invite                                 a worker, once, within a day\n  v6 invite --role observer --expires 1h --uses 5\nOn the other PC:\n  v6 up --join TICKET"
)]
pub(super) struct InviteArgs {
    /// What who joins by it may do
    #[arg(long, value_enum, default_value = "worker")]
    role: RoleChoice,
    /// How long it is good, such as 24h
    #[arg(long, value_name = "D", default_value = "24h", value_parser = values::duration_ms)]
    expires: u64,
    /// How many may join by it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn invite(args: InviteArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let request = InviteRequest { role: args.role.role(), expires_ms: Some(args.expires), uses: Some(args.uses) };
    let invited: Invited = client.send_json(Method::POST, "/v1/invites", &request).await?;
    if args.json {
        output::json(&invited)?;
    } else {
        output::say(&invited.ticket);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(args: ReadArgs, client: &Client) -> anyhow::Result<ExitCode> {
    if args.json {
        let status: serde_json::Value = client.get("/v1/status").await?;
        output::json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status: StatusView = client.get("/v1/status").await?;
    let rank = status.role.map(|r| format!(", {}", role(r))).unwrap_or_default();
    output::say(&format!("node       {} ({}{rank})", status.node, shown(&status.name)));
    output::say(&format!("mesh       {}", status.mesh));
    output::say(&format!("version    {}, up {}", shown(&status.version), span(status.uptime_ms)));
    output::say(&format!("peers      {} online", status.peers_online));
    output::say(&format!(
        "slots      {} of {} busy, sandbox {}",
        status.slots_busy,
        status.slots,
        shown(&status.sandbox)
    ));
    if let Some(why) = &status.paused {
        output::say(&format!("paused     {}", paint(output::Colour::Yellow, &shown(why))));
    }
    let jobs: Vec<String> = status.jobs.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    output::say(&format!("jobs       {}", if jobs.is_empty() { "none".to_owned() } else { jobs.join(", ") }));
    let quota = status.blob_quota_bytes.map(|quota| format!(" of {}", output::size(quota))).unwrap_or_default();
    output::say(&format!("blobs      {}{quota}", output::size(status.blob_bytes)));
    output::say(&format!("history    {}", output::size(status.history_bytes)));
    output::say(&format!("api        {}", shown(&status.api)));
    output::say(&format!("data       {}", shown(&status.data_dir)));
    for address in &status.listen {
        output::say(&format!("listens    {}", shown(address)));
    }
    output::say(&format!("state      {}", status.state_hash));
    let mut table = Table::new(&["FEED", "SEQ", "HASH", ""]);
    for (author, head) in &status.feeds {
        let frozen = if head.frozen { "frozen" } else { "" };
        table.row(&[short(author), &head.seq.to_string(), short(&head.hash), frozen]);
    }
    if !table.is_empty() {
        output::say("");
        table.print();
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn peers(args: ReadArgs, client: &Client) -> anyhow::Result<ExitCode> {
    if args.json {
        let peers: serde_json::Value = client.get("/v1/peers").await?;
        output::json(&peers)?;
        return Ok(ExitCode::SUCCESS);
    }
    let peers: Vec<PeerView> = client.get("/v1/peers").await?;
    if peers.is_empty() {
        output::say("no peers yet: `v6 invite` prints a ticket for the next PC");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "NODE", "NAME", "ROLE", "STATE", "PATH", "RTT", "SLOTS", "PRICE/H", "SUCCESS", "REGION", "LABELS",
    ]);
    for peer in &peers {
        table.row(&peer_row(peer));
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

fn peer_row(peer: &PeerView) -> [String; 11] {
    let state = if peer.online { "online".to_owned() } else { peer.last_seen.as_deref().map_or("offline".into(), ago) };
    let path = match peer.path {
        Some(PeerPath::Direct) => "direct",
        Some(PeerPath::Relayed) => "relayed",
        None => "-",
    };
    let slots = peer.slots_free.map_or_else(|| peer.slots.to_string(), |free| format!("{free}/{} free", peer.slots));
    let attempts = peer.attempts_done + peer.attempts_failed;
    let success = match (peer.attempts_done * 100).checked_div(attempts) {
        Some(percent) => format!("{percent} % of {attempts}"),
        None => "-".to_owned(),
    };
    [
        short(&peer.node).to_owned(),
        peer.name.clone(),
        role(peer.role).to_owned(),
        state,
        path.to_owned(),
        peer.rtt_ms.map_or("-".to_owned(), |rtt| format!("{rtt:.1} ms")),
        slots,
        peer.price_micros_per_hour.to_string(),
        success,
        peer.region.clone().unwrap_or_else(|| "-".to_owned()),
        peer.labels.join(","),
    ]
}

pub(super) async fn members(args: ReadArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let members: Vec<MemberRow> = client.get("/v1/members").await?;
    if args.json {
        output::json(&members)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["NODE", "NAME", "ROLE", "STATE", "JOINED", "NOTE"]);
    for member in &members {
        table.row(&[
            short(&member.node).to_owned(),
            member.name.clone(),
            role(member.role).to_owned(),
            if member.revoked { "revoked" } else { "member" }.to_owned(),
            member.joined.as_deref().map(ago).unwrap_or_default(),
            member.reason.clone().unwrap_or_else(|| if member.this { "this node".into() } else { String::new() }),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

/// Shut a member out of the mesh.
///
/// What it did so far stays; what it signs from now on counts nowhere. Only an admin may, and only an invite brings it back,
/// under another key.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The member: its name, its id, or the beginning of its id
    #[arg(value_parser = values::id)]
    node: String,
    /// Why, for the others
    #[arg(long)]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn revoke(args: RevokeArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let members: Vec<MemberRow> = client.get("/v1/members").await?;
    let node = find(&members, &args.node)?;
    let body: BTreeMap<&str, &String> = args.reason.iter().map(|reason| ("reason", reason)).collect();
    let answer: Revoked = client.send_json(Method::POST, &format!("/v1/members/{node}/revoke"), &body).await?;
    if args.json {
        output::json(&answer)?;
    } else {
        output::say(&format!("revoked {} after its bundle {}", answer.node, answer.after_seq));
    }
    Ok(ExitCode::SUCCESS)
}

/// Show or set what the mesh as a whole wants.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// List the policies and what holds
    List(ReadArgs),
    /// Set a policy on all nodes; only an admin may
    Set {
        /// Its name, such as require-idea
        name: String,
        /// What it is to be, such as on
        value: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back what was set
    Unset {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn policy(command: PolicyCommand, client: &Client) -> anyhow::Result<ExitCode> {
    let (name, value, json) = match command {
        PolicyCommand::List(args) => {
            let policies: Vec<PolicyView> = client.get("/v1/policies").await?;
            if args.json {
                output::json(&policies)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(&["POLICY", "VALUE", "SET", "ABOUT"]);
            for policy in &policies {
                let is_set = if policy.is_set { "yes" } else { "-" };
                table.row(&[policy.name.as_str(), &policy.value, is_set, &policy.about]);
            }
            table.print();
            return Ok(ExitCode::SUCCESS);
        }
        PolicyCommand::Set { name, value, json } => (name, value, json),
        PolicyCommand::Unset { name, json } => (name, String::new(), json),
    };
    let body = PolicyRequest { value };
    let answer: PolicySet =
        client.send_json(Method::PUT, &format!("/v1/policies/{}", percent_encode(&name)), &body).await?;
    if json {
        output::json(&answer)?;
    } else if answer.value.is_empty() {
        output::say(&format!("{} is as where nobody said anything", answer.name));
    } else {
        output::say(&format!("{} is {}", answer.name, answer.value));
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole id of the one member that a name or a prefix means.
fn find(members: &[MemberRow], wanted: &str) -> anyhow::Result<String> {
    let exact: Vec<&MemberRow> = members.iter().filter(|m| m.node == wanted || m.name == wanted).collect();
    let hits = if exact.is_empty() { members.iter().filter(|m| m.node.starts_with(wanted)).collect() } else { exact };
    match hits.as_slice() {
        [only] => Ok(only.node.clone()),
        [] => anyhow::bail!("no member is named {wanted:?}: `v6 members` lists them"),
        several => {
            let ids: Vec<&str> = several.iter().map(|member| member.node.as_str()).collect();
            Err(UsageError(format!("{wanted:?} means several members: {}", ids.join(", "))).into())
        }
    }
}
