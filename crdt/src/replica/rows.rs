//! Keys and values of a replica's rows.

use serde::{Deserialize, Serialize};

use crate::doc::{DocId, Key};
use crate::ids::{EntryId, JobId, NodeId, TraceId};
use crate::job::JobState;
use crate::state_hash::Sum;

pub(super) fn bundle_key(author: NodeId, seq: u64) -> Vec<u8> {
    [&author.0[..], &seq.to_be_bytes()].concat()
}

pub(super) fn register_key(doc: DocId, key: &str, author: NodeId) -> Vec<u8> {
    let mut row = register_prefix(doc, key);
    row.extend_from_slice(&author.0);
    row
}

/// What the rows of all authors' registers under a key begin with.
pub(super) fn register_prefix(doc: DocId, key: &str) -> Vec<u8> {
    let mut row = doc.to_bytes().to_vec();
    row.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    row.extend_from_slice(key.as_bytes());
    row
}

/// Takes a register's row apart: author, key text.
pub(super) fn read_register_key(row: &[u8]) -> Option<(DocId, NodeId, String)> {
    let doc = DocId::from_bytes(row.get(..DocId::LEN)?)?;
    let len = usize::from(*row.get(DocId::LEN)?);
    let text = row.get(DocId::LEN + 1..DocId::LEN + 1 + len)?;
    let author = row.get(DocId::LEN + 1 + len..)?.try_into().ok()?;
    Some((doc, NodeId(author), String::from_utf8(text.to_vec()).ok()?))
}

pub(super) fn register_value(seq: u64, value: &[u8]) -> Vec<u8> {
    [&seq.to_be_bytes()[..], value].concat()
}

pub(super) fn read_register_value(row: &[u8]) -> Option<(u64, &[u8])> {
    let (seq, value) = row.split_at_checked(8)?;
    Some((u64::from_be_bytes(seq.try_into().ok()?), value))
}

/// A register as it stands on the shelf.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) author: NodeId,
    pub(super) key: Key,
    pub(super) seq: u64,
    pub(super) value: Vec<u8>,
}

/// A job's line in lists. Written at each change: the fields are in their canonical order, which saves sorting them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// The job.
    pub id: JobId,
    /// Tasks that are done.
    pub done: u32,
    /// The subject of the ledger that it serves.
    #[serde(default)]
    pub idea: Option<EntryId>,
    /// Owner of the newest award.
    pub owner: Option<NodeId>,
    /// Index in [`JobState::ALL`]; `None` while its spec is not known.
    pub state: Option<u8>,
    /// Number of tasks.
    pub tasks: u32,
    /// Name, else the command, cut to 160 characters.
    pub title: String,
    /// Its trace.
    pub trace: TraceId,
    /// Its part in the state hash.
    #[serde(with = "serde_bytes")]
    pub digest: Sum,
    /// When its last accepted attempt ended, in milliseconds since 1970; `None` before (see [`crate::job::Job::ended_ms`]).
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// When its submitter sealed it, in milliseconds since 1970.
    #[serde(default)]
    pub sealed_ms: Option<u64>,
    /// Who submitted it.
    pub submitter: Option<NodeId>,
    /// When the submitter accepted it, in milliseconds since 1970.
    pub created_ms: u64,
}

impl JobRow {
    /// The state; `None` while the job's spec is not known.
    #[must_use]
    pub fn state(&self) -> Option<JobState> {
        JobState::ALL.get(usize::from(self.state?)).copied()
    }
}

/// Key under which a job stands in the order of creation.
#[must_use]
pub(super) fn time_key(created_ms: u64, id: JobId) -> Vec<u8> {
    [&created_ms.to_be_bytes()[..], &id.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn a_job_s_line_is_written_in_canonical_order_as_it_stands() {
        let row = JobRow {
            id: JobId([1; 16]),
            done: 3,
            idea: Some(EntryId([2; 32])),
            owner: Some(NodeId([3; 32])),
            state: Some(1),
            tasks: 300,
            title: "سطر".into(),
            trace: TraceId::default(),
            digest: [4; 32],
            ended_ms: None,
            sealed_ms: Some(1 << 40),
            submitter: None,
            created_ms: 1 << 41,
        };
        let mut plain = Vec::new();
        ciborium::into_writer(&row, &mut plain).expect("a row");
        assert_eq!(cbor::encode(&row), plain);
    }
}
