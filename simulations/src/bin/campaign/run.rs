//! The campaign from beginning to end.

mod faults;
mod history;
mod host;
mod judge;
mod lan;
mod load;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::Args;
use faults::{Faults, KINDS};
use history::History;
use host::Host;
use judge::Judgement;
use lan::Lan;
use load::Person;

/// Most memory of a node's process, in megabytes.
const PEAK_MB_MAX: f64 = 150.0;
/// Patience with jobs that are not over when everything is well again; and more for each minute of load.
const SETTLE_S: u64 = 150;
/// Mean pause of a person between two deeds.
const PAUSE: Duration = Duration::from_millis(900);
/// Mean time between two faults on eight hosts.
const FAULT_EVERY: Duration = Duration::from_millis(1_800);
/// Details that are printed of each kind.
const DETAILS_MAX: usize = 20;

/// Carries a campaign out; false: something was lost or does not agree.
pub(crate) fn campaign(args: &Args) -> anyhow::Result<bool> {
    let Some(kinds) = kinds(&args.faults)? else { return Ok(true) };
    let v6 = find(args.v6.as_deref())?;
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ends))?;
    }
    let lan = match Lan::make(args.nodes as usize, args.seed) {
        Ok(lan) => lan,
        Err(error) => {
            eprintln!("campaign: skipped: no hosts of its own can be made here: {error:#}");
            if args.json {
                println!("{}", json!({ "seed": args.seed, "skipped": format!("{error:#}") }));
            }
            return Ok(true);
        }
    };
    let root = tempfile::Builder::new().prefix("v6-campaign-").disable_cleanup(args.keep).tempdir()?;
    let mut campaign = Campaign { args, lan, hosts: Arc::default(), history: Arc::default(), ends, kinds };
    let judged = campaign.carry_out(&v6, root.path());
    for host in campaign.hosts.iter() {
        host.clear();
    }
    if args.keep {
        eprintln!("campaign: the directories are in {}", root.path().display());
    }
    judged
}

/// The faults that are asked for. `None`: they were only to be listed.
fn kinds(asked: &str) -> anyhow::Result<Option<Vec<&'static str>>> {
    let all = KINDS.map(|(name, _)| name);
    Ok(Some(match asked {
        "list" => {
            for (name, what) in KINDS {
                println!("{name:<12} {what}");
            }
            return Ok(None);
        }
        "all" => all.to_vec(),
        "none" => Vec::new(),
        list => {
            let find = |name: &str| {
                let found = all.into_iter().find(|known| *known == name.trim());
                found.with_context(|| format!("--faults: no fault is called {name:?}; there are {}", all.join(", ")))
            };
            list.split(',').map(find).collect::<anyhow::Result<_>>()?
        }
    }))
}

/// The program under test.
fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return path.canonicalize().with_context(|| format!("--v6 {}: there is no such program", path.display()));
    }
    let beside = std::env::current_exe()?.with_file_name("v6");
    // `cargo run` builds this program only: the other one is to be as new.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "-p", "v6-node", "--manifest-path"]);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).stdin(Stdio::null());
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        anyhow::ensure!(command.status()?.success(), "v6 does not build");
    }
    if !beside.exists() {
        bail!("{} is not there: build it with `cargo build -p v6-node`, or name one with --v6", beside.display());
    }
    Ok(beside)
}

struct Campaign<'a> {
    args: &'a Args,
    lan: Lan,
    hosts: Arc<Vec<Host>>,
    history: Arc<History>,
    ends: Arc<AtomicBool>,
    kinds: Vec<&'static str>,
}

impl Campaign<'_> {
    fn carry_out(&mut self, v6: &Path, root: &Path) -> anyhow::Result<bool> {
        let mut hosts = Vec::new();
        for at in 0..self.args.nodes as usize {
            // A third of the disks are small.
            hosts.push(Host::new(at, self.lan.host(at), v6, root, at % 3 == 1)?);
        }
        self.hosts = Arc::new(hosts);
        self.begin()?;
        self.disturb();
        let patience = Duration::from_secs(SETTLE_S + self.args.seconds / 2);
        self.say("healed; waiting for what is open");
        let judgement = judge::judge(&self.hosts, &self.history, patience, &self.ends);
        if self.ends.load(Ordering::Relaxed) {
            bail!("interrupted: everything is cleaned up");
        }
        for host in self.hosts.iter() {
            if let Err(error) = host.stop() {
                self.history.problem(format!("{error:#}"));
            }
        }
        let leftovers = judge::leftovers(&self.hosts);
        Ok(self.report(&judgement, &leftovers))
    }

    fn say(&self, what: &str) {
        eprintln!("campaign: {what}");
    }

    /// The first host founds a mesh, the others join it.
    fn begin(&self) -> anyhow::Result<()> {
        let first = &self.hosts[0];
        first.start(&["--name", "host-0", "--slots", "2"])?;
        let uses = self.hosts.len().to_string();
        let ticket = first.v6(&["invite", "--uses", &uses, "--role", "worker", "--json"]);
        let ticket =
            ticket.json().and_then(|answer| answer["ticket"].as_str().map(str::to_owned)).context("no ticket")?;
        for host in &self.hosts[1..] {
            let name = format!("host-{}", host.at);
            host.start(&["--name", &name, "--slots", "2", "--join", &ticket])?;
        }
        let all = self.hosts.len() as u64 - 1;
        let begun = Instant::now();
        let sees_all = |host: &Host| host.v6(&["status", "--json"]).json().is_some_and(|s| s["peers_online"] == all);
        while !self.hosts.iter().all(sees_all) {
            anyhow::ensure!(begun.elapsed().as_secs() < 60, "the hosts do not find each other");
            std::thread::sleep(Duration::from_millis(200));
        }
        self.say(&format!("{} nodes; {} s of load and faults", self.hosts.len(), self.args.seconds));
        Ok(())
    }

    /// Load and faults, then everything is well again.
    fn disturb(&self) {
        let ends = Arc::new(AtomicBool::new(false));
        let person = |n: u32| {
            let seed = self.args.seed.wrapping_mul(1_000).wrapping_add(u64::from(n));
            Person::new(&self.hosts, &self.history, &ends, seed, PAUSE)
        };
        let mut people: Vec<_> = (0..self.args.people)
            .map(|n| {
                let person = person(n);
                std::thread::spawn(move || person.submit())
            })
            .collect();
        let looker = person(self.args.people);
        people.push(std::thread::spawn(move || looker.look()));
        let mut faults =
            Faults::new(&self.hosts, &self.lan.ways, &self.history, self.args.seed ^ 0x00fa_0175, self.kinds.clone());
        let every = FAULT_EVERY * 8 / self.args.nodes.max(4);
        let begun = Instant::now();
        let (mut next, mut told) = (begun + Duration::from_secs(2), begun);
        while begun.elapsed().as_secs() < self.args.seconds && !self.ends.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            faults.end_due(Instant::now());
            if Instant::now() >= next {
                faults.turn();
                next = Instant::now() + every;
            }
            for host in self.hosts.iter() {
                host.look_at_memory();
                if let Some(status) = host.fell() {
                    self.history.problem(format!("the node of host {} ended by itself: {status}", host.at));
                    if let Err(error) = host.start(&[]) {
                        self.history.problem(format!("{error:#}"));
                    }
                }
            }
            if told.elapsed().as_secs() >= 15 {
                told = Instant::now();
                let faults: u64 = self.history.faults().values().sum();
                self.say(&format!(
                    "{} s: {} jobs acknowledged, {faults} faults",
                    begun.elapsed().as_secs(),
                    self.history.jobs().len()
                ));
            }
        }
        faults.heal();
        ends.store(true, Ordering::Relaxed);
        for person in people {
            drop(person.join());
        }
        for host in self.hosts.iter().filter(|host| !host.is_up()) {
            if let Err(error) = host.start(&[]) {
                self.history.problem(format!("{error:#}"));
            }
        }
    }

    /// Prints what came of it; whether all was well.
    #[allow(clippy::cast_precision_loss, reason = "megabytes")]
    fn report(&self, judgement: &Judgement, leftovers: &[String]) -> bool {
        let double = self.history.double_accepted();
        let jobs = self.history.jobs();
        let peak_mb = self.hosts.iter().map(Host::peak_kb).max().unwrap_or(0) as f64 / 1_024.0;
        let recovered = self.hosts.iter().filter(|host| host.recovered.load(Ordering::Relaxed)).count();
        let received: u64 = (0..self.hosts.len()).map(|at| self.lan.ways.received(at)).sum();
        let problems = self.history.problems();
        let well = judgement.lost.is_empty()
            && double.is_empty()
            && judgement.inexact.is_empty()
            && judgement.started_twice.is_empty()
            && judgement.is_state_equal
            && judgement.are_slots_free
            && peak_mb <= PEAK_MB_MAX
            && leftovers.is_empty()
            && problems.is_empty();
        if self.args.json {
            let details = [&judgement.lost[..], &double, &judgement.inexact, &judgement.started_twice].concat();
            let report = json!({
                "seed": self.args.seed,
                "nodes": self.args.nodes,
                "seconds": self.args.seconds,
                "acknowledged_jobs": jobs.len(),
                "acknowledged_ideas": self.history.ideas().len(),
                "finished": judgement.finished,
                "owners_vanished": judgement.owners_vanished,
                "lost": judgement.lost.len(),
                "lost_with_the_only_disk": judgement.excused,
                "streams_lost_with_all_disks": judgement.excused_streams,
                "double_accepted": double.len(),
                "started_twice": judgement.started_twice.len(),
                "faults": self.history.faults(),
                "state_hash_equal": judgement.is_state_equal,
                "streams_exact": judgement.inexact.is_empty(),
                "slots_free": judgement.are_slots_free,
                "settled_s": judgement.settled_s,
                "recovered_stores": recovered,
                "peak_rss_mb": peak_mb.round(),
                "received_mb": received >> 20,
                "not_answered": self.history.refusals(),
                "not_tried": self.history.all_not_tried(),
                "leftovers": leftovers,
                "problems": problems,
                "details": details,
            });
            println!("{report}");
        } else {
            println!("seed {}: {} nodes, {} s", self.args.seed, self.args.nodes, self.args.seconds);
            println!("acknowledged {} jobs, {} ideas", jobs.len(), self.history.ideas().len());
            println!(
                "finished {}, lost {}, lost with the only disk {}",
                judgement.finished,
                judgement.lost.len(),
                judgement.excused
            );
            println!("accepted twice {}, started twice {}", double.len(), judgement.started_twice.len());
            println!(
                "one state {}, slots free {}, streams that differ {}",
                judgement.is_state_equal,
                judgement.are_slots_free,
                judgement.inexact.len()
            );
            println!("most memory of a node {peak_mb:.0} MB; {recovered} stores were damaged and begun anew");
            let faults: Vec<String> = self.history.faults().iter().map(|(kind, n)| format!("{n} {kind}")).collect();
            println!("faults: {}", faults.join(", "));
            for (what, list) in [
                ("lost", &judgement.lost),
                ("accepted twice", &double),
                ("differs", &judgement.inexact),
                ("started twice", &judgement.started_twice),
                ("left", &leftovers.to_vec()),
            ] {
                for line in list.iter().take(DETAILS_MAX) {
                    println!("{what}: {line}");
                }
            }
        }
        well
    }
}
