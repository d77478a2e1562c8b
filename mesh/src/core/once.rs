//! Tasks that may start but once: the voters decide which claim that is, and its owner notes that it starts before it does.

use crdt::cbor;
use crdt::doc::{DocId, Key};
use crdt::ids::{JobId, NodeId};
use crdt::job::{ClaimId, JobSpec, JobState, TaskReport, Voter};
use crdt::shelf::{Shelf, Table};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{Core, Phase};
use crate::io::Effects;
use crate::limits::{PROPOSE_AGAIN_MS, PROPOSE_AGAIN_MS_MAX, START_BY_MS, VOTERS, VOTERS_MANY};
use crate::msg::Msg;
use crate::time::{Now, Time};
use crate::vote::{Ask, Ballot, Choice, Proposal, Vote, majority};

/// Row of [`Table::Meta`]: a number of this store. One that is new or came from a backup has another, and does not vote where
/// the old one was named.
const STORE_ROW: &[u8] = b"store-number";

/// A proposal under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Proposing {
    proposal: Proposal,
    again_at: Time,
    /// How often it began anew.
    rounds: u32,
}

impl<S: Shelf> Core<S> {
    /// The number of this store; `anew` gives it another.
    pub(super) fn store_number(&mut self, anew: bool) -> u64 {
        let known = self.replica.shelf().get(Table::Meta, STORE_ROW).and_then(|row| row.try_into().ok());
        if let Some(known) = known.filter(|_| !anew) {
            return u64::from_be_bytes(known);
        }
        let number: u64 = self.rng.random_range(1..=u64::MAX);
        let row = number.to_be_bytes().to_vec();
        self.replica.shelf_mut().put((Table::Meta, STORE_ROW.to_vec(), Some(row)));
        number
    }

    /// Voters for a job of ours: this node, and those that have been connected for longest. Five of them, three where there are
    /// fewer, in a smaller mesh all.
    pub(super) fn choose_voters(&self) -> Vec<Voter> {
        let mut others: Vec<(Time, Voter)> = self
            .live_offers()
            .filter(|(node, offer)| *node != self.me && offer.store != 0)
            .filter_map(|(node, offer)| Some((self.peers.get(&node)?.since, Voter { node, store: offer.store })))
            .collect();
        others.sort_by_key(|(since, voter)| (*since, voter.node));
        let count = match others.len() + 1 {
            VOTERS_MANY.. => VOTERS_MANY,
            VOTERS.. => VOTERS,
            few => few,
        };
        let me = Voter { node: self.me, store: self.offer.store };
        [me].into_iter().chain(others.into_iter().map(|(_, voter)| voter)).take(count).collect()
    }

    /// Whether most voters of a job can be reached from here.
    pub(super) fn hears_majority(&self, spec: &JobSpec) -> bool {
        let votes = |voter: &&Voter| {
            let store = match self.offers.get(&voter.node) {
                _ if voter.node == self.me => self.offer.store,
                Some(known) if self.is_connected(&voter.node) => known.offer.store,
                Some(_) | None => 0,
            };
            store == voter.store
        };
        let heard = spec.voters.iter().filter(votes).count();
        heard >= majority(spec.voters.len())
    }

    /// Voters that never vote for a spec again, as far as is known: their stores are others than it names.
    pub(super) fn lost_voters(&self, spec: &JobSpec) -> usize {
        let is_lost = |voter: &&Voter| {
            let store = if voter.node == self.me { Some(self.offer.store) } else { None };
            let store = store.or_else(|| self.offers.get(&voter.node).map(|known| known.offer.store));
            store.is_some_and(|store| store != 0 && store != voter.store)
        };
        spec.voters.iter().filter(is_lost).count()
    }

    /// Whether a claim of ours may start: at once, or once the voters chose it and that is on record.
    pub(super) fn may_start(&mut self, now: Now, id: JobId, claim: ClaimId, out: &mut Effects) -> bool {
        let Some(job) = self.replica.cached_job(&id) else { return false };
        let Some((_, spec)) = job.spec() else { return false };
        if !spec.at_most_once {
            return true;
        }
        let ours = Some((claim.attempt, self.me, self.offer.store));
        if job.run(&claim).is_some_and(|run| run.chosen == ours && !run.tasks.is_empty()) {
            return true;
        }
        let voters = spec.voters.iter().map(|voter| voter.node).collect();
        let key = (id, claim.range.start);
        if let Some(chosen) = job.chosen_for(claim.range.start) {
            // Another who asked the voters has said so.
            self.note_choice(now, id, claim, chosen);
            return false;
        }
        if !self.proposals.contains_key(&key) {
            let proposal = Proposal::new(voters, Choice(claim.attempt, self.me, self.offer.store));
            self.proposals.insert(key, Proposing { proposal, again_at: now.mono, rounds: 0 });
            self.propose(now, key, out);
        }
        false
    }

    /// Asks the voters for what a proposal needs next, ourselves too.
    fn propose(&mut self, now: Now, key: (JobId, u32), out: &mut Effects) {
        let rounds = self.proposals.get(&key).map_or(0, |proposing| proposing.rounds);
        // Longer each time: the answers of a far voter take their time.
        let least_ms = (PROPOSE_AGAIN_MS << rounds.min(16)).min(PROPOSE_AGAIN_MS_MAX);
        let wait_ms = self.rng.random_range(least_ms..2 * least_ms);
        let Some(proposing) = self.proposals.get_mut(&key) else { return };
        proposing.again_at = now.mono.plus_ms(wait_ms);
        let (ask, voters) = (proposing.proposal.ask(), proposing.proposal.voters().to_vec());
        self.wake_at(now.mono.plus_ms(wait_ms));
        let (job, task) = key;
        let msg = match ask {
            Some(Ask::Prepare(ballot)) => Msg::Prepare { job, task, ballot },
            Some(Ask::Propose(ballot, choice)) => Msg::Propose { job, task, ballot, choice },
            None => return,
        };
        for voter in voters.into_iter().filter(|voter| *voter != self.me) {
            self.send(voter, &msg, out);
        }
        // Our own vote last: it may be the one that decides.
        match ask {
            Some(Ask::Prepare(ballot)) => self.on_prepare(now, self.me, (job, task), ballot, out),
            Some(Ask::Propose(ballot, choice)) => self.on_propose(now, self.me, (job, task), (ballot, choice), out),
            None => {}
        }
    }

    /// Proposals that got no answer begin anew; those whose claim is no longer held are forgotten.
    pub(super) fn tick_proposals(&mut self, now: Now, out: &mut Effects) {
        let held = &self.held;
        self.proposals.retain(|(job, task), _| {
            held.iter()
                .any(|((id, claim), held)| id == job && claim.range.start == *task && held.phase == Phase::Waiting)
        });
        let keys: Vec<(JobId, u32)> = self.proposals.keys().copied().collect();
        for key in keys {
            let Some(again_at) =
                self.proposals.get(&key).filter(|p| p.proposal.decided().is_none()).map(|p| p.again_at)
            else {
                continue;
            };
            if self.is_due(now, again_at) && self.is_hopeless(now, key) {
                continue;
            }
            if again_at <= now.mono {
                if let Some(proposing) = self.proposals.get_mut(&key) {
                    proposing.proposal.again();
                    proposing.rounds += 1;
                }
                self.propose(now, key, out);
            }
        }
    }

    /// Gives a claim back for which too few voters were there for as long as a claim may take to start.
    fn is_hopeless(&mut self, now: Now, (id, task): (JobId, u32)) -> bool {
        let held = self.held.iter().find(|((job, claim), _)| *job == id && claim.range.start == task);
        let Some(((_, claim), held)) = held.map(|(key, held)| (*key, held.at)) else { return false };
        let spec = self.replica.cached_job(&id).and_then(|job| job.spec()).map(|(_, spec)| spec.clone());
        let hopeless = held.plus_ms(START_BY_MS) <= now.mono && spec.is_some_and(|spec| !self.hears_majority(&spec));
        if hopeless {
            self.proposals.remove(&(id, task));
            self.give_back(id, claim, None);
        }
        hopeless
    }

    /// What we said about a task as a voter; `None` where we are none, or the task is over.
    fn vote(&self, (id, task): (JobId, u32)) -> Option<Vote> {
        let job = self.replica.cached_job(&id)?;
        let (_, spec) = job.spec()?;
        let named = spec.voters.iter().any(|v| v.node == self.me && v.store == self.offer.store);
        let over = job.state().is_some_and(JobState::is_final) || task >= spec.tasks();
        if !named || over || self.hold_own_feed {
            return None;
        }
        let row = self.replica.shelf().get(Table::Votes, &vote_key(id, task));
        Some(row.and_then(|row| cbor::decode(&row).ok()).unwrap_or_default())
    }

    fn keep_vote(&mut self, (id, task): (JobId, u32), vote: Vote) {
        self.replica.shelf_mut().put((Table::Votes, vote_key(id, task), Some(cbor::encode(&vote))));
    }

    /// Forgets what we said about jobs that are sealed.
    pub(super) fn forget_votes(&mut self, jobs: &std::collections::BTreeSet<JobId>) {
        for id in jobs {
            for (key, _) in self.replica.shelf().all(Table::Votes, &id.0) {
                self.replica.shelf_mut().put((Table::Votes, key, None));
            }
        }
    }

    pub(super) fn on_prepare(&mut self, now: Now, from: NodeId, key: (JobId, u32), ballot: Ballot, out: &mut Effects) {
        let Some(mut vote) = self.vote(key).filter(|_| ballot.1 == from) else { return };
        let (job, task) = key;
        match vote.prepare(ballot) {
            Ok(accepted) => {
                self.keep_vote(key, vote);
                if from == self.me {
                    self.on_promise(now, from, key, (ballot, accepted), out);
                } else {
                    self.send(from, &Msg::Promise { job, task, ballot, accepted }, out);
                }
            }
            Err(promised) => self.outvote(from, key, promised, out),
        }
    }

    pub(super) fn on_propose(
        &mut self,
        now: Now,
        from: NodeId,
        key: (JobId, u32),
        (ballot, choice): (Ballot, Choice),
        out: &mut Effects,
    ) {
        let Some(mut vote) = self.vote(key).filter(|_| ballot.1 == from) else { return };
        let (job, task) = key;
        match vote.accept(ballot, choice) {
            Ok(()) => {
                self.keep_vote(key, vote);
                if from == self.me {
                    self.on_vote(now, from, key, ballot);
                } else {
                    self.send(from, &Msg::Vote { job, task, ballot }, out);
                }
            }
            Err(promised) => self.outvote(from, key, promised, out),
        }
    }

    fn outvote(&mut self, from: NodeId, (job, task): (JobId, u32), promised: Ballot, out: &mut Effects) {
        if from == self.me {
            self.on_outvoted((job, task), promised);
        } else {
            self.send(from, &Msg::Outvoted { job, task, promised }, out);
        }
    }

    pub(super) fn on_promise(
        &mut self,
        now: Now,
        from: NodeId,
        key: (JobId, u32),
        (ballot, accepted): (Ballot, Option<(Ballot, Choice)>),
        out: &mut Effects,
    ) {
        let Some(proposing) = self.proposals.get_mut(&key) else { return };
        if proposing.proposal.on_promise(from, ballot, accepted) {
            self.propose(now, key, out);
        }
    }

    pub(super) fn on_outvoted(&mut self, key: (JobId, u32), promised: Ballot) {
        if let Some(proposing) = self.proposals.get_mut(&key) {
            proposing.proposal.on_outvoted(promised);
        }
    }

    /// The voters decided: what they chose is noted, and our claim starts or is given back.
    pub(super) fn on_vote(&mut self, now: Now, from: NodeId, (id, task): (JobId, u32), ballot: Ballot) {
        let Some(proposing) = self.proposals.get_mut(&(id, task)) else { return };
        let Some(Choice(attempt, owner, store)) =
            proposing.proposal.on_vote(from, ballot).then(|| proposing.proposal.decided()).flatten()
        else {
            return;
        };
        let ours = |claim: &ClaimId| claim.range.start == task;
        let held = self.held.iter().find(|((job, claim), h)| *job == id && ours(claim) && h.phase == Phase::Waiting);
        if let Some((_, claim)) = held.map(|(key, _)| *key) {
            self.note_choice(now, id, claim, (attempt, owner, store));
        }
    }

    /// Writes down that our claim starts, which it does once that is durable; or gives it back, for another was chosen.
    fn note_choice(&mut self, now: Now, id: JobId, claim: ClaimId, chosen: (u32, NodeId, u64)) {
        let is_ours = chosen == (claim.attempt, self.me, self.offer.store);
        let chosen = Some(chosen);
        if !is_ours {
            self.give_back(id, claim, chosen);
            return;
        }
        let Some(held) = self.held.get_mut(&(id, claim)).filter(|held| held.report.chosen.is_none()) else { return };
        held.report.chosen = chosen;
        held.report.tasks = vec![TaskReport(claim.range.start, now.wall_ms, None)];
        let report = held.report.clone();
        self.write(DocId::job(id), &Key::Run(claim.attempt, claim.range), &report);
    }
}

fn vote_key(id: JobId, task: u32) -> Vec<u8> {
    [&id.0[..], &task.to_be_bytes()].concat()
}
