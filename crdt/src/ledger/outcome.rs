//! What came of a job, as the ledger keeps it.

use std::collections::{BTreeMap, BTreeSet};

use super::content::JobOutcome;
use crate::doc::TaskRange;
use crate::ids::NodeId;
use crate::job::{ClaimId, Job};
use crate::limits::{ENTRY_NAME_BYTES_MAX, OUTCOME_ARTIFACTS_MAX, OUTCOME_NODES_MAX};

impl JobOutcome {
    /// What came of a job; `None` while it is not final. Of many artifacts and nodes, the first.
    ///
    /// Cost: linear in the tasks' reports.
    #[must_use]
    pub fn of(job: &Job) -> Option<Self> {
        let state = job.state().filter(|state| state.is_final())?;
        let spec = job.spec()?.1;
        let (mut nodes, mut artifacts, mut duration_ms, mut cost_micros) = (BTreeSet::new(), Vec::new(), 0, 0);
        for (claim, ranges) in accepted(job) {
            let Some(run) = job.run(&claim) else { continue };
            nodes.insert(claim.owner);
            let counts = |task: u32| ranges.iter().any(|range| range.contains(task));
            for task in run.tasks.iter().filter(|task| counts(task.0)) {
                duration_ms += task.2.as_ref().map_or(0, |(at_ms, _)| at_ms.saturating_sub(task.1));
            }
            cost_micros += run.cost_micros;
            artifacts.extend(run.artifacts.iter().filter(|file| counts(file.task)).cloned());
        }
        artifacts.sort_by(|a, b| (a.task, &a.path).cmp(&(b.task, &b.path)));
        let path = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        Some(Self {
            job: job.id,
            state: state.name().to_owned(),
            exit: job.exit_code(),
            done: job.count(crate::job::JobState::Done),
            tasks: spec.tasks(),
            duration_ms,
            cost_micros,
            nodes: nodes.into_iter().take(OUTCOME_NODES_MAX).collect(),
            trace: spec.trace,
            artifacts: artifacts
                .iter()
                .map(|file| (path(&file.path), file.blob, file.size))
                .filter(|(path, ..)| path.len() <= ENTRY_NAME_BYTES_MAX)
                .take(OUTCOME_ARTIFACTS_MAX)
                .collect(),
        })
    }
}

/// The claims whose results were accepted, with the tasks of each.
fn accepted(job: &Job) -> BTreeMap<ClaimId, Vec<TaskRange>> {
    let mut of_attempt: BTreeMap<(u32, NodeId), Vec<TaskRange>> = BTreeMap::new();
    for segment in job.segments() {
        if let Some((accept, node)) = job.accepted(segment.range.start).and_then(|a| Some((a, a.node?))) {
            of_attempt.entry((accept.attempt, node)).or_default().push(segment.range);
        }
    }
    let ranges = |claim: &ClaimId| {
        let ranges = of_attempt.get(&(claim.attempt, claim.owner))?;
        let within: Vec<TaskRange> = ranges.iter().filter(|range| range.overlaps(&claim.range)).copied().collect();
        (!within.is_empty()).then_some(within)
    };
    job.claims().keys().filter_map(|claim| Some((*claim, ranges(claim)?))).collect()
}
