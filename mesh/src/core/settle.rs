//! What the submitter's node decides: calls for open tasks, acceptance of results, giving up, skipping.

use crdt::doc::{DocId, Key, TaskRange};
use crdt::ids::{JobId, NodeId};
use crdt::job::{Accept, ClaimId, JobState, Outcome, Waiting};
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
        if job.state().is_some_and(JobState::is_final) {
            // A cancelled job is final before its acceptance is written, which alone makes it so for good.
            let accepted = job.segments().iter().all(|s| s.waiting == Waiting::Nobody);
            self.open.remove(&id);
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
        for segment in segments {
            match segment.waiting {
                Waiting::Acceptance(claim, outcome) => self.accept(now, id, segment.range, claim, outcome, out),
                Waiting::GivingUp(reason) => {
                    let outcome = if reason == "cancelled" { Outcome::Cancelled } else { Outcome::Failed };
                    if segment.state != JobState::Running {
                        self.write_accept(now, id, segment.range, (outcome, 0, None), None, reason);
                    }
                }
                Waiting::Claim { .. } if failed.is_some() => {
                    self.write_accept(
                        now,
                        id,
                        segment.range,
                        (Outcome::Skipped, 0, None),
                        failed,
                        "a job before it did not succeed",
                    );
                }
                Waiting::Claim { .. } | Waiting::Owner(_) | Waiting::Person(_) | Waiting::Nobody => {}
            }
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

    /// Accepts a result once its run is over and its files are held by a second node, or cannot be.
    fn accept(&mut self, now: Now, id: JobId, range: TaskRange, claim: ClaimId, outcome: Outcome, out: &mut Effects) {
        let Some(job) = self.replica.cached_job(&id) else { return };
        let run = job.run(&claim).cloned().unwrap_or_default();
        let lost = job.lost_by(&claim).next().is_some();
        if !run.ended && !lost {
            return;
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
                    return;
                }
                Some(Securing::Asked(_)) => return,
                Some(Securing::Failed) => at_risk = true,
                Some(Securing::Held) => {}
            }
        }
        let key = Key::Accept(range);
        let accept = Accept {
            outcome,
            attempt: claim.attempt,
            node: Some(claim.owner),
            because: None,
            at_risk,
            reason: String::new(),
            at_ms: now.wall_ms,
        };
        self.write(DocId::job(id), &key, &accept);
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

    fn write_accept(
        &mut self,
        now: Now,
        id: JobId,
        range: TaskRange,
        (outcome, attempt, node): (Outcome, u32, Option<NodeId>),
        because: Option<JobId>,
        reason: &str,
    ) {
        let accept =
            Accept { outcome, attempt, node, because, at_risk: false, reason: reason.to_owned(), at_ms: now.wall_ms };
        self.write(DocId::job(id), &Key::Accept(range), &accept);
    }
}
