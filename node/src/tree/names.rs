//! Which paths and link targets a tree may have, whoever made it.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{DEPTH_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX};
use crate::cell::PRIVATE_DIR;

/// Links that one target may lead through.
const HOPS_MAX: usize = 64;
/// Names that Windows keeps for devices, with any ending.
const WINDOWS_DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Says why a path may not be in a tree.
pub(super) fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return Err("its path is empty or too long");
    }
    let mut depth = 0;
    for name in path.split(|b| *b == b'/') {
        check_name(name)?;
        depth += 1;
    }
    if depth > DEPTH_MAX {
        return Err("it lies too deep");
    }
    if path.split(|b| *b == b'/').next() == Some(PRIVATE_DIR.as_bytes()) {
        return Err("the directory `.v6` at the root belongs to the node that runs the job");
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("a name in its path is empty or the path is absolute"),
        b"." | b".." => Err("its path has `.` or `..`"),
        _ if name.len() > NAME_BYTES_MAX => Err("a name in its path is too long"),
        _ if name.contains(&0) => Err("its path has a NUL"),
        _ if cfg!(windows) => check_windows_name(name),
        _ => Ok(()),
    }
}

/// Says why a name cannot be one on Windows.
pub(super) fn check_windows_name(name: &[u8]) -> Result<(), &'static str> {
    let Ok(text) = std::str::from_utf8(name) else { return Err("its name is not Unicode, which Windows needs") };
    if text.chars().any(|c| c < ' ' || "\\:<>\"|?*".contains(c)) {
        return Err("its name has a character that Windows does not allow");
    }
    if text.ends_with(['.', ' ']) {
        return Err("its name ends in a dot or a space, which Windows drops");
    }
    let stem = text.split('.').next().unwrap_or(text).trim_end().to_lowercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|n| {
            matches!(n, "¹" | "²" | "³") || (n.len() == 1 && n != "0" && n.as_bytes()[0].is_ascii_digit())
        })
    };
    if WINDOWS_DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt") {
        return Err("its name is a device on Windows");
    }
    Ok(())
}

/// The directory part of a path; empty for the root.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(&[], |at| &path[..at])
}

/// Says why a link may not be in a tree: its target is absolute or leads out of the tree, also by way of other links.
pub(super) fn check_link(path: &[u8], target: &[u8], links: &HashMap<&[u8], &[u8]>) -> Result<(), &'static str> {
    if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0) {
        return Err("its target is empty, too long or has a NUL");
    }
    if target[0] == b'/' || (cfg!(windows) && target.iter().any(|b| matches!(b, b'\\' | b':'))) {
        return Err("its target is absolute; only links within the tree are kept");
    }
    let mut at: Vec<u8> = parent(path).to_vec();
    let mut ahead: Vec<&[u8]> = target.rsplit(|b| *b == b'/').collect();
    let mut hops = 0;
    while let Some(name) = ahead.pop() {
        match name {
            b"" | b"." => {}
            b".." if at.is_empty() => return Err("its target leads out of the tree"),
            b".." => at.truncate(parent(&at).len()),
            _ => {
                let here = at.len();
                if !at.is_empty() {
                    at.push(b'/');
                }
                at.extend_from_slice(name);
                if at.len() > 2 * PATH_BYTES_MAX {
                    return Err("its target is too long");
                }
                if let Some(next) = links.get(at.as_slice()) {
                    hops += 1;
                    if hops > HOPS_MAX {
                        // A loop: the system refuses to follow it.
                        return Ok(());
                    }
                    at.truncate(here);
                    ahead.extend(next.rsplit(|b| *b == b'/'));
                }
            }
        }
    }
    Ok(())
}

/// A path of a tree as one of this system, for messages and for opening.
#[cfg(unix)]
pub(super) fn to_system(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(path).into()
}

/// A path of a tree as one of this system, for messages and for opening.
#[cfg(not(unix))]
pub(super) fn to_system(path: &[u8]) -> PathBuf {
    String::from_utf8_lossy(path).split('/').collect()
}

/// A relative path of this system as one of a tree.
#[cfg(unix)]
pub(super) fn from_system(path: &std::path::Path) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    Some(path.as_os_str().as_bytes().to_vec())
}

/// A relative path of this system as one of a tree; `None` where it is not Unicode.
#[cfg(not(unix))]
pub(super) fn from_system(path: &std::path::Path) -> Option<Vec<u8>> {
    path.to_str().map(|text| text.replace('\\', "/").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", ".v6", ".v6/home/x"] {
            assert!(check_path(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check_path(&[b'x'; 256]).is_err());
        assert!(check_path(&b"a/".repeat(200)[..399]).is_err());
        for good in ["a", "..a", "a/.v6", "مرحبا/عالم", "a b", ".hidden"] {
            assert!(check_path(good.as_bytes()).is_ok(), "{good:?}");
        }
        assert!(check_path(&[0xff, 0xfe]).is_ok() || cfg!(windows));
    }

    #[test]
    fn links_that_lead_out_are_refused_also_by_way_of_others() {
        let links: HashMap<&[u8], &[u8]> = [(&b"s/t/short"[..], &b"../../top"[..]), (b"loop", b"loop")].into();
        let check = |path: &[u8], target: &[u8]| check_link(path, target, &links);
        assert!(check(b"a", b"b/c").is_ok());
        assert!(check(b"d/e/l", b"../../f").is_ok());
        assert!(check(b"d/e/l", b"../../../f").is_err());
        assert!(check(b"a", b"/etc/passwd").is_err());
        assert!(check(b"a", b"x/../b").is_ok());
        // By its letters s/t/short/../.. is s; by the link it is the parent of the root.
        assert!(check(b"w", b"s/t/short/../..").is_err());
        assert!(check(b"w", b"s/t/short/..").is_ok());
        assert!(check(b"w", b"loop/..").is_ok());
        assert!(check(b"w", b"").is_err());
    }

    #[test]
    fn names_that_windows_cannot_have_are_known() {
        for bad in ["con", "NUL.txt", "com1", "Lpt9.log", "a:b", "a\\b", "end.", "end ", "q?", "tab\t"] {
            assert!(check_windows_name(bad.as_bytes()).is_err(), "{bad}");
        }
        for good in ["console", "com10", "com0", "a.b", "مرحبا"] {
            assert!(check_windows_name(good.as_bytes()).is_ok(), "{good}");
        }
    }
}
