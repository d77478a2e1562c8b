//! The control channel with one peer: ordered frames, at most once, never blocking who sends.
//!
//! Each peer has one outbox; one writer task empties it into the control stream of one connection. A frame carries a
//! number, so that a frame that arrives late by a broken connection is dropped rather than delivered out of order. Each
//! side greets first with the number of its process's life (`Hello`): numbers start again with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use crdt::ids::NodeId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

use super::limits::{
    CTL_BATCH_BYTES, CTL_BYTES_PER_S, CTL_FRAME_BYTES_MAX, CTL_FRAMES_PER_S, CTL_HELLO_BYTES_MAX, CTL_HELLO_TIMEOUT,
    CTL_QUEUE_BYTES_MAX, CTL_QUEUE_FRAMES_MAX,
};
use super::rate::Bucket;
use super::stream::{FrameError, NetStream, read_frame, write_frame};
use super::{NetEvent, SendError};

/// Bytes of a frame's number.
const SEQ_BYTES: usize = 8;

/// The first frame in each direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {
    /// Another one for each start of the sender's process: by its clock, in microseconds since 1970. Frame numbers belong to it.
    life: u64,
}

/// Why a control stream ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CtlError {
    #[error("frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the greeting is malformed")]
    Greeting,
    #[error("a frame without a number")]
    Short,
    #[error("no greeting within {} s", CTL_HELLO_TIMEOUT.as_secs())]
    Timeout,
    #[error("the peer has started again since")]
    OldLife,
    #[error("the node is stopping")]
    Stopping,
}

impl CtlError {
    /// Whether only a faulty or hostile peer does this.
    pub(crate) fn is_offence(&self) -> bool {
        matches!(self, Self::Frame(FrameError::TooLarge { .. }) | Self::Greeting | Self::Short)
    }
}

/// Writes our greeting.
pub(crate) async fn greet(stream: &mut NetStream, life: u64) -> Result<(), CtlError> {
    let hello = crdt::cbor::encode(&Hello { life });
    let written = tokio::time::timeout(CTL_HELLO_TIMEOUT, write_frame(stream, &hello)).await;
    Ok(written.map_err(|_| CtlError::Timeout)?.map_err(FrameError::Io)?)
}

/// Reads the peer's greeting: its life.
pub(crate) async fn read_greeting(stream: &mut NetStream) -> Result<u64, CtlError> {
    let frame = tokio::time::timeout(CTL_HELLO_TIMEOUT, read_frame(stream, CTL_HELLO_BYTES_MAX)).await;
    let frame = frame.map_err(|_| CtlError::Timeout)??;
    let hello: Hello = crdt::cbor::decode(&frame).map_err(|_| CtlError::Greeting)?;
    Ok(hello.life)
}

/// Whether frames can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection, and none can be had at this moment.
    Down,
    /// No connection, but a dial may succeed.
    Dialable,
    /// A dial is under way; frames wait for it.
    Dialing,
    /// A writer empties the outbox.
    Up,
}

#[derive(Debug)]
struct Waiting {
    phase: Phase,
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Number of the last frame that left.
    seq: u64,
}

/// Frames that wait for one peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let waiting = Waiting { phase: Phase::Down, frames: VecDeque::new(), bytes: 0, seq: 0 };
        Self { waiting: Mutex::new(waiting), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder of this lock panics")
    }

    /// Queues a frame. `Ok(true)` says that a dial must be asked for.
    pub(crate) fn push(&self, frame: Bytes) -> Result<bool, SendError> {
        if frame.len() > CTL_FRAME_BYTES_MAX - SEQ_BYTES {
            return Err(SendError::TooLarge { bytes: frame.len() });
        }
        let mut waiting = self.lock();
        if waiting.phase == Phase::Down {
            return Err(SendError::NotConnected);
        }
        if waiting.frames.len() >= CTL_QUEUE_FRAMES_MAX || waiting.bytes + frame.len() > CTL_QUEUE_BYTES_MAX {
            return Err(SendError::Full);
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        let dial = waiting.phase == Phase::Dialable;
        if dial {
            waiting.phase = Phase::Dialing;
        }
        drop(waiting);
        self.wake.notify_one();
        Ok(dial)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Changes the phase; frames that waited for a connection are dropped when there is none to come.
    pub(crate) fn set_phase(&self, phase: Phase) {
        let mut waiting = self.lock();
        waiting.phase = phase;
        if matches!(phase, Phase::Down | Phase::Dialable) {
            waiting.frames.clear();
            waiting.bytes = 0;
        }
    }

    /// Moves queued frames, numbered, into `buffer`; at least one, if there is any.
    fn drain_into(&self, buffer: &mut Vec<u8>) {
        let mut waiting = self.lock();
        while buffer.len() < CTL_BATCH_BYTES {
            let Some(frame) = waiting.frames.pop_front() else { break };
            waiting.bytes -= frame.len();
            waiting.seq += 1;
            let length = u32::try_from(frame.len() + SEQ_BYTES).expect("frames are bounded far below 4 GiB");
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(&waiting.seq.to_be_bytes());
            buffer.extend_from_slice(&frame);
        }
    }
}

/// Empties the outbox into the stream until the stream breaks.
pub(crate) async fn write_loop(outbox: Arc<Outbox>, mut stream: impl AsyncWrite + Unpin) -> CtlError {
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        outbox.drain_into(&mut buffer);
        let done = if buffer.is_empty() {
            outbox.wake.notified().await;
            Ok(())
        } else {
            async { stream.write_all(&buffer).await.and(stream.flush().await) }.await
        };
        if let Err(error) = done {
            return FrameError::Io(error).into();
        }
        // A rare large batch must not stay allocated for every peer.
        if buffer.capacity() > 4 * CTL_BATCH_BYTES {
            buffer = Vec::new();
        }
    }
}

/// What is known of the frames that a peer sent, over all its connections.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    life: u64,
    seq: u64,
}

/// Where a reader delivers.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) from: NodeId,
    /// Life of the peer's process, from its greeting.
    pub(crate) life: u64,
    pub(crate) heard: Arc<tokio::sync::Mutex<Heard>>,
    pub(crate) events: mpsc::Sender<NetEvent>,
}

impl Delivery {
    /// Takes note of the peer's life; frames of other lives are no longer delivered. The last one that greeted is the present
    /// one: numbers of lives come from a clock that may be set back.
    pub(crate) async fn begin(&self) {
        let mut heard = self.heard.lock().await;
        if heard.life != self.life {
            *heard = Heard { life: self.life, seq: 0 };
        }
    }

    async fn deliver(&self, seq: u64, bytes: Bytes) -> Result<(), CtlError> {
        let mut heard = self.heard.lock().await;
        if heard.life != self.life {
            return Err(CtlError::OldLife);
        }
        if seq <= heard.seq {
            return Ok(());
        }
        // The lock is held until the event is in the channel, so that two connections cannot swap frames.
        let sent = self.events.send(NetEvent::Message { from: self.from, bytes }).await;
        heard.seq = seq;
        sent.map_err(|_| CtlError::Stopping)
    }
}

/// Delivers frames until the stream ends or breaks a rule.
pub(crate) async fn read_loop(stream: impl AsyncRead + Unpin, delivery: Delivery) -> CtlError {
    match read_all(stream, delivery).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn read_all(stream: impl AsyncRead + Unpin, delivery: Delivery) -> Result<std::convert::Infallible, CtlError> {
    let mut stream = tokio::io::BufReader::with_capacity(CTL_BATCH_BYTES / 4, stream);
    let second = Duration::from_secs(1);
    let mut frames = Bucket::new(CTL_FRAMES_PER_S, second, Instant::now());
    let mut volume = Bucket::new(CTL_BYTES_PER_S, second, Instant::now());
    delivery.begin().await;
    loop {
        let mut frame = read_frame(&mut stream, CTL_FRAME_BYTES_MAX).await?;
        let now = Instant::now();
        let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let wait = frames.take(1, now).max(volume.take(bytes, now));
        if frame.len() < SEQ_BYTES {
            return Err(CtlError::Short);
        }
        let seq = frame.get_u64();
        delivery.deliver(seq, frame).await?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::put_frame;
    use super::*;

    fn frame(seq: u64, text: &str) -> Vec<u8> {
        let mut body = seq.to_be_bytes().to_vec();
        body.extend_from_slice(text.as_bytes());
        let mut buffer = Vec::new();
        put_frame(&mut buffer, &body);
        buffer
    }

    fn delivery(life: u64, heard: &Arc<tokio::sync::Mutex<Heard>>, events: &mpsc::Sender<NetEvent>) -> Delivery {
        Delivery { from: NodeId::ZERO, life, heard: Arc::clone(heard), events: events.clone() }
    }

    #[tokio::test]
    async fn frames_that_come_late_by_another_connection_are_dropped() {
        let heard = Arc::default();
        let (events, mut inbox) = mpsc::channel(8);
        read_loop([frame(1, "a"), frame(3, "c")].concat().as_slice(), delivery(1, &heard, &events)).await;
        read_loop([frame(2, "b"), frame(4, "d")].concat().as_slice(), delivery(1, &heard, &events)).await;
        read_loop(frame(1, "e").as_slice(), delivery(2, &heard, &events)).await;
        let old = delivery(1, &heard, &events).deliver(9, Bytes::from_static(b"x")).await;
        assert!(matches!(old, Err(CtlError::OldLife)));
        // It started again, and its clock had been set back.
        read_loop(frame(1, "f").as_slice(), delivery(0, &heard, &events)).await;
        drop(events);
        let mut got = Vec::new();
        while let Some(NetEvent::Message { bytes, .. }) = inbox.recv().await {
            got.push(bytes);
        }
        assert_eq!(got, ["a", "c", "d", "e", "f"]);
    }

    #[tokio::test]
    async fn a_frame_without_a_number_is_an_offence() {
        let (events, _inbox) = mpsc::channel(8);
        let mut buffer = Vec::new();
        put_frame(&mut buffer, b"short");
        let error = read_loop(buffer.as_slice(), delivery(1, &Arc::default(), &events)).await;
        assert!(error.is_offence(), "{error}");
    }

    #[test]
    fn a_full_outbox_refuses_the_newest() {
        let outbox = Outbox::new();
        assert_eq!(outbox.push(Bytes::new()), Err(SendError::NotConnected));
        outbox.set_phase(Phase::Dialable);
        assert_eq!(outbox.push(Bytes::new()), Ok(true));
        assert_eq!(outbox.push(Bytes::new()), Ok(false));
        for _ in 2..CTL_QUEUE_FRAMES_MAX {
            assert_eq!(outbox.push(Bytes::new()), Ok(false));
        }
        assert_eq!(outbox.push(Bytes::new()), Err(SendError::Full));
        let large = Bytes::from(vec![0; CTL_FRAME_BYTES_MAX]);
        assert_eq!(outbox.push(large), Err(SendError::TooLarge { bytes: CTL_FRAME_BYTES_MAX }));
    }
}
