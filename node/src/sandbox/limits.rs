//! Rlimits and capabilities, set once by the cell and inherited by its tasks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

use super::SandboxError;

/// Processes that a job may add to those that run; fork fails beyond them (not for root).
const PROCESSES_ADDED_MAX: u64 = 4096;
/// What programs map beyond their memory limit before an allocation fails outright: they rarely touch all they map.
const DATA_SLACK_BYTES: u64 = 512 * 1024 * 1024;
/// What a root node's jobs keep: rights over files, which Landlock or the mount namespace bounds.
const KEPT: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER).union(CapabilitySet::FSETID);

/// Bounds of every single process of a job. Sums over a task's processes are the cell's to watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of a task, in bytes.
    pub memory_bytes: Option<u64>,
    /// Size of a file, in bytes.
    pub file_bytes: Option<u64>,
}

/// Sets the limits for this process and its children.
///
/// # Errors
/// [`SandboxError::Step`] when the system refuses one.
pub fn set(limits: Limits) -> Result<(), SandboxError> {
    lower(Resource::Core, 0)?;
    lower(Resource::Nproc, processes_running().saturating_add(PROCESSES_ADDED_MAX))?;
    if let Some(bytes) = limits.file_bytes {
        lower(Resource::Fsize, bytes)?;
    }
    if let Some(bytes) = limits.memory_bytes {
        lower(Resource::Data, bytes.saturating_mul(2).saturating_add(DATA_SLACK_BYTES))?;
    }
    Ok(())
}

fn lower(resource: Resource, to: u64) -> Result<(), SandboxError> {
    let hard = getrlimit(resource).maximum.map_or(to, |max| max.min(to));
    setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
        .map_err(|e| SandboxError::Step { step: "setting a resource limit", source: e.into() })
}

/// Processes and threads of all users: more than this user's, and one read tells it.
fn processes_running() -> u64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let total = load.split_ascii_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    total.unwrap_or(PROCESSES_ADDED_MAX)
}

/// Gives up every capability but those over files, for good.
pub(super) fn drop_capabilities() -> Result<(), SandboxError> {
    let step = |source: rustix::io::Errno| SandboxError::Step { step: "dropping capabilities", source: source.into() };
    let held = capabilities(None).map_err(step)?;
    if held.permitted.contains(CapabilitySet::SETPCAP) {
        for bit in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            // EINVAL: beyond the last capability that this kernel has.
            if !KEPT.contains(capability) && remove_capability_from_bounding_set(capability).is_err() {
                break;
            }
        }
    }
    let kept = held.permitted & KEPT;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
        .map_err(step)
}
