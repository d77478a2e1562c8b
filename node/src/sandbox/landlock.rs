//! Files by Landlock: the job's directories writable, the system readable, the rest out of reach; signals scoped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Grants, SandboxError, paths};

/// The oldest interface that is a sandbox: before it (Linux 6.2) a job could truncate any file of its user.
const ABI_MIN: ABI = ABI::V3;
/// The newest interface whose rights are asked for where the kernel has them.
const ABI_MAX: ABI = ABI::V7;

/// Time for which what was opened ahead is used.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Confines this process to what is granted.
pub(super) fn apply(grants: &Grants) -> Result<Vec<String>, SandboxError> {
    let all = AccessFs::from_all(ABI_MAX);
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let read = AccessFs::from_read(ABI_MAX);
    let mut rules = ruleset(grants.network).map_err(unavailable)?;
    for path in &grants.read_write {
        let fd = PathFd::new(path)
            .map_err(|_| SandboxError::Path { path: path.clone(), source: std::io::Error::last_os_error() })?;
        rules = rules.add_rule(PathBeneath::new(fd, write)).map_err(unavailable)?;
    }
    for path in paths::readable_besides(grants) {
        rules = add(rules, &path, read)?;
    }
    let system = System::of(grants);
    for (fd, access) in &system.opened {
        rules = rules.add_rule(PathBeneath::new(fd, *access)).map_err(unavailable)?;
    }
    let status = rules.restrict_self().map_err(unavailable)?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(missing("the kernel did not put it in force".to_owned()));
    }
    Ok(notes(status.landlock))
}

/// What every job may reach of this machine, opened: to find and open it costs more than to grant it.
struct System {
    hidden: Vec<PathBuf>,
    owner_home: Option<PathBuf>,
    opened: Vec<(PathFd, BitFlags<AccessFs>)>,
    made: Instant,
}

/// What was opened ahead, for processes that are forked from this one.
static AHEAD: Mutex<Option<Arc<System>>> = Mutex::new(None);

impl System {
    /// What was opened ahead for such grants, else what is found now.
    fn of(grants: &Grants) -> Arc<Self> {
        let ahead = AHEAD.lock().unwrap_or_else(PoisonError::into_inner);
        match &*ahead {
            Some(system) if system.fits(grants) => Arc::clone(system),
            Some(_) | None => Arc::new(Self::open(grants)),
        }
    }

    fn fits(&self, grants: &Grants) -> bool {
        self.hidden == grants.hidden && self.owner_home == grants.owner_home
    }

    fn open(grants: &Grants) -> Self {
        let read = AccessFs::from_read(ABI_MAX);
        let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        let readable = paths::readable_system(grants).into_iter().map(|path| (path, read));
        let devices = paths::DEVICES.iter().map(|path| (PathBuf::from(path), devices));
        let opened = readable.chain(devices).filter_map(|(path, access)| open(&path, access)).collect();
        Self { hidden: grants.hidden.clone(), owner_home: grants.owner_home.clone(), opened, made: Instant::now() }
    }
}

/// Opens ahead what every job with such grants may reach, unless that was done a short time ago: what the owner installs
/// meanwhile is not in reach of jobs before.
pub(super) fn open_ahead(grants: &Grants) {
    let mut ahead = AHEAD.lock().unwrap_or_else(PoisonError::into_inner);
    if ahead.as_ref().is_none_or(|system| !system.fits(grants) || system.made.elapsed() > AHEAD_MAX) {
        *ahead = Some(Arc::new(System::open(grants)));
    }
}

/// Whether the kernel has what [`apply`] needs.
pub(super) fn probe() -> Result<(), SandboxError> {
    ruleset(false).map(drop).map_err(unavailable)
}

fn ruleset(network: bool) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI_MIN))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_MAX))?
        .scope(Scope::from_all(ABI_MAX))?;
    if !network {
        rules = rules.handle_access(AccessNet::from_all(ABI_MAX))?;
    }
    rules.create()
}

/// Opens a path that may be missing; a file takes only the rights that files have.
fn open(path: &Path, access: BitFlags<AccessFs>) -> Option<(PathFd, BitFlags<AccessFs>)> {
    let (fd, meta) = (PathFd::new(path).ok()?, std::fs::metadata(path).ok()?);
    Some((fd, if meta.is_dir() { access } else { access & AccessFs::from_file(ABI_MAX) }))
}

/// Adds a rule for a path that may be missing.
fn add(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, SandboxError> {
    let Some((fd, access)) = open(path, access) else { return Ok(rules) };
    rules.add_rule(PathBeneath::new(fd, access)).map_err(unavailable)
}

fn notes(status: LandlockStatus) -> Vec<String> {
    match status {
        LandlockStatus::Available { effective_abi, .. } if effective_abi < ABI::V6 => {
            vec![
                "this kernel (older than Linux 6.12) does not keep a job from sending signals to its user's processes"
                    .to_owned(),
            ]
        }
        LandlockStatus::Available { .. } | LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => Vec::new(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn unavailable(error: RulesetError) -> SandboxError {
    missing(error.to_string())
}

fn missing(why: String) -> SandboxError {
    SandboxError::Unavailable {
        kind: "landlock",
        why,
        remedy: "it needs Linux 6.2 or newer with Landlock enabled (boot option `lsm=landlock,…`); \
                 `--sandbox bwrap` may work instead",
    }
}
