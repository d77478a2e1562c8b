//! What a run comes to.

use crdt::job::JobState;
use serde::Serialize;

use crate::checks::Violation;
use crate::world::World;

/// From the command to the start of its process, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placement {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// What a node receives for a job in which it has no part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bystander {
    /// Bytes, with the copies that gossip brings twice.
    pub bytes_per_job: f64,
    /// Messages, likewise.
    pub messages_per_job: f64,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Members.
    pub nodes: u32,
    /// Jobs of the plan.
    pub jobs: usize,
    /// A hash of everything that happened.
    pub trace_hash: String,
    /// Virtual time that it took.
    pub virtual_ms: u64,
    /// Events.
    pub events: u64,
    /// What was found.
    pub violations: Vec<Violation>,
    /// Jobs that were acknowledged.
    pub acknowledged: usize,
    /// Acknowledged jobs that are known nowhere.
    pub lost: usize,
    /// Jobs that are over.
    pub finished: usize,
    /// Claims that lost to another of the same attempt.
    pub collisions: usize,
    /// Claims.
    pub claims: usize,
    /// How fast jobs started.
    pub placement_ms: Placement,
    /// What a job costs those who have no part in it.
    pub bystander: Bystander,
}

impl Report {
    #[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub(crate) fn of(world: &mut World) -> Self {
        let first = world.running().first().copied();
        let acknowledged = world.fates.iter().filter(|fate| fate.acked_us.is_some()).count();
        let (mut finished, mut collisions, mut claims) = (0, 0, 0);
        let ids: Vec<_> = world.fates.iter().map(|fate| fate.id).collect();
        for id in ids {
            let Some(core) = first.and_then(|at| world.node_mut(at).core.as_mut()) else { break };
            let Some(job) = core.replica_mut().job(id) else { continue };
            finished += usize::from(job.state().is_some_and(JobState::is_final));
            claims += job.claims().len();
            let starts: std::collections::BTreeSet<u32> = job.claims().keys().map(|claim| claim.range.start).collect();
            let attempts = starts.into_iter().flat_map(|start| job.attempts(start)).filter(|a| !a.award).map(|a| a.id);
            collisions += attempts.collect::<std::collections::BTreeSet<_>>().len();
        }
        let mut waits: Vec<u64> = world
            .fates
            .iter()
            .filter(|fate| fate.submit.after.is_empty())
            .filter_map(|fate| Some(fate.started_us?.saturating_sub(fate.submitted_us?)))
            .collect();
        waits.sort_unstable();
        let at = |part: usize| waits.get((waits.len() * part / 100).min(waits.len().saturating_sub(1)));
        let ms = |part| at(part).map_or(0.0, |us| *us as f64 / 1_000.0);
        let (bytes, messages) = world.bystander();
        let jobs = world.fates.len().max(1) as f64;
        Self {
            seed: world.plan.seed,
            nodes: world.plan.nodes,
            jobs: world.fates.len(),
            trace_hash: data_encoding::HEXLOWER.encode(&world.trace_hash()),
            virtual_ms: world.now_us / 1_000,
            events: world.events,
            violations: world.checks.violations.clone(),
            acknowledged,
            lost: world.checks.lost.len(),
            finished,
            collisions,
            claims,
            placement_ms: Placement { p50: ms(50), p99: ms(99) },
            bystander: Bystander { bytes_per_job: bytes as f64 / jobs, messages_per_job: messages as f64 / jobs },
        }
    }
}
