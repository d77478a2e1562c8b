//! Answering the requests of other members: the get requests of `iroh-blobs`' protocol and nothing else.
//!
//! Who may ask at all is the caller's business; how much and how fast one peer may ask is bounded here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crdt::ids::{BlobHash, NodeId};
use iroh_blobs::protocol::Request;
use iroh_blobs::provider::{StreamPair, events::EventSender, handle_get, handle_get_many};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::error::ServeError;
use super::limits::{
    REQUEST_BLOBS_MAX, REQUEST_BYTES_MAX, SERVE_REQUESTS_BURST, SERVE_REQUESTS_PER_SECOND, SERVE_STREAMS_PER_PEER,
    SERVE_WAITING_PER_PEER,
};
use super::stream::{BoxedStream, split};
use super::{Blobs, now_ms, our_hash};

/// What was sent in answer to one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServeReport {
    /// Bytes written to the stream, hashes of the tree included.
    pub bytes_sent: u64,
}

/// What one peer has asked for lately.
pub(super) struct PeerGate {
    turns: Semaphore,
    present: AtomicUsize,
    /// When the next request would be due if they came evenly (GCRA).
    due: Mutex<Instant>,
}

const PEERS_REMEMBERED: usize = 4_096;

struct Present<'a>(&'a PeerGate);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::AcqRel);
    }
}

impl PeerGate {
    fn new() -> Self {
        Self {
            turns: Semaphore::new(SERVE_STREAMS_PER_PEER),
            present: AtomicUsize::new(0),
            due: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a turn, or refuses when too many wait already.
    async fn enter(&self) -> Result<(Present<'_>, SemaphorePermit<'_>), ServeError> {
        let before = self.present.fetch_add(1, Ordering::AcqRel);
        let present = Present(self);
        if before >= SERVE_STREAMS_PER_PEER + SERVE_WAITING_PER_PEER {
            return Err(ServeError::Busy);
        }
        let turn = self.turns.acquire().await.map_err(|_| ServeError::Busy)?;
        let wait = self.spend_one();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok((present, turn))
    }

    fn spend_one(&self) -> Duration {
        let step = Duration::from_micros(1_000_000 / SERVE_REQUESTS_PER_SECOND);
        let slack = Duration::from_micros(1_000_000 / SERVE_REQUESTS_PER_SECOND * SERVE_REQUESTS_BURST);
        let now = Instant::now();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(now) + step;
        due.saturating_duration_since(now).saturating_sub(slack)
    }
}

impl Blobs {
    /// Answers the one request of a stream. What is being sent is not collected meanwhile.
    ///
    /// # Errors
    /// [`ServeError`]: too many requests, a request that is not answered, or the stream broke. The peer sees its stream
    /// end early.
    pub async fn serve(&self, stream: BoxedStream, peer: NodeId) -> Result<ServeReport, ServeError> {
        let gate = self.peer_gate(peer);
        let _turn = gate.enter().await?;
        let broken = |e: std::io::Error| ServeError::Broken(e.to_string());
        let (mut recv, mut send) = split(stream);
        recv.limit(REQUEST_BYTES_MAX);
        let (request, _) =
            Request::read_async(&mut recv).await.map_err(|e| ServeError::Refused(format!("unreadable: {e}")))?;
        let held = self.inner.hold(self.named(&request)?).await;
        {
            let mut index = self.inner.index();
            let now = now_ms();
            held.hashes.iter().for_each(|hash| index.touch(hash, now));
        }
        let store = self.inner.store().map_err(|e| ServeError::Broken(e.to_string()))?;
        let pair = StreamPair::new(0, &mut recv, &mut send, EventSender::DEFAULT);
        let answered = match request {
            Request::Get(request) => handle_get(pair, store, request).await,
            Request::GetMany(request) => handle_get_many(pair, store, request).await,
            Request::Observe(_)
            | Request::Push(_)
            | Request::Slot2
            | Request::Slot3
            | Request::Slot4
            | Request::Slot5
            | Request::Slot6
            | Request::Slot7 => return Err(ServeError::Refused("not a get request".to_owned())),
        };
        // Also when a blob is not here: the peer must get all that came before it to know which one it was.
        let finished = send.finish().await.map_err(broken);
        answered.map_err(|e| ServeError::Broken(format!("{e:#}")))?;
        finished?;
        Ok(ServeReport { bytes_sent: send.written() })
    }

    /// Everything that a request may touch.
    fn named(&self, request: &Request) -> Result<Vec<BlobHash>, ServeError> {
        match request {
            Request::Get(get) => Ok(self.inner.index().closure(&our_hash(get.hash))),
            Request::GetMany(many) if many.hashes.len() <= REQUEST_BLOBS_MAX => {
                Ok(many.hashes.iter().map(|hash| our_hash(*hash)).collect())
            }
            Request::GetMany(_) => Err(ServeError::Refused("too many blobs at once".to_owned())),
            Request::Observe(_)
            | Request::Push(_)
            | Request::Slot2
            | Request::Slot3
            | Request::Slot4
            | Request::Slot5
            | Request::Slot6
            | Request::Slot7 => Err(ServeError::Refused("not a get request".to_owned())),
        }
    }

    fn peer_gate(&self, peer: NodeId) -> Arc<PeerGate> {
        let mut peers = self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_REMEMBERED {
            peers.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        peers.entry(peer).or_insert_with(|| Arc::new(PeerGate::new())).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_is_slowed_to_the_rate() {
        let gate = PeerGate::new();
        for _ in 0..SERVE_REQUESTS_BURST {
            assert!(gate.spend_one().is_zero());
        }
        let wait = (0..SERVE_REQUESTS_PER_SECOND).map(|_| gate.spend_one()).max().expect("some");
        assert!(wait > Duration::from_millis(900) && wait < Duration::from_millis(1_100), "{wait:?}");
    }
}
