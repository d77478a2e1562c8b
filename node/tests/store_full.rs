//! A full disk below the store: a small tmpfs in a mount namespace of its own.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crdt::shelf::{Shelf, Table};
use node::store::RedbShelf;

const DIR_VAR: &str = "V6_TEST_FULL_STORE_DIR";

fn row(at: u32) -> (Table, Vec<u8>, Option<Vec<u8>>) {
    (Table::Jobs, at.to_be_bytes().to_vec(), Some(vec![1; 1_000]))
}

/// Not a test of its own: runs where the next one has mounted a small disk.
#[test]
fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR_VAR) else { return };
    let (path, junk) = (Path::new(&dir).join("v6.redb"), Path::new(&dir).join("junk"));
    let mut shelf = RedbShelf::open(&path).expect("opens").shelf;
    (0..100).for_each(|at| shelf.put(row(at)));
    shelf.commit().expect("there is room");
    let mut full = std::fs::File::create(&junk).expect("creates");
    while full.write_all(&[1; 4096]).is_ok() {}
    drop(full);

    // The file cannot grow: nothing is lost, and it goes on once there is room again.
    (100..8_000).for_each(|at| shelf.put(row(at)));
    assert!(shelf.commit().is_err() && shelf.commit().is_err());
    std::fs::remove_file(&junk).expect("removes");
    shelf.commit().expect("there is room again");
    assert_eq!(shelf.all(Table::Jobs, &[]).len(), 8_000);
    drop(shelf);

    // A store that is started on a full disk is not damaged.
    let mut full = std::fs::File::create(&junk).expect("creates");
    while full.write_all(&[1; 4096]).is_ok() {}
    drop(full);
    match RedbShelf::open(&path) {
        Ok(opened) => assert_eq!(opened.moved_to, None),
        Err(error) => println!("refused: {error:#}"),
    }
    std::fs::remove_file(&junk).expect("removes");
    let opened = RedbShelf::open(&path).expect("opens");
    assert_eq!(opened.moved_to, None);
    assert_eq!(opened.shelf.all(Table::Jobs, &[]).len(), 8_000);
}

#[test]
fn a_store_on_a_full_disk_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let script =
        "mount -t tmpfs -o size=32m none \"$1\" || exit 77; exec \"$2\" --exact child_on_a_small_disk --nocapture";
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().expect("this program"))
        .env(DIR_VAR, dir.path())
        .status();
    match run.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(1 | 77)) | Err(_) if !can_mount() => println!("SKIPPED: no mount namespaces here"),
        other => panic!("the child ended with {other:?}"),
    }
}

fn can_mount() -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none"])
        .arg(dir.path())
        .status();
    run.is_ok_and(|status| status.success())
}
