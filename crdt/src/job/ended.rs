//! When and how a job ended.

use std::collections::BTreeMap;

use super::{Job, JobState, fold};
use crate::doc::TaskRange;
use crate::ids::NodeId;

impl Job {
    /// When the last of its accepted attempts ended, by its owner's clock; where no attempt was accepted, when the
    /// submitter accepted that. Milliseconds since 1970; `None` while the job is not final or nothing was accepted.
    ///
    /// Cost: linear in the tasks' reports.
    #[must_use]
    pub fn ended_ms(&self) -> Option<u64> {
        if !self.state()?.is_final() {
            return None;
        }
        let accepts = fold::accepts(self, *self.spec()?.0, self.view.adopted());
        let mut accepted: BTreeMap<(u32, NodeId), Vec<TaskRange>> = BTreeMap::new();
        for (range, accept) in &accepts {
            if let Some(node) = accept.node {
                accepted.entry((accept.attempt, node)).or_default().push(*range);
            }
        }
        for ranges in accepted.values_mut() {
            ranges.sort_unstable();
        }
        let ends = self.facts().runs.iter().filter_map(|(claim, run)| {
            let ranges = accepted.get(&(claim.attempt, claim.owner))?;
            let counts = |task: u32| {
                let after = ranges.partition_point(|range| range.start <= task);
                after.checked_sub(1).is_some_and(|at| ranges[at].contains(task))
            };
            let tasks = run.value.tasks.iter().filter(|task| counts(task.0));
            tasks.filter_map(|task| task.2.as_ref().map(|(at_ms, _)| *at_ms)).max()
        });
        ends.max().or_else(|| accepts.iter().map(|(_, accept)| accept.at_ms).max())
    }

    /// Accepted executions whose report is not here: it has not come yet, or was lost with the disks that held it. What they
    /// wrote is not known here, which is something else than that they wrote nothing.
    #[must_use]
    pub fn unreported(&self) -> Vec<(TaskRange, u32, NodeId)> {
        let Some((submitter, _)) = self.spec().filter(|_| self.sealed_by().is_none()) else { return Vec::new() };
        let accepts = fold::accepts(self, *submitter, self.view.adopted());
        let ran = accepts.into_iter().filter_map(|(range, accept)| Some((range, accept.attempt, accept.node?)));
        let is_here = |(range, attempt, node): &(TaskRange, u32, NodeId)| {
            let executions = self.attempts(range.start);
            executions.iter().any(|one| (one.id.attempt, one.id.owner) == (*attempt, *node) && one.report.is_some())
        };
        ran.filter(|execution| !is_here(execution)).collect()
    }

    /// The code that it ends with: 0, or that of its first task that did not succeed; `None` while it is not final.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self.state()? {
            JobState::Done => Some(0),
            JobState::Cancelled => Some(130),
            JobState::Queued | JobState::Claimed | JobState::Running => None,
            JobState::Failed | JobState::Skipped => {
                let task = self.segments().iter().find(|segment| segment.state == JobState::Failed)?.range.start;
                let accepted = self.accepted(task)?;
                let attempts = self.attempts(task);
                let is_it = |id: &super::ClaimId| id.attempt == accepted.attempt && Some(id.owner) == accepted.node;
                attempts.iter().find(|attempt| is_it(&attempt.id))?.report?.2.as_ref()?.1.code()
            }
        }
    }
}
