//! Unix: signals and `/proc`.

use std::fs;
use std::io::Read;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// What a cell needs to start: nothing, it is found by its path. `PATH` finds bwrap.
pub(super) const ENVIRONMENT: [&str; 1] = ["PATH"];
/// Rounds of looking for strays; each kills all that it sees, so that more are needed only while they fork.
const ROUNDS_MAX: usize = 20;
/// Bytes of an environment that are searched.
const ENVIRON_BYTES_MAX: u64 = 256 * 1024;

pub(super) fn kill_strays(cell_pid: Option<u32>, mark: &str) {
    for _ in 0..ROUNDS_MAX {
        let strays: Vec<i32> = processes().filter(|pid| is_stray(*pid, cell_pid, mark)).collect();
        if strays.is_empty() {
            return;
        }
        for pid in strays.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_stray(pid: i32, cell_pid: Option<u32>, mark: &str) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // pid (name) state ppid pgrp session: the name may hold anything.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_ascii_whitespace().take(4).collect();
    if fields.first() == Some(&"Z") {
        return false;
    }
    let session = fields.get(3).and_then(|n| n.parse::<u32>().ok());
    if session.is_some() && session == cell_pid {
        return true;
    }
    let mut bytes = Vec::new();
    let environ = fs::File::open(format!("/proc/{pid}/environ")).map(|file| file.take(ENVIRON_BYTES_MAX));
    if !environ.is_ok_and(|mut file| file.read_to_end(&mut bytes).is_ok()) {
        return false;
    }
    bytes.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())
}

pub(super) fn exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}
