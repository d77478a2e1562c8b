//! Job logs: append-only files of frames, one per (job, attempt, first task of the range), read and copied by offset.
//!
//! A file is `[stream u8][task u32 LE][length u32 LE][bytes]`, again and again. The node that runs the tasks makes the frames;
//! every other holder gets the same bytes by offset ([`JobLog::append_raw`]), so that all copies are byte-equal, and a sealed
//! log is a blob with a length. What was acknowledged is in the operating system's hands; [`JobLog::sync`] makes it durable. A
//! torn tail is cut at the last whole frame when a log is opened.
//!
//! Nothing here knows jobs or peers; [`ansi`] makes a log's bytes safe to show on a terminal.

pub mod ansi;
mod frames;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crdt::ids::{BlobHash, JobId, NodeId};
use tokio::sync::watch;

pub use crate::cell::Stream;
pub use frames::{Frame, FrameStream, FramesError};

/// Bytes of one log at most; the frame that would cross it is replaced by a notice, and later ones are dropped.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of one frame's content at most; a longer append becomes several frames.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes that one [`JobLog::read`] gives at most.
pub const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What the last frame of a full log says.
pub const TRUNCATION_NOTICE: &str = "v6: the log is full, further output was dropped\n";
/// Room that is kept for the notice, in bytes.
const NOTICE_ROOM_BYTES: u64 = 256;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The first task of the range that was run together.
    pub start: u32,
    /// Who ran it: two may hold one attempt for a moment.
    pub owner: NodeId,
}

/// Why a log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be read or written.
    #[error("log {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Bytes that would leave a gap: ask for those from `wanted` on.
    #[error("the log goes on at byte {wanted}, not at {got}")]
    Gap {
        /// The next byte that is missing.
        wanted: u64,
        /// Where the bytes begin.
        got: u64,
    },
    /// Bytes that differ from those that are there, or that are no frames: their sender is wrong.
    #[error("bytes for the log at {at} are refused: {why}")]
    Refused {
        /// Where they begin.
        at: u64,
        /// Why.
        why: &'static str,
    },
    /// The log is sealed.
    #[error("the log is sealed at {len} bytes")]
    Sealed {
        /// Its length in bytes.
        len: u64,
    },
}

/// The logs of one node, a directory.
#[derive(Debug, Clone)]
pub struct LogStore {
    root: PathBuf,
}

/// One open log. Appends are ordered by a lock; readers do not block each other for longer than a read.
#[derive(Debug)]
pub struct JobLog {
    path: PathBuf,
    inner: Mutex<Inner>,
    len: watch::Sender<LogLength>,
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLength {
    /// Bytes of whole frames.
    pub bytes: u64,
    /// Whether it is complete.
    pub sealed: bool,
}

#[derive(Debug)]
struct Inner {
    /// Made with the first bytes: many short jobs write none.
    file: Option<File>,
    /// Bytes of whole frames.
    whole: u64,
    /// Bytes of a frame whose end has not come yet (only while replicating).
    partial: Vec<u8>,
    hasher: blake3::Hasher,
    full: bool,
    sealed: Option<BlobHash>,
}

impl LogStore {
    /// The store in a directory, which is made private.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn open(root: &Path) -> Result<Self, LogError> {
        crate::platform::files::create_private_dir(root)
            .map_err(|source| LogError::Io { path: root.to_owned(), source })?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where a log lies.
    #[must_use]
    pub fn path(&self, key: LogKey) -> PathBuf {
        let job = key.job.to_string();
        self.root.join(&job[..2]).join(job).join(format!("{}-{}-{}.log", key.attempt, key.start, key.owner))
    }

    /// Opens a log, empty where there is none; its file is made with its first bytes. Costs a read of the whole file, for its
    /// hash.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn log(&self, key: LogKey) -> Result<JobLog, LogError> {
        JobLog::open(self.path(key))
    }

    /// The logs of a job that are here, sorted.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn logs_of(&self, job: JobId) -> Result<Vec<LogKey>, LogError> {
        let name = job.to_string();
        let dir = self.root.join(&name[..2]).join(&name);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(LogError::Io { path: dir, source }),
        };
        let key = |name: &str| {
            let (attempt, rest) = name.strip_suffix(".log")?.split_once('-')?;
            let (start, owner) = rest.split_once('-')?;
            let (attempt, start) = (attempt.parse().ok()?, start.parse().ok()?);
            Some(LogKey { job, attempt, start, owner: owner.parse().ok()? })
        };
        let mut keys: Vec<LogKey> = entries.flatten().filter_map(|e| key(e.file_name().to_str()?)).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Jobs of which there is a log here. Cost: a look into 256 directories.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobId> {
        let inside = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let jobs = inside(&self.root).flat_map(|dir| inside(&dir).collect::<Vec<_>>());
        jobs.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// Removes every log of a job.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn remove_job(&self, job: JobId) -> Result<(), LogError> {
        let name = job.to_string();
        let path = self.root.join(&name[..2]).join(&name);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(LogError::Io { path, source }),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Inner {
    /// The log's file, which is made where there is none.
    fn file(&mut self, path: &Path) -> io::Result<&mut File> {
        if self.file.is_none() {
            std::fs::create_dir_all(path.parent().unwrap_or(path))?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            self.file = Some(options.open(path)?);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads bytes that were written, and goes back to the end.
    fn read_at(&mut self, path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let back = self.whole;
        let file = self.file(path)?;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(bytes));
        file.seek(SeekFrom::Start(back)).and(read)
    }
}

impl JobLog {
    fn open(path: PathBuf) -> Result<Self, LogError> {
        let fail = |source| LogError::Io { path: path.clone(), source };
        let (mut whole, mut hasher, mut there) = (0, blake3::Hasher::new(), None);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(mut file) => {
                (whole, hasher) = frames::measure(&mut file).map_err(fail)?;
                if file.metadata().map_err(fail)?.len() > whole {
                    file.set_len(whole).map_err(fail)?;
                }
                file.seek(SeekFrom::Start(whole)).map_err(fail)?;
                there = Some(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        let file = there;
        let full = whole + NOTICE_ROOM_BYTES > LOG_BYTES_MAX;
        let inner = Inner { file, whole, partial: Vec::new(), hasher, full, sealed: None };
        let (len, _) = watch::channel(LogLength { bytes: whole, sealed: false });
        Ok(Self { path, inner: Mutex::new(inner), len })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, source: io::Error) -> LogError {
        LogError::Io { path: self.path.clone(), source }
    }

    /// Appends what a task wrote. Returns the log's length in bytes.
    ///
    /// # Errors
    /// [`LogError::Sealed`] and [`LogError::Io`].
    pub fn append(&self, task: u32, stream: Stream, bytes: &[u8]) -> Result<u64, LogError> {
        self.append_all(&[(task, stream, bytes)])
    }

    /// Appends several pieces with one write: cheaper for an array's many short outputs.
    ///
    /// # Errors
    /// [`LogError::Sealed`] and [`LogError::Io`].
    pub fn append_all(&self, pieces: &[(u32, Stream, &[u8])]) -> Result<u64, LogError> {
        let mut inner = self.lock();
        if inner.sealed.is_some() {
            return Err(LogError::Sealed { len: inner.whole });
        }
        let mut out = Vec::new();
        for (task, stream, bytes) in pieces {
            for part in bytes.chunks(FRAME_BYTES_MAX) {
                if inner.full {
                    break;
                }
                let after = inner.whole + (out.len() + frames::HEADER_BYTES + part.len()) as u64 + NOTICE_ROOM_BYTES;
                if after > LOG_BYTES_MAX {
                    inner.full = true;
                    frames::encode(FrameStream::Notice, *task, TRUNCATION_NOTICE.as_bytes(), &mut out);
                } else {
                    frames::encode((*stream).into(), *task, part, &mut out);
                }
            }
        }
        self.write(&mut inner, &out)?;
        Ok(inner.whole)
    }

    /// Writes whole frames at the end; a write that fails half-way is undone.
    fn write(&self, inner: &mut Inner, bytes: &[u8]) -> Result<(), LogError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let whole = inner.whole;
        let file = inner.file(&self.path).map_err(|source| self.io(source))?;
        if let Err(source) = file.write_all(bytes) {
            let _ = file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole)));
            return Err(self.io(source));
        }
        inner.hasher.update(bytes);
        inner.whole += bytes.len() as u64;
        self.len.send_replace(LogLength { bytes: inner.whole, sealed: inner.sealed.is_some() });
        Ok(())
    }

    /// Appends another holder's bytes, as they are. Bytes that are there are compared and passed over. Returns the offset of
    /// the next byte that is wanted (which counts a frame whose end has not come).
    ///
    /// # Errors
    /// [`LogError::Gap`] with what is wanted, [`LogError::Refused`] when the bytes are not this log's.
    pub fn append_raw(&self, offset: u64, bytes: &[u8]) -> Result<u64, LogError> {
        let mut inner = self.lock();
        let end = inner.whole + inner.partial.len() as u64;
        if offset > end {
            return Err(LogError::Gap { wanted: end, got: offset });
        }
        let known = usize::try_from(end - offset).unwrap_or(usize::MAX).min(bytes.len());
        self.compare(&mut inner, offset, &bytes[..known])?;
        let fresh = &bytes[known..];
        if fresh.is_empty() {
            return Ok(end);
        }
        if inner.sealed.is_some() {
            return Err(LogError::Sealed { len: inner.whole });
        }
        if end + fresh.len() as u64 > LOG_BYTES_MAX {
            return Err(LogError::Refused { at: end, why: "the log would be larger than a log may be" });
        }
        let mut pending = std::mem::take(&mut inner.partial);
        pending.extend_from_slice(fresh);
        let result = frames::whole(&pending).map_err(|error| LogError::Refused { at: inner.whole, why: error.0 });
        let whole = match result {
            Ok(whole) => whole,
            Err(error) => {
                pending.truncate(pending.len() - fresh.len());
                inner.partial = pending;
                return Err(error);
            }
        };
        let rest = pending.split_off(whole);
        self.write(&mut inner, &pending)?;
        inner.partial = rest;
        Ok(inner.whole + inner.partial.len() as u64)
    }

    fn compare(&self, inner: &mut Inner, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
        let differ = || LogError::Refused { at: offset, why: "they differ from the bytes that are there" };
        let stored = usize::try_from(inner.whole.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let mut there = vec![0; stored];
        inner.read_at(&self.path, offset, &mut there).map_err(|source| self.io(source))?;
        if there != bytes[..stored] {
            return Err(differ());
        }
        let from = usize::try_from(offset.saturating_sub(inner.whole)).unwrap_or(usize::MAX);
        let rest = &bytes[stored..];
        let partial = inner.partial.get(from.min(inner.partial.len())..).unwrap_or_default();
        if partial.starts_with(rest) { Ok(()) } else { Err(differ()) }
    }

    /// The raw bytes from an offset on, at most `max` and [`READ_BYTES_MAX`]; empty at the end.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn read_raw(&self, offset: u64, max: usize) -> Result<Vec<u8>, LogError> {
        let mut inner = self.lock();
        let left = usize::try_from(inner.whole.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(max).min(READ_BYTES_MAX)];
        inner.read_at(&self.path, offset, &mut bytes).map_err(|source| self.io(source))?;
        Ok(bytes)
    }

    /// The frames from a frame's offset on, about `max` bytes of them but at least one, and the offset after them.
    ///
    /// # Errors
    /// [`LogError::Refused`] where no frame begins at the offset.
    pub fn read(&self, offset: u64, max: usize) -> Result<(Vec<Frame>, u64), LogError> {
        let max = max.clamp(frames::HEADER_BYTES + FRAME_BYTES_MAX, READ_BYTES_MAX);
        let bytes = self.read_raw(offset, max)?;
        let (frames, taken) = frames::decode(&bytes).map_err(|error| LogError::Refused { at: offset, why: error.0 })?;
        Ok((frames, offset + taken as u64))
    }

    /// Bytes of whole frames.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a log's length is an offset")]
    pub fn len(&self) -> u64 {
        self.len.borrow().bytes
    }

    /// Tells the length whenever it changes, and when the log is complete.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<LogLength> {
        self.len.subscribe()
    }

    /// Makes all appended bytes durable.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn sync(&self) -> Result<(), LogError> {
        let file = self.lock().file.as_ref().map(File::try_clone).transpose().map_err(|source| self.io(source))?;
        file.map_or(Ok(()), |file| file.sync_data()).map_err(|source| self.io(source))
    }

    /// Completes the log: never longer, named by its hash. Sealing again gives the same answer.
    ///
    /// Not durable by itself: whoever names it elsewhere copies its bytes there.
    ///
    /// # Errors
    /// [`LogError::Refused`] while the end of a frame is missing.
    pub fn seal(&self) -> Result<(BlobHash, u64), LogError> {
        let mut inner = self.lock();
        if !inner.partial.is_empty() {
            return Err(LogError::Refused { at: inner.whole, why: "the end of a frame is missing" });
        }
        let hash = BlobHash(*inner.hasher.finalize().as_bytes());
        inner.sealed = Some(hash);
        self.len.send_replace(LogLength { bytes: inner.whole, sealed: true });
        Ok((hash, inner.whole))
    }

    /// The log's file: whole frames up to [`Self::len`].
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
