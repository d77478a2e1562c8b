//! Recordings of the core: its rows and its memory at one moment, then everything that goes into it.
//!
//! The core's thread takes a snapshot, which costs it nothing, and hands over what it handles; another thread writes. A reader
//! that is too slow loses the recording, never the core its time.

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;

use bytes::Bytes;
use crdt::SigningKey;
use crdt::shelf::Table;
use mesh::field_log::{self, MAGIC, NotingSigner, Record, Row, Step, frame};
use mesh::{Input, Now};
use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use web_gateway::api::ApiError;

use super::driver::NodeCore;
use crate::store::Snapshot;

/// Steps that wait to be written. At the bound the recording ends.
const STEPS_MAX: usize = 65_536;
/// Bytes of rows in a frame, about.
const ROWS_BYTES: usize = 1 << 20;

/// Where a recording goes.
pub(crate) type Sink = mpsc::Sender<Result<Bytes, ApiError>>;

/// A recording under way.
pub(super) struct Recording {
    signer: Arc<NotingSigner>,
    steps: std_mpsc::SyncSender<Step>,
}

impl Recording {
    /// Begins one. Everything that the core wrote must be committed.
    pub(super) fn begin(core: &mut NodeCore, key: &SigningKey, sink: Sink) -> anyhow::Result<Self> {
        let signer = Arc::new(NotingSigner::new(key.clone()));
        let snapshot = core.replica().shelf().snapshot()?;
        let begin =
            Record::Begin { mesh: core.replica().mesh(), node: core.me(), version: env!("CARGO_PKG_VERSION").into() };
        let memory = Record::Memory(Box::new(core.memory()));
        core.set_signer(signer.clone());
        let (steps, queue) = std_mpsc::sync_channel(STEPS_MAX);
        std::thread::Builder::new().name("recording".into()).spawn(move || {
            if let Err(error) = write(&begin, snapshot, &memory, &queue, &sink) {
                drop(sink.blocking_send(Err(ApiError::Internal(format!("the store cannot be read: {error:#}")))));
            }
        })?;
        Ok(Self { signer, steps })
    }

    /// Notes what was handled; `false`: the recording is over.
    pub(super) fn note(&self, core: &NodeCore, now: Now, inputs: Vec<Input>) -> bool {
        let step = Step { now, inputs, signatures: self.signer.take(), digest: field_log::digest(core) };
        self.steps.try_send(step).is_ok()
    }
}

/// Writes all of it; an end of the steps or of the reader ends it.
fn write(
    begin: &Record,
    snapshot: Snapshot,
    memory: &Record,
    steps: &std_mpsc::Receiver<Step>,
    sink: &Sink,
) -> anyhow::Result<()> {
    let send = |bytes: Vec<u8>| sink.blocking_send(Ok(bytes.into())).is_ok();
    if !send(MAGIC.to_vec()) || !send(frame(begin)) {
        return Ok(());
    }
    let (mut rows, mut bytes) = (Vec::new(), 0);
    for (number, table) in (0..).zip(Table::ALL) {
        // Addresses of peers are no part of what a core knows.
        if table == Table::Peers {
            continue;
        }
        for row in snapshot.rows(table)? {
            let (key, value) = row?;
            bytes += key.len() + value.len();
            rows.push(Row(number, ByteBuf::from(key), ByteBuf::from(value)));
            if bytes >= ROWS_BYTES {
                bytes = 0;
                if !send(frame(&Record::Rows(std::mem::take(&mut rows)))) {
                    return Ok(());
                }
            }
        }
    }
    drop(snapshot);
    if !send(frame(&Record::Rows(rows))) || !send(frame(memory)) {
        return Ok(());
    }
    while let Ok(step) = steps.recv() {
        if !send(frame(&Record::Step(step))) {
            return Ok(());
        }
    }
    Ok(())
}
