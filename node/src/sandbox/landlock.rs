//! Files by Landlock: the job's directories writable, the system readable, the rest out of reach; signals scoped.

use std::path::Path;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Grants, SandboxError, paths};

/// The oldest interface that is a sandbox: before it (Linux 6.2) a job could truncate any file of its user.
const ABI_MIN: ABI = ABI::V3;
/// The newest interface whose rights are asked for where the kernel has them.
const ABI_MAX: ABI = ABI::V7;

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
    for path in paths::readable(grants) {
        rules = add(rules, &path, read)?;
    }
    for path in paths::DEVICES {
        rules = add(rules, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    }
    let status = rules.restrict_self().map_err(unavailable)?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(missing("the kernel did not put it in force".to_owned()));
    }
    Ok(notes(status.landlock))
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

/// Adds a rule for a path that may be missing; a file takes only the rights that files have.
fn add(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, SandboxError> {
    let (Ok(fd), Ok(meta)) = (PathFd::new(path), std::fs::metadata(path)) else { return Ok(rules) };
    let access = if meta.is_dir() { access } else { access & AccessFs::from_file(ABI_MAX) };
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
