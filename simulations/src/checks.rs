//! The invariants: what must hold at every step, and what must hold once everything was healed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::job::{AttemptState, ClaimId, JobState, Outcome, Waiting};
use crdt::replica::Feed;
use mesh::limits::{CLAIMS_HELD_MAX, LEASE_MS};
use rayon::prelude::*;
use serde::Serialize;

use crate::plan::{GUEST_MS, GUESTS_UNTIL_MS, HOG_MS};
use crate::world::World;

/// An invariant's name and the sentence that it stands for.
pub const INVARIANTS: [(&str, &str); 16] = [
    ("acknowledged-kept", "acknowledged entries are never lost, and are where their receipts said"),
    ("same-feeds-same-state", "two nodes with the same feeds show the same state hash"),
    ("one-result", "one accepted result per task, never flipped"),
    ("at-most-once", "what may start once never starts twice"),
    ("own-register", "nobody writes another's register"),
    ("ledger-grows", "what is known only grows; a feed is rewound to its fork alone, and nobody honest forks"),
    ("revoked-silent", "what a member writes after its revocation changes nothing"),
    ("ends-or-says-why", "every task ends or says why it waits, and all nodes come to know the same"),
    ("idle-slot", "no task waits while a fitting slot is idle for longer than calls and draws take"),
    ("lease-kept", "no lease is lost while most of its watchers hear the owner"),
    ("fair", "no person waits for ever beside another's long queue"),
    ("bounds", "messages, queues and slots stay within their bounds"),
    ("slots-return", "free slots come back to the total"),
    ("registered-first", "no job starts where the idea that it serves is not held"),
    ("one-owner", "an idea is one person's, the same everywhere, and came to him by an offer"),
    ("retraction-hides", "what is taken back is hidden, and stays"),
];

/// Violations after which a run ends.
const ENOUGH: usize = 10;
/// Nodes up to which everything is looked at each second; in larger meshes seldom.
const CLOSE_LOOK_NODES_MAX: usize = 64;
/// Looks, a second apart, at which a task may be found waiting beside an idle fitting slot.
const IDLE_LOOKS_MAX: u32 = 3;
/// Time without faults after which idle slots are looked at.
const CALM_US: u64 = 20_000_000;

/// Time after its start in which a task may be declared lost by who did not hear of the start.
const JUST_STARTED_US: u64 = 3_000_000;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Name of the invariant.
    pub invariant: &'static str,
    /// When, in virtual milliseconds.
    pub step: u64,
    /// What.
    pub detail: String,
}

/// What the checks remember.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) violations: Vec<Violation>,
    fates: BTreeMap<JobId, usize>,
    holders: BTreeMap<usize, Vec<u32>>,
    /// Acknowledged jobs that some node did not know at the end.
    pub(crate) lost: Vec<usize>,
    /// Nodes that lost rows which were durable.
    disk_lost: BTreeSet<u32>,
    joined: BTreeSet<u32>,
    seen: BTreeMap<u32, BTreeMap<NodeId, u64>>,
    accepted: BTreeMap<(JobId, u32), (Outcome, u32, Option<NodeId>)>,
    /// When a node last heard another, newest last.
    heard: BTreeMap<(u32, u32), VecDeque<u64>>,
    losses: BTreeSet<(JobId, ClaimId, NodeId)>,
    idle: BTreeMap<(JobId, u32, u32), u32>,
    now_us: u64,
    watch: bool,
    ticks: u64,
}

impl Checks {
    pub(crate) fn new(members: usize) -> Self {
        Self {
            violations: Vec::new(),
            fates: BTreeMap::new(),
            holders: BTreeMap::new(),
            lost: Vec::new(),
            disk_lost: BTreeSet::new(),
            joined: BTreeSet::new(),
            seen: BTreeMap::new(),
            accepted: BTreeMap::new(),
            heard: BTreeMap::new(),
            losses: BTreeSet::new(),
            idle: BTreeMap::new(),
            now_us: 0,
            watch: members <= CLOSE_LOOK_NODES_MAX,
            ticks: 0,
        }
    }

    pub(crate) fn remember(&mut self, id: JobId, n: usize) {
        self.fates.insert(id, n);
    }

    pub(crate) fn fate_of(&self, id: &JobId) -> Option<usize> {
        self.fates.get(id).copied()
    }

    pub(crate) fn is_enough(&self) -> bool {
        self.violations.len() >= ENOUGH
    }

    pub(crate) fn violated(&mut self, invariant: &'static str, at_us: u64, detail: String) {
        debug_assert!(INVARIANTS.iter().any(|(name, _)| *name == invariant), "{invariant} is an invariant");
        if self.violations.len() < ENOUGH && !self.violations.iter().any(|v| v.detail == detail) {
            self.violations.push(Violation { invariant, step: at_us / 1_000, detail });
        }
    }

    pub(crate) fn bound(&mut self, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.violated("bounds", self.now_us, detail());
        }
    }

    pub(crate) fn heard(&mut self, from: u32, to: u32, at_us: u64) {
        self.now_us = at_us;
        if self.watch {
            let times = self.heard.entry((from, to)).or_default();
            times.push_back(at_us);
            while times.front().is_some_and(|first| at_us - first > 30_000_000) {
                times.pop_front();
            }
        }
    }

    /// Whether a node heard another without a silence of a lease within the last three.
    fn heard_steadily(&self, from: u32, to: u32, now_us: u64) -> bool {
        let lease_us = LEASE_MS * 1_000;
        let Some(times) = self.heard.get(&(from, to)) else { return false };
        let since = now_us.saturating_sub(3 * lease_us);
        let mut last = since;
        for at in times.iter().copied().filter(|at| *at >= since).chain([now_us]) {
            if at - last > lease_us - 1_100_000 {
                return false;
            }
            last = at;
        }
        true
    }

    /// Rows of this node that were durable are gone.
    pub(crate) fn lost_disk(&mut self, at: u32) {
        self.disk_lost.insert(at);
        self.seen.remove(&at);
    }

    pub(crate) fn process_ended(&mut self, at: u32) {
        self.seen.remove(&at);
    }

    pub(crate) fn joined(&mut self, at: u32) {
        self.joined.insert(at);
    }
}

/// Time from which on another's queue is long.
const LONG_US: u64 = 8_000_000;

impl World {
    /// The receipt must be true: as many nodes hold the job as the answer says.
    pub(crate) fn check_ack(&mut self, _node: u32, n: usize, durable_on: u32) {
        let id = self.fates[n].id;
        if self.is_suspect(self.fates[n].submit.node) {
            return;
        }
        let count = u32::try_from(self.nodes.len()).expect("few nodes");
        let holders: Vec<u32> = (0..count).filter(|at| self.holds(*at, id)).collect();
        let lost = u32::try_from(self.checks.disk_lost.len()).unwrap_or(u32::MAX);
        // Who lies may say that it holds what it does not.
        let lost = lost + u32::try_from(self.liars.len()).unwrap_or(u32::MAX);
        if u32::try_from(holders.len()).unwrap_or(0) + lost < durable_on {
            let detail = format!("job {n} is said to be on {durable_on} nodes and is on {holders:?}");
            self.checks.violated("acknowledged-kept", self.now_us, detail);
        }
        self.checks.holders.insert(n, holders);
    }

    fn holds(&self, at: u32, id: JobId) -> bool {
        use crdt::shelf::{Shelf, Table};
        if self.burned.contains(&at) {
            return false;
        }
        match self.core(at) {
            Some(core) => core.replica().job_row(id).is_some_and(|row| row.state.is_some()),
            None => self.node(at).disk.as_ref().is_some_and(|disk| disk.get(Table::Jobs, &id.0).is_some()),
        }
    }

    pub(crate) fn check_tick(&mut self) {
        self.checks.ticks += 1;
        self.checks.now_us = self.now_us;
        if self.nodes.len() > CLOSE_LOOK_NODES_MAX {
            if self.checks.ticks.is_multiple_of(30) {
                self.check_states();
                self.check_sizes();
            }
            return;
        }
        self.check_states();
        self.check_growth();
        self.check_owners();
        self.check_results();
        self.check_sizes();
        self.check_leases();
        self.check_idle();
    }

    fn check_states(&mut self) {
        let mut states: BTreeMap<[u8; 32], ([u8; 32], u32)> = BTreeMap::new();
        for at in self.running() {
            let Some(core) = self.core(at) else { continue };
            let feeds = core.replica().feeds();
            if feeds.values().any(|feed| feed.tail.is_some()) || core.replica().has_extracts() {
                continue;
            }
            let (digest, state) = (heads_digest(feeds), core.replica().state_hash());
            match states.get(&digest) {
                Some((known, other)) if *known != state => {
                    let detail = format!("nodes {other} and {at} hold the same feeds and show two states");
                    self.checks.violated("same-feeds-same-state", self.now_us, detail);
                    return;
                }
                Some(_) => {}
                None => drop(states.insert(digest, (state, at))),
            }
        }
    }

    fn check_growth(&mut self) {
        for at in self.running() {
            let Some(core) = self.core(at) else { continue };
            let heads: Vec<(NodeId, u64, bool)> =
                core.replica().feeds().iter().map(|(author, feed)| (*author, feed.seq, feed.frozen)).collect();
            for (author, seq, frozen) in heads {
                let Some(author_at) = self.index.get(&author).copied() else { continue };
                let before = self.checks.seen.entry(at).or_default().insert(author, seq).unwrap_or(0);
                let fork = self.forked_at.get(&author_at).copied();
                if frozen && fork.is_none() {
                    let detail = format!("node {author_at} is honest and node {at} froze its feed at {seq}");
                    self.checks.violated("ledger-grows", self.now_us, detail);
                }
                if seq < before && fork.is_none_or(|fork| seq + 1 < fork) {
                    let detail = format!("node {at} rewound the feed of {author_at} from {before} to {seq}");
                    self.checks.violated("ledger-grows", self.now_us, detail);
                }
            }
        }
    }

    /// What a node holds of another's feed is what that one wrote.
    fn check_owners(&mut self) {
        for (name, seq, hash) in self.forged.clone() {
            for at in self.running() {
                let Some(core) = self.core(at) else { continue };
                let held = core.replica().bundles(name, seq, 1);
                if held.first().is_some_and(|wire| crdt::bundle::Bundle::hash_of(wire) == Some(hash)) {
                    let detail =
                        format!("node {at} took in bundle {seq} of {:?}, which is forged", self.index.get(&name));
                    self.checks.violated("own-register", self.now_us, detail);
                    return;
                }
            }
        }
        for author in self.running() {
            let (Some(core), id) = (self.core(author), self.node(author).id) else { continue };
            if self.forked_at.contains_key(&author) || self.checks.disk_lost.contains(&author) {
                continue;
            }
            let own = core.replica().feeds().get(&id).cloned().unwrap_or_default();
            for at in self.running() {
                let Some(feed) = self.core(at).and_then(|core| core.replica().feeds().get(&id)) else { continue };
                if feed.seq > own.seq || (feed.seq == own.seq && feed.hash != own.hash) {
                    let detail = format!("node {at} holds bundle {} of node {author}, who wrote no such", feed.seq);
                    self.checks.violated("own-register", self.now_us, detail);
                    return;
                }
            }
        }
    }

    /// Whether the jobs of a node may be undone by what its members did.
    pub(crate) fn is_suspect(&self, node: u32) -> bool {
        self.forked_at.contains_key(&node) || self.revoked.contains(&node)
    }

    fn check_results(&mut self) {
        for n in 0..self.fates.len() {
            let fate = &self.fates[n];
            let (id, tasks, submitter) = (fate.id, fate.submit.array.max(1), fate.submit.node);
            if fate.submitted_us.is_none() || self.is_suspect(submitter) || self.checks.disk_lost.contains(&submitter) {
                continue;
            }
            for at in self.running() {
                if self.node(at).is_writing(self.now_us) {
                    continue;
                }
                let Some(job) = self.core(at).and_then(|core| core.replica().cached_job(&id)) else { continue };
                let found: Vec<_> = (0..tasks)
                    .filter_map(|task| job.accepted(task).map(|a| (task, (a.outcome, a.attempt, a.node))))
                    .collect();
                for (task, result) in found {
                    let known = *self.checks.accepted.entry((id, task)).or_insert(result);
                    if known != result {
                        let detail = format!("task {task} of job {n} was {known:?} and is {result:?} on node {at}");
                        self.checks.violated("one-result", self.now_us, detail);
                    }
                }
            }
        }
    }

    fn check_sizes(&mut self) {
        for at in self.running() {
            let Some(core) = self.core(at) else { continue };
            let (sizes, held) = (core.sizes(), core.held().count());
            for (name, size, bound) in sizes {
                if size > bound {
                    let detail = format!("node {at} keeps {size} of {name}, more than {bound}");
                    self.checks.violated("bounds", self.now_us, detail);
                }
            }
            if held > CLAIMS_HELD_MAX {
                self.checks.violated("bounds", self.now_us, format!("node {at} holds too many claims"));
            }
        }
    }

    /// Of every loss that is declared, whether who declared it had heard the owner.
    fn check_leases(&mut self) {
        for owner in self.running() {
            let Some(core) = self.core(owner) else { continue };
            if self.node(owner).paused || self.is_suspect(owner) || self.liars.contains(&owner) {
                continue;
            }
            let me = self.node(owner).id;
            let held: Vec<(JobId, ClaimId)> = core.held().map(|(job, claim, _)| (job, claim)).collect();
            for (id, claim) in held {
                // What does not start in time is lost by right, also if it starts before its owner hears so.
                let starts = self.starts.get(&(id, claim.range.start));
                let long_ago = |(other, at): &(ClaimId, u64)| *other == claim && *at + JUST_STARTED_US < self.now_us;
                let started = starts.is_some_and(|starts| starts.iter().any(long_ago));
                let Some(job) = self.core(owner).and_then(|core| core.replica().cached_job(&id)) else { continue };
                let Some(written) = job.claims().get(&claim).filter(|_| claim.owner == me) else { continue };
                let watchers = written.value.watchers.clone();
                let by: Vec<NodeId> = job.lost_by(&claim).collect();
                let lost =
                    job.attempts(claim.range.start).iter().any(|a| a.id == claim && a.state == AttemptState::Lost);
                if !lost || !self.checks.losses.insert((id, claim, me)) || !started {
                    continue;
                }
                let hears = |watcher: &&NodeId| {
                    let Some(at) = self.index.get(*watcher).copied() else { return false };
                    self.core(at).is_some()
                        && !self.node(at).paused
                        && self.checks.heard_steadily(owner, at, self.now_us)
                };
                let hearing = watchers.iter().filter(hears).count();
                if hearing * 2 > watchers.len() {
                    let names = |nodes: Vec<&NodeId>| {
                        let mut names: Vec<u32> = nodes.iter().filter_map(|id| self.index.get(*id).copied()).collect();
                        names.sort_unstable();
                        names
                    };
                    let detail = format!(
                        "node {owner} runs {claim:?} of {id}; of its watchers {:?} {:?} hear it, yet {:?} declared it lost",
                        names(watchers.iter().collect()),
                        names(watchers.iter().filter(hears).collect()),
                        names(by.iter().collect())
                    );
                    self.checks.violated("lease-kept", self.now_us, detail);
                }
            }
        }
    }

    fn is_fair_weather(&self) -> bool {
        let weather = &self.net.weather;
        weather.loss_ppm == 0 && weather.double_ppm == 0 && !weather.reorders && weather.sites <= 1
    }

    fn is_calm(&self) -> bool {
        self.is_fair_weather() && self.now_us > self.last_fault_us + CALM_US && self.now_us > 5_000_000
    }

    fn check_idle(&mut self) {
        if !self.is_calm() {
            self.checks.idle.clear();
            return;
        }
        let mut seen = BTreeSet::new();
        for fate in &self.fates {
            // Who lies about how much it wrote keeps others waiting for the rest, before they take what it wants; who was shut
            // out no longer hears what becomes of its jobs.
            let from = &fate.submit.node;
            let may_wait = fate.acked_us.is_none() || self.liars.contains(from) || self.revoked.contains(from);
            let Some(core) = self.core(fate.submit.node).filter(|_| !may_wait) else { continue };
            let Some(job) = core.replica().cached_job(&fate.id) else { continue };
            let ready = fate.submit.after.iter().all(|up| {
                core.replica().job_row(self.fates[*up as usize].id).and_then(|r| r.state()) == Some(JobState::Done)
            });
            let waits = |s: &&crdt::job::Segment| matches!(s.waiting, Waiting::Claim { attempt: 1, .. });
            let first = job.segments().iter().find(waits).map(|s| s.range.start);
            let ready = ready && !job.is_cancelled() && self.holds_idea(fate.submit.node, &fate.id);
            let (Some(task), Some((_, spec)), true) = (first, job.spec(), ready) else { continue };
            for at in self.running() {
                let Some(other) = self.core(at).filter(|_| !self.node(at).is_idler && !self.is_suspect(at)) else {
                    continue;
                };
                let free = !other.waits_for_own_feed() && other.held().count() < other.offer().slots as usize;
                let known = other.replica().cached_job(&fate.id).is_some() && self.holds_idea(at, &fate.id);
                if free && known && mesh::offer::lacks(other.offer(), spec).is_empty() {
                    seen.insert((fate.id, task, at));
                }
            }
        }
        let before = std::mem::take(&mut self.checks.idle);
        for key in seen {
            let looks = before.get(&key).copied().unwrap_or(0) + 1;
            if looks > IDLE_LOOKS_MAX {
                let why = self.node_mut(key.2).core.as_mut().and_then(|core| core.explain(key.0)).map(|e| e.summary);
                let waits = format!("task {} of {} waits while node {} has a fitting free slot", key.1, key.0, key.2);
                let detail = format!("{waits}: {}", why.unwrap_or_default());
                self.checks.violated("idle-slot", self.now_us, detail);
            }
            self.checks.idle.insert(key, looks);
        }
    }

    /// Nodes whose word counts at the end: those that run, were let in by an admin whose disk still says so, and were not shut
    /// out.
    pub(crate) fn standing(&self) -> Vec<u32> {
        let running = self.running();
        let counts = |at: &u32| *at < self.plan.nodes && !self.revoked.contains(at);
        let members: Vec<u32> = running.iter().copied().filter(counts).collect();
        let is_member = |at: u32| {
            let id = self.node(at).id;
            let knows = |other: &u32| self.core(*other).is_some_and(|core| core.replica().roster().is_member(&id));
            at < self.plan.nodes || members.iter().any(knows)
        };
        running.into_iter().filter(|at| !self.revoked.contains(at) && is_member(*at)).collect()
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_settled(&mut self) -> bool {
        if self.now_us < (self.plan.heal_ms + 3_000) * 1_000 {
            return false;
        }
        let standing = self.standing();
        let Some(first) = standing.first().copied() else { return true };
        let heads = |world: &Self, at: u32| world.core(at).map(|core| heads_digest(core.replica().feeds()));
        if standing.iter().any(|at| heads(self, *at) != heads(self, first)) {
            return false;
        }
        if standing.iter().any(|at| self.core(*at).is_some_and(|core| core.held().count() > 0)) {
            return false;
        }
        (0..self.fates.len()).all(|n| self.is_over(first, n) || self.may_wait(first, n))
    }

    fn state_at(&self, at: u32, id: JobId) -> Option<JobState> {
        self.core(at).and_then(|core| core.replica().job_row(id)).and_then(|row| row.state())
    }

    fn is_over(&self, at: u32, n: usize) -> bool {
        self.fates[n].acked_us.is_none() || self.state_at(at, self.fates[n].id).is_some_and(JobState::is_final)
    }

    /// Whether a job has a reason to wait that no scheduler can take away.
    fn may_wait(&self, at: u32, n: usize) -> bool {
        let fate = &self.fates[n];
        let submit = &fate.submit;
        let sold = |label: &String| {
            self.standing().iter().any(|at| self.core(*at).is_some_and(|core| core.offer().labels.contains(label)))
        };
        submit.labels.iter().any(|label| !sold(label))
            || submit.after.iter().any(|up| !self.is_over(at, *up as usize) && self.may_wait(at, *up as usize))
            // What an away or burned submitter wanted is never accepted; what it may start once waits for a person.
            || self.core(submit.node).is_none()
            || self.is_suspect(submit.node)
            || submit.at_most_once
            || !self.holds_idea(at, &fate.id)
    }

    /// Looks at everything once more after the run.
    pub(crate) fn check_end(&mut self) {
        self.checks.lost = self.look_for_lost_jobs();
        if self.checks.is_enough() {
            return;
        }
        self.check_tick();
        self.check_convergence();
        self.check_kept();
        self.check_ends();
        self.check_slots();
        self.check_revoked();
        self.check_fairness();
        self.check_ledger();
    }

    fn check_convergence(&mut self) {
        let standing = self.standing();
        let Some(first) = standing.first().copied() else { return };
        let heads = |at: u32| -> BTreeMap<NodeId, Feed> {
            self.core(at).map(|core| core.replica().feeds().clone()).unwrap_or_default()
        };
        let known = heads(first);
        for at in standing {
            let other = heads(at);
            if other != known {
                let differs = |author: &&NodeId| known.get(*author) != other.get(*author);
                let authors: Vec<String> = known
                    .keys()
                    .filter(differs)
                    .map(|a| {
                        let seq = |feeds: &BTreeMap<NodeId, Feed>| feeds.get(a).map(|f| (f.seq, f.frozen));
                        format!("{:?}: {:?} and {:?}", self.index.get(a), seq(&known), seq(&other))
                    })
                    .collect();
                let detail = format!("nodes {first} and {at} did not come to know the same: {}", authors.join(", "));
                self.checks.violated("ends-or-says-why", self.now_us, detail);
                return;
            }
        }
    }

    /// Acknowledged jobs that some node does not know at the end.
    fn look_for_lost_jobs(&self) -> Vec<usize> {
        let mut acked: Vec<usize> = (0..self.fates.len()).filter(|n| self.fates[*n].acked_us.is_some()).collect();
        // Node by node and in the order of the rows: of a thousand nodes, each job of each lies elsewhere in memory.
        acked.sort_unstable_by_key(|n| self.fates[*n].id);
        let unknown = |at: u32| acked.iter().copied().filter(move |n| self.state_at(at, self.fates[*n].id).is_none());
        let lost: BTreeSet<usize> = self.standing().into_par_iter().flat_map_iter(unknown).collect();
        let excused = |n: &usize| self.went_with_its_disks(*n) || self.is_suspect(self.fates[*n].submit.node);
        lost.into_iter().filter(|n| !excused(n)).collect()
    }

    /// Whether a node lost rows that were durable, or was shut out.
    pub(crate) fn has_lost_disk(&self, at: u32) -> bool {
        self.checks.disk_lost.contains(&at) || self.revoked.contains(&at)
    }

    /// Whether every node that held a job when it was acknowledged has lost its disk since, or was shut out.
    fn went_with_its_disks(&self, n: usize) -> bool {
        let holders = self.checks.holders.get(&n);
        holders.is_some_and(|holders| !holders.is_empty() && holders.iter().all(|at| self.has_lost_disk(*at)))
    }

    fn check_kept(&mut self) {
        for n in self.checks.lost.clone() {
            let id = self.fates[n].id;
            let without: Vec<u32> = self.standing().into_iter().filter(|at| self.state_at(*at, id).is_none()).collect();
            let detail = format!("job {n} was acknowledged and is not known on nodes {without:?}");
            self.checks.violated("acknowledged-kept", self.now_us, detail);
        }
    }

    fn check_ends(&mut self) {
        let Some(first) = self.standing().first().copied() else { return };
        let lost = self.checks.lost.clone();
        for n in 0..self.fates.len() {
            if self.is_over(first, n) || lost.contains(&n) || self.is_suspect(self.fates[n].submit.node) {
                continue;
            }
            let (id, waits) = (self.fates[n].id, self.may_wait(first, n));
            if self.state_at(first, id).is_none() && self.went_with_its_disks(n) {
                continue;
            }
            let at = if self.core(self.fates[n].submit.node).is_some() { self.fates[n].submit.node } else { first };
            let why = self.node_mut(at).core.as_mut().and_then(|core| core.explain(id)).map(|e| e.summary);
            let said = why.as_ref().is_some_and(|why| !why.is_empty());
            if !waits || !said {
                let state = self.state_at(first, id);
                let detail = format!("job {n} ({:?}) is {state:?} at the end: {why:?}", self.fates[n].submit.program);
                self.checks.violated("ends-or-says-why", self.now_us, detail);
            }
        }
    }

    fn check_slots(&mut self) {
        for at in self.standing() {
            let Some(core) = self.core(at) else { continue };
            let (held, offer) = (core.held().count(), core.offer());
            let (free, slots) = (offer.free, offer.slots);
            if (held > 0 || free != slots) && !self.node(at).is_idler {
                let claims: Vec<String> = core
                    .held()
                    .map(|(job, claim, runs)| {
                        let n = self.checks.fate_of(&job);
                        let waiting =
                            core.replica().cached_job(&job).and_then(|j| j.task_state(claim.range.start).copied());
                        format!(
                            "job {n:?} once {:?} attempt {} runs {runs}, {:?}",
                            n.map(|n| self.fates[n].submit.at_most_once),
                            claim.attempt,
                            waiting.map(|s| s.waiting)
                        )
                    })
                    .collect();
                let detail = format!(
                    "node {at} has {free} of {slots} slots free and holds {held} claims at the end: {}",
                    claims.join("; ")
                );
                self.checks.violated("slots-return", self.now_us, detail);
            }
        }
    }

    fn check_revoked(&mut self) {
        let Some(first) = self.standing().first().copied() else { return };
        let Some(core) = self.core(first) else { return };
        let roster = core.replica().roster();
        let mut found = Vec::new();
        for fate in &self.fates {
            for (author, key, seq, _) in core.replica().show(DocId::job(fate.id)) {
                if roster.revoked.get(&author).is_some_and(|(last, _)| seq > *last) {
                    found.push(format!(
                        "{} of node {:?} counts after its revocation",
                        key_text(&key),
                        self.index.get(&author)
                    ));
                }
            }
        }
        for detail in found {
            self.checks.violated("revoked-silent", self.now_us, detail);
        }
    }

    /// Beside a long queue of one person, another's single tasks start long before the queue ends.
    fn check_fairness(&mut self) {
        if !self.plan.steps.is_empty() || !self.is_fair_weather() {
            return;
        }
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for fate in self.fates.iter().filter(|f| f.submit.mean_ms == HOG_MS) {
            *counts.entry(fate.submit.node).or_default() += 1;
        }
        let Some((hog, _)) = counts.into_iter().filter(|(_, count)| *count >= 20).max_by_key(|(_, count)| *count)
        else {
            return;
        };
        let queue: Vec<u64> = self
            .fates
            .iter()
            .filter(|f| f.submit.node == hog && f.submit.mean_ms == HOG_MS)
            .filter_map(|f| f.started_us)
            .collect();
        let Some(end) = queue.iter().max().copied() else { return };
        let mut found = Vec::new();
        for (n, fate) in self.fates.iter().enumerate() {
            let submit = &fate.submit;
            let plain = submit.array == 0
                && submit.labels.is_empty()
                && submit.after.is_empty()
                && submit.priority == 0
                && submit.idea.is_none();
            let (Some(at), Some(started)) = (fate.submitted_us, fate.started_us) else { continue };
            let waiting = queue.iter().filter(|start| **start > at).count();
            // Later on others have long tasks too, behind which one may wait.
            let is_guest = submit.node != hog && submit.mean_ms == GUEST_MS && submit.at_ms < GUESTS_UNTIL_MS;
            if !is_guest || !plain || submit.at_most_once || waiting < 20 || end < at + LONG_US {
                continue;
            }
            if started - at > (end - at) * 6 / 10 + 1_500_000 {
                found.push(format!(
                    "job {n} waited {} ms beside a queue that took {} ms",
                    (started - at) / 1_000,
                    (end - at) / 1_000
                ));
            }
        }
        for detail in found {
            self.checks.violated("fair", self.now_us, detail);
        }
    }
}

fn key_text(key: &Key) -> String {
    key.to_string()
}

fn heads_digest(feeds: &BTreeMap<NodeId, Feed>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (author, feed) in feeds {
        hasher.update(&author.0).update(&feed.seq.to_be_bytes()).update(&feed.hash.0).update(&[u8::from(feed.frozen)]);
    }
    *hasher.finalize().as_bytes()
}
