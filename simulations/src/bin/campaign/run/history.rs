//! What was acknowledged and what was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time within which what two nodes hold comes to the others: longer than any fault keeps them apart.
const SPREADS_WITHIN: Duration = Duration::from_secs(120);

/// What a job must end as.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Exit code of each task.
    pub(crate) exit: i64,
    /// Tasks.
    pub(crate) tasks: u32,
    /// stdout of each task, or a length and a hash of it.
    pub(crate) stdout: Vec<Bytes>,
    /// stderr of each task.
    pub(crate) stderr: Vec<u8>,
    /// A file among its artifacts and what is in it.
    pub(crate) file: Option<(&'static str, String)>,
    /// It may be started once at most: if its owner dies, a person takes it back.
    pub(crate) at_most_once: bool,
}

/// Bytes, by length and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) length: usize,
    pub(crate) hash: blake3::Hash,
}

impl Bytes {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len(), hash: blake3::hash(bytes) }
    }
}

/// A job that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// What it serves.
    pub(crate) idea: Option<String>,
    pub(crate) kind: &'static str,
    /// The host that it was submitted on.
    pub(crate) host: usize,
    pub(crate) at: Instant,
    /// Nodes that held it durably when it was acknowledged.
    pub(crate) durable_on: u64,
    pub(crate) expected: Expected,
}

/// An idea that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Idea {
    pub(crate) id: String,
    pub(crate) host: usize,
    pub(crate) at: Instant,
    pub(crate) durable_on: u64,
}

/// Results that were read, of one task.
pub(crate) type Accepted = BTreeSet<(u64, i64)>;

/// The whole history.
#[derive(Debug, Default)]
pub(crate) struct History {
    jobs: Mutex<Vec<Job>>,
    ideas: Mutex<Vec<Idea>>,
    /// Accepted attempts with their exit codes, as anybody ever read them.
    accepted: Mutex<BTreeMap<(String, u64), Accepted>>,
    /// When each host's disk was last destroyed or set back to an older one, and to when.
    set_back: Mutex<BTreeMap<usize, Vec<(Instant, Instant)>>>,
    problems: Mutex<Vec<String>>,
    refused: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    not_tried: Mutex<BTreeSet<String>>,
}

impl History {
    pub(crate) fn add_job(&self, job: Job) {
        self.jobs.lock().expect("no panic").push(job);
    }

    pub(crate) fn add_idea(&self, idea: Idea) {
        self.ideas.lock().expect("no panic").push(idea);
    }

    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().expect("no panic").clone()
    }

    pub(crate) fn ideas(&self) -> Vec<Idea> {
        self.ideas.lock().expect("no panic").clone()
    }

    /// Notes the accepted results in what `v6 job show --json` printed.
    pub(crate) fn read(&self, job: &str, shown: &serde_json::Value) {
        // While its submitter is away, what is shown may still change.
        if shown["provisional"] == true {
            return;
        }
        let mut accepted = self.accepted.lock().expect("no panic");
        for task in shown["tasks"].as_array().into_iter().flatten() {
            let (Some(index), Some(attempt)) = (task["index"].as_u64(), task["accepted_attempt"].as_u64()) else {
                continue;
            };
            let of = |a: &&serde_json::Value| a["attempt"].as_u64() == Some(attempt);
            let exit = task["attempts"].as_array().into_iter().flatten().find(of).and_then(|a| a["exit"].as_i64());
            if let Some(exit) = exit {
                accepted.entry((job.to_owned(), index)).or_default().insert((attempt, exit));
            }
        }
    }

    /// Tasks for which more than one result was ever read.
    pub(crate) fn double_accepted(&self) -> Vec<String> {
        let accepted = self.accepted.lock().expect("no panic");
        let twice = accepted.iter().filter(|(_, results)| results.len() > 1);
        twice.map(|((job, task), results)| format!("task {task} of {job}: {results:?}")).collect()
    }

    /// A host's disk lost what came after `to`.
    pub(crate) fn set_back(&self, host: usize, to: Instant) {
        self.set_back.lock().expect("no panic").entry(host).or_default().push((to, Instant::now()));
    }

    /// Whether what was acknowledged by this many nodes on a host at a time may be gone: as many disks that could have held it
    /// were lost before it can have come to others, that of the host among them.
    pub(crate) fn is_excused(&self, host: usize, at: Instant, durable_on: u64) -> bool {
        let set_back = self.set_back.lock().expect("no panic");
        let is_over = |(to, when): &&(Instant, Instant)| *to <= at && at <= *when;
        let is_soon = |(_, when): &(Instant, Instant)| durable_on < 2 || when.duration_since(at) <= SPREADS_WITHIN;
        let lost = |losses: &Vec<(Instant, Instant)>| losses.iter().filter(is_over).any(is_soon);
        let disks: Vec<usize> = set_back.iter().filter(|(_, losses)| lost(losses)).map(|(at, _)| *at).collect();
        disks.contains(&host) && disks.len() as u64 >= durable_on
    }

    /// When each host's disk was next lost after a time.
    fn next_losses(&self, at: Instant) -> BTreeMap<usize, Instant> {
        let set_back = self.set_back.lock().expect("no panic");
        let next = |losses: &Vec<(Instant, Instant)>| losses.iter().map(|loss| loss.1).filter(|when| *when >= at).min();
        set_back.iter().filter_map(|(host, losses)| Some((*host, next(losses)?))).collect()
    }

    /// Whether there are such hosts and each of them lost its disk after a time.
    pub(crate) fn all_lost(&self, hosts: &BTreeSet<usize>, at: Instant) -> bool {
        let losses = self.next_losses(at);
        !hosts.is_empty() && hosts.iter().all(|host| losses.contains_key(host))
    }

    /// What is known of the disks that were lost after something was acknowledged, for people.
    pub(crate) fn losses_after(&self, at: Instant) -> String {
        let later = |(host, when): (usize, Instant)| {
            format!("host {host} lost its disk {} s later", when.duration_since(at).as_secs())
        };
        self.next_losses(at).into_iter().map(later).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn problem(&self, problem: String) {
        eprintln!("campaign: {problem}");
        self.problems.lock().expect("no panic").push(problem);
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().expect("no panic").clone()
    }

    /// A command was not answered, or refused.
    pub(crate) fn refused(&self, why: &str) {
        *self.refused.lock().expect("no panic").entry(why.to_owned()).or_default() += 1;
    }

    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        self.refused.lock().expect("no panic").clone()
    }

    pub(crate) fn fault(&self, kind: &'static str) {
        *self.faults.lock().expect("no panic").entry(kind).or_default() += 1;
    }

    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.lock().expect("no panic").clone()
    }

    /// Something that this machine does not allow.
    pub(crate) fn not_tried(&self, what: String) {
        if self.not_tried.lock().expect("no panic").insert(what.clone()) {
            eprintln!("campaign: not tried: {what}");
        }
    }

    pub(crate) fn all_not_tried(&self) -> BTreeSet<String> {
        self.not_tried.lock().expect("no panic").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_by_hosts_whose_disks_were_all_lost_later_is_excused_and_nothing_else() {
        let (history, at) = (History::default(), Instant::now());
        history.set_back(1, at);
        assert!(history.all_lost(&[1].into(), at));
        assert!(!history.all_lost(&[1, 2].into(), at), "host 2 has its disk");
        assert!(!history.all_lost(&BTreeSet::new(), at), "nobody is known to have held it");
        let later = Instant::now();
        assert!(!history.all_lost(&[1].into(), later + Duration::from_secs(1)), "its disk was lost before");

        assert!(history.is_excused(1, at, 1));
        assert!(!history.is_excused(1, at, 2), "the other holder has its disk");
        assert!(!history.is_excused(2, at, 1), "it has its disk");
        history.set_back(2, at);
        assert!(history.is_excused(1, at, 2));
    }
}
