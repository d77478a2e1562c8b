//! Beside the store, what the file looked like after its last commit: a copy, and a file that was written over in place, is told
//! from one that only this program wrote.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::platform::files::{self, FileState};

const STAMP_FILE: &str = "v6.stamp";
/// Length of its one line.
const LINE: usize = 192;
/// A commit takes no longer; a node that is killed within it leaves a file that changed within this time.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// Clocks of files are coarse.
const COARSE: Duration = Duration::from_secs(1);
/// What is there while nobody knows yet that the file is not what it was.
const UNSURE: &str = "unsure";

/// The stamp of an open store.
#[derive(Debug)]
pub(super) struct Stamp {
    store: PathBuf,
    machine: String,
    /// `None`: it cannot be written; then the next start takes the store for a copy.
    file: Option<File>,
    /// From an opening of an altered store until a commit that says so.
    is_unsure: bool,
}

impl Stamp {
    /// Looks at the store at `store` before it is opened. Also tells whether anything else than this program wrote it since the
    /// last commit.
    pub(super) fn of(store: &Path) -> (Self, bool) {
        let path = store.with_file_name(STAMP_FILE);
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
        let state = files::state(store).ok();
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let is_altered = state.is_some_and(|state| !is_same(&written, &machine, &state));
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.create(true).write(true).truncate(false).open(path);
        let file = file.inspect_err(|error| tracing::debug!(%error, "no stamp beside the store")).ok();
        (Self { store: store.to_owned(), machine, file, is_unsure: is_altered }, is_altered)
    }

    /// The store is about to be written.
    pub(super) fn begin(&self) {
        if self.is_unsure {
            self.write(UNSURE);
        } else if let Ok(state) = files::state(&self.store) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
            self.write(&format!("writing {now} {} {}", state.identity, self.machine));
        } else {
            self.write(UNSURE);
        }
    }

    /// The store was written and is durable.
    pub(super) fn settle(&mut self) {
        self.is_unsure = false;
        match files::state(&self.store) {
            Ok(state) => self.write(&format!("settled {} {} {}", state.changed_ns, state.identity, self.machine)),
            Err(_) => self.write(UNSURE),
        }
    }

    /// The store was opened: durable unless it still has to be noted that it is not what it was.
    pub(super) fn opened(&mut self) {
        if !self.is_unsure {
            self.settle();
        }
    }

    /// Not made durable: after a loss of power the store is taken for a copy.
    fn write(&self, line: &str) {
        let Some(file) = &self.file else { return };
        let line = format!("{line:<width$}\n", width = LINE - 1);
        if let Err(error) = write_at_start(file, line.as_bytes()) {
            tracing::debug!(%error, "the store's stamp is not written");
        }
    }
}

#[cfg(unix)]
fn write_at_start(file: &File, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, 0)
}

#[cfg(windows)]
fn write_at_start(file: &File, bytes: &[u8]) -> std::io::Result<()> {
    let written = std::os::windows::fs::FileExt::seek_write(file, bytes, 0)?;
    if written == bytes.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}

/// Whether a store is as its stamp says: unchanged since a commit, or changed within one.
fn is_same(written: &str, machine: &str, state: &FileState) -> bool {
    let mut words = written.trim_end().splitn(4, ' ');
    let (how, at) = (words.next(), words.next().and_then(|at| at.parse::<u128>().ok()));
    let (identity, on) = (words.next(), words.next().unwrap_or_default());
    let Some(at) = at.filter(|_| identity == Some(state.identity.as_str()) && on == machine) else { return false };
    match how {
        Some("settled") => at == state.changed_ns,
        Some("writing") => state.changed_ns + COARSE.as_nanos() >= at && state.changed_ns <= at + COMMIT_MAX.as_nanos(),
        _ => false,
    }
}
