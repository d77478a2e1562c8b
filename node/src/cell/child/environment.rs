//! What a task finds in its environment, and the program that its command names.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cell::PRIVATE_DIR;
use crate::cell::wire::{Hello, MARK_VARIABLE};

/// Where programs are looked up, before the owner's toolchains.
const BASE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment that all tasks of a job share, and the program that they run.
#[derive(Debug)]
pub(super) struct Environment {
    shared: Vec<(OsString, OsString)>,
    search: OsString,
}

impl Environment {
    pub(super) fn new(hello: &Hello) -> Self {
        let (spec, owner_home) = (&hello.spec, hello.owner_home.as_deref());
        let private = spec.workspace.join(PRIVATE_DIR);
        let mut shared: Vec<(OsString, OsString)> = Vec::new();
        let mut set = |key: &str, value: OsString| {
            shared.retain(|(known, _)| known.as_os_str() != key);
            shared.push((key.into(), value));
        };
        set("PATH", search_path(owner_home));
        set("LANG", "C.UTF-8".into());
        set("SHELL", "/bin/sh".into());
        set("USER", "v6".into());
        set("LOGNAME", "v6".into());
        set("HOME", home(&private).into());
        set("TMPDIR", tmp(&private).into());
        if let Some(rustup) = owner_home.map(|home| home.join(".rustup")).filter(|dir| dir.is_dir()) {
            set("RUSTUP_HOME", rustup.into());
        }
        if !spec.network {
            set("CARGO_NET_OFFLINE", "true".into());
        }
        for (key, value) in &spec.env {
            set(key, value.into());
        }
        set("V6_JOB_ID", spec.job.to_string().into());
        set("V6_TRACE_ID", spec.trace.to_string().into());
        set("V6_ATTEMPT", spec.attempt.to_string().into());
        set("V6_CHECKPOINT_DIR", spec.checkpoint_dir.clone().into());
        set(MARK_VARIABLE, (&hello.mark).into());
        if let Some(dir) = &spec.resume_dir {
            set("V6_RESUME_DIR", dir.clone().into());
        }
        let search = shared.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone()).unwrap_or_default();
        shared.retain(|(key, _)| key != "V6_TASK_ID" && (spec.resume_dir.is_some() || key != "V6_RESUME_DIR"));
        Self { shared, search }
    }

    /// The variables but `V6_TASK_ID`.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.shared.iter().map(|(key, value)| (key, value))
    }

    /// The path of a program, looked up as execvp(3) does; `name` itself when it has a `/` or is not found.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        if name.contains('/') {
            return name.into();
        }
        let dirs = self.search.as_bytes().split(|b| *b == b':').filter(|dir| !dir.is_empty());
        let candidates = dirs.map(|dir| Path::new(std::ffi::OsStr::from_bytes(dir)).join(name));
        candidates.into_iter().find(|path| is_program(path)).unwrap_or_else(|| name.into())
    }
}

/// `HOME` of the tasks.
pub(super) fn home(private: &Path) -> PathBuf {
    private.join("home")
}

/// `TMPDIR` of the tasks.
pub(super) fn tmp(private: &Path) -> PathBuf {
    private.join("tmp")
}

fn search_path(owner_home: Option<&Path>) -> OsString {
    let mut path = OsString::from(BASE_PATH);
    if let Some(bin) = owner_home.map(|home| home.join(".cargo/bin")).filter(|dir| dir.is_dir()) {
        path.push(":");
        path.push(bin);
    }
    path
}

fn is_program(path: &Path) -> bool {
    use rustix::fs::{Access, access};
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}
