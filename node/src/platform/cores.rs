//! Which cores a cell runs on: the least taken ones, so that cells with fewer cores than the PC do not share.

use std::sync::Mutex;

/// How many cells hold each core, by its number.
static HELD: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Cores that are held until this is dropped.
#[derive(Debug, Default)]
pub struct CoreLease(Vec<u32>);

impl CoreLease {
    /// Takes the `wanted` least taken cores of this process; none in particular when that is all of them.
    #[must_use]
    pub fn take(wanted: Option<u32>) -> Self {
        let allowed = allowed();
        let wanted = wanted.map_or(usize::MAX, |n| n.max(1) as usize);
        if wanted >= allowed.len() {
            return Self::default();
        }
        let mut held = HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let size = allowed.iter().max().map_or(0, |core| *core as usize + 1);
        if held.len() < size {
            held.resize(size, 0);
        }
        let mut cores = allowed;
        cores.sort_by_key(|core| (held[*core as usize], *core));
        cores.truncate(wanted);
        for core in &cores {
            held[*core as usize] += 1;
        }
        Self(cores)
    }

    /// Their numbers; empty for all cores.
    #[must_use]
    pub fn cores(&self) -> &[u32] {
        &self.0
    }
}

impl Drop for CoreLease {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for core in &self.0 {
            held[*core as usize] -= 1;
        }
    }
}

#[cfg(target_os = "linux")]
fn allowed() -> Vec<u32> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let cores = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    cores.filter_map(|core| u32::try_from(core).ok()).collect()
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Vec<u32> {
    Vec::new()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn two_small_leases_take_different_cores() {
        if allowed().len() < 2 {
            return;
        }
        let (one, two) = (CoreLease::take(Some(1)), CoreLease::take(Some(1)));
        assert_eq!((one.cores().len(), two.cores().len()), (1, 1));
        assert_ne!(one.cores(), two.cores());
        assert!(CoreLease::take(None).cores().is_empty());
    }
}
