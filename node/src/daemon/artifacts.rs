//! Lists of artifacts that are too long for a run's report, and the artifacts of a run wherever they are named.

use std::collections::BTreeMap;

use anyhow::Context;
use crdt::ids::{BlobHash, NodeId};
use crdt::job::{ArtifactList, ArtifactRef, Job, RunReport};
use crdt::limits::ARTIFACT_LIST_BYTES_MAX;

use crate::blobs::{BlobRef, Blobs, Pin};

/// Lists that were read, by their blobs.
pub(super) type Lists = BTreeMap<BlobHash, Vec<ArtifactRef>>;

/// Brings a list here, pins it and reads it.
///
/// # Errors
/// Nobody has it, or it is no list.
pub(super) async fn read(
    blobs: &Blobs,
    list: &ArtifactList,
    holders: &[NodeId],
    pin: &Pin,
) -> anyhow::Result<Vec<ArtifactRef>> {
    let blob = BlobRef { hash: list.blob, size: list.size };
    anyhow::ensure!(blob.size <= ARTIFACT_LIST_BYTES_MAX, "the list of files has {} bytes, too many", blob.size);
    blobs.fetch(&blob, holders, pin, None).await.context("the list of files cannot be fetched")?;
    ArtifactList::decode(&blobs.read_all(&blob, blob.size).await?).context("the list of files cannot be read")
}

/// The lists that a job's runs name.
pub(super) fn lists(job: &Job) -> Vec<ArtifactList> {
    job.claims().keys().filter_map(|claim| job.run(claim)?.list).collect()
}

/// The artifacts of a run: of its list where that was read, else those that its report names.
pub(super) fn of<'a>(run: &'a RunReport, lists: &'a Lists) -> &'a [ArtifactRef] {
    run.list.as_ref().and_then(|list| lists.get(&list.blob)).unwrap_or(&run.artifacts)
}
