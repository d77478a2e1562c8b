//! What goes wrong meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::history::History;
use super::host::{Host, faketime};
use super::lan::{Way, Ways};

/// All kinds of faults: what `--faults` takes.
pub(crate) const KINDS: [(&str, &str); 17] = [
    ("kill", "a node and all that it started is killed"),
    ("pause", "a whole host stands still, and goes on"),
    ("partition", "one host is cut off"),
    ("half", "half of the hosts are cut off from the others"),
    ("one-way", "some hosts are heard no more, but hear"),
    ("delay", "packets of a host take up to 300 ms"),
    ("loss", "up to a tenth of a host's packets is lost"),
    ("duplicate", "up to a fifth of a host's packets comes twice"),
    ("reorder", "packets of a host overtake each other"),
    ("rate", "a host's links carry 750 kbit/s"),
    ("full-disk", "a host's disk is full"),
    ("truncate", "a store lost its end"),
    ("bit-flip", "a bit of a store is another"),
    ("backup", "a host's disk comes from a backup"),
    ("skew", "a host's clock is off by up to two hours"),
    ("clock-jump", "a clock that is off jumps"),
    ("starve", "four busy loops per core"),
];

/// What ends a fault.
#[derive(Debug)]
enum End {
    Start(usize),
    GoOn(usize),
    Ways(Vec<(usize, usize)>),
    Room(usize),
    Backup(usize, PathBuf, Instant),
    Loops(Vec<Child>),
}

/// Makes faults and ends them.
pub(crate) struct Faults {
    hosts: Arc<Vec<Host>>,
    ways: Arc<Ways>,
    history: Arc<History>,
    rng: ChaCha8Rng,
    kinds: Vec<&'static str>,
    /// Kinds of this round.
    round: Vec<&'static str>,
    /// When faults end.
    ends: Vec<(Instant, End)>,
    /// Hosts that have a fault of their own.
    held: BTreeSet<usize>,
    /// Faults per pair of hosts.
    worn: BTreeMap<(usize, usize), u32>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Faults {
    pub(crate) fn new(
        hosts: &Arc<Vec<Host>>,
        ways: &Arc<Ways>,
        history: &Arc<History>,
        seed: u64,
        kinds: Vec<&'static str>,
    ) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (hosts, ways, history) = (Arc::clone(hosts), Arc::clone(ways), Arc::clone(history));
        let (round, ends) = (Vec::new(), Vec::new());
        Self { hosts, ways, history, rng, kinds, round, ends, held: BTreeSet::new(), worn: BTreeMap::new() }
    }

    /// Ends what is due, and makes the next fault.
    pub(crate) fn turn(&mut self) {
        self.end_due(Instant::now());
        if self.kinds.is_empty() {
            return;
        }
        if self.round.is_empty() {
            self.round = self.kinds.clone();
            self.round.shuffle(&mut self.rng);
        }
        let Some(kind) = self.round.pop() else { return };
        match self.make(kind) {
            Ok(true) => self.history.fault(kind),
            // Later in the round.
            Ok(false) => self.round.insert(0, kind),
            Err(error) => self.history.not_tried(format!("{kind}: {error:#}")),
        }
    }

    /// Ends what is due.
    pub(crate) fn end_due(&mut self, now: Instant) {
        let mut due = Vec::new();
        for at in (0..self.ends.len()).rev() {
            if self.ends[at].0 <= now {
                due.push(self.ends.swap_remove(at).1);
            }
        }
        for end in due {
            self.end(end);
        }
    }

    /// Everything is well again, as far as machines can be.
    pub(crate) fn heal(&mut self) {
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(end);
        }
        self.ways.heal();
        for host in 0..self.hosts.len() {
            // A long load fills a small disk without a fault.
            self.end(End::Room(host));
            if !self.hosts[host].is_up() {
                self.start(host);
            }
        }
    }

    fn start(&mut self, host: usize) {
        self.held.remove(&host);
        if let Err(error) = self.hosts[host].start(&[]) {
            self.history.problem(format!("{error:#}"));
        }
    }

    fn end(&mut self, end: End) {
        match end {
            End::Start(host) => self.start(host),
            End::GoOn(host) => {
                self.hosts[host].pause(false);
                self.held.remove(&host);
            }
            End::Ways(pairs) => {
                for pair in pairs {
                    let worn = self.worn.entry(pair).or_default();
                    *worn = worn.saturating_sub(1);
                    if *worn == 0 {
                        self.ways.change(pair.0, pair.1, |way| *way = Way::default());
                    }
                }
            }
            End::Room(host) => {
                self.held.remove(&host);
                if let Err(error) = self.hosts[host].fill(false) {
                    self.history.problem(format!("host {host} gets no room back: {error:#}"));
                }
            }
            End::Backup(host, copy, taken) => {
                self.hosts[host].kill();
                if let Err(error) = replace(&copy, &self.hosts[host].dir) {
                    self.history.problem(format!("host {host}: its backup was not restored: {error:#}"));
                }
                self.history.set_back(host, taken);
                self.start(host);
            }
            End::Loops(loops) => {
                for mut child in loops {
                    drop(child.kill());
                    drop(child.wait());
                }
            }
        }
    }

    /// A host without a fault of its own, while less than half have one.
    fn free(&mut self, fits: impl Fn(&Host) -> bool) -> Option<usize> {
        if self.held.len() * 2 + 1 >= self.hosts.len() {
            return None;
        }
        let free: Vec<usize> = self
            .hosts
            .iter()
            .filter(|host| !self.held.contains(&host.at) && host.is_well() && fits(host))
            .map(|host| host.at)
            .collect();
        free.choose(&mut self.rng).copied()
    }

    fn later(&mut self, from_ms: u64, to_ms: u64, end: End) {
        let after = Duration::from_millis(self.rng.random_range(from_ms..to_ms));
        self.ends.push((Instant::now() + after, end));
    }

    /// Makes a fault of a kind; false: nobody is free for it.
    ///
    /// # Errors
    /// What this machine does not allow.
    fn make(&mut self, kind: &str) -> anyhow::Result<bool> {
        match kind {
            "partition" | "half" | "one-way" | "delay" | "loss" | "duplicate" | "reorder" | "rate" => {
                self.network(kind)
            }
            "starve" => {
                let cores = std::thread::available_parallelism().map_or(2, Into::into);
                let mut loops = Vec::new();
                for _ in 0..4 * cores {
                    loops.push(Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn()?);
                }
                self.later(3_000, 8_000, End::Loops(loops));
            }
            "full-disk" => {
                let Some(host) = self.free(|host| host.has_small_disk) else { return Ok(false) };
                self.hosts[host].fill(true)?;
                self.held.insert(host);
                self.later(3_000, 9_000, End::Room(host));
            }
            "skew" | "clock-jump" => {
                anyhow::ensure!(faketime().is_some(), "libfaketime is missing: apt-get install libfaketime");
                // A clock that jumps is one that is off already, if there is one.
                let is_off = |host: &Host| host.skewed().is_some();
                let jumping = if kind == "clock-jump" { self.free(is_off) } else { None };
                let Some(host) = jumping.or_else(|| self.free(|_| true)) else { return Ok(false) };
                let skew_s = self.rng.random_range(-7_200..7_200);
                if jumping.is_some() {
                    self.hosts[host].skew(skew_s);
                } else {
                    self.hosts[host].kill();
                    self.hosts[host].skew(skew_s);
                    self.start(host);
                }
            }
            _ => return self.process(kind),
        }
        Ok(true)
    }

    fn process(&mut self, kind: &str) -> anyhow::Result<bool> {
        let Some(host) = self.free(|_| true) else { return Ok(false) };
        match kind {
            "pause" => {
                self.hosts[host].pause(true);
                self.held.insert(host);
                self.later(2_000, 12_000, End::GoOn(host));
            }
            "truncate" | "bit-flip" => {
                self.hosts[host].kill();
                self.history.set_back(host, self.hosts[host].begun());
                damage(&self.hosts[host].dir, kind == "truncate", &mut self.rng)?;
                self.start(host);
            }
            "backup" => {
                let copy = self.hosts[host].dir.with_extension("backup");
                if let Err(error) = self.hosts[host].stop() {
                    self.history.problem(format!("{error:#}"));
                }
                let taken = Instant::now();
                drop(std::fs::remove_dir_all(&copy));
                copy_tree(&self.hosts[host].dir, &copy)?;
                self.start(host);
                self.held.insert(host);
                self.later(4_000, 15_000, End::Backup(host, copy, taken));
            }
            _ => {
                self.hosts[host].kill();
                self.held.insert(host);
                self.later(300, 9_000, End::Start(host));
            }
        }
        Ok(true)
    }

    fn network(&mut self, kind: &str) {
        let hosts = self.hosts.len();
        let mut order: Vec<usize> = (0..hosts).collect();
        order.shuffle(&mut self.rng);
        let count = if kind == "half" || kind == "one-way" { hosts / 2 } else { 1 };
        let (some, others) = order.split_at(count);
        let mut pairs = Vec::new();
        for a in some {
            for b in others {
                pairs.push((*a, *b));
                if kind != "one-way" {
                    pairs.push((*b, *a));
                }
            }
        }
        let rng = &mut self.rng;
        let change: Box<dyn Fn(&mut Way)> = match kind {
            "delay" => {
                let delay = Duration::from_millis(rng.random_range(20..300));
                Box::new(move |way| way.delay = delay)
            }
            "loss" => {
                let loss = rng.random_range(5_000..100_000);
                Box::new(move |way| way.loss_ppm = loss)
            }
            "duplicate" => {
                let double = rng.random_range(20_000..200_000);
                Box::new(move |way| way.double_ppm = double)
            }
            "reorder" => {
                let jitter = Duration::from_millis(rng.random_range(2..40));
                Box::new(move |way| way.jitter = jitter)
            }
            "rate" => Box::new(|way| way.rate = 750_000 / 8),
            _ => Box::new(|way| way.is_cut = true),
        };
        for pair in &pairs {
            *self.worn.entry(*pair).or_default() += 1;
            self.ways.change(pair.0, pair.1, &change);
        }
        self.later(3_000, 15_000, End::Ways(pairs));
    }
}

/// Damages one of a node's stores.
fn damage(dir: &Path, truncates: bool, rng: &mut ChaCha8Rng) -> anyhow::Result<()> {
    let path = dir.join("v6.redb");
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
    let length = file.metadata()?.len();
    if truncates {
        file.set_len(rng.random_range(0..length))?;
        return Ok(());
    }
    // Some bits, as many pages are empty.
    for _ in 0..8 {
        let at = rng.random_range(0..length);
        let mut byte = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut byte)?;
        byte[0] ^= 1 << rng.random_range(0..8);
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&byte)?;
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).stdin(Stdio::null()).output()?;
    anyhow::ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr).trim());
    Ok(())
}

/// Puts the copy of a directory in its place; the directory itself may be a mount.
fn replace(copy: &Path, dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    copy_tree(&copy.join("."), dir)?;
    std::fs::remove_dir_all(copy)?;
    Ok(())
}
