//! What changed, for those who look: gathered while it is told on, so that the core never waits for a listener.
//!
//! Nothing that carries out the core's effects may wait for the core's answer: the core waits for room among its effects.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crdt::doc::{DocId, DocKind};
use crdt::ids::JobId;
use serde_json::json;
use tokio::sync::Notify;
use web_gateway::event_ring::RESET;

use super::{Shared, driver, logs, views};

/// Changed documents that wait to be told. At the bound listeners are told to read everything again.
const DOCS_MAX: usize = 65_536;
/// Jobs that are looked up in one question to the core.
const JOBS_PER_QUESTION: usize = 256;

/// Changes that wait to be told.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    gathered: Mutex<Gathered>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Gathered {
    docs: BTreeSet<DocId>,
    roster: bool,
    lost: bool,
}

impl Changes {
    /// Notes changed documents.
    pub(super) fn docs(&self, docs: Vec<DocId>) {
        let mut gathered = self.gathered();
        gathered.docs.extend(docs);
        if gathered.docs.len() > DOCS_MAX {
            gathered.docs.clear();
            gathered.lost = true;
        }
        self.wake.notify_one();
    }

    /// Notes that members, roles or revocations changed.
    pub(super) fn roster(&self) {
        self.gathered().roster = true;
        self.wake.notify_one();
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells changes as events, follows the logs of this node's jobs, and keeps the network's list of members.
pub(super) async fn pump(shared: Arc<Shared>) {
    loop {
        shared.changes.wake.notified().await;
        let Gathered { docs, roster, lost } = std::mem::take(&mut *shared.changes.gathered());
        if roster {
            driver::set_members(&shared).await;
            shared.events.push("roster", json!({}));
        }
        if lost {
            shared.events.push(RESET, serde_json::Value::Null);
        }
        let mut jobs = Vec::new();
        for doc in docs {
            match doc.kind {
                DocKind::Job => jobs.push(JobId(doc.id)),
                DocKind::Roster => {}
                DocKind::Ledger => {
                    shared.events.push("idea", json!({"id": doc.to_string()}));
                }
                DocKind::Note | DocKind::Feed => {
                    shared.events.push("doc", json!({"id": doc.to_string()}));
                }
            }
        }
        for some in jobs.chunks(JOBS_PER_QUESTION) {
            tell_jobs(&shared, some.to_vec()).await;
        }
    }
}

async fn tell_jobs(shared: &Arc<Shared>, jobs: Vec<JobId>) {
    let asked = jobs.clone();
    let rows = shared.core.ask(move |core| asked.into_iter().filter_map(|id| core.replica().job_row(id)).collect());
    let rows: Vec<crdt::replica::JobRow> = rows.await.unwrap_or_default();
    for row in rows {
        let Some(state) = row.state() else { continue };
        let data = json!({
            "id": row.id, "state": views::state(state), "owner": row.owner, "tasks": row.tasks, "done": row.done,
        });
        shared.events.push("job", data);
    }
    logs::follow_own(shared, jobs).await;
}
