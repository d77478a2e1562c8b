//! Single-decree Paxos: which claim of a task may start, when it may start but once.
//!
//! A task's decree is decided by the voters that the job's spec names; it holds for the life of the task, whatever attempt. After
//! Lamport, "Paxos Made Simple" (2001): what a voter promised and accepted is durable before it says so, and a proposer takes
//! up the value of the highest ballot that it hears of. Two majorities share a voter, so no two values are chosen.

use std::collections::{BTreeMap, BTreeSet};

use crdt::ids::NodeId;
use crdt::mutant::{Mutant, is_made};
use serde::{Deserialize, Serialize};

/// A proposal's number, unique to its proposer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot(
    /// Counts up.
    pub u64,
    /// Who proposes.
    pub NodeId,
);

/// The claim that may start: the fencing token, and the store that knows whether it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Choice(
    /// Attempt.
    pub u32,
    /// Owner.
    pub NodeId,
    /// Number of the owner's store: one that lost what it knew does not take up what was chosen for the old one.
    pub u64,
);

/// What a voter said about one task. Durable before it is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// Highest ballot that it promised.
    pub promised: Option<Ballot>,
    /// Highest ballot that it accepted, with its value.
    pub accepted: Option<(Ballot, Choice)>,
}

impl Vote {
    /// Promises to accept nothing below a ballot; answers what was accepted before.
    ///
    /// # Errors
    /// The higher ballot that was promised already.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Option<(Ballot, Choice)>, Ballot> {
        match self.promised {
            Some(promised) if promised > ballot => Err(promised),
            _ => {
                self.promised = Some(ballot);
                Ok(self.accepted)
            }
        }
    }

    /// Accepts a value.
    ///
    /// # Errors
    /// The higher ballot that was promised meanwhile.
    pub fn accept(&mut self, ballot: Ballot, choice: Choice) -> Result<(), Ballot> {
        match self.promised {
            Some(promised) if promised > ballot => Err(promised),
            _ => {
                self.promised = Some(ballot);
                self.accepted = Some((ballot, choice));
                Ok(())
            }
        }
    }
}

/// Votes that decide among so many voters.
#[must_use]
pub fn majority(voters: usize) -> usize {
    let most = voters / 2 + 1;
    if is_made(Mutant::QuorumShort) { most - 1 } else { most }
}

/// Where a proposer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Stage {
    Preparing(BTreeMap<NodeId, Option<(Ballot, Choice)>>),
    Proposing(Choice, BTreeSet<NodeId>),
    Decided(Choice),
}

/// What a proposer asks all voters for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// A promise.
    Prepare(Ballot),
    /// A vote.
    Propose(Ballot, Choice),
}

/// A node that wants its claim to be the one. Volatile: whoever forgets it begins anew with a higher ballot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Proposal {
    voters: Vec<NodeId>,
    wanted: Choice,
    ballot: Ballot,
    highest: u64,
    stage: Stage,
}

impl Proposal {
    /// Begins with the lowest ballot.
    #[must_use]
    pub fn new(voters: Vec<NodeId>, wanted: Choice) -> Self {
        let ballot = Ballot(1, wanted.1);
        Self { voters, wanted, ballot, highest: 1, stage: Stage::Preparing(BTreeMap::new()) }
    }

    /// The voters.
    #[must_use]
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// What was decided.
    #[must_use]
    pub fn decided(&self) -> Option<Choice> {
        match self.stage {
            Stage::Decided(choice) => Some(choice),
            Stage::Preparing(_) | Stage::Proposing(..) => None,
        }
    }

    /// What it asks for at present.
    #[must_use]
    pub fn ask(&self) -> Option<Ask> {
        match self.stage {
            Stage::Preparing(_) => Some(Ask::Prepare(self.ballot)),
            Stage::Proposing(choice, _) => Some(Ask::Propose(self.ballot, choice)),
            Stage::Decided(_) => None,
        }
    }

    /// Begins anew, above every ballot that it heard of.
    pub fn again(&mut self) {
        if self.decided().is_none() {
            self.highest += 1;
            self.ballot = Ballot(self.highest, self.wanted.1);
            self.stage = Stage::Preparing(BTreeMap::new());
        }
    }

    /// A voter promised; answers whether there is something new to ask for.
    pub fn on_promise(&mut self, from: NodeId, ballot: Ballot, accepted: Option<(Ballot, Choice)>) -> bool {
        if ballot != self.ballot || !self.voters.contains(&from) {
            return false;
        }
        let Stage::Preparing(promises) = &mut self.stage else { return false };
        promises.insert(from, accepted);
        if promises.len() < majority(self.voters.len()) {
            return false;
        }
        let known = promises.values().flatten().max_by_key(|(ballot, _)| *ballot).map(|(_, choice)| *choice);
        self.stage = Stage::Proposing(known.unwrap_or(self.wanted), BTreeSet::new());
        true
    }

    /// A voter accepted; answers whether that decided.
    pub fn on_vote(&mut self, from: NodeId, ballot: Ballot) -> bool {
        if ballot != self.ballot || !self.voters.contains(&from) {
            return false;
        }
        let Stage::Proposing(choice, votes) = &mut self.stage else { return false };
        votes.insert(from);
        if votes.len() < majority(self.voters.len()) {
            return false;
        }
        self.stage = Stage::Decided(*choice);
        true
    }

    /// A voter has promised a higher ballot.
    pub fn on_outvoted(&mut self, promised: Ballot) {
        self.highest = self.highest.max(promised.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn a_value_that_a_majority_accepted_is_taken_up_by_whoever_proposes_later() {
        let voters = vec![node(1), node(2), node(3)];
        let mut votes = [Vote::default(); 3];
        let mut first = Proposal::new(voters.clone(), Choice(1, node(1), 5));
        for (n, vote) in votes.iter_mut().enumerate().take(2) {
            let accepted = vote.prepare(first.ballot).expect("nothing higher");
            first.on_promise(voters[n], first.ballot, accepted);
        }
        assert_eq!(first.ask(), Some(Ask::Propose(Ballot(1, node(1)), Choice(1, node(1), 5))));
        for (n, vote) in votes.iter_mut().enumerate().take(2) {
            vote.accept(first.ballot, Choice(1, node(1), 5)).expect("nothing higher");
            first.on_vote(voters[n], first.ballot);
        }
        assert_eq!(first.decided(), Some(Choice(1, node(1), 5)));
        let mut second = Proposal::new(voters.clone(), Choice(2, node(3), 5));
        for (n, vote) in votes.iter_mut().enumerate().skip(1) {
            let accepted = vote.prepare(second.ballot).expect("nothing higher");
            second.on_promise(voters[n], second.ballot, accepted);
        }
        assert_eq!(second.ask(), Some(Ask::Propose(Ballot(1, node(3)), Choice(1, node(1), 5))));
        assert_eq!(votes[1].accept(first.ballot, Choice(9, node(9), 5)), Err(second.ballot));
    }

    #[test]
    fn a_proposer_that_is_outvoted_goes_above_what_it_heard_of() {
        let mut proposal = Proposal::new(vec![node(1)], Choice(1, node(1), 5));
        proposal.on_outvoted(Ballot(7, node(2)));
        proposal.again();
        assert_eq!(proposal.ask(), Some(Ask::Prepare(Ballot(8, node(1)))));
        assert!(!proposal.on_promise(node(9), Ballot(8, node(1)), None), "no voter");
    }
}
