//! Keeps the offer in step with the owner's accept file and the roster that its names are looked up in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crdt::roster::Roster;
use mesh::Command;
use mesh::offer::{Accepts, Offer};

use super::{Shared, now_ms};
use crate::accept::{AcceptError, AcceptFile};
use crate::platform::files::free_bytes;
use crate::sandbox::SandboxKind;

/// Interval in which the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Room without which a node takes no work: a log, a few small files.
const DISK_FREE_BYTES_MIN: u64 = 16 << 20;
/// Time for which it takes none after a write found no room.
const DISK_FULL_FOR_MS: u64 = 10_000;

/// What a file comes to: without a sandbox only the owner's own person is let in.
pub(super) fn resolve(
    file: &AcceptFile,
    roster: &Roster,
    me: crdt::ids::NodeId,
    sandbox: SandboxKind,
) -> (Accepts, Vec<String>) {
    let only = (sandbox == SandboxKind::None).then(|| roster.person(&me));
    file.resolve(roster, only)
}

/// Looks at the file for ever. A bad one pauses the offer until it is mended: neither what it said before nor the default
/// is what its owner wants.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut complaint = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let dir = shared.options.data_dir.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || AcceptFile::read(&dir)).await else { return };
        let fresh = apply(&shared, read).await;
        if fresh != complaint && !fresh.is_empty() {
            tracing::warn!("{fresh}");
        }
        complaint = fresh;
    }
}

/// A write found no room: no work is taken for a while.
pub(super) async fn disk_is_full(shared: &Shared) {
    shared.disk_full_ms.store(now_ms(), Ordering::Relaxed);
    let dir = shared.options.data_dir.clone();
    if let Ok(read) = tokio::task::spawn_blocking(move || AcceptFile::read(&dir)).await {
        tracing::warn!("{}", apply(shared, read).await);
    }
}

/// Why there is no room for a run, if so.
fn no_room(shared: &Shared) -> Option<String> {
    let noted = now_ms().saturating_sub(shared.disk_full_ms.load(Ordering::Relaxed)) < DISK_FULL_FOR_MS;
    let free = free_bytes(&shared.options.data_dir).unwrap_or(u64::MAX);
    (noted || free < DISK_FREE_BYTES_MIN).then(|| "its disk is full".to_owned())
}

/// Puts what was read into the offer, if that changes it. Answers what the owner should know.
async fn apply(shared: &Shared, read: Result<AcceptFile, AcceptError>) -> String {
    let (me, sandbox) = (shared.me, shared.sandbox);
    let (file, paused) = match read {
        Ok(file) => (Some(file), no_room(shared).unwrap_or_default()),
        Err(error) => (None, error.to_string()),
    };
    let complaint = paused.clone();
    let looked = shared.core.ask(move |core| {
        let offer = core.offer().clone();
        let found = file.map(|file| resolve(&file, core.replica().roster(), me, sandbox));
        let (accepts, unknown) = found.unwrap_or_else(|| (offer.accepts.clone(), Vec::new()));
        let changed = offer.accepts != accepts || offer.paused != paused;
        (changed.then_some(Offer { accepts, paused, ..offer }), unknown)
    });
    let Some((offer, unknown)) = looked.await else { return complaint };
    if let Some(offer) = offer {
        drop(shared.core.command(Command::SetOffer(Box::new(offer))).await);
    }
    if unknown.is_empty() {
        return complaint;
    }
    format!("accept.toml names members that are not known, or not by one name only: {}", unknown.join(", "))
}
