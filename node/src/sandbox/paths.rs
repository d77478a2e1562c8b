//! Which paths a sandboxed job can read: the system, toolchains in the owner's home, and nothing of the owner's own.
//!
//! Landlock can only add rights below a directory. A readable directory with something hidden in it is therefore granted
//! entry by entry, leaving out what is hidden.

use std::path::{Path, PathBuf};

use super::Grants;

/// Where systems keep programs, libraries and their settings.
const SYSTEM_DIRS: [&str; 16] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/etc",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/var/lib/ca-certificates",
    "/var/lib/dpkg/alternatives",
    "/snap",
    "/run/systemd/resolve",
];
/// What programs ask the kernel about the machine. Secrets of other processes need ptrace rights, which a job never has.
const KERNEL_DIRS: [&str; 5] =
    ["/proc", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm", "/sys/devices/virtual/dmi"];
/// Secrets in system directories. They matter where the node runs as root; file modes keep them from everybody else.
const SYSTEM_SECRETS: [&str; 16] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/NetworkManager",
    "/etc/wireguard",
    "/etc/openvpn",
    "/etc/krb5.keytab",
    "/etc/docker",
    "/etc/kubernetes",
    "/etc/letsencrypt",
    "/etc/ppp",
];
/// Toolchains below the owner's home. Credentials lie beside them (`.cargo/credentials.toml`), never in them.
const HOME_TOOLCHAINS: [&str; 5] = [".cargo/bin", ".cargo/registry", ".cargo/git", ".rustup", ".nvm/versions"];
/// Device files that are safe for everybody.
pub(super) const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// Entries of one directory that are granted one by one; further ones stay hidden.
const SPLIT_ENTRIES_MAX: usize = 4096;
/// Depth to which a directory is granted entry by entry; what lies deeper stays hidden.
const SPLIT_DEPTH_MAX: usize = 16;

/// The toolchains that exist below a home.
pub(super) fn toolchains(home: &Path) -> Vec<PathBuf> {
    HOME_TOOLCHAINS.iter().map(|name| home.join(name)).filter(|path| path.is_dir()).collect()
}

/// System directories that exist, as they are written.
pub(super) fn system_dirs() -> Vec<PathBuf> {
    SYSTEM_DIRS.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}

/// Directories and files that a job must not reach although they lie in readable directories.
pub(super) fn hidden(grants: &Grants) -> Vec<PathBuf> {
    let mut hidden: Vec<PathBuf> = grants.hidden.iter().chain(&grants.owner_home).cloned().collect();
    if rustix::process::geteuid().is_root() {
        hidden.extend(SYSTEM_SECRETS.iter().map(PathBuf::from));
    }
    hidden.into_iter().filter_map(|path| path.canonicalize().ok()).collect()
}

/// What every job may read of this machine, free of what is hidden; canonical paths.
pub(super) fn readable_system(grants: &Grants) -> Vec<PathBuf> {
    let home_toolchains = grants.owner_home.as_deref().map(toolchains).unwrap_or_default();
    let roots = system_dirs().into_iter().chain(KERNEL_DIRS.iter().map(PathBuf::from)).chain(home_toolchains);
    without_hidden(roots, grants)
}

/// What this job may read besides, free of what is hidden; canonical paths.
pub(super) fn readable_besides(grants: &Grants) -> Vec<PathBuf> {
    if grants.read_only.is_empty() { Vec::new() } else { without_hidden(grants.read_only.iter().cloned(), grants) }
}

fn without_hidden(roots: impl Iterator<Item = PathBuf>, grants: &Grants) -> Vec<PathBuf> {
    let hidden = hidden(grants);
    let mut roots: Vec<PathBuf> = roots.filter_map(|path| path.canonicalize().ok()).collect();
    roots.sort();
    roots.dedup();
    let mut granted = Vec::new();
    for root in roots {
        split(&root, &hidden, 0, &mut granted);
    }
    granted
}

fn split(path: &Path, hidden: &[PathBuf], depth: usize, granted: &mut Vec<PathBuf>) {
    if hidden.iter().any(|secret| secret == path) {
        return;
    }
    if !hidden.iter().any(|secret| secret.starts_with(path)) {
        granted.push(path.to_owned());
        return;
    }
    if depth == SPLIT_DEPTH_MAX {
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.take(SPLIT_ENTRIES_MAX).flatten() {
        // A link's target is reachable only where it is granted itself.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            split(&entry.path(), hidden, depth + 1, granted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_directory_is_left_out_of_the_readable_one_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["a/x", "a/secret/deep", "b"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("a/secret"), root.join("a/link")).unwrap();
        let mut granted = Vec::new();
        split(&root, &[root.join("a/secret")], 0, &mut granted);
        granted.sort();
        assert_eq!(granted, [root.join("a/x"), root.join("b")]);
    }

    #[test]
    fn a_toolchain_in_the_home_is_granted_without_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join(".cargo/registry")).unwrap();
        std::fs::write(home.join(".cargo/credentials.toml"), "token").unwrap();
        let grants = Grants { owner_home: Some(home.clone()), ..Grants::default() };
        let granted = readable_system(&grants);
        assert!(granted.contains(&home.join(".cargo/registry")));
        assert!(!granted.iter().any(|path| home.join(".cargo/credentials.toml").starts_with(path)));
    }
}
