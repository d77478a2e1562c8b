//! Byte streams as the node sees them, and frames on them: a length of four bytes, big-endian, then as many bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::wire::Negotiated;

/// A stream to a peer. Dropping it without `shutdown` resets it.
#[derive(Debug)]
pub struct NetStream {
    stream: Compat<libp2p::Stream>,
    /// The place among the streams that this peer may hold.
    _permit: Option<OwnedSemaphorePermit>,
}

impl NetStream {
    pub(crate) fn new(negotiated: Negotiated) -> Self {
        Self { stream: negotiated.stream.compat(), _permit: negotiated.permit }
    }
}

impl AsyncRead for NetStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    /// The stream ended or broke.
    #[error("the stream ended: {0}")]
    Io(#[from] io::Error),
    /// The frame is longer than allowed.
    #[error("a frame of {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes that the peer announced.
        got: usize,
        /// Bytes that are allowed.
        max: usize,
    },
}

/// Reads one frame of at most `max` bytes. Memory grows with what arrives, not with what the length claims.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Bytes, FrameError> {
    let got = stream.read_u32().await? as usize;
    if got > max {
        return Err(FrameError::TooLarge { got, max });
    }
    let mut frame = Vec::with_capacity(got.min(64 << 10));
    let read = stream.take(got as u64).read_to_end(&mut frame).await?;
    if read < got {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(frame.into())
}

/// Appends one frame to a buffer.
///
/// # Panics
/// If the frame has 4 GiB or more; every caller has checked its length against a bound far below.
pub(crate) fn put_frame(buffer: &mut Vec<u8>, frame: &[u8]) {
    let length = u32::try_from(frame.len()).expect("frames are bounded far below 4 GiB");
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(frame);
}

/// Writes one frame and flushes it.
pub(crate) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(frame.len() + 4);
    put_frame(&mut buffer, frame);
    stream.write_all(&buffer).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_longer_than_allowed_is_refused_by_its_length_alone() {
        let mut bytes: &[u8] = &[0xff, 0xff, 0xff, 0xff];
        assert!(matches!(read_frame(&mut bytes, 10).await, Err(FrameError::TooLarge { max: 10, .. })));
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_end_of_stream() {
        let mut bytes: &[u8] = &[0, 0, 0, 5, 1, 2];
        assert!(matches!(read_frame(&mut bytes, 10).await, Err(FrameError::Io(_))));
    }

    #[tokio::test]
    async fn a_frame_comes_back_as_it_went() {
        let mut buffer = Vec::new();
        put_frame(&mut buffer, b"one");
        put_frame(&mut buffer, b"");
        let mut bytes: &[u8] = &buffer;
        assert_eq!(read_frame(&mut bytes, 3).await.expect("own frame"), Bytes::from_static(b"one"));
        assert_eq!(read_frame(&mut bytes, 3).await.expect("own frame"), Bytes::new());
    }
}
