//! What must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::history::{Bytes, History, Job};
use super::host::Host;

/// Time until slots are free and states agree, once all jobs are over.
const AGREE_MAX: Duration = Duration::from_secs(60);
/// Time until all nodes see each other: they try again after at most a minute, and a try may hang for a while.
const TOGETHER_MAX: Duration = Duration::from_secs(150);
/// Patience with ten megabytes from another host, beside three more readers.
const READ_MAX: Duration = Duration::from_secs(120);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) lost: Vec<String>,
    pub(crate) excused: usize,
    /// Of those, streams and files that every holder lost with its disk.
    pub(crate) excused_streams: usize,
    pub(crate) inexact: Vec<String>,
    pub(crate) finished: usize,
    /// Jobs that ended since three of their owners vanished.
    pub(crate) owners_vanished: usize,
    pub(crate) settled_s: Option<f64>,
    pub(crate) is_state_equal: bool,
    pub(crate) are_slots_free: bool,
    pub(crate) started_twice: Vec<String>,
}

/// Waits until every acknowledged job is over, and judges; less exactly when it is told to end.
pub(crate) fn judge(hosts: &[Host], history: &History, patience: Duration, ends: &AtomicBool) -> Judgement {
    let mut found = Judgement::default();
    let jobs = history.jobs();
    let begun = Instant::now();
    let mut last = BTreeMap::new();
    loop {
        let open = open_jobs(hosts, history, &jobs, &mut last);
        if open.is_empty() {
            found.settled_s = Some(begun.elapsed().as_secs_f64());
            break;
        }
        if begun.elapsed() > patience || ends.load(Ordering::Relaxed) {
            for job in open {
                let why = hosts[job.host].v6(&["job", "explain", &job.id]);
                let why = String::from_utf8_lossy(&why.stdout).lines().take(3).collect::<Vec<_>>().join("; ");
                let state = last.get(&job.id).cloned().unwrap_or_else(|| "unknown".into());
                found.lost.push(format!("{} {} of host {} is {state} ({why})", job.kind, job.id, job.host));
            }
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    if ends.load(Ordering::Relaxed) {
        return found;
    }
    agree(hosts, history, &mut found);
    together(hosts, history);
    each_job(hosts, history, &jobs, &mut found);
    ideas(hosts, history, &mut found);
    outcomes(hosts, history, &jobs);
    found
}

/// Jobs that are not over on the node that they were submitted on. A person takes back what was started once and whose
/// outcome nobody knows.
fn open_jobs<'a>(
    hosts: &[Host],
    history: &History,
    jobs: &'a [Job],
    last: &mut BTreeMap<String, String>,
) -> Vec<&'a Job> {
    let mut open = Vec::new();
    for host in hosts {
        let ours: Vec<&Job> = jobs.iter().filter(|job| job.host == host.at).collect();
        if ours.is_empty() {
            continue;
        }
        let rows = host.v6(&["jobs", "--json"]).json();
        let rows = rows.as_ref().and_then(Value::as_array).into_iter().flatten();
        let states: BTreeMap<&str, &str> =
            rows.filter_map(|row| Some((row["id"].as_str()?, row["state"].as_str()?))).collect();
        for job in ours {
            let Some(state) = states.get(job.id.as_str()) else {
                if !history.is_excused(job.host, job.at, job.durable_on) {
                    last.insert(job.id.clone(), "unknown".into());
                    open.push(job);
                }
                continue;
            };
            last.insert(job.id.clone(), (*state).to_owned());
            if matches!(*state, "done" | "failed" | "cancelled" | "skipped") {
                continue;
            }
            if job.expected.at_most_once && waits_for_a_person(host, job) {
                drop(host.v6(&["job", "cancel", &job.id]));
            }
            open.push(job);
        }
    }
    open
}

fn waits_for_a_person(host: &Host, job: &Job) -> bool {
    let why = host.v6(&["job", "explain", &job.id, "--json"]).json().unwrap_or_default();
    why["summary"].as_str().is_some_and(|summary| summary.contains("waits for a person"))
}

/// Waits until all nodes see each other.
fn together(hosts: &[Host], history: &History) {
    let (begun, others) = (Instant::now(), hosts.len() - 1);
    let sees_all = |host: &Host| host.v6(&["status", "--json"]).json().is_some_and(|s| s["peers_online"] == others);
    while !hosts.iter().all(sees_all) {
        if begun.elapsed() >= TOGETHER_MAX {
            return history.problem(format!("the nodes do not see each other within {} s", TOGETHER_MAX.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Waits until all slots are free and all nodes hold the same.
fn agree(hosts: &[Host], history: &History, found: &mut Judgement) {
    let begun = Instant::now();
    let mut seen = Vec::new();
    while begun.elapsed() < AGREE_MAX {
        seen = hosts.iter().map(|host| host.v6(&["status", "--json"]).json().unwrap_or_default()).collect::<Vec<_>>();
        found.are_slots_free = seen.iter().all(|status| status["slots_busy"] == 0);
        found.is_state_equal = seen.iter().all(|status| {
            status["state_hash"].is_string()
                && status["state_hash"] == seen[0]["state_hash"]
                && status["feeds"] == seen[0]["feeds"]
        });
        if found.are_slots_free && found.is_state_equal {
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    for (host, status) in hosts.iter().zip(&seen) {
        let feeds = status["feeds"].as_object().into_iter().flatten();
        let feeds: Vec<String> = feeds.map(|(author, head)| format!("{}:{}", &author[..4], head["seq"])).collect();
        history.problem(format!(
            "host {} does not agree: {} peers online, state {}, busy {}, feeds {}",
            host.at,
            status["peers_online"],
            status["state_hash"].as_str().unwrap_or("?").get(..8).unwrap_or("?"),
            status["slots_busy"],
            feeds.join(" ")
        ));
    }
}

/// Looks at each job on a node that is not its submitter's, byte for byte.
fn each_job(hosts: &[Host], history: &History, jobs: &[Job], found: &mut Judgement) {
    let (next, shared) = (AtomicUsize::new(0), Mutex::new(std::mem::take(found)));
    let id = |host: &Host| Some(host.v6(&["status", "--json"]).json()?["node"].as_str()?.to_owned());
    let nodes: BTreeMap<String, usize> = hosts.iter().filter_map(|host| Some((id(host)?, host.at))).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { break };
                    let host = &hosts[(job.host + 1 + at % (hosts.len() - 1)) % hosts.len()];
                    one_job(host, history, &nodes, job, &shared);
                }
            });
        }
    });
    *found = shared.into_inner().expect("no panic");
}

fn one_job(host: &Host, history: &History, nodes: &BTreeMap<String, usize>, job: &Job, found: &Mutex<Judgement>) {
    let note = |text: String| found.lock().expect("no panic").lost.push(text);
    let shown = host.v6(&["job", "show", &job.id, "--json"]);
    let Some(shown) = shown.json() else {
        if history.is_excused(job.host, job.at, job.durable_on) {
            found.lock().expect("no panic").excused += 1;
        } else {
            let (holders, losses) = (job.durable_on, history.losses_after(job.at));
            let about = format!("acknowledged by {holders} on host {}; {losses}", job.host);
            note(format!("{} {} is not known on host {}: {} ({about})", job.kind, job.id, host.at, shown.complaint()));
        }
        return;
    };
    history.read(&job.id, &shown);
    let tasks: Vec<&Value> = shown["tasks"].as_array().into_iter().flatten().collect();
    let started =
        |task: &Value| task["attempts"].as_array().into_iter().flatten().filter(|a| a["started"].is_string()).count();
    if job.expected.at_most_once && tasks.iter().any(|task| started(task) > 1) {
        found.lock().expect("no panic").started_twice.push(format!("{} was started more than once", job.id));
    }
    let state = shown["state"].as_str().unwrap_or_default();
    if job.expected.at_most_once && state == "cancelled" {
        found.lock().expect("no panic").finished += 1;
        return;
    }
    // The third owner in a row that vanishes ends a task, as it says.
    if state == "failed" && shown["reason"].as_str().is_some_and(|why| why.contains("owners vanish")) {
        let mut found = found.lock().expect("no panic");
        found.finished += 1;
        found.owners_vanished += 1;
        return;
    }
    let wished = if job.expected.exit == 0 { "done" } else { "failed" };
    if state != wished || tasks.len() != job.expected.tasks as usize {
        if matches!(state, "queued" | "claimed" | "running") {
            // Said already.
            return;
        }
        note(format!(
            "{} {} is {state} instead of {wished}, says host {}: {}",
            job.kind, job.id, host.at, shown["reason"]
        ));
        return;
    }
    found.lock().expect("no panic").finished += 1;
    for (task, expected) in tasks.iter().zip(&job.expected.stdout) {
        let Err(Wrong { what, is_missing }) = exact(host, job, task, expected) else { continue };
        let held_by = held_by(nodes, job, &shown, task);
        let mut found = found.lock().expect("no panic");
        // Disks that were lost excuse what is not there, and never what is there and wrong.
        if is_missing && history.all_lost(&held_by, job.at) {
            found.excused += 1;
            found.excused_streams += 1;
            continue;
        }
        let about =
            format!("held by hosts {held_by:?}; at risk: {}; {}", shown["at_risk"], history.losses_after(job.at));
        found
            .inexact
            .push(format!("{} {} of host {} on host {}: {what} ({about})", job.kind, job.id, job.host, host.at));
    }
}

/// The hosts that held a task's streams and files when it was accepted.
fn held_by(nodes: &BTreeMap<String, usize>, job: &Job, shown: &Value, task: &Value) -> BTreeSet<usize> {
    let accepted = |attempt: &&Value| attempt["attempt"] == task["accepted_attempt"] && attempt["duplicate"] != true;
    let attempt = task["attempts"].as_array().into_iter().flatten().find(accepted).unwrap_or(&Value::Null);
    let others = attempt["holders"].as_array().into_iter().flatten();
    let named = others.chain([&attempt["node"]]).filter_map(|node| nodes.get(node.as_str()?).copied());
    // Where it says nothing else, the submitter's node brought them to itself first.
    named.chain((shown["at_risk"] == false).then_some(job.host)).collect()
}

/// What is wrong with a task's streams or files, and whether they are only missing.
struct Wrong {
    what: String,
    is_missing: bool,
}

/// Whether a task's streams and files are what its program wrote.
fn exact(host: &Host, job: &Job, task: &Value, expected: &Bytes) -> Result<(), Wrong> {
    let index = task["index"].as_u64().unwrap_or(0).to_string();
    let attempt = match task["accepted_attempt"].as_u64() {
        Some(attempt) => attempt,
        // A failed one has none.
        None => {
            task["attempts"].as_array().into_iter().flatten().filter_map(|a| a["attempt"].as_u64()).max().unwrap_or(1)
        }
    };
    let attempt = attempt.to_string();
    let logs = host.v6_within(READ_MAX, &["logs", &job.id, "--attempt", &attempt, "--task", &index]);
    let got = Bytes::of(&logs.stdout);
    if got != *expected {
        let said = logs.complaint();
        let what = format!(
            "stdout of task {index}, attempt {attempt}: {} bytes instead of {} ({said})",
            got.length, expected.length
        );
        return Err(Wrong { what, is_missing: logs.code != Some(0) && got.length == 0 });
    }
    if logs.stderr != job.expected.stderr {
        let what = format!("stderr of task {index}: {:?}", logs.complaint());
        return Err(Wrong { what, is_missing: false });
    }
    if let Some((name, text)) = &job.expected.file {
        let dir = tempfile::tempdir_in(host.temporary())
            .map_err(|error| Wrong { what: error.to_string(), is_missing: false })?;
        let ran = host.v6_within(READ_MAX, &["get", &job.id, &dir.path().to_string_lossy()]);
        let got = std::fs::read_to_string(dir.path().join(name));
        let is_missing = got.is_err() && ran.code != Some(0);
        let got = got.unwrap_or_else(|_| ran.complaint());
        if got != *text {
            return Err(Wrong { what: format!("{name}: {got:?} instead of {text:?}"), is_missing });
        }
    }
    Ok(())
}

/// Looks for each idea on each node; each has one owner everywhere, and every entry is whole.
fn ideas(hosts: &[Host], history: &History, found: &mut Judgement) {
    let ideas = history.ideas();
    if ideas.is_empty() {
        return;
    }
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for host in hosts {
        let rows = host.v6(&["idea", "list", "--json"]).json();
        let rows = rows.as_ref().and_then(Value::as_array).into_iter().flatten();
        let known: BTreeMap<&str, &str> =
            rows.filter_map(|row| Some((row["id"].as_str()?, row["owner"].as_str()?))).collect();
        for idea in &ideas {
            if !known.contains_key(idea.id.as_str()) && !history.is_excused(idea.host, idea.at, idea.durable_on) {
                let (holders, losses) = (idea.durable_on, history.losses_after(idea.at));
                let about = format!("acknowledged by {holders} on host {}; {losses}", idea.host);
                found.lost.push(format!("idea {} is not known on host {} ({about})", idea.id, host.at));
            }
        }
        for (id, owner) in known {
            let first = owners.entry(id.to_owned()).or_insert_with(|| owner.to_owned());
            if first != owner {
                history.problem(format!("idea {id} is {owner}'s on host {} and {first}'s on another", host.at));
            }
        }
        let checked = host.v6(&["idea", "verify", "--json"]).json().unwrap_or_default();
        if checked["ok"] != true {
            let bad = checked["bad"].as_array().map_or(0, Vec::len);
            history.problem(format!(
                "the ledger of host {} does not verify: {bad} bad entries: {}",
                host.at, checked["bad"][0]
            ));
        }
    }
}

/// Looks whether each job has one outcome beside what it served.
fn outcomes(hosts: &[Host], history: &History, jobs: &[Job]) {
    let Some(host) = hosts.first() else { return };
    let mut of_ideas: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in jobs.iter().filter(|job| !history.is_excused(job.host, job.at, job.durable_on)) {
        of_ideas.entry(job.idea.as_deref().unwrap_or_default()).or_default().push(job);
    }
    for (idea, jobs) in of_ideas {
        let shown = host.v6(&["idea", "show", idea, "--json"]).json().unwrap_or_default();
        let over = shown["outcomes"].as_array().into_iter().flatten().filter_map(|outcome| outcome["job"].as_str());
        let over: Vec<&str> = over.collect();
        for job in jobs {
            let count = over.iter().filter(|id| **id == job.id).count();
            if count != 1 {
                history.problem(format!("{} ({}) has {count} outcomes beside its idea {idea}", job.id, job.kind));
            }
        }
    }
}

/// What should not be there when all nodes have been stopped.
pub(crate) fn leftovers(hosts: &[Host]) -> Vec<String> {
    let mut left = Vec::new();
    for host in hosts {
        for pid in host.pids() {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
            left.push(format!("host {}: process {} ({})", host.at, pid.as_raw_nonzero(), name.trim()));
        }
        for below in [host.temporary(), host.dir.join("work")] {
            for entry in std::fs::read_dir(&below).into_iter().flatten().flatten() {
                left.push(format!("host {}: {}", host.at, entry.path().display()));
            }
        }
        unfinished(&host.dir, &mut |path| left.push(format!("host {}: {}", host.at, path.display())));
    }
    left
}

/// Files that something was still being written to.
fn unfinished(dir: &Path, tell: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".tmp") || name.ends_with(".partial") || name.starts_with(".tmp") {
            tell(&path);
        } else if path.is_dir() {
            unfinished(&path, tell);
        }
    }
}
