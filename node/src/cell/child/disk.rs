//! How much disk a workspace takes, walked in small steps between other work.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Entries looked at per step.
const ENTRIES_PER_STEP: usize = 512;
/// Directories remembered; beyond it the walk is cut short and counts what it saw.
const DIRS_WAITING_MAX: usize = 100_000;
/// The shortest pause between two walks, in milliseconds; it grows to ten times the last walk.
const PAUSE_MS_MIN: u64 = 500;

/// A walk that never ends: each round sums the workspace up.
#[derive(Debug)]
pub(super) struct DiskMeter {
    root: PathBuf,
    waiting: Vec<PathBuf>,
    open: Option<fs::ReadDir>,
    sum_bytes: u64,
    began: Instant,
    resume_at: Instant,
}

impl DiskMeter {
    pub(super) fn new(root: &Path) -> Self {
        let now = Instant::now();
        Self { root: root.to_owned(), waiting: Vec::new(), open: None, sum_bytes: 0, began: now, resume_at: now }
    }

    /// When the next step is due.
    pub(super) fn due(&self) -> Instant {
        self.resume_at
    }

    /// Goes on a little; the sum when a round is complete. Links are not followed.
    pub(super) fn step(&mut self) -> Option<u64> {
        let now = Instant::now();
        if now < self.resume_at {
            return None;
        }
        if self.waiting.is_empty() && self.open.is_none() {
            (self.began, self.sum_bytes) = (now, 0);
            self.waiting.push(self.root.clone());
        }
        for _ in 0..ENTRIES_PER_STEP {
            let Some(dir) = &mut self.open else {
                let Some(next) = self.waiting.pop() else { return Some(self.finish()) };
                self.open = fs::read_dir(next).ok();
                continue;
            };
            match dir.next() {
                None => self.open = None,
                Some(Err(_)) => {}
                Some(Ok(entry)) => self.count(&entry),
            }
        }
        None
    }

    fn count(&mut self, entry: &fs::DirEntry) {
        let Ok(meta) = entry.metadata() else { return };
        self.sum_bytes = self.sum_bytes.saturating_add(meta.blocks().saturating_mul(512));
        if meta.is_dir() && self.waiting.len() < DIRS_WAITING_MAX {
            self.waiting.push(entry.path());
        }
    }

    fn finish(&mut self) -> u64 {
        let pause = (self.began.elapsed() * 10).max(Duration::from_millis(PAUSE_MS_MIN));
        self.resume_at = Instant::now() + pause;
        self.sum_bytes
    }
}
