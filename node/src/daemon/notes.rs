//! Notebooks: rebuilt from the feeds when somebody looks at one, and changed one edit after the other.
//!
//! A node numbers its changes of a notebook, so that two edits at once would take one number: an edit waits for the one
//! before it to be in the feed.

use std::sync::Arc;

use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::{NodeId, NoteId};
use crdt::notebook::{ChangeHash, EditRefusal, Notebook, rebuild};
use mesh::Command;
use tokio::sync::Mutex;
use web_gateway::api::{ApiError, NoteEdit, NoteView};

use super::api::{internal, refusal, stopping, wish};
use super::{Shared, now_ms};

/// Whose turn it is to edit.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    turn: Mutex<()>,
}

/// A notebook as it reads now.
pub(super) async fn read(shared: &Shared, id: NoteId) -> Result<Notebook, ApiError> {
    let changes =
        shared.core.ask(move |core| core.replica().note_changes(DocId::note(id))).await.ok_or_else(stopping)?;
    let build = move || rebuild(id, changes.into_iter().map(|(author, _, change)| (author, change))).notebook;
    let note = tokio::task::spawn_blocking(build).await.map_err(internal)?;
    if note.is_poisoned() {
        return Err(ApiError::Internal(format!("the notebook {id} cannot be built from its changes")));
    }
    Ok(note)
}

/// A notebook as it is shown.
pub(super) fn view(note: &Notebook) -> NoteView {
    let authors: std::collections::BTreeSet<NodeId> = note.history().into_iter().map(|entry| entry.author).collect();
    NoteView {
        id: note.id().to_string(),
        text: note.text(),
        heads: note.heads().iter().map(|head| data_encoding::HEXLOWER.encode(&head.0)).collect(),
        authors: authors.iter().map(ToString::to_string).collect(),
        durable_on: None,
    }
}

/// Makes an edit. It goes on to its end also when nobody waits for the answer any more.
pub(super) async fn edit(shared: &Arc<Shared>, id: NoteId, edit: NoteEdit) -> Result<NoteView, ApiError> {
    let shared = Arc::clone(shared);
    tokio::spawn(async move { edit_in_turn(&shared, id, edit).await }).await.map_err(internal)?
}

async fn edit_in_turn(shared: &Shared, id: NoteId, edit: NoteEdit) -> Result<NoteView, ApiError> {
    let base = edit.base.map(|heads| heads.iter().map(|head| change_hash(head)).collect::<Result<Vec<_>, _>>());
    let base = base.transpose()?;
    let me = shared.me;
    let _turn = shared.notes.turn.lock().await;
    let role = shared.core.ask(move |core| core.replica().roster().role(&me)).await.ok_or_else(stopping)?;
    if !role.is_some_and(|role| role.may_submit()) {
        return Err(ApiError::NotAllowed("this node's role does not allow it to write notebooks".into()));
    }
    let mut note = read(shared, id).await?;
    let made = tokio::task::spawn_blocking(move || {
        let text = match base {
            Some(base) => note.merged(&base, &edit.text)?,
            None => edit.text,
        };
        let change = note.edit(me, &text, i64::try_from(now_ms()).unwrap_or(i64::MAX))?;
        Ok((view(&note), change))
    });
    let (mut view, change) = made.await.map_err(internal)?.map_err(refused)?;
    if let Some(change) = change {
        let command = Command::Write(vec![Change::notebook(DocId::note(id), change)]);
        let ack = wish(&shared.core, command).await?.map_err(refusal)?;
        view.durable_on = Some(ack.durable_on);
    }
    Ok(view)
}

fn change_hash(text: &str) -> Result<ChangeHash, ApiError> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(ChangeHash).ok_or_else(|| ApiError::BadRequest(format!("the base {text:?} is no head of a notebook")))
}

#[allow(clippy::wildcard_enum_match_arm, reason = "what is not named gets the same answer, also when kinds are added")]
fn refused(refusal: EditRefusal) -> ApiError {
    let text = refusal.to_string();
    #[allow(clippy::wildcard_enum_match_arm, reason = "the enum may grow; the rest is a defect of ours")]
    match refusal {
        EditRefusal::TextTooLong { .. } | EditRefusal::TooMuchAtOnce { .. } => ApiError::TooLarge(text),
        EditRefusal::UnknownBase | EditRefusal::WriterFull => ApiError::Conflict(text),
        _ => ApiError::Internal(text),
    }
}
