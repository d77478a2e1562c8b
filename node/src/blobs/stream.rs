//! Streams as the protocol of `iroh-blobs` wants them, made of any duplex byte stream.
//!
//! Each stream is given up when it moves no byte for [`STREAM_IDLE_MAX`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use crdt::ids::NodeId;
use iroh::endpoint::VarInt;
use iroh_blobs::util::{RecvStream, SendStream};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::time::{Instant, Sleep};

use super::error::DialError;
use super::limits::{STREAM_BUFFER_BYTES, STREAM_IDLE_MAX};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A duplex byte stream: a libp2p stream, a socket, a pipe in memory.
pub trait DuplexStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> DuplexStream for T {}

/// A duplex byte stream of any kind.
pub type BoxedStream = Box<dyn DuplexStream>;

/// Opens streams to holders.
pub trait Dialer: Send + Sync + 'static {
    /// Opens a stream on which the node answers blob requests.
    fn open(&self, node: NodeId) -> BoxFuture<'static, Result<BoxedStream, DialError>>;
}

/// A stream that fails once it has been still for too long.
struct IdleStream {
    /// Never locked: the mutex only makes the stream shareable in the compiler's eyes, as the protocol's types want.
    stream: Mutex<BoxedStream>,
    sleep: Pin<Box<Sleep>>,
}

impl IdleStream {
    fn new(stream: BoxedStream) -> Self {
        Self { stream: Mutex::new(stream), sleep: Box::pin(tokio::time::sleep(STREAM_IDLE_MAX)) }
    }

    fn stream(&mut self) -> &mut BoxedStream {
        self.stream.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.sleep.as_mut().reset(Instant::now() + STREAM_IDLE_MAX);
            return poll;
        }
        std::task::ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the stream stood still")))
    }
}

impl AsyncRead for IdleStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(self.stream()).poll_read(cx, buf);
        self.judge(cx, poll)
    }
}

impl AsyncWrite for IdleStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(self.stream()).poll_write(cx, buf);
        self.judge(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(self.stream()).poll_flush(cx);
        self.judge(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(self.stream()).poll_shutdown(cx);
        self.judge(cx, poll)
    }
}

/// Splits a stream into the two halves that the protocol works on.
pub(super) fn split(stream: BoxedStream) -> (Incoming, Outgoing) {
    let (read, write) = tokio::io::split(IdleStream::new(stream));
    let recv = Incoming { read: BufReader::with_capacity(STREAM_BUFFER_BYTES, read), budget: None };
    (recv, Outgoing { write: BufWriter::with_capacity(STREAM_BUFFER_BYTES, write), close_on_sync: false, written: 0 })
}

/// The half that is read.
pub(super) struct Incoming {
    read: BufReader<ReadHalf<IdleStream>>,
    budget: Option<usize>,
}

impl Incoming {
    /// Lets at most this many bytes in; more is an error.
    pub(super) fn limit(&mut self, bytes: usize) {
        self.budget = Some(bytes);
    }

    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        let Some(budget) = &mut self.budget else {
            return Ok(());
        };
        *budget = budget.checked_sub(bytes).ok_or_else(|| io::Error::other("the request is too long"))?;
        Ok(())
    }
}

impl RecvStream for Incoming {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let room = (len - bytes.len()).min(16 * 1024);
            let start = bytes.len();
            bytes.resize(start + room, 0);
            let read = self.read.read(&mut bytes[start..]).await?;
            bytes.truncate(start + read);
            self.spend(read)?;
            if read == 0 {
                break;
            }
        }
        Ok(bytes.into())
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        self.spend(len)?;
        let mut bytes = vec![0; len];
        self.read.read_exact(&mut bytes).await?;
        Ok(bytes.into())
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        self.read.read_exact(target).await?;
        self.spend(target.len())
    }

    fn stop(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    fn id(&self) -> u64 {
        0
    }
}

/// The half that is written.
pub(super) struct Outgoing {
    write: BufWriter<WriteHalf<IdleStream>>,
    close_on_sync: bool,
    written: u64,
}

impl Outgoing {
    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Ends the half after the first sync: a request is one message.
    pub(super) fn closing(mut self) -> Self {
        self.close_on_sync = true;
        self
    }

    /// Flushes and ends the half, so that the other side sees the end of the answer.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.write.shutdown().await
    }
}

impl SendStream for Outgoing {
    async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(&bytes).await
    }

    async fn send(&mut self, buf: &[u8]) -> io::Result<()> {
        self.written += buf.len() as u64;
        self.write.write_all(buf).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        if self.close_on_sync { self.write.shutdown().await } else { self.write.flush().await }
    }

    fn reset(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        std::future::pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}

/// Takes what is written and drops it: for requests that are written by other means.
pub(super) struct Nowhere;

impl SendStream for Nowhere {
    async fn send_bytes(&mut self, _bytes: Bytes) -> io::Result<()> {
        Ok(())
    }

    async fn send(&mut self, _buf: &[u8]) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        std::future::pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}
