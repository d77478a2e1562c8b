//! What the submitter's node decides: calls for open tasks, acceptance of results, giving up, skipping.

use crdt::bundle::Change;
use crdt::doc::{DocId, Key, TaskRange};
use crdt::ids::JobId;
use crdt::job::{Accept, ClaimId, JobState, Outcome, Waiting};
use crdt::ledger::{Content, JobOutcome, Kind, Signed};
use crdt::shelf::Shelf;

use super::{Core, Securing};
use crate::io::{Effect, Effects};
use crate::limits::SECURE_WAIT_MS;
use crate::time::Now;

impl<S: Shelf> Core<S> {
    /// Looks at the jobs that changed.
    pub(super) fn settle_dirty(&mut self, now: Now, out: &mut Effects) {
        let mut rounds = 0;
        while let Some(id) = self.dirty.pop_first() {
            rounds += 1;
            self.settle(now, id, out);
            if rounds > 100_000 {
                break;
            }
        }
    }

    fn settle(&mut self, now: Now, id: JobId, out: &mut Effects) {
        if self.replica.job(id).is_none() {
            return;
        }
        self.update_watches(now, id);
        self.update_loads(id);
        self.review_claims(now, id, out);
        let Some(job) = self.replica.cached_job(&id) else { return };
        let Some((submitter, spec)) = job.spec() else { return };
        let (submitter, after, array) = (*submitter, spec.after.clone(), spec.array > 0);
        match spec.idea.filter(|_| !self.knows_idea(spec)) {
            Some(idea) => drop(self.lacks_idea.insert(id, DocId::ledger(idea))),
            None => drop(self.lacks_idea.remove(&id)),
        }
        if job.state().is_some_and(JobState::is_final) {
            // A cancelled job is final before its acceptance is written, which alone makes it so for good.
            let accepted = job.segments().iter().all(|s| s.waiting == Waiting::Nobody);
            self.open.remove(&id);
            self.lacks_idea.remove(&id);
            let calls: Vec<_> = self.calls.range((id, 0)..=(id, u32::MAX)).map(|(key, _)| *key).collect();
            for (id, start) in calls {
                self.end_call(id, start, out);
            }
            if self.finished.insert(id) {
                self.forget.push_back((now.mono, id));
            }
            self.dirty.extend(self.dependents.remove(&id).unwrap_or_default());
            if !accepted && self.settles_for(&submitter) {
                self.settle_own(now, id, &after, out);
            }
            return;
        }
        if self.open.insert(id) && array {
            // Nobody is called for an array: whoever has room looks at once, each at its own part.
            self.draw_at = self.draw_at.min(now.mono);
        }
        for segment in job.segments() {
            if let Waiting::Owner(claim) = segment.waiting {
                self.first_seen.entry((id, claim.attempt)).or_insert(now.mono);
            }
        }
        for up in &after {
            if !self.state_of(up).is_some_and(JobState::is_final) {
                self.dependents.entry(*up).or_default().insert(id);
            }
        }
        if self.settles_for(&submitter) {
            self.settle_own(now, id, &after, out);
        }
    }

    fn settle_own(&mut self, now: Now, id: JobId, after: &[JobId], out: &mut Effects) {
        let failed =
            after.iter().find(|up| self.state_of(up).is_some_and(|s| s.is_final() && s != JobState::Done)).copied();
        let Some(job) = self.replica.cached_job(&id) else { return };
        let array = job.spec().is_some_and(|(_, spec)| spec.array > 0);
        let submitter = job.spec().map(|(node, _)| *node);
        let segments = job.segments().to_vec();
        let (mut accepts, mut all) = (Vec::new(), true);
        for segment in segments {
            let accept = match segment.waiting {
                Waiting::Acceptance(claim, outcome) => self.accept(now, id, claim, outcome, out),
                Waiting::GivingUp(reason) => {
                    let outcome = if reason == "cancelled" { Outcome::Cancelled } else { Outcome::Failed };
                    (segment.state != JobState::Running).then(|| nothing(now, outcome, None, reason))
                }
                Waiting::Claim { .. } if failed.is_some() => {
                    Some(nothing(now, Outcome::Skipped, failed, "a job before it did not succeed"))
                }
                Waiting::Nobody => continue,
                Waiting::Claim { .. } | Waiting::Owner(_) | Waiting::Person(_) => None,
            };
            all &= accept.is_some();
            accepts.extend(accept.map(|accept| (segment.range, accept)));
        }
        for (range, accept) in &accepts {
            self.write(DocId::job(id), &Key::Accept(*range), accept);
        }
        if all && !accepts.is_empty() {
            self.write_outcome(now, id, accepts);
        }
        if array || submitter != Some(self.me) {
            return;
        }
        let open = self.open_ranges(now, &id);
        let of_job = self.calls.range((id, 0)..=(id, u32::MAX));
        let is_open = |start: u32, attempt: u32| open.iter().any(|(r, a, _)| r.contains(start) && *a == attempt);
        let over: Vec<u32> =
            of_job.filter(|((_, start), call)| !is_open(*start, call.attempt)).map(|((_, start), _)| *start).collect();
        for start in over {
            self.end_call(id, start, out);
        }
        for (range, attempt, basis) in open {
            self.ensure_call(now, id, range, attempt, basis == crdt::job::Basis::Retry);
        }
    }

    /// Says in the ledger what came of a job that serves an idea, with the acceptance that ends it.
    fn write_outcome(&mut self, now: Now, id: JobId, accepts: Vec<(TaskRange, Accept)>) {
        let Some(job) = self.replica.cached_job(&id) else { return };
        let Some(idea) = job.spec().and_then(|(_, spec)| spec.idea) else { return };
        let Some(person) = self.replica.roster().person(&self.me) else { return };
        let outcome = job.if_accepted(accepts).and_then(|job| JobOutcome::of(&job));
        let says = Content { outcome, ..Content::about(Kind::Outcome, idea) };
        // Acceptances that have not left are written again: once is enough.
        let name = [b"outcome/", &id.0[..]].concat();
        if says.outcome.is_none() || self.pending.iter().any(|(other, _)| other.as_ref() == Some(&name)) {
            return;
        }
        if let Ok(entry) = Signed::sign(&*self.signer, person, now.wall_ms, id.0, says) {
            self.pending.push((Some(name), Change::entry(&entry)));
        }
    }

    /// What accepts a result, once its run is over and its files are held by a second node, or cannot be.
    fn accept(&mut self, now: Now, id: JobId, claim: ClaimId, outcome: Outcome, out: &mut Effects) -> Option<Accept> {
        let job = self.replica.cached_job(&id)?;
        let run = job.run(&claim).cloned().unwrap_or_default();
        let lost = job.lost_by(&claim).next().is_some();
        if !run.ended && !lost {
            return None;
        }
        let bare = run.artifacts.is_empty() && !matches!(run.log, Some(crdt::job::LogRef::Blob(..)));
        let mut at_risk = false;
        if claim.owner == self.me {
            at_risk = !bare && run.holders.is_empty();
        } else if !bare {
            match self.securing.get(&(id, claim)).copied() {
                None => {
                    self.securing.insert((id, claim), Securing::Asked(now.mono));
                    let mut holders = vec![claim.owner];
                    holders.extend(run.holders.iter().copied());
                    out.push(Effect::Secure {
                        job: id,
                        claim,
                        artifacts: run.artifacts,
                        list: run.list,
                        log: run.log,
                        holders,
                    });
                    self.wake_at(now.mono.plus_ms(SECURE_WAIT_MS));
                    return None;
                }
                Some(Securing::Asked(_)) => return None,
                Some(Securing::Failed) => at_risk = true,
                Some(Securing::Held) => {}
            }
        }
        let (attempt, node) = (claim.attempt, Some(claim.owner));
        let reason = String::new();
        Some(Accept { outcome, attempt, node, because: None, at_risk, reason, at_ms: now.wall_ms })
    }

    /// Files that did not come in time are not waited for any longer.
    pub(super) fn tick_securing(&mut self, now: Now) {
        let asked: Vec<_> = self
            .securing
            .iter()
            .filter_map(|(key, securing)| match securing {
                Securing::Asked(at) => Some((*key, at.plus_ms(SECURE_WAIT_MS))),
                Securing::Held | Securing::Failed => None,
            })
            .collect();
        for (key, deadline) in asked {
            if self.is_due(now, deadline) {
                self.securing.insert(key, Securing::Failed);
                self.dirty.insert(key.0);
            }
        }
    }
}

/// Accepts that nothing came of a task.
fn nothing(now: Now, outcome: Outcome, because: Option<JobId>, reason: &str) -> Accept {
    let reason = reason.to_owned();
    Accept { outcome, attempt: 0, node: None, because, at_risk: false, reason, at_ms: now.wall_ms }
}
