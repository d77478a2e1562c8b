//! A field log: a core as it was, and what it saw from then on, so that it can be played back elsewhere.
//!
//! A file of it is [`MAGIC`] and frames. A frame is the length of its content (4 bytes, big-endian), the first 8 bytes of the
//! content's BLAKE3, and the content: a [`Record`] in canonical CBOR. It holds whatever the node knows of its mesh, specs and
//! notes included, but not its key: of what the core signed there are the signatures.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use crdt::cbor;
use crdt::ids::{MeshId, NodeId};
use crdt::replica::Replica;
use crdt::shelf::{MemoryShelf, Shelf, Table};
use crdt::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use crate::core::{Core, Memory};
use crate::io::{Effects, Input};
use crate::time::Now;

/// How a file begins.
pub const MAGIC: &[u8] = b"v6 field log 1\n";
/// Most bytes of a frame's content. A longer one is damaged.
pub const FRAME_BYTES_MAX: usize = 1 << 30;
const FRAME_HEAD_BYTES: usize = 12;

/// What a frame holds. In order: `Begin`, any number of `Rows`, `Memory`, any number of `Step`, `End`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Record {
    /// Whose core it is.
    Begin {
        /// The mesh.
        mesh: MeshId,
        /// The node.
        node: NodeId,
        /// Version of the binary that wrote it.
        version: String,
    },
    /// Rows of the store at the beginning.
    Rows(Vec<Row>),
    /// What the core knew beside them.
    Memory(Box<Memory>),
    /// Inputs that were handled together.
    Step(Step),
    /// Nothing is missing; how many steps there are.
    End(u64),
}

/// A row of the store: number of its table in [`Table::ALL`], key, value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row(pub u8, pub ByteBuf, pub ByteBuf);

/// Inputs that were handled together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// The clocks.
    pub now: Now,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// What the core signed.
    pub signatures: Vec<ByteArray<64>>,
    /// [`digest`] of the core afterwards.
    pub digest: u64,
}

/// The content as a frame.
///
/// # Panics
/// A record longer than [`FRAME_BYTES_MAX`].
#[must_use]
pub fn frame(record: &Record) -> Vec<u8> {
    let content = cbor::encode(record);
    assert!(content.len() <= FRAME_BYTES_MAX, "a record of {} bytes", content.len());
    let length = u32::try_from(content.len()).expect("bounded");
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + content.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&check(&content));
    frame.extend_from_slice(&content);
    frame
}

fn check(content: &[u8]) -> [u8; 8] {
    blake3::hash(content).as_bytes()[..8].try_into().expect("8 of 32 bytes")
}

/// Length of the first whole frame of these bytes, its head included; `None` when it is not whole.
#[must_use]
pub fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let whole = FRAME_HEAD_BYTES.checked_add(usize::try_from(length).ok()?)?;
    (bytes.len() >= whole).then_some(whole)
}

/// What a frame holds, as far as who passes it on needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// [`Record::Memory`].
    Memory,
    /// [`Record::Step`].
    Step,
    /// Another.
    Other,
}

/// What a whole frame holds, without decoding it.
#[must_use]
pub fn kind(frame: &[u8]) -> FrameKind {
    // A map of one entry, and its key: a text of that many bytes.
    match frame.get(FRAME_HEAD_BYTES..) {
        Some([0xa1, 0x64, b'S', b't', b'e', b'p', ..]) => FrameKind::Step,
        Some([0xa1, 0x66, b'M', b'e', b'm', b'o', b'r', b'y', ..]) => FrameKind::Memory,
        Some(_) | None => FrameKind::Other,
    }
}

/// What a core came to, in eight bytes: its state hash and the heads of all feeds.
#[must_use]
pub fn digest<S: Shelf>(core: &Core<S>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&core.replica().state_hash());
    for (author, feed) in core.replica().feeds() {
        hasher.update(&author.0).update(&feed.seq.to_be_bytes()).update(&feed.hash.0);
    }
    u64::from_be_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}

/// Signs with a key and remembers the signatures.
#[derive(Debug)]
pub struct NotingSigner {
    key: SigningKey,
    signatures: Mutex<Vec<ByteArray<64>>>,
}

impl NotingSigner {
    /// Signs with this key.
    #[must_use]
    pub fn new(key: SigningKey) -> Self {
        Self { key, signatures: Mutex::default() }
    }

    /// The signatures since the last call.
    pub fn take(&self) -> Vec<ByteArray<64>> {
        std::mem::take(&mut *self.signatures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Signer for NotingSigner {
    fn node(&self) -> NodeId {
        self.key.node()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.key.sign(message);
        self.signatures.lock().unwrap_or_else(PoisonError::into_inner).push(ByteArray::new(signature));
        signature
    }
}

/// Signs as a field log says, and notices when that was for something else.
#[derive(Debug)]
struct RecalledSigner {
    node: NodeId,
    state: Arc<Mutex<Recalled>>,
}

#[derive(Debug, Default)]
struct Recalled {
    signatures: VecDeque<ByteArray<64>>,
    has_strayed: bool,
}

impl Signer for RecalledSigner {
    fn node(&self) -> NodeId {
        self.node
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = state.signatures.pop_front().map_or([0; 64], ByteArray::into_array);
        state.has_strayed |= !crdt::verify(&self.node, message, &signature);
        signature
    }
}

/// Why a field log cannot be played back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FieldLogError {
    /// It begins with something else.
    #[error("it does not begin as a field log does")]
    Magic,
    /// A frame is cut off.
    #[error("frame {0} is cut off")]
    Cut(u64),
    /// A frame's bytes are not those that were written.
    #[error("frame {0} is damaged")]
    Damaged(u64),
    /// A frame is written by another version.
    #[error("frame {0} cannot be read: {1}; it is of another version of V6")]
    Unreadable(u64, String),
    /// A frame is not what comes at its place.
    #[error("frame {0} is out of place")]
    OutOfPlace(u64),
    /// There is no core in it.
    #[error("it ends before the first step")]
    NoCore,
}

/// The frames of a file.
#[derive(Debug)]
struct Frames<R> {
    input: R,
    at: u64,
}

impl<R: Read> Frames<R> {
    /// The next record; `None` at the end.
    fn next(&mut self) -> Result<Option<Record>, FieldLogError> {
        let mut head = [0; FRAME_HEAD_BYTES];
        let got = read_up_to(&mut self.input, &mut head);
        if got == 0 {
            return Ok(None);
        }
        self.at += 1;
        if got < head.len() {
            return Err(FieldLogError::Cut(self.at));
        }
        let length = u32::from_be_bytes(head[..4].try_into().expect("4 bytes"));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(FieldLogError::Damaged(self.at));
        }
        let mut content = Vec::new();
        // Memory is taken as bytes come: a damaged length asks for no gigabyte.
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        let read = self.input.by_ref().take(limit).read_to_end(&mut content);
        if read.is_err() || content.len() < length {
            return Err(FieldLogError::Cut(self.at));
        }
        if check(&content) != head[4..] {
            return Err(FieldLogError::Damaged(self.at));
        }
        cbor::decode(&content).map(Some).map_err(|error| FieldLogError::Unreadable(self.at, error.to_string()))
    }
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(read) => got += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    got
}

/// A recorded core that can be moved on step by step.
#[derive(Debug)]
pub struct Playback<R> {
    frames: Frames<R>,
    core: Core<MemoryShelf>,
    recalled: Arc<Mutex<Recalled>>,
    steps: u64,
    has_ended: bool,
}

/// A step that was played back.
#[derive(Debug)]
pub struct Played {
    /// What was recorded.
    pub step: Step,
    /// What the core did.
    pub effects: Effects,
    /// Whether the core signed the same and came to the same.
    pub is_same: bool,
}

impl<R: Read> Playback<R> {
    /// Reads the beginning of a field log.
    ///
    /// # Errors
    /// [`FieldLogError`].
    pub fn open(mut input: R) -> Result<Self, FieldLogError> {
        let mut magic = vec![0; MAGIC.len()];
        if read_up_to(&mut input, &mut magic) < MAGIC.len() || magic != MAGIC {
            return Err(FieldLogError::Magic);
        }
        let mut frames = Frames { input, at: 0 };
        let Some(Record::Begin { node, .. }) = frames.next()? else { return Err(FieldLogError::OutOfPlace(1)) };
        let mut shelf = MemoryShelf::default();
        let memory = loop {
            match frames.next()?.ok_or(FieldLogError::NoCore)? {
                Record::Rows(rows) => {
                    for Row(table, key, value) in rows {
                        let table = Table::ALL.get(usize::from(table)).ok_or(FieldLogError::OutOfPlace(frames.at))?;
                        shelf.put((*table, key.into_vec(), Some(value.into_vec())));
                    }
                }
                Record::Memory(memory) => break memory,
                Record::Begin { .. } | Record::Step(_) | Record::End(_) => {
                    return Err(FieldLogError::OutOfPlace(frames.at));
                }
            }
        };
        let replica = Replica::open(shelf).map_err(|_| FieldLogError::NoCore)?;
        let recalled = Arc::new(Mutex::default());
        let signer = RecalledSigner { node, state: Arc::clone(&recalled) };
        let core = Core::resume(signer, replica, *memory);
        Ok(Self { frames, core, recalled, steps: 0, has_ended: false })
    }

    /// Plays back the next step; `None` after the last.
    ///
    /// # Errors
    /// [`FieldLogError`].
    pub fn step(&mut self) -> Result<Option<Played>, FieldLogError> {
        let step = match self.frames.next()? {
            None => return Ok(None),
            Some(Record::Step(step)) if !self.has_ended => step,
            Some(Record::End(steps)) if !self.has_ended && steps == self.steps => {
                self.has_ended = true;
                return self.step();
            }
            Some(_) => return Err(FieldLogError::OutOfPlace(self.frames.at)),
        };
        self.steps += 1;
        let recalled = || self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        *recalled() = Recalled { signatures: step.signatures.iter().copied().collect(), has_strayed: false };
        let mut effects = Vec::new();
        self.core.handle_all(step.now, step.inputs.iter().cloned(), &mut effects);
        let recalled = recalled();
        let is_same = recalled.signatures.is_empty() && !recalled.has_strayed && digest(&self.core) == step.digest;
        drop(recalled);
        Ok(Some(Played { step, effects, is_same }))
    }

    /// The core as it is after the steps so far.
    pub fn core(&self) -> &Core<MemoryShelf> {
        &self.core
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether the recording was ended and not cut off.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }
}
