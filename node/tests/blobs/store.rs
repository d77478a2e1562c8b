//! Adding, reading, pinning and exporting on one node.

use std::io::Write;

use bytes::Bytes;
use crdt::ids::BlobHash;
use node::blobs::{BlobError, BlobKind, BlobRef, Blobs, BlobsConfig, GcMode, PinReason};
use tokio::io::AsyncReadExt;

use crate::net::{Fault, MIB, Net, bytes_of, job, node, open, open_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_every_size_come_back_as_they_went_in() {
    let dir = tempfile::tempdir().expect("dir");
    let blobs = open(&dir.path().join("blobs")).await;
    let part = 16 * MIB;
    for (seed, len) in [0, 1, 1024, 16 * 1024, 16 * 1024 + 1, MIB, part - 1, part, part + 1, 2 * part, 2 * part + 5]
        .into_iter()
        .enumerate()
    {
        let bytes = bytes_of(seed as u64, len);
        let blob = blobs.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
        assert_eq!(blob.size, len);
        assert_eq!(blob.kind() == BlobKind::Parts, len > part);
        if len <= part {
            assert_eq!(blob.hash.0, *blake3::hash(&bytes).as_bytes());
        }
        assert!(blobs.has(&blob));
        assert_eq!(blobs.resolve(&blob.hash), Some(blob));
        assert_eq!(blobs.read_all(&blob, len).await.expect("reads"), bytes, "{len}");
        let path = dir.path().join("out");
        blobs.export(&blob, &path).await.expect("exports");
        assert!(std::fs::read(&path).expect("is there") == bytes, "{len}");
        let from_file = blobs.add_file(&path, &job(1)).await.expect("adds");
        assert_eq!(from_file, blob);
        let middle = len / 3..len / 2;
        let mut some = Vec::new();
        blobs.read_range(&blob, middle.clone()).read_to_end(&mut some).await.expect("reads");
        let middle = usize::try_from(middle.start).expect("fits")..usize::try_from(middle.end).expect("fits");
        assert!(some == bytes[middle], "{len}");
    }
    blobs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_sizes_and_ages_survive_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("blobs");
    let blobs = open(&path).await;
    let small = blobs.add_bytes(bytes_of(1, 100), &job(1)).await.expect("adds");
    let large = blobs.add_bytes(bytes_of(2, 40 * MIB), &job(2)).await.expect("adds");
    let before = (blobs.usage(), blobs.list(None, 100));
    blobs.shutdown().await;
    assert!(matches!(blobs.add_bytes(Bytes::from_static(b"x"), &job(1)).await, Err(BlobError::Closed)));

    let blobs = open(&path).await;
    assert_eq!((blobs.usage(), blobs.list(None, 100)), before);
    assert!(blobs.has(&small) && blobs.has(&large));
    assert_eq!(blobs.resolve(&large.hash), Some(large));
    assert_eq!(blobs.usage().pinned_bytes, blobs.usage().bytes);
    assert_eq!(blobs.unpin(&PinReason::Job(crdt::ids::JobId([2; 16]))).await.expect("unpins"), 1);
    assert_eq!(blobs.usage().pinned_bytes, 100);
    assert!(blobs.read_all(&large, 40 * MIB).await.expect("is still there") == bytes_of(2, 40 * MIB));
    blobs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_here_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    let blobs = open(&dir.path().join("blobs")).await;
    let absent = BlobRef { hash: BlobHash([9; 32]), size: 5 };
    assert!(matches!(blobs.read_all(&absent, 5).await, Err(BlobError::NotFound { hash }) if hash == absent.hash));
    assert!(matches!(blobs.pin(&absent, &job(1)).await, Err(BlobError::NotFound { .. })));
    assert_eq!(blobs.missing(&[absent, BlobRef::EMPTY]), [absent]);
    assert!(!blobs.has(&BlobRef { hash: BlobHash([9; 32]), size: 0 }));
    let here = blobs.add_bytes(bytes_of(1, 100), &job(1)).await.expect("adds");
    assert!(!blobs.has(&BlobRef { size: 99, ..here }));
    assert!(matches!(blobs.read_all(&here, 99).await, Err(BlobError::TooLarge { size: 100, max: 99 })));
    let lie = BlobRef { size: 100 * MIB, ..here };
    assert!(matches!(blobs.read_all(&lie, 100 * MIB).await, Err(BlobError::NotParts { .. })));
    let target = dir.path().join("out");
    std::fs::write(&target, "old").expect("writes");
    assert!(blobs.export(&absent, &target).await.is_err());
    assert_eq!(std::fs::read(&target).expect("reads"), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 2, "no temporary file is left");
    blobs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_grows_and_changes_is_stored_as_it_was_copied() {
    let dir = tempfile::tempdir().expect("dir");
    let blobs = open(&dir.path().join("blobs")).await;
    let path = dir.path().join("growing");
    std::fs::write(&path, bytes_of(1, 20 * MIB)).expect("writes");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (stop, path) = (stop.clone(), path.clone());
        move || {
            use std::io::{Seek, SeekFrom};
            let mut file = std::fs::File::options().write(true).open(path).expect("opens");
            let mut n = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                file.seek(SeekFrom::Start(n * 7_919 % (20 * MIB))).expect("seeks");
                file.write_all(&n.to_le_bytes()).expect("writes");
                file.seek(SeekFrom::End(0)).expect("seeks");
                file.write_all(&[1; 100]).expect("writes");
            }
        }
    });
    for _ in 0..3 {
        let blob = blobs.add_file_while_written(&path, &job(1)).await.expect("adds");
        assert!(blob.size >= 20 * MIB);
        let read = blobs.read_all(&blob, u64::MAX).await.expect("matches its hash");
        assert_eq!(read.len() as u64, blob.size);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().expect("ends");
    blobs.shutdown().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_links_and_directories_are_not_taken_for_files() {
    let dir = tempfile::tempdir().expect("dir");
    let blobs = open(&dir.path().join("blobs")).await;
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("makes a pipe");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).expect("links");
    for path in [&fifo, &dir.path().to_owned()] {
        assert!(matches!(blobs.add_file(path, &job(1)).await, Err(BlobError::NotAFile { .. })));
        assert!(matches!(blobs.add_file_while_written(path, &job(1)).await, Err(BlobError::NotAFile { .. })));
    }
    assert!(matches!(blobs.add_file_while_written(&link, &job(1)).await, Err(BlobError::File { .. })));
    assert!(matches!(blobs.add_file(&dir.path().join("none"), &job(1)).await, Err(BlobError::File { .. })));
    blobs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_the_disk_changed_is_never_given_out_and_can_be_had_again() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("blobs");
    let (blobs, other) = (open(&path).await, open(&dir.path().join("other")).await);
    let net = Net::default();
    net.add(node(1), &other, Fault::None);
    blobs.set_dialer(std::sync::Arc::new(net));
    let len = 20 * MIB;
    let bytes = bytes_of(1, len);
    let blob = blobs.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
    other.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
    let first_part = blake3::hash(&bytes[..16 << 20]);
    let file = path.join("data").join(format!("{first_part}.data"));
    let damages: [fn(&std::path::Path); 3] = [
        |file| {
            let mut bytes = std::fs::read(file).expect("reads");
            bytes[500_000] ^= 1;
            std::fs::write(file, bytes).expect("writes");
        },
        |file| {
            std::fs::File::options().write(true).open(file).expect("opens").set_len(700_000).expect("cuts");
        },
        |file| std::fs::remove_file(file).expect("removes"),
    ];
    for (round, damage) in damages.into_iter().enumerate() {
        for by_fetch in [true, false] {
            blobs.shutdown().await;
            damage(&file);
            let blobs = open(&path).await;
            let net = Net::default();
            net.add(node(1), &other, Fault::None);
            blobs.set_dialer(std::sync::Arc::new(net));
            let pinned = blobs.usage().pinned_bytes;
            let read = blobs.read_all(&blob, len).await;
            assert!(
                matches!(&read, Err(BlobError::Damaged { hash, .. }) if hash.0 == *first_part.as_bytes()),
                "{round} {:?}",
                read.map(|bytes| bytes.len())
            );
            assert!(!blobs.has(&blob));
            if by_fetch {
                let report = blobs.fetch(&blob, &[node(1)], &job(1), None).await.expect("fetches");
                assert_eq!(report.bytes_moved, 16 * MIB, "only the damaged part");
            } else {
                blobs.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
            }
            assert!(blobs.read_all(&blob, len).await.expect("reads") == bytes);
            assert_eq!(blobs.usage().pinned_bytes, pinned);
            blobs.gc(GcMode::All).await.expect("collects");
            assert!(blobs.has(&blob), "its pin is still there");
            blobs.shutdown().await;
        }
    }
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opening_says_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("blobs");
    let blobs = open_with(&path, 1 << 30).await;
    let second = Blobs::open(&path, BlobsConfig { quota_bytes: 1 }).await;
    assert!(matches!(second, Err(BlobError::InUse { .. })));
    blobs.shutdown().await;
    open(&path).await.shutdown().await;
}
