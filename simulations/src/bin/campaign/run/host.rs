//! A host: its directory, the node on it, and the commands that people run there.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// A person's patience with a command: what does not answer by then was not answered.
const COMMAND_MAX: Duration = Duration::from_secs(15);
/// Patience with a node that starts, or stops in order.
const START_MAX: Duration = Duration::from_secs(60);
/// Size of the small disks, and the room on them after each fault.
pub(crate) const SMALL_DISK_BYTES: u64 = 1 << 30;

/// Memory of a node that is spoken of, and the growth after which it is spoken of again, kB.
const SPEAK_OF_KB: u64 = 110 << 10;
const SPEAK_AGAIN_KB: u64 = 16 << 10;

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; `None`: a signal, or it did not end in time.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ran {
    /// Its JSON, when it was well.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        if self.code != Some(0) {
            return None;
        }
        serde_json::from_slice(&self.stdout).ok()
    }

    /// What it complained of.
    pub(crate) fn complaint(&self) -> String {
        let said = String::from_utf8_lossy(&self.stderr).trim().to_owned();
        if self.code.is_none() { format!("it did not end in time; {said}") } else { said }
    }
}

/// The node's process.
#[derive(Debug, Default)]
struct Process {
    child: Option<Child>,
    /// When it was started.
    since: Option<Instant>,
    /// The most memory that any of its processes held, kB.
    peak_kb: u64,
    /// A process that holds more than this is spoken of, kB.
    spoken_of_kb: u64,
    /// How far its clock is off, seconds.
    skew_s: Option<i64>,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) at: usize,
    space: String,
    v6: PathBuf,
    pub(crate) dir: PathBuf,
    /// Whether its directory is a small disk of its own.
    pub(crate) has_small_disk: bool,
    process: Mutex<Process>,
    /// Its node is there and not held up.
    is_well: AtomicBool,
    begun: Instant,
    /// Whether a start found the store damaged and began it anew.
    pub(crate) recovered: AtomicBool,
}

impl Host {
    /// A host in a namespace, with a directory below `root`.
    pub(crate) fn new(at: usize, space: &str, v6: &Path, root: &Path, has_small_disk: bool) -> anyhow::Result<Self> {
        let host = Self {
            at,
            space: space.to_owned(),
            v6: v6.to_owned(),
            dir: root.join(format!("host-{at}")),
            has_small_disk,
            process: Mutex::default(),
            is_well: AtomicBool::new(false),
            begun: Instant::now(),
            recovered: AtomicBool::new(false),
        };
        std::fs::create_dir_all(&host.dir)?;
        std::fs::create_dir_all(host.temporary())?;
        if has_small_disk {
            let options = format!("size={SMALL_DISK_BYTES}");
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "v6-campaign"]).arg(&host.dir))?;
        }
        Ok(host)
    }

    /// When it was made.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The directory for temporary files of its processes.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.dir.with_extension("tmp")
    }

    fn clock(&self) -> PathBuf {
        self.dir.with_extension("clock")
    }

    /// A command on this host.
    fn on(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).env("TMPDIR", self.temporary()).stdin(Stdio::null());
        command
    }

    /// Whether its node is there and not held up.
    pub(crate) fn is_well(&self) -> bool {
        self.is_well.load(Ordering::Relaxed)
    }

    /// Starts its node and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; with what it said.
    pub(crate) fn start(&self, more: &[&str]) -> anyhow::Result<()> {
        let mut process = self.process.lock().expect("no panic");
        anyhow::ensure!(process.child.is_none(), "the node of host {} runs already", self.at);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.with_extension("log"))?;
        let mut command = self.on();
        if let (Some(skew_s), Some(library)) = (process.skew_s, faketime()) {
            std::fs::write(self.clock(), format!("{skew_s:+}\n"))?;
            command.arg("env").arg(format!("LD_PRELOAD={}", library.display()));
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock().display()));
            command.args(["FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]);
            command.args(["FAKETIME_CACHE_DURATION=1", "FAKETIME_DISABLE_SHM=1"]);
        }
        command.arg(&self.v6).args(["up", "--api", "127.0.0.1:0", "--no-mdns", "--json", "--data-dir"]);
        command.arg(&self.dir).args(more).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("`ip` does not run: install iproute2")?;
        let out = child.stdout.take().expect("piped");
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut reader = BufReader::new(out);
            drop(reader.read_line(&mut line));
            drop(tell.send(line));
            // What comes later is nobody's.
            drop(std::io::copy(&mut reader, &mut std::io::sink()));
        });
        let line = told.recv_timeout(START_MAX).unwrap_or_default();
        let ready: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let Some(ready) = ready.filter(|ready| ready["event"] == "ready") else {
            drop(child.kill());
            drop(child.wait());
            let log = std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default();
            let last = log.lines().rev().take(3).collect::<Vec<_>>().join(" | ");
            anyhow::bail!("the node of host {} does not start: {last}", self.at);
        };
        if ready["recovered"] == true {
            self.recovered.store(true, Ordering::Relaxed);
        }
        process.child = Some(child);
        process.since = Some(Instant::now());
        process.spoken_of_kb = SPEAK_OF_KB;
        self.is_well.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether its process is there, held up or not.
    pub(crate) fn is_up(&self) -> bool {
        self.process.lock().expect("no panic").child.is_some()
    }

    /// Whether its process ended although nobody ended it.
    pub(crate) fn fell(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().expect("no panic");
        let ended = process.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if ended.is_some() {
            process.child = None;
            self.is_well.store(false, Ordering::Relaxed);
        }
        ended
    }

    /// Kills its node as a power cut would: with everything that it had started.
    pub(crate) fn kill(&self) {
        self.is_well.store(false, Ordering::Relaxed);
        self.look_at_memory();
        let mut process = self.process.lock().expect("no panic");
        if let Some(mut child) = process.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(process);
        for pid in self.pids() {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Stops its node in order.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.is_well.store(false, Ordering::Relaxed);
        self.look_at_memory();
        let Some(mut child) = self.process.lock().expect("no panic").child.take() else { return Ok(()) };
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                anyhow::ensure!(
                    status.success(),
                    "the node of host {} ended with {status} when it was stopped",
                    self.at
                );
                return Ok(());
            }
            if begun.elapsed() > START_MAX {
                drop(child.kill());
                drop(child.wait());
                anyhow::bail!("the node of host {} did not stop within {} s", self.at, START_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Holds up everything on this host, as a laptop that sleeps does, or lets it go on.
    pub(crate) fn pause(&self, holds: bool) {
        self.is_well.store(!holds, Ordering::Relaxed);
        for pid in self.pids() {
            let _ = kill_process(pid, if holds { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Sets its clock, from the next start on, or at once where it is off already.
    pub(crate) fn skew(&self, skew_s: i64) {
        let mut process = self.process.lock().expect("no panic");
        if process.skew_s.is_some() {
            drop(std::fs::write(self.clock(), format!("{skew_s:+}\n")));
        }
        process.skew_s = Some(skew_s);
    }

    /// How far its clock is off, seconds.
    pub(crate) fn skewed(&self) -> Option<i64> {
        self.process.lock().expect("no panic").skew_s
    }

    /// All processes on this host.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let list = Command::new("ip").args(["netns", "pids", &self.space]).stdin(Stdio::null()).output();
        let list = list.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        list.lines().filter_map(|line| line.trim().parse().ok().and_then(Pid::from_raw)).collect()
    }

    /// Notes how much memory its node holds at most; much of it is spoken of.
    pub(crate) fn look_at_memory(&self) {
        let mut process = self.process.lock().expect("no panic");
        let Some(pid) = process.child.as_ref().map(Child::id) else { return };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kb = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let peak_kb: u64 = kb("VmHWM:");
        process.peak_kb = process.peak_kb.max(peak_kb);
        if peak_kb > process.spoken_of_kb {
            process.spoken_of_kb = peak_kb + SPEAK_AGAIN_KB;
            eprintln!(
                "campaign: the node of host {} held {} MB, {} s after its start (now {} MB of its own, {} MB of files)",
                self.at,
                peak_kb >> 10,
                process.since.map_or(0, |since| since.elapsed().as_secs()),
                kb("RssAnon:") >> 10,
                kb("RssFile:") >> 10,
            );
        }
    }

    /// The most memory that any of its nodes held, kB.
    pub(crate) fn peak_kb(&self) -> u64 {
        self.process.lock().expect("no panic").peak_kb
    }

    /// Runs `v6` as somebody on this host.
    pub(crate) fn v6(&self, args: &[&str]) -> Ran {
        self.v6_within(COMMAND_MAX, args)
    }

    /// Runs `v6` as somebody on this host who is as patient as that.
    pub(crate) fn v6_within(&self, patience: Duration, args: &[&str]) -> Ran {
        let mut command = self.on();
        command.arg(&self.v6).args(args).env("V6_DATA_DIR", &self.dir);
        let none = Ran { code: None, stdout: Vec::new(), stderr: b"it did not run".to_vec() };
        let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else { return none };
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (stdout, stderr) = (read_all(stdout), read_all(stderr));
        let begun = Instant::now();
        let mut nap = Duration::from_millis(2);
        let code = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status.code(),
                Ok(None) if begun.elapsed() < patience => std::thread::sleep(nap),
                _ => {
                    drop(child.kill());
                    drop(child.wait());
                    break None;
                }
            }
            nap = (nap * 2).min(Duration::from_millis(50));
        };
        Ran { code, stdout: stdout.join().expect("no panic"), stderr: stderr.join().expect("no panic") }
    }

    /// Makes the small disk full, or frees room on it; where the disk is not small, nothing.
    ///
    /// # Errors
    /// What `mount` says.
    pub(crate) fn fill(&self, is_full: bool) -> anyhow::Result<()> {
        if !self.has_small_disk {
            return Ok(());
        }
        let disk = rustix::fs::statvfs(&self.dir)?;
        let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
        let bytes = if is_full { used.max(4_096) } else { used + SMALL_DISK_BYTES };
        run(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.dir))
    }

    /// Everything of it ends.
    pub(crate) fn clear(&self) {
        self.kill();
        if self.has_small_disk {
            drop(run(Command::new("umount").arg("-l").arg(&self.dir)));
        }
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        bytes
    })
}

/// Runs a tool of the system.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let ran =
        command.stdin(Stdio::null()).output().with_context(|| format!("{:?} does not run", command.get_program()))?;
    anyhow::ensure!(ran.status.success(), "{:?}: {}", command, String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}

/// Where libfaketime lies, if it is installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> =
        ["/usr/lib/faketime", "/usr/local/lib/faketime", "/usr/lib64/faketime"].map(Into::into).into();
    places.extend(std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime")));
    places.into_iter().map(|place| place.join("libfaketimeMT.so.1")).find(|path| path.exists())
}
