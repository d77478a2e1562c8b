//! What mirrors read, and how they stand.

use std::sync::{Arc, PoisonError};

use crdt::bundle::Bundle;
use crdt::doc::DocKind;
use crdt::ids::NodeId;
use web_gateway::api::*;
use web_gateway::mirror::Mirror;

use super::{Api, internal};
use crate::daemon::views;

/// Bytes of bundles in one answer, about.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

pub(super) async fn bundles(
    api: &Api,
    author: &str,
    from_seq: u64,
    most: usize,
) -> Result<Vec<MirrorBundle>, ApiError> {
    let author: NodeId =
        author.parse().map_err(|error| ApiError::BadRequest(format!("{author:?} is not a whole node id: {error}")))?;
    let wires = api.ask(move |core| core.replica().bundles_within(author, from_seq, most, ANSWER_BYTES)).await?;
    let read = |wire: bytes::Bytes| {
        let bundle = Bundle::decode(wire).map_err(internal)?;
        let touches = bundle.header.changes.iter().map(|change| match change.doc.kind {
            DocKind::Roster => Touched::Roster,
            DocKind::Job => Touched::Job(crdt::ids::JobId(change.doc.id).to_string()),
            DocKind::Ledger => Touched::Idea(data_encoding::HEXLOWER.encode(&change.doc.id)),
            DocKind::Note => Touched::Note(change.doc.to_string()),
            DocKind::Feed => Touched::Feed(change.doc.to_string()),
        });
        Ok(MirrorBundle {
            seq: bundle.header.seq,
            hash: bundle.hash.to_string(),
            at: views::time(bundle.header.hlc >> 16),
            touches: touches.collect(),
            wire: bundle.wire.clone(),
        })
    };
    wires.into_iter().map(read).collect()
}

fn all(api: &Api) -> Vec<Arc<Mirror>> {
    api.0.mirrors.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(super) async fn views(api: &Api) -> Result<Vec<MirrorView>, ApiError> {
    let heads =
        api.ask(|core| core.replica().feeds().iter().map(|(author, feed)| (author.to_string(), feed.seq)).collect());
    let heads = heads.await?;
    Ok(all(api).iter().map(|mirror| mirror.view(&heads)).collect())
}

fn find(api: &Api, kind: &str) -> Result<Arc<Mirror>, ApiError> {
    let found = all(api).into_iter().find(|mirror| mirror.kind() == kind);
    found.ok_or_else(|| {
        ApiError::NotFound(format!(
            "this node has no mirror {kind:?}: a gateway has those that `v6 gateway` was told of"
        ))
    })
}

pub(super) async fn verify(api: &Api, kind: &str) -> Result<MirrorCheck, ApiError> {
    find(api, kind)?.verify().await
}

pub(super) async fn rebuild(api: &Api, kind: &str) -> Result<MirrorView, ApiError> {
    let mirror = find(api, kind)?;
    mirror.rebuild().await?;
    let mut views = views(api).await?.into_iter();
    views.find(|view| view.kind == kind).ok_or_else(|| internal("the mirror has gone"))
}
