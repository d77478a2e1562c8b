//! The ledger out of the mesh and into it.

use std::sync::Arc;

use bytes::Bytes;
use crdt::doc::DocId;
use crdt::ledger::{Shown, Signed, Target};
use tokio::sync::mpsc;
use web_gateway::api::*;

use super::super::{Api, internal, items, stopping};
use super::write;
use crate::daemon::{Shared, now_ms, views};
use crate::ledger::file;

/// Subjects whose entries are read together.
const SUBJECTS_PER_STEP: usize = 64;
/// Pieces of an export between the node and who reads it.
const PIECES: usize = 4;
/// Entries that are written together.
const ENTRIES_PER_WRITE: usize = 256;

pub(in crate::daemon::api) async fn export(api: &Api) -> Result<Items<Bytes>, ApiError> {
    let (pieces, receiver) = mpsc::channel(PIECES);
    let shared = Arc::clone(&api.0);
    tokio::spawn(async move {
        if let Err(error) = send(&shared, &pieces).await {
            drop(pieces.send(Err(error)).await);
        }
    });
    Ok(items(receiver))
}

type Pieces = mpsc::Sender<Result<Bytes, ApiError>>;

async fn send(shared: &Shared, pieces: &Pieces) -> Result<(), ApiError> {
    let gone = |_| internal("the reader has gone");
    let mut writer = file::Writer::new();
    let about = shared.core.ask(|core| (core.replica().mesh(), core.replica().entry_count()));
    let (mesh, entries) = about.await.ok_or_else(stopping)?;
    let head = writer.head(mesh, shared.me, views::time(now_ms()), entries);
    pieces.send(Ok(head.into())).await.map_err(gone)?;
    let mut after = None;
    loop {
        let page = shared.core.ask(move |core| {
            let page = core.replica().subjects(after, SUBJECTS_PER_STEP);
            let last = page.last().map(|shown| (shown.created_ms, shown.id));
            let replica = core.replica();
            let of = |shown: Shown| {
                let outcomes = replica.outcomes(&Target::Entry(shown.id)).into_iter();
                replica.entries_of(DocId::ledger(shown.id)).into_iter().chain(outcomes)
            };
            (last, page.into_iter().flat_map(of).collect::<Vec<_>>())
        });
        let (last, entries) = page.await.ok_or_else(stopping)?;
        if last.is_none() {
            break;
        }
        after = last;
        let lines: Vec<u8> = entries.iter().flat_map(|entry| writer.entry(entry)).collect();
        pieces.send(Ok(lines.into())).await.map_err(gone)?;
    }
    pieces.send(Ok(writer.tail(&shared.key).into())).await.map_err(gone)?;
    Ok(())
}

pub(in crate::daemon::api) async fn import(api: &Api, import: IdeasImport) -> Result<IdeasImported, ApiError> {
    let entries = tokio::task::spawn_blocking(move || {
        let read = |(at, text): (usize, &String)| {
            file::decode(text).map_err(|reason| {
                ApiError::BadRequest(format!("entry {at} of the import: {reason}; nothing was taken"))
            })
        };
        import.entries.iter().enumerate().map(read).collect::<Result<Vec<Signed>, _>>()
    });
    let entries = entries.await.map_err(internal)??;
    let me = api.0.me;
    let (new, known) = api
        .ask(move |core| {
            let replica = core.replica();
            let all = entries.len();
            let new: Vec<Signed> = entries
                .into_iter()
                .filter(|entry| !replica.has_entry(entry.document(), entry.id))
                .collect();
            if let Some(entry) = new.iter().find(|entry| !replica.counts_from(&me, u64::MAX, entry)) {
                return Err(ApiError::NotAllowed(format!(
                    "entry {} would not count from here: of somebody who is no member in good standing only an admin's node may \
                     bring it in",
                    entry.id
                )));
            }
            Ok::<_, ApiError>((new, all))
        })
        .await??;
    let mut done = IdeasImported { added: 0, known: (known - new.len()) as u64, durable_on: 1 };
    for some in new.chunks(ENTRIES_PER_WRITE) {
        done.durable_on = write(api, some).await?;
        done.added += some.len() as u64;
    }
    Ok(done)
}
