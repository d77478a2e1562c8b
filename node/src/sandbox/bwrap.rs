//! The cell inside fresh namespaces, by the `bwrap` program (bubblewrap).
//!
//! The cell is process 1 of its pid namespace: when it ends, the kernel kills every process of the job. `--die-with-parent`
//! is not used, for it follows the thread that started bwrap; the cell ends when its stdin closes.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Grants, SandboxError, paths};

/// The command line that runs `exe` with `args` inside bwrap.
#[must_use]
pub fn command(exe: &Path, args: &[&str], grants: &Grants) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec!["bwrap".into()];
    let mut push = |words: &[&OsStr]| line.extend(words.iter().map(|w| (*w).to_owned()));
    for word in ["--unshare-all", "--as-pid-1", "--clearenv", "--cap-drop", "ALL"] {
        push(&[word.as_ref()]);
    }
    if grants.network {
        push(&["--share-net".as_ref()]);
    }
    for dir in paths::system_dirs() {
        match std::fs::read_link(&dir) {
            Ok(target) => push(&["--symlink".as_ref(), target.as_ref(), dir.as_ref()]),
            Err(_) => push(&["--ro-bind".as_ref(), dir.as_ref(), dir.as_ref()]),
        }
    }
    push(&[
        "--proc".as_ref(),
        "/proc".as_ref(),
        "--dev".as_ref(),
        "/dev".as_ref(),
        "--tmpfs".as_ref(),
        "/tmp".as_ref(),
    ]);
    let home = grants.owner_home.as_deref();
    let toolchains = home.map(paths::toolchains).unwrap_or_default();
    for hidden in paths::hidden(grants) {
        if !paths::system_dirs().iter().any(|dir| hidden.starts_with(dir)) {
            continue;
        }
        if hidden.is_dir() {
            push(&["--tmpfs".as_ref(), hidden.as_ref()]);
        } else {
            push(&["--ro-bind".as_ref(), "/dev/null".as_ref(), hidden.as_ref()]);
        }
    }
    for dir in toolchains.iter().chain(&grants.read_only) {
        push(&["--ro-bind".as_ref(), dir.as_ref(), dir.as_ref()]);
    }
    push(&["--ro-bind".as_ref(), exe.as_ref(), exe.as_ref()]);
    for dir in &grants.read_write {
        push(&["--bind".as_ref(), dir.as_ref(), dir.as_ref()]);
    }
    push(&["--".as_ref(), exe.as_ref()]);
    line.extend(args.iter().map(|arg| OsString::from(*arg)));
    line
}

/// Whether bwrap is installed and the system lets it make namespaces.
pub(super) fn probe() -> Result<(), SandboxError> {
    let line = command(Path::new("/bin/true"), &[], &Grants::default());
    let output = Command::new(&line[0]).args(&line[1..]).stdin(Stdio::null()).output();
    let why = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("the program `bwrap` did not start: {error}"),
    };
    Err(SandboxError::Unavailable {
        kind: "bwrap",
        why,
        remedy: "install bubblewrap and allow unprivileged user namespaces, or use `--sandbox landlock`",
    })
}
