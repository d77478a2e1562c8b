//! Memory that was freed goes back to the system: a node that had much to do is small again when it is idle.

/// Arenas of the allocator. More, up to eight per core, let threads that come and go each leave some behind.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;

/// Keeps what threads free in few places, where others find it again. To be called before there are others.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "mallopt has no safe wrapper; it takes no pointers and any thread may call it")]
pub fn share_arenas() {
    // SAFETY: the call has no preconditions.
    let _is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Keeps what threads free in few places: elsewhere the allocator does so itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_arenas() {}

/// Gives freed memory back. Cost: milliseconds; meant for once a minute.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "malloc_trim has no safe wrapper; it takes no pointers and any thread may call it")]
pub fn give_back() {
    // SAFETY: the call has no preconditions.
    let _some_was_freed = unsafe { libc::malloc_trim(0) };
}

/// Gives freed memory back: elsewhere the allocator does so itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}
