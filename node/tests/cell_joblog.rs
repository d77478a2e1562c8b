//! Job logs on a real file system: order, copies by offset, torn tails, sealing.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::too_many_lines, reason = "tests")]

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Instant;

use crdt::ids::{BlobHash, JobId, NodeId};
use node::joblog::{FrameStream, JobLog, LogError, LogKey, LogStore, Stream};
use proptest::prelude::*;

const KEY: LogKey = LogKey { job: JobId([0xab; 16]), attempt: 1, start: 0, owner: NodeId([3; 32]) };

fn store() -> (tempfile::TempDir, LogStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(&dir.path().join("logs")).unwrap();
    (dir, store)
}

fn content(log: &JobLog) -> Vec<(FrameStream, u32, Vec<u8>)> {
    let (mut offset, mut frames) = (0, Vec::new());
    loop {
        let (more, next) = log.read(offset, 1000).unwrap();
        if more.is_empty() {
            return frames;
        }
        frames.extend(more.into_iter().map(|f| (f.stream, f.task, f.bytes)));
        offset = next;
    }
}

#[test]
fn what_is_appended_is_read_in_order_with_its_stream_and_task() {
    let (_dir, store) = store();
    let log = store.log(KEY).unwrap();
    log.append(0, Stream::Stdout, b"one\n").unwrap();
    log.append_all(&[(1, Stream::Stderr, b"two"), (0, Stream::Stdout, &[7; 200_000])]).unwrap();
    let frames = content(&log);
    assert_eq!(frames[0], (FrameStream::Stdout, 0, b"one\n".to_vec()));
    assert_eq!(frames[1], (FrameStream::Stderr, 1, b"two".to_vec()));
    assert_eq!(frames[2..].iter().map(|f| f.2.len()).sum::<usize>(), 200_000);
    assert_eq!(store.logs_of(KEY.job).unwrap(), [KEY]);
    assert!(log.read(3, 1000).is_err(), "no frame begins there");
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_frame() {
    let (_dir, store) = store();
    let log = store.log(KEY).unwrap();
    log.append(0, Stream::Stdout, b"whole").unwrap();
    let len = log.len();
    drop(log);
    for tail in [&[1][..], &[1, 0, 0, 0, 0, 9, 0, 0, 0, b'x'], &[9; 40]] {
        OpenOptions::new().append(true).open(store.path(KEY)).unwrap().write_all(tail).unwrap();
        let log = store.log(KEY).unwrap();
        assert_eq!((log.len(), content(&log).len()), (len, 1));
        assert_eq!(std::fs::metadata(store.path(KEY)).unwrap().len(), len);
    }
    let log = store.log(KEY).unwrap();
    log.append(0, Stream::Stdout, b"goes on").unwrap();
    let (hash, _) = log.seal().unwrap();
    assert_eq!(hash, BlobHash(*blake3::hash(&std::fs::read(store.path(KEY)).unwrap()).as_bytes()));
}

#[test]
fn a_gap_a_difference_and_garbage_are_refused_and_change_nothing() {
    let (_dir, store) = store();
    let log = store.log(KEY).unwrap();
    log.append(0, Stream::Stdout, b"abc").unwrap();
    let bytes = log.read_raw(0, 100).unwrap();
    assert!(matches!(log.append_raw(100, b"x"), Err(LogError::Gap { wanted: 12, got: 100 })));
    let mut other = bytes.clone();
    other[10] ^= 1;
    assert!(matches!(log.append_raw(0, &other), Err(LogError::Refused { .. })));
    assert!(matches!(log.append_raw(12, &[9; 30]), Err(LogError::Refused { .. })));
    assert!(matches!(log.append_raw(12, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(LogError::Refused { .. })));
    assert_eq!(log.append_raw(0, &bytes).unwrap(), 12, "the same bytes again are fine");
    assert_eq!(log.read_raw(0, 100).unwrap(), bytes);
    log.seal().unwrap();
    assert!(matches!(log.append(0, Stream::Stdout, b"x"), Err(LogError::Sealed { len: 12 })));
    assert_eq!(log.append_raw(0, &bytes).unwrap(), 12);
}

#[tokio::test]
async fn a_follower_hears_of_growth_and_of_the_end() {
    let (_dir, store) = store();
    let log = store.log(KEY).unwrap();
    let mut follower = log.follow();
    log.append(0, Stream::Stdout, b"x").unwrap();
    follower.changed().await.unwrap();
    let seen = *follower.borrow_and_update();
    assert_eq!((seen.bytes, seen.sealed), (10, false));
    log.seal().unwrap();
    follower.changed().await.unwrap();
    assert!(follower.borrow().sealed);
}

#[test]
fn a_removed_job_leaves_nothing() {
    let (_dir, store) = store();
    store.log(KEY).unwrap().append(0, Stream::Stdout, b"x").unwrap();
    store.remove_job(KEY.job).unwrap();
    store.remove_job(KEY.job).unwrap();
    assert!(store.logs_of(KEY.job).unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn copies_are_byte_equal_however_the_bytes_are_cut_and_repeated(
        pieces in proptest::collection::vec((0u32..3, any::<bool>(), proptest::collection::vec(any::<u8>(), 1..50)), 1..20),
        cuts in proptest::collection::vec((0usize..2000, 1usize..300), 1..30),
    ) {
        let (_dir, store) = store();
        let log = store.log(KEY).unwrap();
        for (task, out, bytes) in &pieces {
            log.append(*task, if *out { Stream::Stdout } else { Stream::Stderr }, bytes).unwrap();
        }
        let all = log.read_raw(0, usize::MAX).unwrap();
        let (_dir2, copies) = self::store();
        let copy = copies.log(KEY).unwrap();
        for (at, len) in cuts {
            let at = at.min(all.len());
            let _ = copy.append_raw(at as u64, &all[at..(at + len).min(all.len())]);
        }
        let mut wanted = copy.append_raw(0, &[]).unwrap();
        while wanted < all.len() as u64 {
            let at = usize::try_from(wanted).unwrap();
            wanted = copy.append_raw(wanted, &all[at..(at + 7).min(all.len())]).unwrap();
        }
        prop_assert_eq!(copy.seal().unwrap(), log.seal().unwrap());
        prop_assert_eq!(copy.read_raw(0, usize::MAX).unwrap(), all);
    }
}

#[test]
#[ignore = "a measurement: 100,000 appends"]
fn appends_are_fast() {
    let (_dir, store) = store();
    let log = store.log(KEY).unwrap();
    let began = Instant::now();
    for task in 0..100_000 {
        log.append(task, Stream::Stdout, b"some line of output\n").unwrap();
    }
    println!("{:?} each", began.elapsed() / 100_000);
}
