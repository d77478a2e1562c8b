//! Wishes of the node's own people.

use crdt::bundle::Change;
use crdt::doc::{DocId, Key};
use crdt::ids::JobId;
use crdt::job::{Control, ControlOp, JobSpec};
use crdt::shelf::Shelf;

use super::{Core, Phase};
use crate::io::{Ack, Command, Effect, Effects, Refusal};
use crate::offer::could_ever;
use crate::time::Now;

/// Says so when one PC that is off is enough to keep a job from starting.
fn few_voters(count: usize) -> Option<String> {
    (count < crate::limits::VOTERS).then(|| {
        format!("only {count} nodes are here to vote on its one start: while one of them is off it may not start")
    })
}

impl<S: Shelf> Core<S> {
    pub(super) fn on_command(&mut self, now: Now, request: u64, command: Command, out: &mut Effects) {
        let done = match command {
            Command::Submit(jobs, entries) => self.submit(jobs, entries).map(Some),
            Command::Cancel(id) => self.control(now, id, ControlOp::Cancel),
            Command::Priority(id, priority) => self.control(now, id, ControlOp::Priority(priority)),
            Command::Write(changes) => {
                changes.into_iter().for_each(|change| self.write_change(change));
                Ok(Some(Vec::new()))
            }
            Command::SetOffer(offer) => {
                let crate::offer::Offer { incarnation, number, free, waiting, store, .. } = self.offer;
                self.offer = crate::offer::Offer { incarnation, number, free, waiting, store, ..*offer };
                self.offer_dirty = true;
                self.offers_version += 1;
                self.slot_freed = true;
                Ok(None)
            }
            Command::Drain => {
                self.drain(out);
                Ok(None)
            }
        };
        let frozen = self.replica.feeds().get(&self.me).is_some_and(|feed| feed.frozen);
        match done {
            Ok(Some(_)) if frozen => out.push(Effect::Reply { request, result: Err(Refusal::Frozen) }),
            Ok(Some(warnings)) => self.pending_acks.push((request, warnings)),
            Ok(None) => {
                let ack = Ack { durable_on: 1, warnings: Vec::new() };
                out.push(Effect::Reply { request, result: Ok(ack) });
            }
            Err(refusal) => out.push(Effect::Reply { request, result: Err(refusal) }),
        }
    }

    /// What to call this node's lack of rights.
    fn standing(&self, role: Option<crdt::roster::Role>) -> String {
        let revoked = self.replica.roster().revoked.contains_key(&self.me);
        role.map_or(if revoked { "revoked" } else { "none" }, |role| role.name()).to_owned()
    }

    fn submit(&mut self, jobs: Vec<(JobId, JobSpec)>, entries: Vec<Change>) -> Result<Vec<Option<String>>, Refusal> {
        let role = self.replica.roster().role(&self.me);
        if !role.is_some_and(|role| role.may_submit()) {
            return Err(Refusal::Role(self.standing(role)));
        }
        let mut warnings = Vec::new();
        for (id, spec) in &jobs {
            for up in &spec.after {
                if self.replica.job(*up).is_none() && !jobs.iter().any(|(other, _)| other == up) {
                    return Err(Refusal::NoUpstream(*up));
                }
            }
            if self.replica.job(*id).and_then(|job| job.wants(spec)) == Some(false) {
                return Err(Refusal::KeyTaken(spec.key.clone().unwrap_or_default(), *id));
            }
        }
        for entry in entries {
            // The same one for several jobs, or again before it has left, is one.
            let name = [&entry.doc.to_bytes()[..], b"entry"].concat();
            if !self.pending.iter().any(|(other, _)| other.as_ref() == Some(&name)) {
                self.pending.push((Some(name), entry));
            }
        }
        for (id, mut spec) in jobs {
            let mut warning = self.nobody_could(&spec);
            if spec.at_most_once {
                spec.voters = self.choose_voters();
                warning = warning.or_else(|| few_voters(spec.voters.len()));
            }
            warnings.push(warning);
            if self.replica.job(id).and_then(|job| job.spec()).is_none() {
                self.write(DocId::job(id), &Key::Spec, &spec);
            }
        }
        Ok(warnings)
    }

    /// Says so when no known node could ever run a job.
    fn nobody_could(&self, spec: &JobSpec) -> Option<String> {
        if self.live_offers().any(|(_, offer)| could_ever(offer, spec)) {
            return None;
        }
        let reasons = self.reasons(spec);
        Some(format!("no known node could run this job: {reasons}; it waits until one can"))
    }

    fn control(&mut self, now: Now, id: JobId, op: ControlOp) -> Result<Option<Vec<Option<String>>>, Refusal> {
        let me = self.me;
        let role = self.replica.roster().role(&me);
        let person = self.replica.roster().person(&me);
        let job = self.replica.job(id).ok_or(Refusal::NoJob(id))?;
        let owner = job.spec().map(|(_, spec)| spec.person);
        let state = job.state();
        let next = job.next_control(me);
        if let Some(state) = state.filter(|s| s.is_final()) {
            return Err(Refusal::Over(id, state.name()));
        }
        let allowed = role.is_some_and(|r| r.may_administer() || (r.may_submit() && owner == person));
        if !allowed {
            return Err(Refusal::Role(self.standing(role)));
        }
        self.write(DocId::job(id), &Key::Control(next), &Control { op, at_ms: now.wall_ms });
        Ok(Some(Vec::new()))
    }

    /// Gives back everything that is claimed and ends what runs.
    fn drain(&mut self, out: &mut Effects) {
        self.draining = true;
        let held: Vec<_> = self.held.iter().map(|(key, held)| (*key, held.phase)).collect();
        for ((job, claim), phase) in held {
            match phase {
                Phase::Waiting => self.abandon(job, claim),
                Phase::Running { .. } => {
                    self.held.get_mut(&(job, claim)).expect("just listed").phase = Phase::Ending;
                    out.push(Effect::Kill { job, claim, exit: crdt::job::Exit::Returned });
                }
                Phase::Ending => {}
            }
        }
    }
}
