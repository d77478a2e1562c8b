//! A log's frames: `[stream u8][task u32 LE][length u32 LE][bytes]`, 1 to 64 KiB of bytes each.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::{FRAME_BYTES_MAX, Stream};

/// Bytes before a frame's content.
pub(super) const HEADER_BYTES: usize = 9;
/// Bytes read at a time when a log is opened.
const READ_BYTES: usize = 256 * 1024;

/// Where a frame's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStream {
    /// The task's stdout.
    Stdout,
    /// The task's stderr.
    Stderr,
    /// The node itself: a notice about the log.
    Notice,
}

impl From<Stream> for FrameStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

/// What a task wrote at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// To where.
    pub stream: FrameStream,
    /// Its index.
    pub task: u32,
    /// 1..=[`FRAME_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// Bytes that are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not frames of a log: {0}")]
pub struct FramesError(pub(super) &'static str);

pub(super) fn encode(stream: FrameStream, task: u32, bytes: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!bytes.is_empty() && bytes.len() <= FRAME_BYTES_MAX, "the caller cuts");
    out.push(match stream {
        FrameStream::Stdout => 1,
        FrameStream::Stderr => 2,
        FrameStream::Notice => 3,
    });
    out.extend(task.to_le_bytes());
    out.extend(u32::try_from(bytes.len()).expect("bounded by the caller").to_le_bytes());
    out.extend_from_slice(bytes);
}

fn header(head: &[u8; HEADER_BYTES]) -> Result<(FrameStream, u32, usize), FramesError> {
    let stream = match head[0] {
        1 => FrameStream::Stdout,
        2 => FrameStream::Stderr,
        3 => FrameStream::Notice,
        _ => return Err(FramesError("a frame of an unknown stream")),
    };
    let [_, t0, t1, t2, t3, l0, l1, l2, l3] = *head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len == 0 || len > FRAME_BYTES_MAX {
        return Err(FramesError("a frame of a length out of bounds"));
    }
    Ok((stream, u32::from_le_bytes([t0, t1, t2, t3]), len))
}

/// The length of all whole frames at the start of these bytes.
pub(super) fn whole(bytes: &[u8]) -> Result<usize, FramesError> {
    let mut at = 0;
    while let Some(head) = bytes[at..].first_chunk() {
        let (_, _, len) = header(head)?;
        if bytes.len() - at - HEADER_BYTES < len {
            break;
        }
        at += HEADER_BYTES + len;
    }
    // Of a short head only the stream can be judged.
    match bytes.get(at) {
        Some(0 | 4..) => Err(FramesError("a frame of an unknown stream")),
        Some(1..=3) | None => Ok(at),
    }
}

/// All whole frames at the start of these bytes, and their length.
pub(super) fn decode(bytes: &[u8]) -> Result<(Vec<Frame>, usize), FramesError> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes[at..].first_chunk() {
        let (stream, task, len) = header(head)?;
        let Some(content) = bytes[at + HEADER_BYTES..].get(..len) else { break };
        frames.push(Frame { stream, task, bytes: content.to_vec() });
        at += HEADER_BYTES + len;
    }
    Ok((frames, at))
}

/// The length of all whole frames at the start of a file, and the hash so far.
pub(super) fn measure(file: &mut File) -> io::Result<(u64, blake3::Hasher)> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    let mut frame = Vec::with_capacity(FRAME_BYTES_MAX);
    loop {
        let mut head = [0; HEADER_BYTES];
        match reader.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((at, hasher)),
            other => other?,
        }
        let Ok((_, _, len)) = header(&head) else { return Ok((at, hasher)) };
        frame.resize(len, 0);
        match reader.read_exact(&mut frame) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((at, hasher)),
            other => other?,
        }
        hasher.update(&head).update(&frame);
        at += (HEADER_BYTES + len) as u64;
    }
}
