//! Unix: signals and `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// What a cell needs to start: nothing, it is found by its path. `PATH` finds bwrap.
pub(super) const ENVIRONMENT: [&str; 1] = ["PATH"];
/// Rounds of looking for strays; each kills all that it sees, so that more are needed only while they fork.
const ROUNDS_MAX: usize = 20;
/// Bytes of an environment that are searched.
const ENVIRON_BYTES_MAX: u64 = 256 * 1024;

pub(super) fn kill_strays(cell_pid: Option<u32>, mark: &str) {
    kill_all(|pid| is_stray(pid, cell_pid, mark));
}

pub(super) fn kill_below(dir: &Path) -> usize {
    let prefix = [b"V6_CHECKPOINT_DIR=", dir.as_os_str().as_bytes(), b"/"].concat();
    let is_below = |pid: i32| {
        let works_there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        works_there || has_variable(pid, |entry| entry.starts_with(&prefix))
    };
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    kill_all(|pid| pid != me && !is_zombie(pid) && is_below(pid))
}

/// Kills all that are told out, until there are none; returns how many it met.
fn kill_all(is_meant: impl Fn(i32) -> bool) -> usize {
    let mut met = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let strays: Vec<i32> = processes().filter(|pid| is_meant(*pid)).collect();
        if strays.is_empty() {
            break;
        }
        met.extend(strays.iter().copied());
        for pid in strays.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    met.len()
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
    has_variable(pid, |entry| entry == mark.as_bytes())
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('Z'))
}

/// Whether an entry of the environment that a process was started with is what is looked for.
fn has_variable(pid: i32, is_it: impl Fn(&[u8]) -> bool) -> bool {
    let mut bytes = Vec::new();
    let environ = fs::File::open(format!("/proc/{pid}/environ")).map(|file| file.take(ENVIRON_BYTES_MAX));
    if !environ.is_ok_and(|mut file| file.read_to_end(&mut bytes).is_ok()) {
        return false;
    }
    bytes.split(|b| *b == 0).any(is_it)
}

pub(super) fn exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn processes_that_work_in_a_directory_or_name_it_are_ended_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().canonicalize().unwrap().join("work");
        let (run, beside) = (work.join("run/ws"), dir.path().join("workshop"));
        fs::create_dir_all(&run).unwrap();
        fs::create_dir_all(&beside).unwrap();
        let sleep = |cwd: &Path, checkpoints: &Path| {
            let mut command = Command::new("sleep");
            command.arg("60").current_dir(cwd).env("V6_CHECKPOINT_DIR", checkpoints).stdin(Stdio::null());
            command.spawn().unwrap()
        };
        let mut inside = sleep(&run, Path::new("/none"));
        let mut naming = sleep(Path::new("/"), &work.join("run/checkpoints"));
        let mut other = sleep(&beside, &beside);
        assert_eq!(kill_below(&work), 2);
        assert!(!inside.wait().unwrap().success() && !naming.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
