//! What a core knows beside its replica, so that one can be taken up elsewhere as it was: in the middle of its work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crdt::Signer;
use crdt::doc::DocId;
use crdt::ids::{JobId, NodeId};
use crdt::job::ClaimId;
use crdt::replica::Replica;
use crdt::shelf::Shelf;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Call, Called, Core, Held, KnownOffer, Peer, Securing, WaitingAck, Watch};
use crate::io::Config;
use crate::offer::{Durations, Offer};
use crate::time::{Now, Time};

macro_rules! memory {
    ($($field:ident: $type:ty,)*) => {
        /// All of a core that its key and its replica's rows do not give back.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub struct Memory {
            config: Config,
            /// Seed and place of the random draws, in words.
            rng: ([u8; 32], u64),
            replica: crdt::replica::Memory,
            $($field: $type,)*
        }

        impl<S: Shelf> Core<S> {
            /// What is known here beside the replica's rows.
            #[must_use]
            pub fn memory(&self) -> Memory {
                // Whatever is added to a core is to be named here or below.
                let Self { signer: _, me: _, config, rng, replica, $($field,)* } = self;
                Memory {
                    config: config.clone(),
                    rng: (rng.get_seed(), u64::try_from(rng.get_word_pos()).unwrap_or(u64::MAX)),
                    replica: replica.memory(),
                    $($field: $field.clone(),)*
                }
            }

            fn remember(&mut self, memory: Memory) {
                $(self.$field = memory.$field;)*
                self.rng = ChaCha8Rng::from_seed(memory.rng.0);
                self.rng.set_word_pos(memory.rng.1.into());
                self.replica.remember(memory.replica);
            }
        }
    };
}

memory! {
    peers: BTreeMap<NodeId, Peer>,
    offers: BTreeMap<NodeId, KnownOffer>,
    offers_version: u64,
    offer: Offer,
    offer_at: Option<Time>,
    offer_dirty: bool,
    pending: Vec<(Option<Vec<u8>>, crdt::bundle::Change)>,
    pending_acks: Vec<(u64, Vec<Option<String>>)>,
    acks: Vec<WaitingAck>,
    flush_credit: u64,
    flush_at: Time,
    gossip_at: Option<Time>,
    gossip_seq: u64,
    repair_at: Time,
    presence_at: Time,
    draw_at: Time,
    turn_at: Time,
    wants: BTreeMap<(NodeId, bool), (u64, Time, u32)>,
    roster_asked: bool,
    stale_tails: BTreeMap<NodeId, u32>,
    peer_heads: BTreeMap<NodeId, (u64, NodeId)>,
    strange_heads: BTreeSet<NodeId>,
    held: BTreeMap<(JobId, ClaimId), Held>,
    reported: BTreeSet<(JobId, ClaimId)>,
    durations: Durations,
    overhead_us: u64,
    calls: BTreeMap<(JobId, u32), Call>,
    called: BTreeMap<(JobId, u32, u32), Called>,
    watches: BTreeMap<(JobId, ClaimId), Watch>,
    proposals: BTreeMap<(JobId, u32), super::once::Proposing>,
    first_seen: BTreeMap<(JobId, u32), Time>,
    securing: BTreeMap<(JobId, ClaimId), Securing>,
    dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    lacks_idea: BTreeMap<JobId, DocId>,
    open: BTreeSet<JobId>,
    finished: BTreeSet<JobId>,
    forget: VecDeque<(Time, JobId)>,
    lease_at: Time,
    busy: BTreeMap<JobId, Vec<NodeId>>,
    loads: BTreeMap<NodeId, u32>,
    dirty: BTreeSet<JobId>,
    changed: BTreeSet<DocId>,
    retaining: super::retain::Retaining,
    lost_peers_at: Vec<Time>,
    hold_own_feed: bool,
    told_of_seq: u64,
    heard_heads: bool,
    heads_from: BTreeSet<NodeId>,
    began_at: Time,
    draining: bool,
    slot_freed: bool,
    wake: Option<Time>,
}

impl<S: Shelf> Core<S> {
    /// A core that goes on where another one over the same rows was.
    #[must_use]
    pub fn resume(signer: impl Signer + 'static, replica: Replica<S>, memory: Memory) -> Self {
        let mut core = Self::new(signer, replica, memory.config.clone(), Now::default());
        core.remember(memory);
        core
    }

    /// Lets another sign for this node: the same key, watched.
    pub fn set_signer(&mut self, signer: Arc<dyn Signer>) {
        debug_assert_eq!(signer.node(), self.me);
        self.signer = signer;
    }
}
