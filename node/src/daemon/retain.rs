//! What is kept beside a job's history goes with it: its log, and the pins of its blobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crdt::ids::JobId;

use super::Shared;
use crate::blobs::PinReason;

/// Removes the logs of jobs and ends their pins; what nothing else pins then goes when the quota asks for it.
pub(super) async fn forget(shared: Arc<Shared>, jobs: Vec<JobId>) {
    for job in jobs {
        if let Err(error) = shared.blobs.unpin(&PinReason::Job(job)).await {
            tracing::warn!(%job, %error, "the blobs of a sealed job stay pinned");
        }
        if let Err(error) = shared.logs.remove_job(job) {
            tracing::warn!(%job, %error, "the log of a sealed job stays");
        }
    }
}

/// The same for what a node that was killed in the middle left behind. Once at the start.
pub(super) async fn forget_leftovers(shared: Arc<Shared>) {
    let mut kept: BTreeSet<JobId> = shared.blobs.pinned_jobs();
    kept.extend(shared.logs.jobs());
    let dropped = shared.core.ask(move |core| {
        kept.retain(|id| core.replica().job_row(*id).is_some_and(|row| row.sealed_ms.is_some()));
        let gone = |id: &JobId| core.replica().is_dropped(*id);
        kept.into_iter().filter(gone).collect::<Vec<_>>()
    });
    if let Some(jobs) = dropped.await {
        forget(shared, jobs).await;
    }
}
