//! The core of one node: everything it decides, as a state machine.
//!
//! [`Core::handle`] is the one entrance. An input is first taken in by the part that it belongs to; then a *turn* looks at
//! the jobs that changed and at every deadline, acts, and notes when it wants to be woken. There are no timers: the next
//! wake is recomputed each turn.

mod claims;
mod commands;
mod draw;
mod explain;
mod flush;
mod lease;
mod market;
mod memory;
mod once;
mod retain;
mod settle;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crdt::Signer;
use crdt::doc::{DocId, TaskRange};
use crdt::ids::{JobId, NodeId};
use crdt::job::{Basis, ClaimId};
use crdt::mutant::{Mutant, is_made};
use crdt::replica::Replica;
use crdt::shelf::{Shelf, Table};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use explain::{Explanation, OfferView, WaitingFor, WaitsFor};
pub use memory::Memory;

use crate::io::{Config, Effect, Effects, Input};
use crate::offer::{Durations, Lack, Offer};
use crate::time::{Now, Time};

/// A member that is or was connected.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Peer {
    connected: bool,
    /// When it was last connected.
    since: Time,
    incarnation: u64,
    last_heard: Time,
    /// Place up to which it has our feed, as far as we know.
    knows_seq: u64,
    /// Place up to which it holds our feed durably.
    receipt_seq: u64,
    /// Place of its feed that it told of and that had not come, and when that was noticed.
    awaited: Option<(u64, Time)>,
    /// When it was last sent the roster.
    roster_at: Option<Time>,
}

/// An offer that is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct KnownOffer {
    offer: Arc<Offer>,
    /// When its newest number came.
    heard: Time,
}

/// What a node did for a call of which it is part.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Called {
    by: NodeId,
    range: TaskRange,
    at: Time,
    place: usize,
    declined: BTreeSet<NodeId>,
    rank: Vec<NodeId>,
}

/// A call of ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Call {
    attempt: u32,
    range: TaskRange,
    rank: Vec<NodeId>,
    called: usize,
    at: Time,
    not_before: Time,
    declines: BTreeMap<NodeId, Lack>,
    exhausted: bool,
    offers_version: u64,
}

/// A claim of ours that is not over.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Held {
    at: Time,
    estimate_us: u64,
    phase: Phase,
    report: crdt::job::RunReport,
    reported_at: Time,
    /// When the report is to be written again.
    report_due: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Waiting,
    Running { since: Time },
    Ending,
}

/// A claim of somebody else that we watch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch {
    since: Time,
    start_by_ms: u64,
}

/// An acknowledgement that waits for a receipt.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WaitingAck {
    request: u64,
    seq: u64,
    deadline: Time,
    warnings: Vec<Option<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Securing {
    Asked(Time),
    Held,
    Failed,
}

/// One node's decisions.
#[derive(Debug, Clone)]
pub struct Core<S> {
    signer: Arc<dyn Signer>,
    me: NodeId,
    config: Config,
    rng: ChaCha8Rng,
    replica: Replica<S>,
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
    /// Ranges that were asked for: of which author, whether of its tail, from which place on, when, and how often.
    wants: BTreeMap<(NodeId, bool), (u64, Time, u32)>,
    /// Whether the roster was asked for ahead of the feeds.
    roster_asked: bool,
    /// Rounds of repair in which a feed's tail was not reached and nobody knows more of the feed.
    stale_tails: BTreeMap<NodeId, u32>,
    peer_heads: BTreeMap<NodeId, (u64, NodeId)>,
    /// Those of them whose authors are not known here.
    strange_heads: BTreeSet<NodeId>,
    held: BTreeMap<(JobId, ClaimId), Held>,
    /// Claims of ours whose last report waits for the next flush.
    reported: BTreeSet<(JobId, ClaimId)>,
    durations: Durations,
    /// Mean time that a claim takes beside its tasks: workspace, cell, files.
    overhead_us: u64,
    calls: BTreeMap<(JobId, u32), Call>,
    called: BTreeMap<(JobId, u32, u32), Called>,
    watches: BTreeMap<(JobId, ClaimId), Watch>,
    /// Claims of ours that may start but once, by job and task.
    proposals: BTreeMap<(JobId, u32), once::Proposing>,
    first_seen: BTreeMap<(JobId, u32), Time>,
    securing: BTreeMap<(JobId, ClaimId), Securing>,
    dependents: BTreeMap<JobId, BTreeSet<JobId>>,
    /// Jobs that are not over and serve a subject that is not here.
    lacks_idea: BTreeMap<JobId, DocId>,
    /// Jobs that are not over.
    open: BTreeSet<JobId>,
    finished: BTreeSet<JobId>,
    /// The same in the order in which they finished.
    forget: VecDeque<(Time, JobId)>,
    /// Before this no lease runs out.
    lease_at: Time,
    /// Owners of the claims of each open job that are not over, and how many each node has of them.
    busy: BTreeMap<JobId, Vec<NodeId>>,
    loads: BTreeMap<NodeId, u32>,
    dirty: BTreeSet<JobId>,
    changed: BTreeSet<DocId>,
    retaining: retain::Retaining,
    lost_peers_at: Vec<Time>,
    hold_own_feed: bool,
    /// The highest number of our feed that somebody told of while we wait to hear it; kept in the store.
    told_of_seq: u64,
    heard_heads: bool,
    /// Who said what it knows of all feeds.
    heads_from: BTreeSet<NodeId>,
    began_at: Time,
    draining: bool,
    slot_freed: bool,
    wake: Option<Time>,
}

/// Row that is there while a node waits to hear what it wrote: the highest number of its feed that somebody told of.
const HOLD_ROW: &[u8] = b"hold";

/// Notes in the store that it was lost, or came from a backup: until the core has heard what it wrote before, it writes nothing
/// and takes no work, whatever the number of restarts.
pub fn hold_own_feed<S: Shelf>(replica: &mut Replica<S>) {
    if replica.shelf().get(Table::Meta, HOLD_ROW).is_none() {
        replica.shelf_mut().put((Table::Meta, HOLD_ROW.to_vec(), Some(0u64.to_be_bytes().to_vec())));
    }
}

impl<S: Shelf> Core<S> {
    /// A core over what its replica holds. `now` is the time of its start.
    #[must_use]
    pub fn new(signer: impl Signer + 'static, replica: Replica<S>, config: Config, now: Now) -> Self {
        let me = signer.node();
        let hold_row = replica.shelf().get(Table::Meta, HOLD_ROW);
        let hold_own_feed = hold_row.is_some();
        let mut offer = config.offer.clone();
        offer.incarnation = config.incarnation;
        offer.free = offer.slots;
        let dirty = replica.jobs().map(|(id, _)| *id).collect();
        let gossip_seq = replica.feeds().get(&me).map_or(0, |feed| feed.seq);
        let mut core = Self {
            me,
            signer: Arc::new(signer),
            rng: ChaCha8Rng::from_seed(config.seed),
            config,
            replica,
            peers: BTreeMap::new(),
            offers: BTreeMap::new(),
            offers_version: 0,
            offer,
            offer_at: None,
            offer_dirty: true,
            pending: Vec::new(),
            pending_acks: Vec::new(),
            acks: Vec::new(),
            flush_credit: crate::limits::FLUSH_BURST,
            flush_at: now.mono,
            gossip_at: None,
            gossip_seq,
            repair_at: now.mono,
            presence_at: Time(0),
            draw_at: now.mono,
            turn_at: now.mono,
            wants: BTreeMap::new(),
            roster_asked: false,
            stale_tails: BTreeMap::new(),
            peer_heads: BTreeMap::new(),
            strange_heads: BTreeSet::new(),
            held: BTreeMap::new(),
            reported: BTreeSet::new(),
            durations: Durations::default(),
            overhead_us: crate::limits::OVERHEAD_UNMEASURED_MS * 1_000,
            calls: BTreeMap::new(),
            called: BTreeMap::new(),
            watches: BTreeMap::new(),
            proposals: BTreeMap::new(),
            first_seen: BTreeMap::new(),
            securing: BTreeMap::new(),
            dependents: BTreeMap::new(),
            lacks_idea: BTreeMap::new(),
            open: BTreeSet::new(),
            finished: BTreeSet::new(),
            forget: VecDeque::new(),
            lease_at: Time(0),
            busy: BTreeMap::new(),
            loads: BTreeMap::new(),
            dirty,
            changed: BTreeSet::new(),
            retaining: retain::Retaining::default(),
            lost_peers_at: Vec::new(),
            hold_own_feed,
            told_of_seq: hold_row.and_then(|row| row.try_into().ok()).map_or(0, u64::from_be_bytes),
            heard_heads: false,
            heads_from: BTreeSet::new(),
            began_at: now.mono,
            draining: false,
            slot_freed: true,
            wake: None,
        };
        core.offer.store = core.store_number(hold_own_feed);
        core
    }

    /// Takes in an input at a time; what is to be done is put behind `out`.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Effects) {
        self.take(now, input, out);
        self.turn(now, out);
    }

    /// Takes in several inputs that arrived together, with one turn after the last.
    pub fn handle_all(&mut self, now: Now, inputs: impl IntoIterator<Item = Input>, out: &mut Effects) {
        for input in inputs {
            self.take(now, input, out);
        }
        self.turn(now, out);
    }

    /// When the core wants [`Input::Wake`] at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.wake
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// What is known of the mesh.
    #[must_use]
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// What is known of the mesh, to read jobs that are not in memory and to write rows that are not the core's.
    pub fn replica_mut(&mut self) -> &mut Replica<S> {
        &mut self.replica
    }

    /// This node's offer.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The offer of another member, if one is known.
    #[must_use]
    pub fn offer_of(&self, node: &NodeId) -> Option<&Offer> {
        self.offers.get(node).map(|known| &*known.offer)
    }

    /// Members that are connected.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.connected).map(|(node, _)| *node)
    }

    /// Whether it waits to hear what it wrote before its store was lost: until then it writes nothing and takes no work.
    #[must_use]
    pub fn waits_for_own_feed(&self) -> bool {
        self.hold_own_feed
    }

    /// Claims of ours that are not over, and whether they run.
    pub fn held(&self) -> impl Iterator<Item = (JobId, ClaimId, bool)> + '_ {
        self.held.iter().map(|((job, claim), held)| (*job, *claim, held.phase != Phase::Waiting))
    }

    /// What is kept of what others sent, with its bounds: for those who watch that none is exceeded.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize, usize); 4] {
        use crate::limits::{CLAIMS_HELD_MAX, STRANGE_HEADS_MAX};
        let heads = self.replica.roster().authors.len() + 1 + STRANGE_HEADS_MAX;
        [
            ("calls of others", self.called.len(), CLAIMS_HELD_MAX),
            ("claims", self.held.len(), CLAIMS_HELD_MAX),
            ("heads of others", self.peer_heads.len(), heads),
            ("ranges asked for", self.wants.len(), 2 * heads),
        ]
    }

    fn take(&mut self, now: Now, input: Input, out: &mut Effects) {
        match input {
            Input::Connected(node) => self.on_connected(now, node, out),
            Input::Disconnected(node) => self.on_disconnected(now, node),
            Input::Message { from, bytes } => self.on_message(now, from, &bytes, out),
            Input::Verified { from, verified } => self.on_verified(now, from, verified, out),
            Input::Gossip { via, bytes } => self.on_gossip(now, via, &bytes, out),
            Input::Command { request, command } => self.on_command(now, request, command, out),
            Input::Started { job, claim, task, at_ms } => self.on_started(now, job, claim, task, at_ms),
            Input::Exited { job, claim, task, started_ms, at_ms, exit } => {
                self.on_exited(now, job, claim, task, (started_ms, at_ms), exit);
            }
            Input::Progress { job, claim, artifacts, list, checkpoint, holders } => {
                self.on_progress(now, (job, claim), (artifacts, list), checkpoint, holders);
            }
            Input::Unkept { job, claim } => self.on_unkept(job, claim),
            Input::Ended { job, claim, log, cost_micros } => self.on_ended(now, job, claim, log, cost_micros),
            Input::Secured { job, claim, held } => {
                self.securing.insert((job, claim), if held { Securing::Held } else { Securing::Failed });
                self.dirty.insert(job);
            }
            Input::Wake => {}
        }
    }

    /// Looks at everything that may be due.
    fn turn(&mut self, now: Now, out: &mut Effects) {
        self.wake = None;
        self.after_sleep(now);
        self.tick_leases(now);
        self.tick_securing(now);
        self.settle_dirty(now, out);
        self.tick_calls(now, out);
        self.tick_called(now, out);
        self.tick_draw(now);
        self.tick_proposals(now, out);
        self.tick_reports(now);
        self.start_waiting(now, out);
        self.flush_if_due(now, out);
        // What was just written opens, calls and claims at once: no other input need come first.
        self.settle_dirty(now, out);
        self.tick_calls(now, out);
        self.tick_called(now, out);
        self.flush_if_due(now, out);
        self.start_waiting(now, out);
        self.tick_acks(now, out);
        self.tick_gossip(now, out);
        self.tick_presence(now, out);
        self.tick_offer(now, out);
        self.tick_repair(now, out);
        self.tick_retention(now, out);
        self.tick_forget(now);
        if !self.changed.is_empty() {
            out.push(Effect::Changed(std::mem::take(&mut self.changed).into_iter().collect()));
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Whether a deadline has come; else it is noted.
    fn is_due(&mut self, now: Now, at: Time) -> bool {
        if at <= now.mono {
            return true;
        }
        self.wake_at(at);
        false
    }

    fn is_connected(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.connected)
    }

    fn may_run(&self) -> bool {
        let frozen = self.replica.feeds().get(&self.me).is_some_and(|feed| feed.frozen);
        !frozen && !self.hold_own_feed && self.replica.roster().role(&self.me).is_some_and(|role| role.may_run())
    }

    /// Tasks of a job that may be claimed now, with attempt and basis; none while a job before it is not done.
    fn open_ranges(&self, now: Now, id: &JobId) -> Vec<(TaskRange, u32, Basis)> {
        use crdt::job::Waiting;
        let Some(job) = self.replica.cached_job(id) else { return Vec::new() };
        let Some((_, spec)) = job.spec() else { return Vec::new() };
        let after = spec.after.iter().all(|up| self.is_done(up));
        if !after || self.replica.is_incomplete(*id) || self.lacks_idea.contains_key(id) {
            return Vec::new();
        }
        let mut open = Vec::new();
        for segment in job.segments() {
            match segment.waiting {
                Waiting::Claim { lost_owner: Some(_), .. } if is_made(Mutant::IgnoresLost) => {}
                Waiting::Claim { attempt, lost_owner } => {
                    let basis = match lost_owner {
                        Some(owner) => {
                            Basis::Lost { owner, unheard: self.unheard_watchers(now, job, segment, attempt - 1) }
                        }
                        None if attempt == 1 => Basis::First,
                        None => Basis::Retry,
                    };
                    open.push((segment.range, attempt, basis));
                }
                // What may start but once and was chosen is nobody else's any more.
                Waiting::Owner(claim) if job.run(&claim).is_some_and(|run| run.chosen.is_some()) => {}
                Waiting::Owner(_) if is_made(Mutant::IgnoresLost) => {}
                Waiting::Owner(claim) => {
                    if let Some(unheard) = self.lost_by_those_heard(now, job, &claim) {
                        open.push((segment.range, claim.attempt + 1, Basis::Lost { owner: claim.owner, unheard }));
                    }
                }
                Waiting::Acceptance(..) | Waiting::Person(_) | Waiting::GivingUp(_) | Waiting::Nobody => {}
            }
        }
        open
    }

    /// Whether what a job serves is in the ledger here: before, it does not start. Whether it still counts is another matter: its
    /// author may be shut out meanwhile.
    fn knows_idea(&self, spec: &crdt::job::JobSpec) -> bool {
        let is_here = |idea| self.replica.has_entry(DocId::ledger(idea), idea);
        spec.idea.is_none_or(is_here) || is_made(Mutant::StartsUnregistered)
    }

    fn state_of(&self, id: &JobId) -> Option<crdt::job::JobState> {
        match self.replica.cached_job(id) {
            Some(job) => job.state(),
            None => self.replica.job_row(*id).and_then(|row| row.state()),
        }
    }

    /// Whether a job is done; while its submitter is away, whether it is if what is there is accepted: then what waits for it
    /// goes on all the same.
    fn is_done(&self, id: &JobId) -> bool {
        use crdt::job::JobState;
        let provisional = || {
            let job = self.replica.cached_job(id)?;
            let (submitter, _) = job.spec()?;
            job.provisional_state().filter(|_| self.is_away(submitter))
        };
        self.state_of(id) == Some(JobState::Done) || provisional() == Some(JobState::Done)
    }

    /// Whether a node cannot be heard.
    #[must_use]
    pub fn is_away(&self, node: &NodeId) -> bool {
        *node != self.me && !self.is_connected(node)
    }

    /// Whether this node accepts what comes of a node's jobs: of its own, and as an admin of those of a member that was revoked.
    /// Of several admins the one with the lowest id does.
    fn settles_for(&self, submitter: &NodeId) -> bool {
        let roster = self.replica.roster();
        let is_admin = |node: &NodeId| roster.role(node).is_some_and(|role| role.may_administer());
        let revoked = || roster.revoked.contains_key(submitter) && is_admin(&self.me);
        let lower = || self.peers.iter().any(|(node, peer)| peer.connected && *node < self.me && is_admin(node));
        *submitter == self.me || (revoked() && !lower()) || is_made(Mutant::AnybodyAccepts)
    }

    fn tick_forget(&mut self, now: Now) {
        while let Some((at, id)) = self.forget.front().copied() {
            let many = self.forget.len() > crate::limits::FINISHED_KEPT_MAX;
            if !many && !self.is_due(now, at.plus_ms(crate::limits::FORGET_AFTER_MS)) {
                return;
            }
            self.forget.pop_front();
            self.finished.remove(&id);
            self.replica.forget(&id);
            let attempts: Vec<_> = self.first_seen.range((id, 0)..=(id, u32::MAX)).map(|(key, _)| *key).collect();
            for key in attempts {
                self.first_seen.remove(&key);
            }
            let claims = self.securing.range((id, CLAIM_FLOOR)..).take_while(|((job, _), _)| *job == id);
            let claims: Vec<_> = claims.map(|(key, _)| *key).collect();
            for key in claims {
                self.securing.remove(&key);
            }
            self.dependents.remove(&id);
        }
    }
}

/// The claim id that no other comes before.
const CLAIM_FLOOR: ClaimId = ClaimId { attempt: 0, range: TaskRange { start: 0, end: 0 }, owner: NodeId::ZERO };

/// The token of a claim: what an owner says it holds, and a watcher compares.
#[must_use]
pub fn token(job: JobId, claim: &ClaimId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&job.0).update(&claim.attempt.to_be_bytes());
    hasher.update(&claim.range.start.to_be_bytes()).update(&claim.range.end.to_be_bytes()).update(&claim.owner.0);
    u64::from_be_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}
