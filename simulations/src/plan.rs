//! What one run does: who submits what, and which faults come when. Drawn from a seed, or read from a scenario's file.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::faults::Fault;

/// Nodes that a run may have.
pub const NODES_MAX: u32 = 1_000;
/// Jobs that a run may have.
pub const JOBS_MAX: u32 = 1_000_000;
/// When the first job is submitted: the mesh has connected by then.
const FIRST_MS: u64 = 3_000;
/// Rate at which no-op jobs are submitted.
const NOOPS_PER_S: u64 = 50;
/// Virtual time that a mixed run takes at least before it heals.
const MIXED_MS: u64 = 40_000;

/// Mean time of each job of a long queue, and of who has some short ones beside it.
pub(crate) const HOG_MS: u64 = 700;
pub(crate) const GUEST_MS: u64 = 5;
/// Jobs of who has few, and the time until which nobody else submits any.
const GUESTS_JOBS: u32 = 20;
pub(crate) const GUESTS_UNTIL_MS: u64 = FIRST_MS + 8_000;

/// A job that somebody submits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Submit {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// On which node.
    pub node: u32,
    /// What it does: `work`, `make`, `fail`, `flaky`, `dice`.
    pub program: String,
    /// How long a task takes, on average.
    pub mean_ms: u64,
    /// Tasks; 0: a single job.
    #[serde(skip_serializing_if = "is_default")]
    pub array: u32,
    /// Jobs before it, by their place in the plan.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// Retries.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: u32,
    /// Priority.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Whether it may start but once.
    #[serde(skip_serializing_if = "is_default")]
    pub at_most_once: bool,
    /// The idea that it serves, by its place among what is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idea: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Something that somebody says in the ledger; ideas by their place among what is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// An idea.
    Idea,
    /// Offers an idea to a node's person.
    Offer(u32, u32),
    /// Takes an idea that was offered, perhaps to somebody else.
    Take(u32),
    /// What was seen of an idea.
    Observe(u32),
    /// Takes back an own observation of an idea, or else the idea.
    Retract(u32),
}

/// When, on which node, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saying {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// On which node.
    pub node: u32,
    /// What.
    pub say: Say,
}

/// Something that goes wrong, or that a person does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Nodes are on these sides of a partition from now on.
    Split(Vec<u8>),
    /// All sides are one again.
    Join,
    /// Nothing passes from the first to the second.
    OneWay(u32, u32),
    /// A node's links become slow.
    Slow(u32),
    /// A process ends; `true`: what it was writing is durable all the same.
    Crash(u32, bool),
    /// It is there again with its rows.
    Restart(u32),
    /// It is there again, and its store is found to be damaged.
    RestartDamaged(u32),
    /// Its rows are copied somewhere.
    Backup(u32),
    /// It is there again with the rows of its backup.
    RestartBackup(u32),
    /// It is gone with its disk.
    Burn(u32),
    /// Its disk is full for so many milliseconds.
    DiskFull(u32, u64),
    /// Its commits are slow for so many milliseconds.
    DiskSlow(u32, u64),
    /// It sleeps.
    Pause(u32),
    /// It wakes; `true`: its monotonic clock stood still meanwhile.
    Resume(u32, bool),
    /// Its wall clock jumps by so many milliseconds.
    Jump(u32, i64),
    /// The founder revokes it.
    Revoke(u32),
    /// A spare node is let in and starts without any rows.
    Admit(u32),
    /// It sells something else.
    Offer(u32),
    /// The submitter of a job cancels it.
    Cancel(u32),
    /// It signs two versions of its next bundle.
    Equivocate(u32),
    /// It sends bundles in another's name.
    Forge(u32),
    /// It sends again what it received.
    Replay(u32),
    /// It sends more than it should.
    Flood(u32),
}

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Seed of everything that is drawn while it runs.
    pub seed: u64,
    /// Members at the start.
    pub nodes: u32,
    /// Nodes that are let in later.
    #[serde(default)]
    pub spares: u32,
    /// Sites of a wide-area network.
    #[serde(default)]
    pub sites: u8,
    /// Site that hangs on a satellite.
    #[serde(default)]
    pub satellite: Option<u8>,
    /// Messages lost, doubled, of a million.
    #[serde(default)]
    pub loss_ppm: u32,
    /// Messages doubled, of a million.
    #[serde(default)]
    pub double_ppm: u32,
    /// Whether messages overtake each other.
    #[serde(default)]
    pub reorders: bool,
    /// Whether wall clocks differ by hours.
    #[serde(default)]
    pub skewed: bool,
    /// Members that claim and never run.
    #[serde(default)]
    pub idlers: Vec<u32>,
    /// What people say in the ledger, by time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub says: Vec<Saying>,
    /// Jobs.
    pub submits: Vec<Submit>,
    /// Faults and people, by time in milliseconds.
    #[serde(default)]
    pub steps: Vec<(u64, Step)>,
    /// When the last fault is over and all nodes that can be there are.
    pub heal_ms: u64,
    /// When the run ends at the latest.
    pub end_ms: u64,
}

impl Step {
    /// The nodes that it names.
    #[must_use]
    pub fn nodes(&self) -> Vec<u32> {
        match self {
            Self::Split(_) | Self::Join | Self::Cancel(_) => Vec::new(),
            Self::OneWay(a, b) => vec![*a, *b],
            Self::Slow(at)
            | Self::Crash(at, _)
            | Self::Restart(at)
            | Self::RestartDamaged(at)
            | Self::Backup(at)
            | Self::RestartBackup(at)
            | Self::Burn(at)
            | Self::DiskFull(at, _)
            | Self::DiskSlow(at, _)
            | Self::Pause(at)
            | Self::Resume(at, _)
            | Self::Jump(at, _)
            | Self::Revoke(at)
            | Self::Admit(at)
            | Self::Offer(at)
            | Self::Equivocate(at)
            | Self::Forge(at)
            | Self::Replay(at)
            | Self::Flood(at) => vec![*at],
        }
    }
}

impl Plan {
    /// Whether a plan that somebody wrote can be run: what it names is there.
    ///
    /// # Errors
    /// A sentence that names what is not.
    pub fn check(&self) -> Result<(), String> {
        let all = self.nodes.saturating_add(self.spares);
        if self.nodes == 0 || all > NODES_MAX {
            return Err(format!("it has {all} nodes: a mesh has 1 to {NODES_MAX}"));
        }
        let steps = self.steps.iter().flat_map(|(_, step)| step.nodes());
        let says = self.says.iter().flat_map(|saying| match saying.say {
            Say::Offer(_, to) => vec![saying.node, to],
            Say::Idea | Say::Take(_) | Say::Observe(_) | Say::Retract(_) => vec![saying.node],
        });
        let submits = self.submits.iter().map(|submit| submit.node);
        if let Some(node) =
            steps.chain(says).chain(submits).chain(self.idlers.iter().copied()).find(|node| *node >= all)
        {
            return Err(format!("it names node {node}, but its nodes are 0 to {}", all - 1));
        }
        let ideas = self.says.iter().filter_map(|saying| match saying.say {
            Say::Idea => None,
            Say::Offer(idea, _) | Say::Take(idea) | Say::Observe(idea) | Say::Retract(idea) => Some(idea),
        });
        let ideas = ideas.chain(self.submits.iter().filter_map(|submit| submit.idea));
        if let Some(idea) = ideas.into_iter().find(|idea| *idea as usize >= self.says.len()) {
            return Err(format!("it names the idea at place {idea}, but {} things are said", self.says.len()));
        }
        let after =
            self.submits.iter().enumerate().find(|(n, submit)| submit.after.iter().any(|up| *up as usize >= *n));
        if let Some((n, _)) = after {
            return Err(format!("job {n} waits for one that does not come before it"));
        }
        Ok(())
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Seed.
    pub seed: u64,
    /// Members.
    pub nodes: u32,
    /// Jobs.
    pub jobs: u32,
    /// Time over which they are submitted; `None`: as it fits.
    pub hours: Option<f64>,
    /// Faults that may be drawn.
    pub faults: Vec<Fault>,
}

struct Draw<'a> {
    rng: ChaCha8Rng,
    wish: &'a Wish,
    plan: Plan,
    from_ms: u64,
    until_ms: u64,
}

impl Plan {
    /// Draws a run: no-op jobs at a steady rate where no fault is asked for, else a mix of jobs and of the faults.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hours of a run are few")]
    pub fn draw(wish: &Wish) -> Self {
        let asked_ms = wish.hours.map(|hours| (hours * 3_600_000.0) as u64);
        let plan = Self { seed: wish.seed, nodes: wish.nodes, sites: 1, ..Self::default() };
        let rng = ChaCha8Rng::seed_from_u64(wish.seed ^ 0x51a7_e5ee_d000_0001);
        if wish.faults.is_empty() {
            let span_ms = asked_ms.unwrap_or(u64::from(wish.jobs) * 1_000 / NOOPS_PER_S).max(1);
            let mut draw = Draw { rng, wish, plan, from_ms: FIRST_MS, until_ms: FIRST_MS + span_ms };
            draw.noops();
            draw.plan.heal_ms = draw.until_ms;
            draw.plan.end_ms = draw.until_ms + 120_000;
            return draw.plan;
        }
        let span_ms = asked_ms.unwrap_or(MIXED_MS.max(u64::from(wish.jobs) * 100));
        let mut draw = Draw { rng, wish, plan, from_ms: FIRST_MS, until_ms: FIRST_MS + span_ms };
        draw.mix();
        let work_ms: u64 = draw.plan.submits.iter().map(|s| s.mean_ms * u64::from(s.array.max(1))).sum();
        draw.plan.heal_ms = draw.until_ms;
        for fault in Fault::ALL {
            // Each run has its own set of faults.
            if wish.faults.contains(&fault) && (wish.faults.len() == 1 || draw.rng.random_range(0..3) == 0) {
                draw.fault(fault);
            }
        }
        draw.plan.steps.sort_by_key(|(at, _)| *at);
        draw.ledger();
        draw.plan.end_ms = draw.plan.heal_ms + 240_000 + 4 * work_ms / u64::from(wish.nodes);
        draw.plan
    }
}

impl Draw<'_> {
    fn noops(&mut self) {
        let submitters = self.wish.nodes.min(10);
        for n in 0..self.wish.jobs {
            let at_ms = self.from_ms + (self.until_ms - self.from_ms) * u64::from(n) / u64::from(self.wish.jobs);
            let node = self.rng.random_range(0..submitters);
            self.plan.submits.push(Submit { at_ms, node, program: "work".into(), mean_ms: 1, ..Submit::default() });
        }
    }

    fn node(&mut self) -> u32 {
        self.rng.random_range(0..self.wish.nodes)
    }

    /// A node other than the founder, whom most stories need.
    fn other(&mut self) -> u32 {
        if self.wish.nodes > 1 { self.rng.random_range(1..self.wish.nodes) } else { 0 }
    }

    fn time(&mut self) -> u64 {
        self.rng.random_range(self.from_ms..self.until_ms)
    }

    fn mix(&mut self) {
        // Sometimes one person's long queue stands beside another's few tasks.
        let queue = if self.rng.random_range(0..3) == 0 { self.wish.jobs / 2 } else { 0 };
        let hog = self.node();
        let guest = (hog + 1) % self.wish.nodes;
        for n in 0..self.wish.jobs {
            let plain = Submit { program: "work".into(), ..Submit::default() };
            let submit = if n < queue {
                Submit { at_ms: self.from_ms + u64::from(n), node: hog, mean_ms: HOG_MS, ..plain }
            } else if queue > 0 && n < queue + GUESTS_JOBS {
                let at_ms = self.from_ms + 800 + u64::from(n - queue);
                Submit { at_ms, node: guest, mean_ms: GUEST_MS, ..plain }
            } else {
                let begins = if queue > 0 { GUESTS_UNTIL_MS.min(self.until_ms / 2) } else { self.from_ms };
                let at_ms = self.rng.random_range(begins..self.until_ms);
                Submit { at_ms, ..self.job() }
            };
            self.plan.submits.push(submit);
        }
        self.plan.submits.sort_by_key(|s| s.at_ms);
        self.graph();
    }

    fn job(&mut self) -> Submit {
        let node = self.node();
        let mean_ms = *[5, 20, 100, 400, 1_500, 6_000].choose(&mut self.rng).expect("some");
        let mut submit = Submit { node, program: "work".into(), mean_ms, ..Submit::default() };
        match self.rng.random_range(0..20) {
            0 | 1 => submit.array = self.rng.random_range(2..40),
            2 => submit.program = "make".into(),
            3 => submit.program = "fail".into(),
            4 => {
                submit.program = "flaky".into();
                submit.retries = 1;
            }
            5 => {
                submit.program = "dice".into();
                submit.retries = self.rng.random_range(0..3);
            }
            6 => submit.priority = self.rng.random_range(-2..3),
            7 => submit.labels = vec!["big".into()],
            8 => submit.labels = vec!["gpu".into()],
            9..=12 => submit.at_most_once = true,
            _ => {}
        }
        if submit.array > 0 {
            submit.mean_ms = submit.mean_ms.min(200);
        }
        submit
    }

    /// Some jobs wait for earlier ones of the same node.
    fn graph(&mut self) {
        for n in 1..self.plan.submits.len() {
            if self.rng.random_range(0..6) != 0 {
                continue;
            }
            let node = self.plan.submits[n].node;
            let before: Vec<u32> = (0..n)
                .filter(|m| self.plan.submits[*m].node == node)
                .map(|m| u32::try_from(m).expect("few jobs"))
                .collect();
            let chosen = before.choose(&mut self.rng).copied();
            self.plan.submits[n].after = chosen.into_iter().collect();
        }
    }

    /// Half of the runs have a ledger. Drawn by itself: the rest of a run is the same with it and without.
    fn ledger(&mut self) {
        self.rng = ChaCha8Rng::seed_from_u64(self.wish.seed ^ 0x51a7_e5ee_d000_0002);
        if self.rng.random_range(0..2) == 0 {
            return;
        }
        let ideas = 1 + self.wish.jobs / 10;
        for _ in 0..ideas {
            let (at_ms, node) = (self.rng.random_range(self.from_ms..self.until_ms), self.node());
            self.plan.says.push(Saying { at_ms, node, say: Say::Idea });
        }
        for _ in 0..3 * ideas {
            let idea = self.rng.random_range(0..ideas);
            let of = &self.plan.says[idea as usize];
            let (begins, author) = (of.at_ms, of.node);
            let at_ms = self.rng.random_range(begins..self.until_ms.max(begins + 1));
            let node = self.node();
            let (node, say) = match self.rng.random_range(0..6) {
                0 | 1 => (author, Say::Offer(idea, node)),
                2 | 3 => (node, Say::Take(idea)),
                4 => (node, Say::Observe(idea)),
                _ => (node, Say::Retract(idea)),
            };
            self.plan.says.push(Saying { at_ms, node, say });
        }
        for at in 0..self.plan.submits.len() {
            let at_ms = self.plan.submits[at].at_ms;
            let said = (0..ideas).filter(|idea| self.plan.says[*idea as usize].at_ms < at_ms);
            // The newest one: not everybody has heard of it.
            let newest = said.max_by_key(|idea| self.plan.says[*idea as usize].at_ms);
            if self.rng.random_range(0..3) == 0 {
                self.plan.submits[at].idea = newest;
            }
        }
    }

    fn put(&mut self, at_ms: u64, step: Step) {
        self.plan.steps.push((at_ms, step));
    }

    /// Ends a process and has it back before all is healed.
    fn outage(&mut self, restart: impl FnOnce(u32) -> Step) {
        let (node, at) = (self.node(), self.time());
        let keep = self.rng.random();
        let back = (at + self.rng.random_range(200..15_000)).min(self.until_ms);
        self.put(at, Step::Crash(node, keep));
        self.put(back, restart(node));
    }

    fn fault(&mut self, fault: Fault) {
        let rounds = self.rng.random_range(1..4);
        match fault {
            Fault::Wan => self.plan.sites = self.rng.random_range(2..4),
            Fault::Satellite => {
                self.plan.sites = self.plan.sites.max(2);
                self.plan.satellite = Some(1);
            }
            Fault::Loss => self.plan.loss_ppm = self.rng.random_range(1_000..80_000),
            Fault::Duplicate => self.plan.double_ppm = self.rng.random_range(1_000..80_000),
            Fault::Reorder => self.plan.reorders = true,
            Fault::Skew => self.plan.skewed = true,
            Fault::IdleClaim => {
                let idler = self.other();
                self.plan.idlers.push(idler);
            }
            Fault::Crash => (0..rounds).for_each(|_| self.outage(Step::Restart)),
            Fault::BitFlip => self.outage(Step::RestartDamaged),
            Fault::Backup => {
                let (node, at) = (self.node(), self.time());
                let crash = self.rng.random_range(at..self.until_ms);
                self.put(at, Step::Backup(node));
                self.put(crash, Step::Crash(node, true));
                self.put((crash + 2_000).min(self.until_ms), Step::RestartBackup(node));
            }
            Fault::Partition => self.partitions(rounds),
            Fault::OneWay => {
                let (a, b, at) = (self.node(), self.node(), self.time());
                self.put(at, Step::OneWay(a, b));
            }
            Fault::SlowPeer => {
                let (node, at) = (self.node(), self.time());
                self.put(at, Step::Slow(node));
            }
            Fault::Burn | Fault::DiskFull | Fault::SlowFsync | Fault::Pause | Fault::ClockJump => {
                self.fault_of_machine(fault, rounds);
            }
            Fault::Revoke
            | Fault::Join
            | Fault::Offer
            | Fault::Cancel
            | Fault::Equivocate
            | Fault::Forge
            | Fault::Replay
            | Fault::Flood => {
                self.fault_of_people(fault, rounds);
            }
        }
    }

    fn partitions(&mut self, rounds: u32) {
        let mut at = self.time();
        for _ in 0..rounds {
            let sides = self.rng.random_range(2..4);
            let mut side: Vec<u8> = (0..self.wish.nodes).map(|_| self.rng.random_range(0..sides)).collect();
            side.shuffle(&mut self.rng);
            self.put(at, Step::Split(side));
            at += self.rng.random_range(1_000..20_000);
            self.put(at.min(self.until_ms), Step::Join);
            at += self.rng.random_range(100..5_000);
            if at >= self.until_ms {
                break;
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller sorts them")]
    fn fault_of_machine(&mut self, fault: Fault, rounds: u32) {
        for _ in 0..rounds {
            let (node, at) = (self.node(), self.time());
            let ms = self.rng.random_range(500..12_000);
            let end = (at + ms).min(self.until_ms);
            match fault {
                Fault::Burn => {
                    let node = self.other();
                    self.put(at, Step::Burn(node));
                    return;
                }
                Fault::DiskFull => self.put(at, Step::DiskFull(node, end - at)),
                Fault::SlowFsync => self.put(at, Step::DiskSlow(node, end - at)),
                Fault::Pause => {
                    let stands = self.rng.random();
                    self.put(at, Step::Pause(node));
                    self.put(end, Step::Resume(node, stands));
                }
                other => {
                    debug_assert_eq!(other, Fault::ClockJump, "the last of those of a machine");
                    let jump = self.rng.random_range(-7_200_000..7_200_000);
                    self.put(at, Step::Jump(node, jump));
                }
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the caller sorts them")]
    fn fault_of_people(&mut self, fault: Fault, rounds: u32) {
        for _ in 0..rounds {
            let (node, at) = (self.other(), self.time());
            match fault {
                Fault::Revoke => {
                    self.put(at, Step::Revoke(node));
                    return;
                }
                Fault::Join => {
                    let spare = self.wish.nodes + self.plan.spares;
                    self.plan.spares += 1;
                    self.put(at, Step::Admit(spare));
                }
                Fault::Offer => self.put(at, Step::Offer(node)),
                Fault::Cancel => {
                    let job = self.rng.random_range(0..self.wish.jobs.max(1));
                    let when = self.plan.submits.get(job as usize).map_or(at, |s| s.at_ms);
                    let after = self.rng.random_range(50..3_000);
                    self.put(when + after, Step::Cancel(job));
                }
                Fault::Equivocate => {
                    self.put(at, Step::Equivocate(node));
                    return;
                }
                Fault::Forge => self.put(at, Step::Forge(node)),
                Fault::Replay => self.put(at, Step::Replay(node)),
                other => {
                    debug_assert_eq!(other, Fault::Flood, "the last of those of people");
                    self.put(at, Step::Flood(node));
                }
            }
        }
    }
}
