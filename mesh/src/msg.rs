//! What cores say to each other, over direct streams and by gossip.
//!
//! Messages are volatile: what must last is in bundles. Encoding is CBOR within a frame whose size the transport bounds.

use bytes::Bytes;
use crdt::doc::TaskRange;
use crdt::ids::{BundleHash, JobId, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::limits::{BUNDLES_PER_MESSAGE_MAX, CALL_WIDTH, HEADS_PER_MESSAGE_MAX, TOKENS_PER_PRESENCE_MAX};
use crate::offer::{Lack, SignedOffer};
use crate::vote::{Ballot, Choice};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Msg {
    /// First thing on a connection, and in periodic repair: a digest of all heads.
    Hello {
        /// Start of the sender's process, in milliseconds since 1970.
        incarnation: u64,
        /// Digest of the sender's heads.
        heads: ByteBuf,
    },
    /// The sender's heads: the digests differed.
    Heads(Vec<(NodeId, u64, BundleHash)>),
    /// Asks for an author's bundles from a place on.
    Want {
        /// The author.
        author: NodeId,
        /// First place.
        from_seq: u64,
    },
    /// Bundles, each author's in order.
    Bundles {
        /// As they travel one by one; in a message they are packed ([`crdt::bundle::Packed`]).
        #[serde(with = "packing")]
        bundles: Vec<ByteBuf>,
        /// The sender wants a receipt for its own.
        receipt: bool,
        /// The author's last place, when more may be asked for.
        more: Option<(NodeId, u64)>,
    },
    /// Bundles that were too large for gossip.
    Announce(Vec<(NodeId, u64, BundleHash)>),
    /// The sender holds the receiver's feed durably up to this place.
    Receipt {
        /// The place.
        seq: u64,
    },
    /// A joiner that does not know the roster yet asks for it.
    AskRoster,
    /// Bundles that change the roster, without their other bodies, out of their order.
    Roster(Vec<ByteBuf>),
    /// Proof of a fork.
    Fork {
        /// The author.
        author: NodeId,
        /// The place.
        seq: u64,
        /// Both branches.
        branches: Vec<ByteBuf>,
    },
    /// An offer.
    Offer(SignedOffer),
    /// To those ranked for open tasks: claim in this order.
    Call {
        /// The job.
        job: JobId,
        /// Open attempt.
        attempt: u32,
        /// Open tasks.
        range: TaskRange,
        /// Who is called, best first.
        rank: Vec<NodeId>,
        /// Of an array: the slice that each may claim at once.
        slices: Vec<TaskRange>,
    },
    /// What the receiver was called for is claimed.
    Taken {
        /// The job.
        job: JobId,
        /// Attempt.
        attempt: u32,
        /// First task of the call.
        start: u32,
    },
    /// Does not take what it was called for.
    Decline {
        /// The job.
        job: JobId,
        /// Attempt.
        attempt: u32,
        /// First task that it was called for.
        start: u32,
        /// Why.
        lack: Lack,
    },
    /// To a voter: promise me to accept no lower ballot for this task.
    Prepare {
        /// The job.
        job: JobId,
        /// The task.
        task: u32,
        /// The ballot.
        ballot: Ballot,
    },
    /// A voter's promise, with what it accepted before.
    Promise {
        /// The job.
        job: JobId,
        /// The task.
        task: u32,
        /// The ballot.
        ballot: Ballot,
        /// What it accepted of lower ballots.
        accepted: Option<(Ballot, Choice)>,
    },
    /// To a voter: accept this.
    Propose {
        /// The job.
        job: JobId,
        /// The task.
        task: u32,
        /// The ballot.
        ballot: Ballot,
        /// The claim that may start.
        choice: Choice,
    },
    /// A voter accepted.
    Vote {
        /// The job.
        job: JobId,
        /// The task.
        task: u32,
        /// The ballot.
        ballot: Ballot,
    },
    /// A voter has promised a higher ballot.
    Outvoted {
        /// The job.
        job: JobId,
        /// The task.
        task: u32,
        /// The higher ballot.
        promised: Ballot,
    },
    /// I am here, and I hold these claims that you watch.
    Presence {
        /// Start of the sender's process, in milliseconds since 1970.
        incarnation: u64,
        /// Head of the sender's feed.
        seq: u64,
        /// Tokens of the claims that the receiver watches.
        tokens: Vec<u64>,
    },
}

mod packing {
    use crdt::bundle::Packed;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_bytes::ByteBuf;

    pub(super) fn serialize<S: Serializer>(bundles: &[ByteBuf], serializer: S) -> Result<S::Ok, S::Error> {
        Packed::pack(bundles.iter().map(|wire| &wire[..])).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ByteBuf>, D::Error> {
        let wires = Packed::deserialize(deserializer)?.unpack();
        Ok(wires.into_iter().map(|wire| ByteBuf::from(Vec::from(wire))).collect())
    }
}

impl Msg {
    /// The message's bytes.
    ///
    /// # Panics
    /// Never: all fields are plain data.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("plain data into memory");
        bytes.into()
    }

    /// Whether these bytes are a presence, without decoding them: nobody waits for what follows from one.
    #[must_use]
    pub fn is_presence(bytes: &[u8]) -> bool {
        // A map of one entry, and its key: a text of eight bytes.
        bytes.starts_with(b"\xa1\x68Presence")
    }

    /// Reads a message; `None` when it is none or exceeds its bounds.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let msg: Self = ciborium::de::from_reader_with_recursion_limit(bytes, crdt::limits::CBOR_DEPTH_MAX).ok()?;
        let fits = match &msg {
            Self::Heads(list) | Self::Announce(list) => list.len() <= HEADS_PER_MESSAGE_MAX,
            Self::Bundles { bundles, .. } | Self::Roster(bundles) => bundles.len() <= BUNDLES_PER_MESSAGE_MAX,
            Self::Fork { branches, .. } => branches.len() == 2,
            Self::Call { rank, slices, range, .. } => {
                rank.len() <= CALL_WIDTH && slices.len() <= CALL_WIDTH && !range.is_empty()
            }
            Self::Presence { tokens, .. } => tokens.len() <= TOKENS_PER_PRESENCE_MAX,
            Self::Hello { heads, .. } => heads.len() <= 32,
            Self::AskRoster
            | Self::Want { .. }
            | Self::Receipt { .. }
            | Self::Offer(_)
            | Self::Taken { .. }
            | Self::Prepare { .. }
            | Self::Promise { .. }
            | Self::Propose { .. }
            | Self::Vote { .. }
            | Self::Outvoted { .. }
            | Self::Decline { .. } => true,
        };
        fits.then_some(msg)
    }
}
