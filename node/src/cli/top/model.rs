//! What `v6 top` knows: the last look, which job is chosen, how fast tasks get done, and the end of one log.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use web_gateway::api::{JobRow, JobState, LogLine, LogStream, PeerView, StatusView};

use super::super::output::shown;

/// Lines of a log that are kept. Older ones are dropped.
const LOG_LINES_MAX: usize = 500;
/// Characters of a line that are kept. The rest is dropped.
const LOG_LINE_CHARS_MAX: usize = 1_000;
/// Looks that the throughput's curve shows.
const RATES_MAX: usize = 120;

/// One look at the node.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) at: Instant,
    pub(super) status: StatusView,
    pub(super) peers: Vec<PeerView>,
    pub(super) jobs: Vec<JobRow>,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) last: Snapshot,
    pub(super) trouble: Option<String>,
    /// Tasks done per second, times ten, oldest first.
    pub(super) rates: VecDeque<u64>,
    pub(super) log: VecDeque<(LogStream, String)>,
    chosen: Option<String>,
    log_of: Option<String>,
    /// Bytes seen per attempt, task and stream: a log that is asked for again begins anew.
    seen: BTreeMap<(u32, u32, LogStream), u64>,
    open_line: [String; 2],
}

impl Model {
    pub(super) fn new(first: Snapshot) -> Self {
        let chosen = first.jobs.first().map(|job| job.id.clone());
        Self {
            last: first,
            trouble: None,
            rates: VecDeque::new(),
            log: VecDeque::new(),
            chosen,
            log_of: None,
            seen: BTreeMap::new(),
            open_line: Default::default(),
        }
    }

    /// Takes a later look.
    pub(super) fn look(&mut self, next: Snapshot) {
        let elapsed_ms = u64::try_from(next.at.duration_since(self.last.at).as_millis()).unwrap_or(u64::MAX).max(1);
        let done = finished(&next).saturating_sub(finished(&self.last));
        self.rates.push_back(done.saturating_mul(10_000) / elapsed_ms);
        if self.rates.len() > RATES_MAX {
            self.rates.pop_front();
        }
        if self.chosen_index().is_none() || self.chosen.is_none() {
            self.chosen = next.jobs.first().map(|job| job.id.clone());
        }
        self.last = next;
        self.trouble = None;
    }

    pub(super) fn trouble(&mut self, text: String) {
        self.trouble = Some(text);
    }

    /// The chosen job's id.
    pub(super) fn chosen(&self) -> Option<&str> {
        self.chosen.as_deref()
    }

    /// The chosen job's place in the list.
    pub(super) fn chosen_index(&self) -> Option<usize> {
        let chosen = self.chosen.as_deref()?;
        self.last.jobs.iter().position(|job| job.id == chosen)
    }

    /// Moves the choice by so many rows, to the ends of the list at most.
    pub(super) fn choose(&mut self, by: isize) {
        let Some(last) = self.last.jobs.len().checked_sub(1) else { return };
        let at = self.chosen_index().unwrap_or(0).saturating_add_signed(by).min(last);
        self.chosen = self.last.jobs.get(at).map(|job| job.id.clone());
    }

    /// Takes a line of a job's log; one of another job than the chosen is late and dropped.
    pub(super) fn log(&mut self, job: &str, line: LogLine) {
        if self.chosen.as_deref() != Some(job) {
            return;
        }
        if self.log_of.as_deref() != Some(job) {
            self.log_of = Some(job.to_owned());
            self.log.clear();
            self.seen.clear();
            self.open_line = Default::default();
        }
        match line {
            LogLine::Bytes { attempt, task, stream, offset, .. } => {
                let Some(bytes) = line.into_bytes() else { return };
                let seen = self.seen.entry((attempt, task, stream)).or_insert(0);
                let skip = usize::try_from(seen.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
                *seen = (*seen).max(offset + bytes.len() as u64);
                self.text(stream, &String::from_utf8_lossy(&bytes[skip..]));
            }
            LogLine::Lost { attempt, task, .. } => {
                self.push(LogStream::Stderr, &format!("— attempt {attempt} of task {task} was lost —"));
            }
            LogLine::End { state, exit, .. } => {
                let exit = exit.map(|exit| format!(", exit {exit}")).unwrap_or_default();
                self.push(LogStream::Stderr, &format!("— {}{exit} —", state.as_str()));
            }
            LogLine::Waiting { text } => self.push(LogStream::Stderr, &format!("— {text} —")),
            LogLine::Error { message, .. } => self.push(LogStream::Stderr, &format!("— {message} —")),
            LogLine::Attempt { .. } | LogLine::Beat => {}
        }
    }

    /// The end of the log that is shown: of the chosen job, nothing before its first line has come.
    pub(super) fn log_lines(&self, rows: usize) -> Vec<(LogStream, String)> {
        if self.log_of != self.chosen {
            return Vec::new();
        }
        let open = [LogStream::Stdout, LogStream::Stderr]
            .into_iter()
            .zip(&self.open_line)
            .filter(|(_, line)| !line.is_empty())
            .map(|(stream, line)| (stream, shown(line)));
        let all: Vec<_> = self.log.iter().cloned().chain(open).collect();
        all[all.len().saturating_sub(rows)..].to_vec()
    }

    fn text(&mut self, stream: LogStream, text: &str) {
        let slot = usize::from(stream == LogStream::Stderr);
        for part in text.split_inclusive('\n') {
            let room = LOG_LINE_CHARS_MAX.saturating_sub(self.open_line[slot].chars().count());
            self.open_line[slot].extend(part.trim_end_matches(['\n', '\r']).chars().take(room));
            if part.ends_with('\n') {
                let line = std::mem::take(&mut self.open_line[slot]);
                self.push(stream, &line);
            }
        }
    }

    fn push(&mut self, stream: LogStream, line: &str) {
        self.log.push_back((stream, shown(&line.replace('\t', "    "))));
        if self.log.len() > LOG_LINES_MAX {
            self.log.pop_front();
        }
    }

    /// Tasks that run at the moment, as far as the list shows them.
    pub(super) fn running(&self) -> u64 {
        self.last.status.jobs.get(&JobState::Running).copied().unwrap_or(0)
    }
}

/// Jobs that have ended, and the tasks that are done of those that have not.
fn finished(snapshot: &Snapshot) -> u64 {
    let ended: u64 = snapshot.status.jobs.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum();
    let of_open: u64 = snapshot.jobs.iter().filter(|job| !job.state.is_final()).map(|job| u64::from(job.done)).sum();
    ended + of_open
}
