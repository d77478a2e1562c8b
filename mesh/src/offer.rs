//! Offers: what a node sells, what a job asks for, and what it would cost there.

use std::collections::{BTreeMap, BTreeSet};

use crdt::cbor;
use crdt::ids::{BlobHash, MeshId, NodeId, PersonId};
use crdt::job::JobSpec;
use serde::{Deserialize, Serialize};

use crate::limits::{ADDRS_MAX, ESTIMATE_UNKNOWN_MS, LABELS_MAX, MOVE_BYTES_PER_MS};

/// A standing bid of a node for any work that it fits. Signed and gossiped, never a register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    /// Start of the node's process, in milliseconds since 1970: a later one replaces all offers of an earlier.
    pub incarnation: u64,
    /// Counts up within an incarnation.
    pub number: u64,
    /// Slots in all.
    pub slots: u32,
    /// Slots that nothing runs in.
    pub free: u32,
    /// Single tasks of its own that wait for a slot, and for which it calls nobody: whoever has one may draw them at once.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting: u32,
    /// Number of its store; 0: it does not vote.
    pub store: u64,
    /// Cores of the machine.
    pub cores: u32,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Labels.
    pub labels: Vec<String>,
    /// Price of a slot in micros per hour.
    pub price_micros_per_hour: u64,
    /// Speed relative to a reference machine, in percent.
    pub speed_percent: u32,
    /// Region.
    pub region: String,
    /// Operating system: `linux`, `windows`, `macos`.
    pub os: String,
    /// Why it takes nothing at present; empty: it does.
    pub paused: String,
    /// What its owner's file lets in.
    pub accepts: Accepts,
    /// Input trees that it held recently.
    pub trees: Vec<BlobHash>,
    /// Version of the binary.
    pub version: String,
    /// Where it can be reached, as multiaddrs: members learn of each other by their offers.
    pub addrs: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// What a PC's owner lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Accepts {
    /// Only jobs of these persons; `None`: of everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persons: Option<BTreeSet<PersonId>>,
    /// Only these programs (the command's first word); `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<BTreeSet<String>>,
    /// Only jobs that ask for one of these labels; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeSet<String>>,
    /// Whether jobs may use the network.
    pub network: bool,
}

/// Why a node does not take a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lack {
    /// A label is missing.
    Label(String),
    /// Another operating system.
    Os(String),
    /// Another region.
    Region(String),
    /// Too few cores.
    Cores(u32),
    /// Too little memory.
    Memory(u64),
    /// Too expensive.
    Price(u64),
    /// It sells no slots.
    NoSlots,
    /// Most voters of a task that may start but once cannot be reached.
    Majority,
    /// All slots are taken.
    Busy,
    /// Paused by its owner or its state.
    Paused(String),
    /// Its owner does not take this person's jobs.
    Person,
    /// Its owner does not take this command.
    Command,
    /// Its owner takes only jobs with certain labels.
    OnlyLabels,
    /// Its owner allows no network.
    Network,
    /// Its role may not run jobs.
    Role,
    /// It was called and did not answer.
    Silent,
    /// What the job serves is not in its ledger yet.
    Idea,
}

impl Lack {
    /// Whether it passes by itself, so that the node may still come into question.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Paused(_) | Self::Silent | Self::Majority | Self::Idea)
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label} missing"),
            Self::Os(os) => write!(f, "its system is not {os}"),
            Self::Region(region) => write!(f, "it is not in region {region}"),
            Self::Cores(cores) => write!(f, "fewer than {cores} cores"),
            Self::Memory(bytes) => write!(f, "less than {} MiB of memory", bytes / (1024 * 1024)),
            Self::Price(price) => write!(f, "its price is above {price} micros per hour"),
            Self::NoSlots => f.write_str("it sells no slots"),
            Self::Majority => f.write_str("it reaches too few of the job's voters"),
            Self::Busy => f.write_str("all its slots are taken"),
            Self::Paused(why) => write!(f, "paused: {why}"),
            Self::Person => f.write_str("its owner does not take this person's jobs"),
            Self::Command => f.write_str("its owner does not take this command"),
            Self::OnlyLabels => f.write_str("its owner takes only jobs with certain labels"),
            Self::Network => f.write_str("its owner allows jobs no network"),
            Self::Role => f.write_str("its role may not run jobs"),
            Self::Silent => f.write_str("called, no answer"),
            Self::Idea => f.write_str("the idea that it serves has not arrived there"),
        }
    }
}

/// What an offer lacks for a spec, passing reasons last; empty: it fits now.
#[must_use]
pub fn lacks(offer: &Offer, spec: &JobSpec) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let mut need = |missing: bool, lack: Lack| {
        if missing {
            lacks.push(lack);
        }
    };
    need(offer.slots == 0, Lack::NoSlots);
    for label in &spec.labels {
        need(!offer.labels.contains(label), Lack::Label(label.clone()));
    }
    if let Some(os) = &spec.os {
        need(offer.os != *os, Lack::Os(os.clone()));
    }
    if let Some(region) = &spec.region {
        need(offer.region != *region, Lack::Region(region.clone()));
    }
    need(offer.cores < spec.cores, Lack::Cores(spec.cores));
    need(offer.memory_bytes < spec.memory_bytes, Lack::Memory(spec.memory_bytes));
    if let Some(price) = spec.max_price {
        need(offer.price_micros_per_hour > price, Lack::Price(price));
    }
    let accepts = &offer.accepts;
    need(accepts.persons.as_ref().is_some_and(|p| !p.contains(&spec.person)), Lack::Person);
    let program = spec.command.first().map_or("", String::as_str);
    need(accepts.commands.as_ref().is_some_and(|c| !c.contains(program)), Lack::Command);
    need(accepts.labels.as_ref().is_some_and(|l| !spec.labels.iter().any(|s| l.contains(s))), Lack::OnlyLabels);
    need(spec.network && !accepts.network, Lack::Network);
    need(!offer.paused.is_empty(), Lack::Paused(offer.paused.clone()));
    lacks
}

/// Whether an offer could ever take a spec, if it were idle.
#[must_use]
pub fn could_ever(offer: &Offer, spec: &JobSpec) -> bool {
    lacks(offer, spec).iter().all(Lack::is_passing)
}

/// The bid: price × estimate, and one micro per millisecond of waiting and of data still to move.
#[must_use]
pub fn bid_micros(offer: &Offer, spec: &JobSpec, estimate_ms: Option<u64>, waiting_ms: u64) -> u64 {
    let estimate_ms = estimate_ms.unwrap_or(ESTIMATE_UNKNOWN_MS) * 100 / u64::from(offer.speed_percent.max(1));
    let price = offer.price_micros_per_hour.saturating_mul(estimate_ms) / 3_600_000;
    let held = spec.input.is_none_or(|tree| offer.trees.contains(&tree));
    let moving_ms = if held { 0 } else { spec.input_bytes / MOVE_BYTES_PER_MS };
    price.saturating_add(waiting_ms).saturating_add(moving_ms)
}

/// An offer with its author and signature, as it is gossiped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOffer {
    /// Who offers.
    pub node: NodeId,
    /// Canonical bytes of the [`Offer`].
    #[serde(with = "serde_bytes")]
    pub offer: Vec<u8>,
    /// Over mesh, node and offer.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

impl SignedOffer {
    /// Signs an offer.
    #[must_use]
    pub fn sign(mesh: MeshId, signer: &dyn crdt::Signer, offer: &Offer) -> Self {
        let node = signer.node();
        let bytes = cbor::encode(offer);
        let signature = signer.sign(&Self::message(mesh, node, &bytes));
        Self { node, offer: bytes, signature: signature.to_vec() }
    }

    /// The offer, if it is signed by its node and within bounds.
    #[must_use]
    pub fn open(&self, mesh: MeshId) -> Option<Offer> {
        let signature = self.signature.as_slice().try_into().ok()?;
        if !crdt::verify(&self.node, &Self::message(mesh, self.node, &self.offer), signature) {
            return None;
        }
        cbor::decode::<Offer>(&self.offer)
            .ok()
            .filter(|offer| offer.labels.len() <= LABELS_MAX && offer.addrs.len() <= ADDRS_MAX)
    }

    fn message(mesh: MeshId, node: NodeId, offer: &[u8]) -> Vec<u8> {
        cbor::encode(&("v6/offer/1", mesh, node, serde_bytes::Bytes::new(offer)))
    }
}

/// How long tasks of a command take, as an exponentially weighted mean.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Durations {
    means_us: BTreeMap<u64, u64>,
}

impl Durations {
    /// Takes in a duration.
    pub fn learn(&mut self, spec: &JobSpec, us: u64) {
        let key = Self::key(spec);
        if self.means_us.len() >= crate::limits::DURATIONS_MAX && !self.means_us.contains_key(&key) {
            self.means_us.pop_first();
        }
        let mean = self.means_us.entry(key).or_insert(us);
        *mean = (*mean * 3 + us) / 4;
    }

    /// The mean in microseconds, if a task of this command was measured.
    #[must_use]
    pub fn of(&self, spec: &JobSpec) -> Option<u64> {
        self.means_us.get(&Self::key(spec)).copied()
    }

    fn key(spec: &JobSpec) -> u64 {
        let hash = blake3::hash(&cbor::encode(&(&spec.command, spec.input)));
        u64::from_be_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"))
    }
}
