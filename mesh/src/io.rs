//! What goes into a core and what comes out.

use std::sync::Arc;

use bytes::Bytes;
use crdt::bundle::{Bundle, Change};
use crdt::doc::DocId;
use crdt::ids::{JobId, MeshId, NodeId};
use crdt::job::{ArtifactList, ArtifactRef, CheckpointRef, ClaimId, Exit, JobSpec, LogRef};
use serde::{Deserialize, Serialize};

use crate::limits::{GOSSIP_WAIT_MS, HISTORY_BYTES_MAX, PRESENCE_WAIT_MS, RETENTION_MS};
use crate::msg::Msg;
use crate::offer::Offer;

/// What a core is told once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Seed of the core's random draws.
    pub seed: [u8; 32],
    /// Start of the process, in milliseconds since 1970.
    pub incarnation: u64,
    /// How long the history of finished jobs stays.
    pub retention: Retention,
    /// What the node sells; incarnation, number and free slots are the core's to fill in.
    pub offer: Offer,
}

/// How long the history of finished jobs stays: this node seals the jobs that it submitted when either bound is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Time since a job ended.
    pub keep_ms: u64,
    /// Bytes of all bundles that this node holds. More: the oldest finished jobs are sealed whatever their age.
    pub history_bytes_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_ms: RETENTION_MS, history_bytes_max: HISTORY_BYTES_MAX }
    }
}

/// An input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Input {
    /// A member is connected.
    Connected(NodeId),
    /// It no longer is.
    Disconnected(NodeId),
    /// A direct message.
    Message {
        /// Who sent it (the connection says so).
        from: NodeId,
        /// [`crate::msg::Msg`].
        bytes: Bytes,
    },
    /// A direct or gossiped message of bundles that the driver has verified beside the core ([`Input::message`]).
    Verified {
        /// Who sent it (the connection says so).
        from: NodeId,
        /// What it held.
        verified: Verified,
    },
    /// A gossiped message.
    Gossip {
        /// Who passed it on.
        via: NodeId,
        /// [`crate::msg::Msg`].
        bytes: Bytes,
    },
    /// A wish of the node's own people; answered by [`Effect::Reply`] under the same number.
    Command {
        /// The number.
        request: u64,
        /// The wish.
        command: Command,
    },
    /// A task's process started.
    Started {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// The task.
        task: u32,
        /// Just before exec, in milliseconds since 1970.
        at_ms: u64,
    },
    /// A task's process ended.
    Exited {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// The task.
        task: u32,
        /// In milliseconds since 1970.
        started_ms: u64,
        /// In milliseconds since 1970.
        at_ms: u64,
        /// How.
        exit: Exit,
    },
    /// Files of a run that are stored here and perhaps elsewhere.
    Progress {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// All files so far, or the first of them.
        artifacts: Vec<ArtifactRef>,
        /// Where all are named, when they are many.
        list: Option<ArtifactList>,
        /// Highest checkpoint that a second node holds.
        checkpoint: Option<CheckpointRef>,
        /// Who else holds them.
        holders: Vec<NodeId>,
    },
    /// A run is over: nothing of it changes any more.
    Ended {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// Its output.
        log: Option<LogRef>,
        /// Its cost in micros.
        cost_micros: u64,
    },
    /// A run is over, and not all that it left could be stored: its log or a file found no room. It is given back.
    Unkept {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
    },
    /// The files of an ended run are held here (`true`), or cannot be had.
    Secured {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// Whether they are held.
        held: bool,
    },
    /// The time that [`crate::Core::next_wake`] named, or any other.
    Wake,
}

impl Input {
    /// How long a driver may let it wait for others, so that they share a turn: milliseconds, 0 when it hurries.
    #[must_use]
    pub fn patience_ms(&self) -> u64 {
        match self {
            Self::Gossip { .. } => GOSSIP_WAIT_MS,
            Self::Message { bytes, .. } if Msg::is_presence(bytes) => PRESENCE_WAIT_MS,
            Self::Connected(_)
            | Self::Disconnected(_)
            | Self::Message { .. }
            | Self::Verified { .. }
            | Self::Command { .. }
            | Self::Started { .. }
            | Self::Exited { .. }
            | Self::Progress { .. }
            | Self::Ended { .. }
            | Self::Unkept { .. }
            | Self::Secured { .. }
            | Self::Wake => 0,
        }
    }

    /// A direct message as the core is to have it. Of a long history the signatures are a good part of the work: they are
    /// verified here, beside the core. Cost: 50 µs per bundle of a message of at least 64 KiB, else nothing.
    #[must_use]
    pub fn message(from: NodeId, bytes: Bytes) -> Self {
        let verify = |wire: Bytes| Bundle::decode(wire).ok();
        let verified = if bytes.len() >= Verified::WORTH_BYTES { Verified::read(&bytes, verify) } else { None };
        match verified {
            Some(verified) => Self::Verified { from, verified },
            None => Self::Message { from, bytes },
        }
    }
}

/// What a message holds, decoded and its signatures verified. Cheap to clone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verified(pub(crate) Content);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Content {
    Bundles {
        bundles: Arc<[Bundle]>,
        /// How many did not verify.
        refused: usize,
        receipt: bool,
        more: Option<(NodeId, u64)>,
    },
    Offer(NodeId, Arc<Offer>),
}

impl Verified {
    /// Bytes of a message from which on a driver verifies it beside the core.
    const WORTH_BYTES: usize = 64 * 1024;

    /// Reads a message of bundles; `None` when it is another. `verify` is [`Bundle::decode`], or remembers what that said.
    #[must_use]
    pub fn read(bytes: &[u8], verify: impl FnMut(Bytes) -> Option<Bundle>) -> Option<Self> {
        let Some(Msg::Bundles { bundles, receipt, more }) = Msg::decode(bytes) else { return None };
        let count = bundles.len();
        let bundles: Arc<[Bundle]> =
            bundles.into_iter().map(|wire| wire.into_vec().into()).filter_map(verify).collect();
        Some(Self(Content::Bundles { refused: count - bundles.len(), bundles, receipt, more }))
    }

    /// How many signatures it stands for.
    #[must_use]
    pub fn signatures(&self) -> usize {
        match &self.0 {
            Content::Bundles { bundles, .. } => bundles.len(),
            Content::Offer(..) => 1,
        }
    }

    /// Reads a message of an offer; `None` when it is another, or does not verify. Cost: 50 µs.
    #[must_use]
    pub fn offer(bytes: &[u8], mesh: MeshId) -> Option<Self> {
        let Some(Msg::Offer(signed)) = Msg::decode(bytes) else { return None };
        Some(Self(Content::Offer(signed.node, Arc::new(signed.open(mesh)?))))
    }
}

/// A wish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Submit jobs, with the entries of the ledger that they serve and that are new. Ids are given by the driver (random, or of
    /// the key).
    Submit(Vec<(JobId, JobSpec)>, Vec<Change>),
    /// End a job.
    Cancel(JobId),
    /// Change a job's priority.
    Priority(JobId, i32),
    /// Write to documents: roster and notebooks.
    Write(Vec<Change>),
    /// Sell something else.
    SetOffer(Box<Offer>),
    /// Take no more work and give back what does not run: the node is about to stop.
    Drain,
}

/// The answer to a wish that was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// Nodes on which it is durable, this one included.
    pub durable_on: u32,
    /// Per submitted job: why nobody can run it, if nobody can.
    pub warnings: Vec<Option<String>>,
}

/// Why a wish was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The node's role does not allow it.
    #[error("this node's role ({0}) does not allow it; an admin can change the role or make an invite with another")]
    Role(String),
    /// No such job.
    #[error("no job {0} is known here")]
    NoJob(JobId),
    /// The key was used with another spec.
    #[error("the key {0:?} belongs to job {1} with another spec; take another key, or submit the same spec")]
    KeyTaken(String, JobId),
    /// The job is over.
    #[error("job {0} is already {1}")]
    Over(JobId, &'static str),
    /// The node's own feed is frozen by a fork.
    #[error("this node's feed is frozen: two versions of it exist (was the data directory copied or restored?)")]
    Frozen,
    /// A job of the spec's `after` is not known.
    #[error("job {0} of `after` is not known here")]
    NoUpstream(JobId),
}

/// What the driver is to do. An effect is carried out only when all rows that were put before it are durable.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a message to a connected member; dropped when it is not.
    Send(NodeId, Bytes),
    /// Gossip a message.
    Gossip(Bytes),
    /// Tell each of these that this node is here, at once and then each [`crate::limits::PRESENCE_EVERY_MS`] until the next
    /// such effect, but no longer than [`crate::limits::PRESENCE_REPEATED_MS_MAX`]: a turn or a commit that takes long must not
    /// cost the node its leases, and a core that stands still for good must.
    Presence(Vec<(NodeId, Bytes)>),
    /// Run tasks one after the other.
    Start {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// The spec.
        spec: Arc<JobSpec>,
        /// Who submitted it, and whoever else holds its inputs.
        holders: Vec<NodeId>,
        /// The newest complete checkpoint of earlier attempts.
        resume: Option<CheckpointRef>,
    },
    /// End a run; [`Input::Exited`] of its tasks and [`Input::Ended`] follow.
    Kill {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// What its tasks' exit is to be.
        exit: Exit,
    },
    /// Bring the files of a run here; [`Input::Secured`] follows.
    Secure {
        /// The job.
        job: JobId,
        /// The claim.
        claim: ClaimId,
        /// The files, or the first of them.
        artifacts: Vec<ArtifactRef>,
        /// Where all are named, when they are many.
        list: Option<ArtifactList>,
        /// Its output.
        log: Option<LogRef>,
        /// Who holds them.
        holders: Vec<NodeId>,
    },
    /// The answer to a wish.
    Reply {
        /// The wish's number.
        request: u64,
        /// The answer.
        result: Result<Ack, Refusal>,
    },
    /// The history of these jobs was dropped: nothing of them need be kept any more.
    Pruned(Vec<JobId>),
    /// A member says where it can be reached.
    Reachable(NodeId, Vec<String>),
    /// Members, roles or revocations changed.
    RosterChanged,
    /// Documents changed: for those who look at them.
    Changed(Vec<DocId>),
    /// A peer sent something that it should not have.
    Misbehaved(NodeId, &'static str),
}

/// Effects in their order.
pub type Effects = Vec<Effect>;
