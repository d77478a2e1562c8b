//! The bytes between a node and its cell: frames `[length u32 LE][tag u8][fields]`, integers little-endian.
//!
//! The specification travels as canonical CBOR. Decoders are bounded: a frame longer than its limit, a tag that nobody
//! knows and fields that are short or left over are refused.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{CellEvent, CellSpec, Exit, KillReason, KillTarget, LimitKind, OUTPUT_BYTES_MAX, Stream};

/// Bytes of a frame from a cell at most.
pub(super) const EVENT_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 64;
/// Bytes of a frame to a cell at most: the specification with its command and environment.
pub(super) const COMMAND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The environment variable that marks a cell's processes, for its node to find them should the cell be killed.
pub(super) const MARK_VARIABLE: &str = "V6_CELL";
/// Bytes of a text in an event; longer texts are cut.
const TEXT_BYTES_MAX: usize = 4096;
/// Notes in one `Ready`; further ones are dropped.
const NOTES_MAX: usize = 16;

/// Bytes that are no frame of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of the cell protocol: {0}")]
pub(super) struct WireError(&'static str);

/// What the cell needs to know before it confines itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// What to run.
    pub(super) spec: CellSpec,
    /// The owner's home directory: its toolchains are readable, the rest of it is hidden.
    #[serde(with = "path_option")]
    pub(super) owner_home: Option<std::path::PathBuf>,
    /// The cores to run on; empty for all.
    pub(super) cores: Vec<u32>,
    /// Whether the process is already inside bwrap.
    pub(super) inside_bwrap: bool,
    /// What tells this cell's processes from all others', in their [`MARK_VARIABLE`].
    pub(super) mark: String,
}

/// What a node tells its cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Always the first.
    Hello(Box<Hello>),
    /// Run these tasks, this many side by side.
    Run(Range<u32>, u32),
    /// Kill.
    Kill(KillTarget, KillReason),
    /// Kill everything and end.
    Shutdown,
}

/// What a cell tells its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// For the caller.
    Event(CellEvent),
    /// The sandbox is not to be had.
    Refused(String),
    /// The cell ends as told.
    Bye,
}

fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.push(tag);
    body(out);
    let len = u32::try_from(out.len() - start - 4).expect("a frame is bounded by its writer");
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Takes the next whole frame off `bytes`: its content and the bytes it took.
///
/// # Errors
/// The frame is longer than `max` or empty.
pub(super) fn split(bytes: &[u8], max: usize) -> Result<Option<(&[u8], usize)>, WireError> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*head) as usize;
    if len == 0 || len > max {
        return Err(WireError("length out of bounds"));
    }
    Ok(rest.get(..len).map(|content| (content, 4 + len)))
}

impl Command {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => frame(out, 0, |out| out.extend(crdt::cbor::encode(&**hello))),
            Self::Run(tasks, parallel) => frame(out, 1, |out| {
                for n in [tasks.start, tasks.end, *parallel] {
                    out.extend(n.to_le_bytes());
                }
            }),
            Self::Kill(target, reason) => frame(out, 2, |out| {
                out.push(reason_code(*reason));
                if let KillTarget::Task(task) = target {
                    out.extend(task.to_le_bytes());
                }
            }),
            Self::Shutdown => frame(out, 3, |_| ()),
        }
    }

    pub(super) fn decode(content: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(content);
        let command = match fields.u8()? {
            0 => {
                let hello = crdt::cbor::decode(fields.0).map_err(|_| WireError("unreadable specification"))?;
                return Ok(Self::Hello(Box::new(hello)));
            }
            1 => Self::Run(fields.u32()?..fields.u32()?, fields.u32()?),
            2 => {
                let reason = reason_of(fields.u8()?)?;
                let target = if fields.0.is_empty() { KillTarget::All } else { KillTarget::Task(fields.u32()?) };
                Self::Kill(target, reason)
            }
            3 => Self::Shutdown,
            _ => return Err(WireError("unknown command")),
        };
        fields.end()?;
        Ok(command)
    }
}

impl Message {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Event(event) => encode_event(event, out),
            Self::Refused(reason) => frame(out, 6, |out| out.extend_from_slice(cut(reason).as_bytes())),
            Self::Bye => frame(out, 7, |_| ()),
        }
    }

    pub(super) fn decode(content: &[u8]) -> Result<Self, WireError> {
        let mut fields = Fields(content);
        let event = match fields.u8()? {
            0 => CellEvent::Ready { notes: fields.notes()? },
            1 => CellEvent::Started { task: fields.u32()?, pid: fields.u32()?, at_ms: fields.u64()? },
            2 => {
                let (task, stream) = (fields.u32()?, fields.stream()?);
                let bytes = fields.rest();
                if bytes.is_empty() || bytes.len() > OUTPUT_BYTES_MAX {
                    return Err(WireError("output out of bounds"));
                }
                CellEvent::Output { task, stream, bytes: bytes.to_vec() }
            }
            3 => CellEvent::Exited {
                task: fields.u32()?,
                started_ms: fields.u64()?,
                ended_ms: fields.u64()?,
                cpu_ms: fields.u64()?,
                max_rss_bytes: fields.u64()?,
                exit: fields.exit()?,
            },
            4 => CellEvent::Idle,
            6 => return Ok(Self::Refused(fields.text()?)),
            7 => return fields.end().map(|()| Self::Bye),
            _ => return Err(WireError("unknown event")),
        };
        fields.end()?;
        Ok(Self::Event(event))
    }
}

fn encode_event(event: &CellEvent, out: &mut Vec<u8>) {
    match event {
        CellEvent::Ready { notes } => frame(out, 0, |out| {
            for note in notes.iter().take(NOTES_MAX) {
                let note = cut(note);
                out.extend(u32::try_from(note.len()).expect("cut to a bound").to_le_bytes());
                out.extend_from_slice(note.as_bytes());
            }
        }),
        CellEvent::Started { task, pid, at_ms } => frame(out, 1, |out| {
            out.extend(task.to_le_bytes());
            out.extend(pid.to_le_bytes());
            out.extend(at_ms.to_le_bytes());
        }),
        CellEvent::Output { task, stream, bytes } => encode_output(*task, *stream, bytes, out),
        CellEvent::Exited { task, exit, started_ms, ended_ms, cpu_ms, max_rss_bytes } => frame(out, 3, |out| {
            out.extend(task.to_le_bytes());
            for n in [started_ms, ended_ms, cpu_ms, max_rss_bytes] {
                out.extend(n.to_le_bytes());
            }
            encode_exit(exit, out);
        }),
        CellEvent::Idle => frame(out, 4, |_| ()),
        CellEvent::Died { .. } => unreachable!("a dead cell says nothing"),
    }
}

/// Encodes output without an event of its own, so that bytes are copied once.
pub(super) fn encode_output(task: u32, stream: Stream, bytes: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!bytes.is_empty() && bytes.len() <= OUTPUT_BYTES_MAX, "the caller reads at most one event's bytes");
    frame(out, 2, |out| {
        out.extend(task.to_le_bytes());
        out.push(match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        });
        out.extend_from_slice(bytes);
    });
}

fn encode_exit(exit: &Exit, out: &mut Vec<u8>) {
    let (tag, number) = match exit {
        Exit::Code(code) => (0, *code),
        Exit::Signal(signal) => (1, *signal),
        Exit::Timeout => (2, 0),
        Exit::Killed(reason) => (3, i32::from(reason_code(*reason))),
        Exit::LimitExceeded(LimitKind::Memory) => (4, 0),
        Exit::LimitExceeded(LimitKind::Disk) => (4, 1),
        Exit::SpawnFailed(_) => (5, 0),
    };
    out.push(tag);
    out.extend(number.to_le_bytes());
    if let Exit::SpawnFailed(why) = exit {
        out.extend_from_slice(cut(why).as_bytes());
    }
}

fn reason_code(reason: KillReason) -> u8 {
    match reason {
        KillReason::Cancelled => 0,
        KillReason::LeaseLost => 1,
        KillReason::Preempted => 2,
        KillReason::NodeStopping => 3,
    }
}

fn reason_of(code: u8) -> Result<KillReason, WireError> {
    Ok(match code {
        0 => KillReason::Cancelled,
        1 => KillReason::LeaseLost,
        2 => KillReason::Preempted,
        3 => KillReason::NodeStopping,
        _ => return Err(WireError("unknown reason")),
    })
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError("short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.rest();
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(WireError("text too long"));
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn notes(&mut self) -> Result<Vec<String>, WireError> {
        let mut notes = Vec::new();
        while !self.0.is_empty() {
            let len = self.u32()? as usize;
            if notes.len() == NOTES_MAX || len > TEXT_BYTES_MAX || len > self.0.len() {
                return Err(WireError("notes out of bounds"));
            }
            let (note, rest) = self.0.split_at(len);
            notes.push(String::from_utf8_lossy(note).into_owned());
            self.0 = rest;
        }
        Ok(notes)
    }

    fn stream(&mut self) -> Result<Stream, WireError> {
        match self.u8()? {
            1 => Ok(Stream::Stdout),
            2 => Ok(Stream::Stderr),
            _ => Err(WireError("unknown stream")),
        }
    }

    fn exit(&mut self) -> Result<Exit, WireError> {
        let tag = self.u8()?;
        let number = self.take().map(i32::from_le_bytes)?;
        Ok(match (tag, number) {
            (0, code) => Exit::Code(code),
            (1, signal) => Exit::Signal(signal),
            (2, 0) => Exit::Timeout,
            (3, reason) => Exit::Killed(reason_of(u8::try_from(reason).map_err(|_| WireError("unknown reason"))?)?),
            (4, 0) => Exit::LimitExceeded(LimitKind::Memory),
            (4, 1) => Exit::LimitExceeded(LimitKind::Disk),
            (5, 0) => Exit::SpawnFailed(self.text()?),
            _ => return Err(WireError("unknown exit")),
        })
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError("bytes left over")) }
    }
}

/// Paths as their bytes, for names need not be UTF-8.
pub(super) mod path {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::cell) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(path.as_os_str().as_encoded_bytes())
    }

    pub(in crate::cell) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        super::path_of(bytes.into_vec()).ok_or_else(|| serde::de::Error::custom("not a path of this system"))
    }
}

/// An optional path as its bytes.
pub(super) mod path_option {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::cell) fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(|p| serde_bytes::Bytes::new(p.as_os_str().as_encoded_bytes())).serialize(serializer)
    }

    pub(in crate::cell) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let bytes = Option::<serde_bytes::ByteBuf>::deserialize(deserializer)?;
        bytes.map(|b| super::path_of(b.into_vec()).ok_or_else(|| serde::de::Error::custom("not a path"))).transpose()
    }
}

/// A list of paths as their bytes.
pub(super) mod paths {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::cell) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|p| serde_bytes::Bytes::new(p.as_os_str().as_encoded_bytes())))
    }

    pub(in crate::cell) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let list = Vec::<serde_bytes::ByteBuf>::deserialize(deserializer)?;
        let paths = list.into_iter().map(|b| super::path_of(b.into_vec())).collect::<Option<_>>();
        paths.ok_or_else(|| serde::de::Error::custom("not a path of this system"))
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "the other system's twin can fail")]
fn path_of(bytes: Vec<u8>) -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(windows)]
fn path_of(bytes: Vec<u8>) -> Option<std::path::PathBuf> {
    String::from_utf8(bytes).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Message> {
        vec![
            Message::Event(CellEvent::Ready { notes: vec!["one".into(), String::new()] }),
            Message::Event(CellEvent::Started { task: 7, pid: 9, at_ms: 1 << 41 }),
            Message::Event(CellEvent::Output { task: 7, stream: Stream::Stderr, bytes: vec![0, 255] }),
            Message::Event(exited(Exit::Code(-1))),
            Message::Event(exited(Exit::Killed(KillReason::Preempted))),
            Message::Event(exited(Exit::LimitExceeded(LimitKind::Disk))),
            Message::Event(exited(Exit::SpawnFailed("no such file".into()))),
            Message::Event(CellEvent::Idle),
            Message::Refused("old kernel".into()),
            Message::Bye,
        ]
    }

    fn exited(exit: Exit) -> CellEvent {
        CellEvent::Exited { task: 1, exit, started_ms: 2, ended_ms: 3, cpu_ms: 4, max_rss_bytes: 5 }
    }

    #[test]
    fn messages_and_commands_survive_their_bytes() {
        for message in samples() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let (content, taken) = split(&bytes, EVENT_BYTES_MAX).unwrap().unwrap();
            assert_eq!(taken, bytes.len());
            assert_eq!(Message::decode(content), Ok(message));
        }
        for command in [
            Command::Run(3..9, 2),
            Command::Kill(KillTarget::All, KillReason::LeaseLost),
            Command::Kill(KillTarget::Task(4), KillReason::NodeStopping),
            Command::Shutdown,
        ] {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            let (content, _) = split(&bytes, COMMAND_BYTES_MAX).unwrap().unwrap();
            assert_eq!(Command::decode(content), Ok(command));
        }
    }

    #[test]
    fn a_frame_beyond_its_bound_is_refused_before_its_bytes_come() {
        assert!(split(&u32::MAX.to_le_bytes(), EVENT_BYTES_MAX).is_err());
        assert!(split(&[0; 4], EVENT_BYTES_MAX).is_err());
        assert_eq!(split(&[5, 0, 0, 0, 1], EVENT_BYTES_MAX), Ok(None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tag in 0u8..9) {
            let _ = Message::decode(&bytes);
            let _ = Command::decode(&bytes);
            let mut tagged = vec![tag];
            tagged.extend(&bytes);
            if let Ok(message) = Message::decode(&tagged) {
                let mut again = Vec::new();
                message.encode(&mut again);
                prop_assert!(again.len() <= EVENT_BYTES_MAX + 4 + 3 * TEXT_BYTES_MAX);
            }
        }
    }
}
