//! The node, its peers, the roster and invites as they are shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobState, MirrorView};

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, running jobs too.
    Admin,
    /// Submit jobs and add ideas.
    Submitter,
    /// Run jobs, submit jobs, add ideas.
    #[default]
    Worker,
    /// Read.
    Observer,
    /// Mirror and serve.
    Gateway,
}

/// The head of one feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedHead {
    /// Number of its last bundle.
    pub seq: u64,
    /// Hash of that bundle.
    pub hash: String,
    /// Whether it is frozen at a fork or by a revocation.
    pub frozen: bool,
}

/// The node and what it knows of its mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// This node, whole id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its role.
    #[serde(default)]
    pub role: Option<Role>,
    /// Labels of what it sells.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The mesh.
    pub mesh: String,
    /// Version of the binary.
    pub version: String,
    /// Peers heard at the moment.
    pub peers_online: u32,
    /// Jobs by state; states without a job may be left out.
    pub jobs: BTreeMap<JobState, u64>,
    /// Feeds by author.
    pub feeds: BTreeMap<String, FeedHead>,
    /// Merkle root over all folds: equal on nodes with equal feeds.
    pub state_hash: String,
    /// Silence after which a watcher declares an owner lost.
    pub lease_ms: u64,
    /// File that holds the API's token.
    pub api_token_file: String,
    /// Address of the API.
    #[serde(default)]
    pub api: String,
    /// Addresses that peers can reach.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Data directory.
    #[serde(default)]
    pub data_dir: String,
    /// Slots that this node sells.
    #[serde(default)]
    pub slots: u32,
    /// Slots in use.
    #[serde(default)]
    pub slots_busy: u32,
    /// Sandbox that its owner set.
    #[serde(default)]
    pub sandbox: String,
    /// Why the node takes no work at the moment ("disk full", "paused by its owner").
    #[serde(default)]
    pub paused: Option<String>,
    /// Milliseconds since the node started.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Bytes of blobs held.
    #[serde(default)]
    pub blob_bytes: u64,
    /// Most bytes of blobs to hold.
    #[serde(default)]
    pub blob_quota_bytes: Option<u64>,
    /// Bytes of history that it holds: the feeds of all members.
    #[serde(default)]
    pub history_bytes: u64,
    /// Whether the store was moved aside and rebuilt at this start.
    #[serde(default)]
    pub recovered: bool,
    /// Of a gateway: how its mirrors stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrors: Option<Vec<MirrorView>>,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeerPath {
    /// Directly.
    Direct,
    /// Through another member.
    Relayed,
}

/// Another member as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerView {
    /// Its whole id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Whether it is heard at the moment.
    pub online: bool,
    /// Labels of its offer.
    pub labels: Vec<String>,
    /// Slots of its offer.
    pub slots: u32,
    /// Price of its offer.
    pub price_micros_per_hour: u64,
    /// Its region.
    pub region: Option<String>,
    /// Round trip, where it is connected.
    pub rtt_ms: Option<f64>,
    /// How it is reached, where it is connected.
    #[serde(default)]
    pub path: Option<PeerPath>,
    /// Addresses known.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Slots free by its last offer.
    #[serde(default)]
    pub slots_free: Option<u32>,
    /// Cores of its offer.
    #[serde(default)]
    pub cores: Option<u32>,
    /// Memory of its offer.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Its operating system.
    #[serde(default)]
    pub os: Option<String>,
    /// Attempts of its that this node has seen end well.
    #[serde(default)]
    pub attempts_done: u64,
    /// Attempts of its that failed or were lost.
    #[serde(default)]
    pub attempts_failed: u64,
    /// When it was last heard.
    #[serde(default)]
    pub last_seen: Option<String>,
}

/// Where the mesh is reached: all that is told to who has no session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinView {
    /// The mesh.
    pub mesh: String,
    /// Addresses of this node, each with its peer id, as multiaddrs.
    pub addresses: Vec<String>,
}

/// An invite wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InviteRequest {
    /// Role of who joins by it.
    pub role: Role,
    /// Milliseconds until it expires; a day without it.
    pub expires_ms: Option<u64>,
    /// How many may join by it; 1 without it.
    pub uses: Option<u32>,
}

/// An invite issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invited {
    /// The string that is enough to join.
    pub ticket: String,
    /// Role of who joins by it.
    pub role: Role,
    /// When it expires.
    pub expires: String,
    /// How many may join by it.
    pub uses: u32,
}

/// An invite as the roster knows it; the ticket itself is never shown again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteRow {
    /// Public half of its key.
    pub id: String,
    /// Role of who joins by it.
    pub role: Role,
    /// When it expires.
    pub expires: String,
    /// How many may join by it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// Who issued it.
    pub by: String,
}

/// A member of the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberRow {
    /// Its whole id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The person whose device it is.
    #[serde(default)]
    pub person: Option<String>,
    /// When it was admitted.
    #[serde(default)]
    pub joined: Option<String>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Why it does not count at the moment ("revoked by …", "forked at 17").
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether it is this node.
    #[serde(default)]
    pub this: bool,
}

/// Answer to a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// Who was revoked.
    pub node: String,
    /// Last bundle of its feed that counts.
    pub after_seq: u64,
    /// Nodes that hold the revocation durably, this one counted.
    pub durable_on: u32,
}

/// Something that the mesh as a whole wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its name.
    pub name: String,
    /// What holds.
    pub value: String,
    /// Whether an admin set it.
    pub is_set: bool,
    /// What it is about.
    pub about: String,
}

/// What a policy is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// In the words of that policy; empty: what holds where nobody said anything.
    pub value: String,
}

/// Answer to the setting of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicySet {
    /// Its name.
    pub name: String,
    /// What holds; empty: what does where nobody said anything.
    pub value: String,
    /// Nodes that hold it durably, this one counted.
    pub durable_on: u32,
}

/// A delegation wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DelegateRequest {
    /// Role that it lends.
    pub role: Role,
    /// Milliseconds until it expires; an hour without it.
    pub expires_ms: Option<u64>,
}

/// A delegation issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delegated {
    /// What the holder shows.
    pub token: String,
    /// When it expires.
    pub expires: String,
}
