//! The last events of a node, kept so that a client which comes back misses nothing.
//!
//! A node owns one ring, pushes what changes, and answers [`crate::api::NodeApi::events`] from [`EventRing::subscribe`]. The ring is
//! bounded: who falls behind it is told to read everything again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use tokio::sync::watch;

use crate::api::{Event, Items};

/// Events that are kept. At the bound the oldest is dropped.
pub const EVENTS_MAX: usize = 4_096;
/// Kind of the event that says: events are missing here, read everything again.
pub const RESET: &str = "reset";

/// The last events, shared by all subscribers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    last: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    /// Id of the newest event that is not kept any more.
    floor: u64,
    events: VecDeque<Arc<Event>>,
}

impl EventRing {
    /// An empty ring whose first event gets the id `start + 1`. A start in microseconds of Unix time lets ids grow over
    /// restarts.
    #[must_use]
    pub fn new(start: u64) -> Self {
        let kept = Mutex::new(Kept { floor: start, events: VecDeque::new() });
        Self { shared: Arc::new(Shared { kept, last: watch::Sender::new(start) }) }
    }

    /// Adds an event and wakes the subscribers. Returns its id.
    pub fn push(&self, kind: &str, data: serde_json::Value) -> u64 {
        let mut kept = self.kept();
        let id = kept.floor + kept.events.len() as u64 + 1;
        kept.events.push_back(Arc::new(Event { id, kind: kind.to_owned(), data }));
        if kept.events.len() > EVENTS_MAX {
            kept.events.pop_front();
            kept.floor += 1;
        }
        self.shared.last.send_replace(id);
        id
    }

    /// The events after `since` and all that come; without it only those that come. An id that the ring does not know is
    /// answered with a [`RESET`], and so is a subscriber that falls behind.
    #[must_use]
    pub fn subscribe(&self, since: Option<u64>) -> Items<Event> {
        let last = *self.shared.last.borrow();
        let ring = self.clone();
        let wake = self.shared.last.subscribe();
        let start = since.unwrap_or(last);
        futures::stream::unfold((ring, wake, start), |(ring, mut wake, seen)| async move {
            loop {
                if let Some(event) = ring.after(seen) {
                    let seen = event.id;
                    return Some((Ok(event), (ring, wake, seen)));
                }
                wake.changed().await.ok()?;
            }
        })
        .boxed()
    }

    /// The event after `seen`; `None`: there is none yet.
    fn after(&self, seen: u64) -> Option<Event> {
        let kept = self.kept();
        let last = kept.floor + kept.events.len() as u64;
        if seen < kept.floor || seen > last {
            return Some(Event { id: last, kind: RESET.to_owned(), data: serde_json::Value::Null });
        }
        let at = usize::try_from(seen - kept.floor).ok()?;
        kept.events.get(at).map(|event| Event::clone(event))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(stream: &mut Items<Event>) -> Event {
        stream.next().await.expect("an event").expect("no error")
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_came_since_and_what_comes() {
        let ring = EventRing::new(100);
        ring.push("job", 1.into());
        ring.push("job", 2.into());
        let mut fresh = ring.subscribe(None);
        let mut back = ring.subscribe(Some(101));
        assert_eq!(take(&mut back).await.id, 102);
        ring.push("peer", 3.into());
        assert_eq!((take(&mut back).await.id, take(&mut fresh).await.id), (103, 103));
    }

    #[tokio::test]
    async fn who_fell_behind_or_comes_from_elsewhere_reads_everything_again() {
        let ring = EventRing::new(0);
        let mut slow = ring.subscribe(None);
        for n in 0..EVENTS_MAX as u64 + 10 {
            ring.push("job", n.into());
        }
        let last = EVENTS_MAX as u64 + 10;
        for mut stream in [ring.subscribe(Some(3)), ring.subscribe(Some(last + 999))] {
            let first = take(&mut stream).await;
            assert_eq!((first.kind.as_str(), first.id), (RESET, last));
        }
        assert_eq!(take(&mut slow).await.kind, RESET);
        ring.push("job", 0.into());
        assert_eq!(take(&mut slow).await.id, last + 1);
    }
}
