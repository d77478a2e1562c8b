//! The ledger in a run: what people say in it, and what must hold of it.

use std::collections::BTreeSet;

use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::{EntryId, JobId, PersonId};
use crdt::ledger::{Content, Kind, Signed, Status, Target, Transfer};
use mesh::Command;

use crate::node::WALL_MS;
use crate::plan::Say;
use crate::world::World;

/// What became of an entry that somebody wrote.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) node: u32,
    pub(crate) entry: Signed,
    pub(crate) acked_us: Option<u64>,
    /// Nodes that held it when it was acknowledged.
    holders: BTreeSet<u32>,
}

impl World {
    /// Somebody says something, if he knows what it is about.
    pub(crate) fn say(&mut self, n: usize) {
        let (node, say) = (self.plan.says[n].node, self.plan.says[n].say.clone());
        let Some(says) = self.words(node, n, &say) else { return };
        let (Some(core), me) = (self.core(node), self.node(node)) else { return };
        let Some(person) = core.replica().roster().person(&me.id) else { return };
        let created_ms = (WALL_MS + self.now_us / 1_000).saturating_add_signed(me.wall_offset_ms);
        let nonce = *blake3::hash(&(n as u64).to_le_bytes()).as_bytes();
        let nonce = nonce[..16].try_into().expect("16 of 32 bytes");
        let entry = Signed::sign(&me.key, person, created_ms, nonce, says).expect("a good entry");
        let request = self.command(node, Command::Write(vec![Change::entry(&entry)]));
        self.said.insert(n, Said { node, entry, acked_us: None, holders: BTreeSet::new() });
        self.words_of.insert(request, n);
    }

    /// What it says; `None` where whoever says it has not heard of what it is about.
    fn words(&self, node: u32, n: usize, say: &Say) -> Option<Content> {
        let (Say::Offer(idea, _) | Say::Take(idea) | Say::Observe(idea) | Say::Retract(idea)) = say else {
            return Some(Content::new(Kind::Idea, format!("فكرة {n}")));
        };
        let id = self.idea(*idea)?;
        let replica = self.core(node)?.replica();
        let subject = replica.subject(DocId::ledger(id))?;
        let after = subject.handovers.last().map(|handover| handover.acceptance);
        let transfers = || subject.about.iter().filter(|entry| entry.says.kind == Kind::Transfer);
        let seen = transfers().map(|entry| entry.id).collect();
        Some(match say {
            Say::Idea => return None,
            Say::Offer(_, to) => {
                let to = self.person_of(*to)?;
                Content { transfer: Some(Transfer { to, after }), seen, ..Content::about(Kind::Transfer, id) }
            }
            // Also who was not offered it tries.
            Say::Take(_) => {
                let offer = transfers().rfind(|entry| entry.says.on.is_none())?;
                let to = self.person_of(node)?;
                let transfer = Some(Transfer { to, after });
                Content { transfer, on: Some(offer.id), seen, ..Content::about(Kind::Transfer, id) }
            }
            Say::Observe(_) => Content { title: format!("seen {n}"), ..Content::about(Kind::Observation, id) },
            Say::Retract(_) => {
                let me = self.person_of(node)?;
                let own =
                    subject.about.iter().find(|entry| entry.says.kind == Kind::Observation && entry.by.person == me);
                Content { on: own.map(|entry| entry.id), ..Content::about(Kind::Retraction, id) }
            }
        })
    }

    fn person_of(&self, node: u32) -> Option<PersonId> {
        self.core(node)?.replica().roster().person(&self.nodes.get(node as usize)?.as_ref()?.id)
    }

    /// The idea that was said at a place of the plan.
    pub(crate) fn idea(&self, at: u32) -> Option<EntryId> {
        let said = self.said.get(&(at as usize))?;
        (said.entry.says.kind == Kind::Idea).then_some(said.entry.id)
    }

    /// Whether a node holds the idea that a job serves.
    pub(crate) fn holds_idea(&self, at: u32, job: &JobId) -> bool {
        let Some(idea) = self.served.get(job) else { return true };
        self.core(at).is_some_and(|core| core.replica().has_entry(DocId::ledger(*idea), *idea))
    }

    pub(crate) fn acknowledge(&mut self, n: usize) {
        let Some(entry) = self.said.get(&n).map(|said| said.entry.clone()) else { return };
        let holds = |at: &u32| self.core(*at).is_some_and(|core| core.replica().has_entry(entry.document(), entry.id));
        let holders = self.running().into_iter().filter(holds).collect();
        let now_us = self.now_us;
        if let Some(said) = self.said.get_mut(&n) {
            said.acked_us = Some(now_us);
            said.holders = holders;
        }
    }

    /// Whether a node that starts a job holds what the job serves.
    pub(crate) fn check_registered(&mut self, node: u32, job: JobId, at_us: u64) {
        if self.core(node).is_some() && !self.holds_idea(node, &job) {
            let detail = format!("node {node} starts {job} and does not hold the idea that it serves");
            self.checks.violated("registered-first", at_us, detail);
        }
    }

    /// Looks at the ledger once everything was healed.
    pub(crate) fn check_ledger(&mut self) {
        let standing = self.standing();
        let mut found = Vec::new();
        for (n, said) in &self.said {
            if said.acked_us.is_none() || self.is_excused(said) {
                continue;
            }
            let (doc, id) = (said.entry.document(), said.entry.id);
            let lacks = |at: &&u32| !self.core(**at).is_some_and(|core| core.replica().has_entry(doc, id));
            let without: Vec<u32> = standing.iter().filter(lacks).copied().collect();
            if !without.is_empty() {
                let detail = format!("entry {n} was acknowledged and is not known on nodes {without:?}");
                found.push(("acknowledged-kept", detail));
                continue;
            }
            if said.entry.says.kind == Kind::Idea {
                found.extend(self.check_owner(&standing, *n, id));
            } else if said.entry.says.kind == Kind::Retraction {
                found.extend(self.check_hidden(&standing, *n, &said.entry));
            }
        }
        found.extend(self.check_outcomes(&standing));
        for (invariant, detail) in found {
            self.checks.violated(invariant, self.now_us, detail);
        }
    }

    /// Whether an entry may be gone, or may not count: its writer is shut out, or burned with what it had said to nobody.
    fn is_excused(&self, said: &Said) -> bool {
        let burned = !said.holders.is_empty() && said.holders.iter().all(|at| self.has_lost_disk(*at));
        self.is_suspect(said.node) || burned
    }

    /// Each idea is one person's, the same everywhere: its author's, or of somebody to whom it was offered.
    fn check_owner(&self, standing: &[u32], n: usize, id: EntryId) -> Option<(&'static str, String)> {
        let owner = |at: u32| Some(self.core(at)?.replica().subject(DocId::ledger(id))?.owner);
        let first = owner(*standing.first()?);
        if let Some(other) = standing.iter().find(|at| owner(**at) != first) {
            let detail = format!(
                "idea {n} is {first:?}'s on node {:?} and {:?}'s on node {other}",
                standing.first(),
                owner(*other)
            );
            return Some(("one-owner", detail));
        }
        let author = self.said.get(&n).map(|said| said.entry.by.person);
        let offers =
            self.said.values().filter(|said| said.entry.says.about == Some(id) && said.entry.says.on.is_none());
        let offered = offers.filter_map(|said| said.entry.says.transfer.as_ref()).map(|transfer| transfer.to);
        let may: BTreeSet<PersonId> = offered.chain(author).collect();
        let thief = first.filter(|owner| !may.contains(owner))?;
        Some(("one-owner", format!("idea {n} came to {thief}, to whom nobody offered it")))
    }

    /// What was taken back is hidden, and stays.
    fn check_hidden(&self, standing: &[u32], n: usize, retraction: &Signed) -> Option<(&'static str, String)> {
        let id = retraction.subject();
        // What may be gone need not stay.
        if self.said.values().any(|said| said.entry.id == id && self.is_excused(said)) {
            return None;
        }
        for at in standing {
            let subject = self.core(*at)?.replica().subject(DocId::ledger(id));
            let stays = subject.as_ref().is_some_and(|subject| match retraction.says.on {
                Some(on) => subject.about.iter().any(|entry| entry.id == on),
                None => true,
            });
            let hides = subject.as_ref().is_some_and(|subject| match retraction.says.on {
                Some(on) => subject.retracted.contains(&on),
                // Who does not own it takes nothing back.
                None => {
                    subject.status == Status::Retracted
                        || (subject.owner != retraction.by.person && subject.root.by.person != retraction.by.person)
                }
            });
            if !stays || !hides {
                let detail = format!("after retraction {n}, on node {at}: stays {stays}, is hidden {hides}");
                return Some(("retraction-hides", detail));
            }
        }
        None
    }

    /// Each job that is over and serves an idea has one outcome beside it.
    fn check_outcomes(&self, standing: &[u32]) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (n, fate) in self.fates.iter().enumerate() {
            let Some(idea) = self.served.get(&fate.id) else { continue };
            for at in standing {
                let Some(replica) = self.core(*at).map(|core| core.replica()) else { continue };
                let row = replica.job_row(fate.id);
                let is_over = row.as_ref().and_then(|row| row.state()).is_some_and(crdt::job::JobState::is_final);
                let by_submitter = row.is_some_and(|row| row.submitter == Some(self.node(fate.submit.node).id));
                let is_accepted = replica.cached_job(&fate.id).is_none_or(|job| {
                    job.segments().iter().all(|segment| segment.waiting == crdt::job::Waiting::Nobody)
                });
                if !is_over || !by_submitter || !is_accepted || self.is_suspect(fate.submit.node) {
                    continue;
                }
                let outcomes = replica.outcomes(&Target::Entry(*idea));
                let count = outcomes
                    .iter()
                    .filter(|entry| entry.says.outcome.as_ref().is_some_and(|outcome| outcome.job == fate.id))
                    .count();
                if count != 1 {
                    found.push(("ends-or-says-why", format!("job {n} is over and has {count} outcomes on node {at}")));
                    break;
                }
            }
        }
        found
    }
}
