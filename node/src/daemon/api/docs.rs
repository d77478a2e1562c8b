//! Documents.

use web_gateway::api::*;

use super::{Api, not_built};

pub(super) async fn docs(_api: &Api) -> Result<Vec<DocRow>, ApiError> {
    Err(not_built("the list of documents"))
}

pub(super) async fn doc(_api: &Api, _id: &str) -> Result<DocDetail, ApiError> {
    Err(not_built("`doc show`"))
}

pub(super) async fn doc_history(_api: &Api, _id: &str) -> Result<Vec<ChangeView>, ApiError> {
    Err(not_built("`doc history`"))
}

pub(super) async fn note(_api: &Api, _id: &str) -> Result<NoteView, ApiError> {
    Err(not_built("`note show`"))
}

pub(super) async fn note_edit(_api: &Api, _id: &str, _edit: NoteEdit) -> Result<NoteView, ApiError> {
    Err(not_built("`note edit`"))
}

pub(super) async fn trace(_api: &Api, _id: &str) -> Result<TraceView, ApiError> {
    Err(not_built("`trace`"))
}
