//! What a cell does to itself before its first task: session, subreaper, cores, limits, sandbox, private directories.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use rustix::process::{
    DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior, setpriority_process, setsid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::environment;
use crate::cell::wire::Hello;
use crate::cell::{CellSpec, PRIVATE_DIR};
use crate::sandbox::{self, Grants, Limits, SandboxError, SandboxKind};

/// Priority of a low-priority job (0 is the normal one, 19 the lowest).
const NICE: i32 = 10;
/// How much likelier than the node the kernel is to kill a job when memory runs out (0 to 1000).
const OOM_SCORE_ADJ: &str = "500";

/// What the job of a specification may reach.
pub(in crate::cell) fn grants(spec: &CellSpec, owner_home: Option<&Path>) -> Grants {
    Grants {
        read_write: vec![spec.workspace.clone(), spec.checkpoint_dir.clone()],
        read_only: spec.resume_dir.iter().chain(&spec.read_only).cloned().collect(),
        hidden: spec.hidden.clone(),
        owner_home: owner_home.map(Path::to_owned),
        network: spec.network,
    }
}

/// Confines the cell; notes say what the sandbox leaves open.
pub(super) fn confine(hello: &Hello) -> Result<Vec<String>, SandboxError> {
    let spec = &hello.spec;
    let step = |step| move |source: rustix::io::Errno| SandboxError::Step { step, source: source.into() };
    // Inside bwrap the cell leads a session already where bwrap made one.
    let _ = setsid();
    set_child_subreaper(Some(getpid())).map_err(step("becoming the job's subreaper"))?;
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    // Its memory and its pipes are not for the tasks, which run as the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("closing the cell to its tasks"))?;
    if spec.nice {
        setpriority_process(None, NICE).map_err(step("lowering the priority"))?;
    }
    if !hello.cores.is_empty() {
        let mut cores = CpuSet::new();
        for core in hello.cores.iter().map(|core| *core as usize).filter(|core| *core < CpuSet::MAX_CPU) {
            cores.set(core);
        }
        sched_setaffinity(None, &cores).map_err(step("taking cores"))?;
    }
    let limits = Limits { memory_bytes: spec.memory_bytes, file_bytes: spec.disk_bytes };
    sandbox::set_limits(limits)?;
    make_dir(&spec.checkpoint_dir)?;
    if spec.sandbox == SandboxKind::Bwrap && !hello.inside_bwrap {
        return Err(SandboxError::Unavailable {
            kind: "bwrap",
            why: "the cell was started outside of it".to_owned(),
            remedy: "start it through the node",
        });
    }
    let notes = sandbox::confine(spec.sandbox, &grants(spec, hello.owner_home.as_deref()))?;
    private_dirs(spec, hello.owner_home.as_deref())?;
    std::env::set_current_dir(&spec.workspace)
        .map_err(|source| SandboxError::Path { path: spec.workspace.clone(), source })?;
    Ok(notes)
}

fn private_dirs(spec: &CellSpec, owner_home: Option<&Path>) -> Result<(), SandboxError> {
    let private = spec.workspace.join(PRIVATE_DIR);
    for dir in [&private, &environment::home(&private), &environment::tmp(&private)] {
        make_dir(dir)?;
    }
    // Without network, crates that the owner has at hand are all that cargo can get.
    if let Some(cargo) = owner_home.map(|home| home.join(".cargo")).filter(|dir| dir.is_dir() && !spec.network) {
        let own = environment::home(&private).join(".cargo");
        make_dir(&own)?;
        for name in ["registry", "git"] {
            if cargo.join(name).is_dir() {
                let _ = symlink(cargo.join(name), own.join(name));
            }
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), SandboxError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(SandboxError::Path { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
