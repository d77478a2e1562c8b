//! What people do meanwhile: they submit jobs of all kinds, add ideas, and look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::history::{Bytes, Expected, History, Idea, Job};
use super::host::Host;

/// Lines of a long stream: eight bytes each, ten megabytes in all.
const STREAM_LINES: u64 = 1_310_720;
/// Steps of a job that writes checkpoints.
const STEPS: u32 = 10;
/// Time after which an idea is named by others.
const IDEA_KNOWN_AFTER: Duration = Duration::from_secs(10);
/// Tasks of an array.
const ARRAY: u32 = 12;

/// What people submit, and how often of a hundred times.
const KINDS: [(&str, u32); 8] = [
    ("line", 30),
    ("sleeper", 22),
    ("array", 10),
    ("checkpoints", 10),
    ("graph", 8),
    ("failing", 8),
    ("once", 6),
    ("stream", 6),
];

/// A person's loop.
pub(crate) struct Person {
    pub(crate) hosts: Arc<Vec<Host>>,
    pub(crate) history: Arc<History>,
    pub(crate) ends: Arc<AtomicBool>,
    pub(crate) rng: ChaCha8Rng,
    /// Mean pause between two deeds.
    pub(crate) pause: Duration,
    number: u64,
}

impl Person {
    pub(crate) fn new(
        hosts: &Arc<Vec<Host>>,
        history: &Arc<History>,
        ends: &Arc<AtomicBool>,
        seed: u64,
        pause: Duration,
    ) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (hosts, history, ends) = (Arc::clone(hosts), Arc::clone(history), Arc::clone(ends));
        Self { hosts, history, ends, rng, pause, number: (seed % 1_000) * 1_000 }
    }

    /// Submits until it is told to end.
    pub(crate) fn submit(mut self) {
        let mut has_ideas = true;
        while !self.ends.load(Ordering::Relaxed) {
            let host = self.rng.random_range(0..self.hosts.len());
            if self.hosts[host].is_up() {
                if has_ideas && self.rng.random_range(0..4) == 0 {
                    has_ideas = self.idea(host);
                } else {
                    self.job(host);
                }
            }
            std::thread::sleep(self.pause.mul_f64(self.rng.random_range(0.2..1.8)));
        }
    }

    /// Looks at jobs, anywhere, until it is told to end.
    pub(crate) fn look(mut self) {
        while !self.ends.load(Ordering::Relaxed) {
            let jobs = self.history.jobs();
            let newest = &jobs[jobs.len().saturating_sub(60)..];
            if let Some(job) = newest.choose(&mut self.rng) {
                let host = &self.hosts[self.rng.random_range(0..self.hosts.len())];
                if host.is_well() {
                    let shown = host.v6(&["job", "show", &job.id, "--json"]);
                    if let Some(shown) = shown.json() {
                        self.history.read(&job.id, &shown);
                    }
                }
            }
            std::thread::sleep(self.pause.mul_f64(self.rng.random_range(0.2..1.8)));
        }
    }

    /// An idea that has had time to come to all.
    fn known_idea(&mut self) -> Option<String> {
        let ideas = self.history.ideas();
        let known: Vec<&Idea> = ideas.iter().filter(|idea| idea.at.elapsed() > IDEA_KNOWN_AFTER).collect();
        known.choose(&mut self.rng).map(|idea| idea.id.clone())
    }

    /// Offers an idea to two people at once, who both take it: one of them gets it.
    fn hand_over(&mut self, idea: &str) {
        for _ in 0..2 {
            let (from, to) = (self.rng.random_range(0..self.hosts.len()), self.rng.random_range(0..self.hosts.len()));
            let (from, to) = (&self.hosts[from], &self.hosts[to]);
            if from.is_well() && to.is_well() {
                // Whoever does not own it is refused; nothing of it is acknowledged to anybody.
                drop(from.v6(&["idea", "transfer", idea, &format!("host-{}", to.at)]));
                drop(to.v6(&["idea", "transfer", idea, "--accept"]));
            }
        }
    }

    /// Adds an idea, or hands one over; false: this `v6` knows none.
    fn idea(&mut self, host: usize) -> bool {
        if self.rng.random_range(0..4) == 0
            && let Some(idea) = self.known_idea()
        {
            self.hand_over(&idea);
            return true;
        }
        self.number += 1;
        let title = format!("فكرة {} of host {host}", self.number);
        let ran = self.hosts[host].v6(&["idea", "add", &title, "--json"]);
        if ran.code == Some(2) {
            self.history.not_tried(format!("ideas: {}", ran.complaint()));
            return false;
        }
        match ran.json() {
            Some(answer) => self.history.add_idea(Idea {
                id: answer["id"].as_str().unwrap_or_default().to_owned(),
                host,
                at: Instant::now(),
                durable_on: answer["durable_on"].as_u64().unwrap_or(1),
            }),
            None => self.history.refused(&reason(ran.code)),
        }
        true
    }

    fn job(&mut self, host: usize) {
        self.number += 1;
        let kind = KINDS.choose_weighted(&mut self.rng, |(_, weight)| *weight).expect("some").0;
        let number = self.number;
        if kind == "graph" {
            return self.graph(host);
        }
        let (options, script, expected) = work(kind, number, &mut self.rng);
        let key = format!("campaign-{number}");
        let mut args = vec!["run", "--detach", "--json", "--key", &key];
        args.extend(options.iter().map(String::as_str));
        let idea = if self.rng.random_range(0..3) == 0 { self.known_idea() } else { None };
        args.extend(idea.iter().flat_map(|idea| ["--idea", idea]));
        args.extend(["--", "sh", "-c", &script]);
        let ran = self.hosts[host].v6(&args);
        match ran.json() {
            Some(answer) => self.acknowledged(&answer, kind, host, expected),
            None => self.history.refused(&reason(ran.code)),
        }
    }

    /// Three jobs that wait for each other.
    fn graph(&mut self, host: usize) {
        let file = self.hosts[host].temporary().join(format!("graph-{}.toml", self.number));
        let mut text = String::new();
        for (name, after) in [("a", ""), ("b", "after = [\"a\"]\n"), ("c", "after = [\"a\", \"b\"]\n")] {
            text.push_str(&format!(
                "[[job]]\nname = \"{name}\"\ncommand = [\"sh\", \"-c\", \"echo {name} {}\"]\n{after}\n",
                self.number
            ));
        }
        if std::fs::write(&file, text).is_err() {
            return;
        }
        let ran = self.hosts[host].v6(&["submit", &file.to_string_lossy(), "--json"]);
        drop(std::fs::remove_file(&file));
        let Some(answer) = ran.json() else { return self.history.refused(&reason(ran.code)) };
        for (name, answer) in ["a", "b", "c"].iter().zip(answer.as_array().into_iter().flatten()) {
            let stdout = Bytes::of(format!("{name} {}\n", self.number).as_bytes());
            let expected = Expected { tasks: 1, stdout: vec![stdout], ..Expected::default() };
            self.acknowledged(answer, "graph", host, expected);
        }
    }

    fn acknowledged(&self, answer: &serde_json::Value, kind: &'static str, host: usize, expected: Expected) {
        let Some(id) = answer["job"].as_str() else {
            return self.history.problem(format!("host {host} acknowledged a job without its id: {answer}"));
        };
        let durable_on = answer["durable_on"].as_u64().unwrap_or(1);
        let idea = answer["idea"].as_str().map(str::to_owned);
        self.history.add_job(Job { id: id.to_owned(), idea, kind, host, at: Instant::now(), durable_on, expected });
    }
}

fn reason(code: Option<i32>) -> String {
    code.map_or("no answer in time".to_owned(), |code| format!("exit {code}"))
}

/// Options, script and what comes of it.
fn work(kind: &'static str, number: u64, rng: &mut ChaCha8Rng) -> (Vec<String>, String, Expected) {
    let one = |stdout: String| Expected { tasks: 1, stdout: vec![Bytes::of(stdout.as_bytes())], ..Expected::default() };
    match kind {
        "sleeper" => {
            let seconds = rng.random_range(1..6);
            let script = format!("echo begin {number}; sleep {seconds}; echo end {number} نهاية; echo warned >&2");
            let expected = one(format!("begin {number}\nend {number} نهاية\n"));
            (Vec::new(), script, Expected { stderr: b"warned\n".to_vec(), ..expected })
        }
        "array" => {
            let stdout = (0..ARRAY).map(|task| Bytes::of(format!("{number}.{task}\n").as_bytes())).collect();
            let expected = Expected { tasks: ARRAY, stdout, ..Expected::default() };
            (vec!["--array".into(), ARRAY.to_string()], format!("sleep 0.1; echo {number}.$V6_TASK_ID"), expected)
        }
        "checkpoints" => {
            let script = format!(
                "n=0; if [ -n \"$V6_RESUME_DIR\" ]; then n=$(cat \"$V6_RESUME_DIR/n\"); fi\n\
                 while [ $n -lt {STEPS} ]; do n=$((n+1)); d=\"$V6_CHECKPOINT_DIR/step-$n\"; mkdir \"$d.tmp\"; echo $n > \"$d.tmp/n\"; \
                 mv \"$d.tmp\" \"$d\"; sleep 0.5; done\nmkdir -p out; echo {number} came to $n > out/result.txt; echo finished {number}"
            );
            let file = Some(("out/result.txt", format!("{number} came to {STEPS}\n")));
            (vec!["--output".into(), "out/**".into()], script, Expected { file, ..one(format!("finished {number}\n")) })
        }
        "failing" => {
            let expected = Expected { exit: 7, stderr: b"broken\n".to_vec(), ..one(String::new()) };
            (Vec::new(), "echo broken >&2; exit 7".into(), expected)
        }
        "once" => {
            let expected = Expected { at_most_once: true, ..one(format!("once {number}\n")) };
            (vec!["--at-most-once".into()], format!("echo once {number}; sleep 1"), expected)
        }
        "stream" => {
            let first = 1_000_000 + number % 7_000 * 1_000;
            let last = first + STREAM_LINES - 1;
            let mut text = String::with_capacity(11 << 20);
            for line in first..=last {
                text.push_str(&format!("{line}\n"));
            }
            (Vec::new(), format!("seq {first} {last}"), one(text))
        }
        _ => (Vec::new(), format!("echo line {number}"), one(format!("line {number}\n"))),
    }
}
