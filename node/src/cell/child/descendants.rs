//! The processes below the cell, read from `/proc`, and their end.
//!
//! The cell is their subreaper: whatever they do (double fork, setsid), they stay below it. A task's processes are those
//! below its main process, its process group, and orphans whose environment names it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{Ended, Reaped, reap};

/// Processes that one look collects; the next look sees the rest.
const PROCESSES_MAX: usize = 16 * 1024;
/// How long the cell stands still for killing leftovers, in milliseconds; it goes on later with what still lives.
const SWEEP_MS_MAX: u64 = 1_000;
/// Bytes of an environment in which a task's index is searched.
const ENVIRON_BYTES_MAX: u64 = 256 * 1024;

/// Direct children of a process (all its threads').
pub(super) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// Everything below a process, parents first, without itself.
pub(super) fn below(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len() && found.len() < PROCESSES_MAX {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

/// The task that a process was started for, by the environment it began with.
pub(super) fn task_of(pid: i32) -> Option<u32> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/environ")).ok()?.take(ENVIRON_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let value = bytes.split(|b| *b == 0).find_map(|entry| entry.strip_prefix(b"V6_TASK_ID="))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Sends SIGKILL to a process, which may have ended.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Kills and reaps every process below the cell for which `is_prey` holds; `kept` are direct children that others reap.
/// Returns whether some of it still lives.
pub(super) fn sweep(kept: &[i32], is_prey: impl Fn(i32) -> bool) -> bool {
    let own = rustix::process::getpid().as_raw_pid();
    let until = Instant::now() + Duration::from_millis(SWEEP_MS_MAX);
    loop {
        let orphans: Vec<i32> = children(own).into_iter().filter(|pid| !kept.contains(pid) && is_prey(*pid)).collect();
        let mut alive = false;
        for orphan in orphans {
            for pid in below(orphan) {
                kill(pid);
            }
            kill(orphan);
            alive |= matches!(reap(orphan), Ok(Reaped::Running));
        }
        // What is reaped leaves its children to the cell: look again until there is nothing.
        if !alive && !children(own).into_iter().any(|pid| !kept.contains(&pid) && is_prey(pid)) {
            return false;
        }
        if Instant::now() > until {
            return true;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Kills everything below the cell, whoever started it.
pub(super) fn sweep_all() -> bool {
    match reap_any() {
        None => false,
        Some(_) => sweep(&[], |_| true),
    }
}

/// Reaps all that has ended, when no task is left to miss it: `None` when there is no child at all.
fn reap_any() -> Option<Vec<Ended>> {
    let mut ended = Vec::new();
    loop {
        match reap(-1) {
            Ok(Reaped::One(one)) => ended.push(one),
            Ok(Reaped::Running) | Err(_) => return Some(ended),
            Ok(Reaped::NoChild) => return None,
        }
    }
}

/// Resident bytes of each task: its main process with all below it, and the orphans that name it. Orphans that name no
/// running task count for the first one.
pub(super) fn resident_bytes(tasks: &[(u32, i32)]) -> BTreeMap<u32, u64> {
    let own = rustix::process::getpid().as_raw_pid();
    let mut sums = BTreeMap::new();
    for child in children(own) {
        let main = tasks.iter().find(|(_, pid)| *pid == child).map(|(task, _)| *task);
        let named = || task_of(child).filter(|task| tasks.iter().any(|(running, _)| running == task));
        let Some(task) = main.or_else(named).or(tasks.first().map(|(task, _)| *task)) else { continue };
        let sum: u64 = std::iter::once(child).chain(below(child)).map(resident).sum();
        *sums.entry(task).or_insert(0) += sum;
    }
    sums
}

/// The bytes that are this process's own: what it shares with files and other processes is not counted.
fn resident(pid: i32) -> u64 {
    let Ok(statm) = fs::read_to_string(format!("/proc/{pid}/statm")) else { return 0 };
    let mut fields = statm.split_ascii_whitespace().skip(1).map_while(|n| n.parse::<u64>().ok());
    let (resident, shared) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    resident.saturating_sub(shared) * rustix::param::page_size() as u64
}
