//! Tells watchers each second that this node is here, whatever its core is busy with.
//!
//! The core says what is to be told; a thread repeats it while the core is in a long turn or waits for the disk. It knows
//! nothing itself and falls silent when the core has for long: then this node does not hold what it claims to.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crdt::ids::NodeId;
use mesh::limits::{PRESENCE_EVERY_MS, PRESENCE_REPEATED_MS_MAX};

/// Pause between two looks at the clock.
const LOOK: Duration = Duration::from_millis(200);
/// Age from which the core's last words are repeated: later than it says them itself.
const REPEAT_AFTER: Duration = Duration::from_millis(PRESENCE_EVERY_MS + PRESENCE_EVERY_MS / 4);

type Send = Box<dyn Fn(NodeId, Bytes) + std::marker::Send + Sync>;

struct Said {
    by_core: Instant,
    last: Instant,
    words: Vec<(NodeId, Bytes)>,
}

/// What is told.
pub(crate) struct Presence {
    send: Send,
    said: Mutex<Option<Said>>,
}

impl Presence {
    /// Starts the thread, which ends with the last handle.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub(crate) fn start(
        send: impl Fn(NodeId, Bytes) + std::marker::Send + Sync + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let presence = Arc::new(Self { send: Box::new(send), said: Mutex::default() });
        let weak = Arc::downgrade(&presence);
        std::thread::Builder::new().name("presence".into()).spawn(move || repeat(&weak))?;
        Ok(presence)
    }

    /// Tells what the core has to say now.
    pub(crate) fn say(&self, words: Vec<(NodeId, Bytes)>) {
        let now = Instant::now();
        let said = Said { by_core: now, last: now, words };
        self.tell(&said.words);
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    /// Repeats it where that is due.
    fn look(&self, now: Instant) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(said) = said.as_mut() else { return };
        let fresh = now.duration_since(said.by_core) <= Duration::from_millis(PRESENCE_REPEATED_MS_MAX);
        if fresh && now.duration_since(said.last) >= REPEAT_AFTER {
            said.last = now;
            self.tell(&said.words);
        }
    }

    fn tell(&self, words: &[(NodeId, Bytes)]) {
        for (to, bytes) in words {
            (self.send)(*to, bytes.clone());
        }
    }
}

fn repeat(presence: &Weak<Presence>) {
    loop {
        std::thread::sleep(LOOK);
        let Some(presence) = presence.upgrade() else { return };
        presence.look(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_core_that_is_busy_is_spoken_for_and_one_that_stands_still_is_not() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let send: Send = Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let presence = Presence { send, said: Mutex::default() };
        let begun = Instant::now();
        presence.say(vec![(NodeId([1; 32]), Bytes::from_static(b"here"))]);
        let mut gap_ms_max = 0;
        let mut last_ms = 0;
        for ms in (0..120_000).step_by(200) {
            let before = told.load(Ordering::Relaxed);
            presence.look(begun + Duration::from_millis(ms));
            if told.load(Ordering::Relaxed) > before {
                gap_ms_max = gap_ms_max.max(ms - last_ms);
                last_ms = ms;
            }
        }
        assert!(gap_ms_max * 3 < mesh::limits::LEASE_MS, "a watcher hears it several times a lease");
        assert!((25_000..=31_000).contains(&last_ms), "it falls silent after {last_ms} ms");
    }
}
