//! Hosts of their own on this machine, and what lies between them.
//!
//! Each host is a network namespace with one TUN device. A thread carries the packets from device to device; on the way it
//! delays, loses, doubles, reorders and thins them out as the faults say, in each direction of each pair apart. That is the
//! work of a bridge with `tc netem`, on any kernel that has TUN (decision 0013).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// First three bytes of the hosts' addresses.
const NETWORK: [u8; 3] = [10, 83, 7];
/// What the devices let through at once, bytes.
const MTU: u16 = 1_500;
/// Longest time that a packet waits for a thin link before it is dropped.
const QUEUE_MAX: Duration = Duration::from_millis(600);
/// How long the thread waits for a packet before it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// What is wrong with the way from one host to another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way {
    /// Nothing comes through.
    pub(crate) is_cut: bool,
    /// Time that each packet takes.
    pub(crate) delay: Duration,
    /// Further time, drawn for each packet: it makes packets overtake each other.
    pub(crate) jitter: Duration,
    /// Packets of a million that are lost.
    pub(crate) loss_ppm: u32,
    /// Packets of a million that come twice.
    pub(crate) double_ppm: u32,
    /// Bytes per second; 0: no bound.
    pub(crate) rate: u64,
}

/// The ways between all hosts, and what was carried on them.
#[derive(Debug)]
pub(crate) struct Ways {
    hosts: usize,
    ways: Mutex<Vec<Way>>,
    /// Bytes that arrived, of each host.
    received: Vec<AtomicU64>,
}

impl Ways {
    /// Changes the way from one host to another.
    pub(crate) fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Way)) {
        change(&mut self.ways.lock().expect("no panic")[from * self.hosts + to]);
    }

    /// Nothing is wrong any more.
    pub(crate) fn heal(&self) {
        self.ways.lock().expect("no panic").fill(Way::default());
    }

    /// Bytes that a host received.
    pub(crate) fn received(&self, host: usize) -> u64 {
        self.received[host].load(Ordering::Relaxed)
    }
}

/// The hosts and the thread between them. Dropping it removes both.
#[derive(Debug)]
pub(crate) struct Lan {
    names: Vec<String>,
    pub(crate) ways: Arc<Ways>,
    ends: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Lan {
    /// Makes the hosts.
    ///
    /// # Errors
    /// What this machine does not allow.
    pub(crate) fn make(hosts: usize, seed: u64) -> anyhow::Result<Self> {
        let id = std::process::id();
        let ways = Ways {
            hosts,
            ways: Mutex::new(vec![Way::default(); hosts * hosts]),
            received: (0..hosts).map(|_| AtomicU64::new(0)).collect(),
        };
        let ends = Arc::new(AtomicBool::new(false));
        let mut lan = Self { names: Vec::new(), ways: Arc::new(ways), ends, carrier: None };
        let mut devices = Vec::new();
        for host in 0..hosts {
            let name = format!("v6c{id}-{host}");
            ip(&["netns", "add", &name])?;
            lan.names.push(name.clone());
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            devices.push(device(&name).with_context(|| format!("no TUN device on host {host}"))?);
            let address = format!("{}/24", address(host));
            ip(&["-n", &name, "addr", "add", &address, "dev", "lan"])?;
            ip(&["-n", &name, "link", "set", "lan", "up", "mtu", &MTU.to_string()])?;
        }
        let (ways, ends) = (Arc::clone(&lan.ways), Arc::clone(&lan.ends));
        let mut carrier = Carrier {
            devices,
            ways,
            rng: ChaCha8Rng::seed_from_u64(seed),
            free_at: vec![Instant::now(); hosts * hosts],
            under_way: BinaryHeap::new(),
            serial: 0,
        };
        lan.carrier = Some(std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                carrier.turn();
            }
        }));
        Ok(lan)
    }

    /// The name of a host's namespace.
    pub(crate) fn host(&self, at: usize) -> &str {
        &self.names[at]
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            drop(carrier.join());
        }
        for name in &self.names {
            drop(ip(&["netns", "del", name]));
        }
    }
}

/// A host's address.
pub(crate) fn address(host: usize) -> std::net::Ipv4Addr {
    let last = u8::try_from(host + 1).expect("few hosts");
    std::net::Ipv4Addr::new(NETWORK[0], NETWORK[1], NETWORK[2], last)
}

/// Runs `ip`.
fn ip(args: &[&str]) -> anyhow::Result<()> {
    let run = Command::new("ip").args(args).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let run = run.context("`ip` does not run: install iproute2")?;
    anyhow::ensure!(run.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&run.stderr).trim());
    Ok(())
}

/// A device in a namespace: made by a thread that has entered it.
fn device(host: &str) -> anyhow::Result<SyncDevice> {
    let space = std::fs::File::open(format!("/run/netns/{host}"))?;
    let made = std::thread::spawn(move || -> anyhow::Result<SyncDevice> {
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&space),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )?;
        let device = DeviceBuilder::new().name("lan").layer(Layer::L3).build_sync()?;
        device.set_nonblocking(true)?;
        Ok(device)
    });
    made.join().expect("no panic")
}

/// A packet on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    serial: u64,
    to: usize,
    bytes: Vec<u8>,
}

struct Carrier {
    devices: Vec<SyncDevice>,
    ways: Arc<Ways>,
    rng: ChaCha8Rng,
    /// When each way has sent what it has.
    free_at: Vec<Instant>,
    under_way: BinaryHeap<Reverse<Flight>>,
    serial: u64,
}

impl Carrier {
    /// Waits for packets or for the next arrival, and carries what there is.
    fn turn(&mut self) {
        let now = Instant::now();
        let wait = self.under_way.peek().map_or(LOOK, |Reverse(next)| next.at.saturating_duration_since(now).min(LOOK));
        let mut fds: Vec<PollFd<'_>> = self.devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        if poll(&mut fds, Some(&timeout)).is_err() {
            return;
        }
        let ready: Vec<usize> = (0..fds.len()).filter(|at| !fds[*at].revents().is_empty()).collect();
        let mut buffer = vec![0; usize::from(MTU) + 64];
        for from in ready {
            // Some at a time, so that nobody starves.
            for _ in 0..64 {
                let Ok(length) = self.devices[from].recv(&mut buffer) else { break };
                self.take(from, &buffer[..length]);
            }
        }
        let now = Instant::now();
        while self.under_way.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Reverse(flight) = self.under_way.pop().expect("just seen");
            // A device that is full drops, as a switch does.
            if self.devices[flight.to].send(&flight.bytes).is_ok() {
                self.ways.received[flight.to].fetch_add(flight.bytes.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// Takes a packet of a host: IPv4 to one of the others, everything else is dropped.
    fn take(&mut self, from: usize, bytes: &[u8]) {
        let is_ours = bytes.len() >= 20 && bytes[0] >> 4 == 4 && bytes[16..19] == NETWORK;
        let to = usize::from(if is_ours { bytes[19] } else { 0 }).wrapping_sub(1);
        if to >= self.devices.len() || to == from {
            return;
        }
        let pair = from * self.devices.len() + to;
        let way = self.ways.ways.lock().expect("no panic")[pair];
        if way.is_cut || self.rng.random_range(0..1_000_000) < way.loss_ppm {
            return;
        }
        let now = Instant::now();
        let mut sent = now;
        if let Some(takes_ns) = (bytes.len() as u64 * 1_000_000_000).checked_div(way.rate) {
            let takes = Duration::from_nanos(takes_ns);
            sent = self.free_at[pair].max(now) + takes;
            if sent > now + QUEUE_MAX {
                return;
            }
            self.free_at[pair] = sent;
        }
        let copies = if self.rng.random_range(0..1_000_000) < way.double_ppm { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = way.jitter.mul_f64(self.rng.random_range(0.0..1.0));
            self.serial += 1;
            let at = sent + way.delay + jitter;
            self.under_way.push(Reverse(Flight { at, serial: self.serial, to, bytes: bytes.to_vec() }));
        }
    }
}
