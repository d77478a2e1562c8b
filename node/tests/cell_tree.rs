//! Trees on a real file system: what is kept, what is refused, and what hostile content can not do.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::too_many_lines, reason = "tests")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use crdt::ids::BlobHash;
use node::tree::{self, Entry, EntryKind, Globs, Manifest, ScanOptions, Snapshot, Source, TreeError};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn paths(manifest: &Manifest) -> Vec<String> {
    manifest.entries().iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect()
}

/// The blobs of a scanned tree, as a store would hand them out.
fn store(scan: &tree::Scan) -> BTreeMap<BlobHash, Vec<u8>> {
    let open = |entry: &Entry| {
        let mut bytes = Vec::new();
        tree::open_file(&scan.root, &entry.path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    scan.manifest.entries().iter().filter_map(|e| Some((e.blob()?, open(e)))).collect()
}

fn write(manifest: &Manifest, dest: &Path, blobs: &BTreeMap<BlobHash, Vec<u8>>) -> Result<(), TreeError> {
    tree::materialise(manifest, dest, |hash| {
        let bytes = blobs.get(hash).ok_or(io::ErrorKind::NotFound)?;
        Ok(Source::Bytes(bytes.clone().into()))
    })
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let from = dir();
    let root = from.path();
    fs::create_dir_all(root.join("empty/deep")).unwrap();
    fs::create_dir_all(root.join("مشروع/src")).unwrap();
    fs::write(root.join("مشروع/src/ملف.txt"), "مرحبا").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"latin-\xe9")), "x").unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\necho hi\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join(".hidden"), "").unwrap();
    symlink("../run.sh", root.join("مشروع/link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let scan = tree::scan(root, ScanOptions::default()).unwrap();
    let dest = dir();
    write(&Manifest::decode(&scan.manifest.encode()).unwrap(), dest.path(), &store(&scan)).unwrap();
    let again = tree::scan(dest.path(), ScanOptions::default()).unwrap();
    assert_eq!(again.manifest, scan.manifest);
    assert_eq!(again.manifest.entries().len(), 7);
    assert_eq!(fs::read_to_string(dest.path().join("مشروع/link")).unwrap(), "#!/bin/sh\necho hi\n");
    assert!(dest.path().join("empty/deep").is_dir());
    assert_eq!(fs::metadata(dest.path().join("run.sh")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn what_git_ignores_and_git_itself_stay_at_home() {
    let from = dir();
    let root = from.path();
    for name in [".git/objects", "target/debug", "src", ".v6/home", "sub/.git"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in [".git/HEAD", "target/debug/x", "src/a.rs", "src/a.log", ".v6/home/x", "sub/.git/HEAD", "sub/keep.log"]
    {
        fs::write(root.join(name), name).unwrap();
    }
    fs::write(root.join(".gitignore"), "/target\n*.log\n").unwrap();
    fs::write(root.join("sub/.gitignore"), "!keep.log\n").unwrap();
    let scan = tree::scan(root, ScanOptions::default()).unwrap();
    assert_eq!(paths(&scan.manifest), [".gitignore", "src/a.rs", "sub/.gitignore", "sub/keep.log"]);
    let all = tree::scan(root, ScanOptions { no_ignore: true }).unwrap();
    assert_eq!(
        paths(&all.manifest),
        [".gitignore", "src/a.log", "src/a.rs", "sub/.gitignore", "sub/keep.log", "target/debug/x"]
    );
}

#[test]
fn a_link_that_leads_out_is_refused_by_name() {
    for target in ["/etc/passwd", "../outside", "a/../../x"] {
        let from = dir();
        symlink(target, from.path().join("bad-link")).unwrap();
        let refused = tree::scan(from.path(), ScanOptions::default()).unwrap_err().to_string();
        assert!(refused.contains("bad-link") && refused.contains("target"), "{refused}");
    }
}

#[test]
fn only_changed_content_has_another_hash() {
    let from = dir();
    fs::write(from.path().join("a"), "one").unwrap();
    fs::write(from.path().join("b"), "two").unwrap();
    let before = tree::scan(from.path(), ScanOptions::default()).unwrap().manifest.blobs();
    fs::write(from.path().join("b"), "three").unwrap();
    let after = tree::scan(from.path(), ScanOptions::default()).unwrap().manifest.blobs();
    assert_eq!(after.iter().filter(|hash| !before.contains(hash)).count(), 1);
    assert!(after.contains(&BlobHash(*blake3::hash(b"three").as_bytes())));
}

#[test]
fn a_link_swapped_into_the_destination_leads_nowhere() {
    let (outside, dest) = (dir(), dir());
    let hash = BlobHash(*blake3::hash(b"evil").as_bytes());
    let file = |path: &str| Entry { path: path.into(), kind: EntryKind::File { hash, size: 4, executable: false } };
    let blobs = BTreeMap::from([(hash, b"evil".to_vec())]);
    let manifest = Manifest::new(vec![file("sub/x")]).unwrap();
    symlink(outside.path(), dest.path().join("sub")).unwrap();
    assert!(write(&manifest, dest.path(), &blobs).is_err());
    let manifest = Manifest::new(vec![file("y")]).unwrap();
    symlink(outside.path().join("y"), dest.path().join("y")).unwrap();
    assert!(write(&manifest, dest.path(), &blobs).is_err());
    let link = outside.path().join("to-dest");
    symlink(dest.path(), &link).unwrap();
    assert!(write(&Manifest::new(vec![file("z")]).unwrap(), &link, &blobs).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_blob_of_another_length_than_the_manifest_says_is_told() {
    let dest = dir();
    let hash = BlobHash([9; 32]);
    let kind = EntryKind::File { hash, size: 5, executable: false };
    let manifest = Manifest::new(vec![Entry { path: b"x".to_vec(), kind }]).unwrap();
    let error = write(&manifest, dest.path(), &BTreeMap::from([(hash, vec![0; 3])])).unwrap_err();
    assert!(matches!(error, TreeError::Length { expected: 5, got: 3, .. }), "{error}");
}

#[test]
fn artifacts_are_found_by_pattern_and_only_when_they_change() {
    let work = dir();
    let root = work.path();
    fs::create_dir_all(root.join("dist/css")).unwrap();
    fs::create_dir_all(root.join(".v6/tmp")).unwrap();
    for name in ["dist/a.js", "dist/css/b.css", "out.bin", "deep.bin", "notes", ".v6/tmp/c.bin", "dist/css/d.bin"] {
        fs::write(root.join(name), name).unwrap();
    }
    let globs = Globs::new(&["dist".into(), "*.bin".into()]).unwrap();
    let first = tree::collect(root, &globs, &Snapshot::default()).unwrap();
    let names: Vec<_> = first.changed.iter().map(|f| String::from_utf8_lossy(&f.path).into_owned()).collect();
    assert_eq!(names, ["deep.bin", "dist/a.js", "dist/css/b.css", "dist/css/d.bin", "out.bin"]);
    let second = tree::collect(root, &globs, &first.snapshot).unwrap();
    assert!(second.changed.is_empty() && second.gone.is_empty());
    fs::write(root.join("out.bin"), "more than before").unwrap();
    fs::remove_file(root.join("deep.bin")).unwrap();
    let third = tree::collect(root, &globs, &second.snapshot).unwrap();
    assert_eq!((third.changed.len(), third.gone), (1, vec![b"deep.bin".to_vec()]));
    assert_eq!(third.changed[0].size, 16);
    assert!(Globs::new(&["../x".into()]).is_err() && Globs::new(&["a[".into()]).is_err());
}

#[test]
fn hostile_artifacts_lead_nowhere_and_hold_nothing_up() {
    let (work, outside) = (dir(), dir());
    let root = work.path();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), root.join("linked-dir")).unwrap();
    symlink(outside.path().join("secret"), root.join("linked-file")).unwrap();
    symlink("/etc/passwd", root.join("x")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::write(root.join("real"), "mine").unwrap();
    let globs = Globs::new(&["**".into()]).unwrap();
    let found = tree::collect(root, &globs, &Snapshot::default()).unwrap();
    assert_eq!(found.changed.len(), 1);
    assert!(tree::open_file(root, b"real").is_ok());
    for path in ["linked-dir/secret", "linked-file", "fifo", "../secret", "/etc/passwd", "linked-dir/../real"] {
        assert!(tree::open_file(root, path.as_bytes()).is_err(), "{path}");
    }
    let scan = tree::snapshot(root).unwrap();
    assert_eq!(paths(&scan.manifest), ["real"]);
    assert_eq!(scan.skipped.len(), 4, "{:?}", scan.skipped);
}

#[test]
fn a_deep_tree_of_a_job_is_bounded() {
    let work = dir();
    let mut path = work.path().to_owned();
    for _ in 0..300 {
        path.push("d");
        fs::create_dir(&path).unwrap();
    }
    let globs = Globs::new(&["**".into()]).unwrap();
    assert!(tree::collect(work.path(), &globs, &Snapshot::default()).unwrap().truncated);
    assert!(matches!(tree::snapshot(work.path()), Err(TreeError::TooLarge)));
}

#[test]
#[ignore = "a measurement: 10,000 files"]
fn ten_thousand_files_are_fast() {
    let from = dir();
    for i in 0..10_000 {
        let sub = from.path().join(format!("d{}", i / 100));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("f{i}")), format!("{i}").repeat(500)).unwrap();
    }
    let began = Instant::now();
    let scan = tree::scan(from.path(), ScanOptions::default()).unwrap();
    println!("scan: {:?}", began.elapsed());
    let began = Instant::now();
    let bytes = scan.manifest.encode();
    println!("encode: {:?}, {} bytes", began.elapsed(), bytes.len());
    let began = Instant::now();
    let manifest = Manifest::decode(&bytes).unwrap();
    println!("decode: {:?}", began.elapsed());
    let at: BTreeMap<BlobHash, Vec<u8>> =
        manifest.entries().iter().filter_map(|e| Some((e.blob()?, e.path.clone()))).collect();
    let dest = dir();
    let began = Instant::now();
    tree::materialise(&manifest, dest.path(), |hash| tree::open_file(from.path(), &at[hash]).map(Source::File))
        .unwrap();
    println!("materialise: {:?}", began.elapsed());
    let globs = Globs::new(&["**".into()]).unwrap();
    let began = Instant::now();
    let found = tree::collect(dest.path(), &globs, &Snapshot::default()).unwrap();
    println!("collect: {:?}, {}", began.elapsed(), found.changed.len());
}
