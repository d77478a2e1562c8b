//! Fetching from holders that work, die, lie and garble.

use std::time::Duration;

use crdt::ids::BlobHash;
use node::blobs::{BlobError, BlobRef, FetchError, FetchProgress, HolderFault, ServeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::{Fault, MIB, Net, bytes_of, job, node, open, open_with};

/// Bytes of tree hashes and requests beside the content.
fn with_overhead(bytes: u64) -> u64 {
    bytes + bytes / 100 + 10_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_every_size_are_fetched_once() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let net = Net::default();
    net.add(node(1), &a, Fault::None);
    b.set_dialer(std::sync::Arc::new(net.clone()));
    for (seed, len) in [0, 1, 16 * 1024, 16 * 1024 + 1, 3 * MIB, 16 * MIB, 40 * MIB + 3].into_iter().enumerate() {
        let bytes = bytes_of(seed as u64, len);
        let blob = a.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
        let (progress, seen) = tokio::sync::watch::channel(FetchProgress::default());
        let report = b.fetch(&blob, &[node(1)], &job(1), Some(progress)).await.expect("fetches");
        let list = blob.part_count() * 32;
        assert_eq!(report.bytes_moved, len + list, "{len}");
        assert_eq!(*seen.borrow(), FetchProgress { bytes_moved: len + list, bytes_total: len });
        assert!(b.has(&blob));
        assert!(b.read_all(&blob, len).await.expect("reads") == bytes, "{len}");
        let again = b.fetch(&blob, &[node(1)], &job(2), None).await.expect("is there");
        assert_eq!(again.bytes_moved, 0);
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_fetch_goes_on_where_it_stopped_even_after_a_restart() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    for (seed, len) in [(1, 12 * MIB), (2, 50 * MIB)] {
        let bytes = bytes_of(seed, len);
        let blob = a.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
        let net = Net::default();
        b.set_dialer(std::sync::Arc::new(net.clone()));
        let _ = net;
        let mut moved = 0;
        let b_dir = dir.path().join(format!("b{seed}"));
        for step in 1..=4 {
            let b = open(&b_dir).await;
            let net = Net::default();
            net.add(node(1), &a, if step < 4 { Fault::DiesAfter(len / 5) } else { Fault::None });
            b.set_dialer(std::sync::Arc::new(net.clone()));
            let result = b.fetch(&blob, &[node(1)], &job(1), None).await;
            match result {
                Err(FetchError::Incomplete { report, .. }) if step < 4 => moved += report.bytes_moved,
                Ok(report) if step == 4 => moved += report.bytes_moved,
                other => panic!("step {step}: {other:?}"),
            }
            if step == 4 {
                assert!(net.sent(node(1)) < with_overhead(len * 3 / 5), "what was here came again");
                assert!(b.read_all(&blob, len).await.expect("reads") == bytes);
            }
            b.shutdown().await;
        }
        assert_eq!(moved, len + blob.part_count() * 32, "each byte was taken once");
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_fetch_keeps_what_arrived() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let net = Net::default();
    net.add(node(1), &a, Fault::None);
    b.set_dialer(std::sync::Arc::new(net.clone()));
    let len = 64 * MIB;
    let blob = a.add_bytes(bytes_of(1, len), &job(1)).await.expect("adds");
    let (progress, mut seen) = tokio::sync::watch::channel(FetchProgress::default());
    let pin = job(1);
    let holders = [node(1)];
    tokio::select! {
        done = b.fetch(&blob, &holders, &pin, Some(progress)) => panic!("too fast: {done:?}"),
        _ = seen.wait_for(|progress| progress.bytes_moved > 20 * MIB) => {}
    }
    let report = b.fetch(&blob, &[node(1)], &job(1), None).await.expect("fetches");
    assert!(report.bytes_moved < 46 * MIB, "{}", report.bytes_moved);
    assert!(b.has(&blob));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_holders_give_parts_at_once() {
    let dir = tempfile::tempdir().expect("dir");
    let b = open(&dir.path().join("b")).await;
    let net = Net::default();
    b.set_dialer(std::sync::Arc::new(net.clone()));
    let bytes = bytes_of(1, 128 * MIB);
    let mut holders = Vec::new();
    let mut blob = BlobRef::EMPTY;
    for n in 1..=3 {
        let holder = open(&dir.path().join(format!("h{n}"))).await;
        blob = holder.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
        net.add(node(n), &holder, Fault::None);
        holders.push(holder);
    }
    let report = b.fetch(&blob, &[node(1), node(2), node(3)], &job(1), None).await.expect("fetches");
    assert_eq!(report.from.len(), 3, "{report:?}");
    assert!(report.from.iter().all(|(_, bytes)| *bytes >= 16 * MIB), "{report:?}");
    assert_eq!(report.bytes_moved, blob.size + blob.part_count() * 32);
    assert!(b.read_all(&blob, blob.size).await.expect("reads") == bytes);
    for store in holders.iter().chain([&b]) {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dying_a_garbling_a_lying_and_an_absent_holder_are_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let empty = open(&dir.path().join("empty")).await;
    let net = Net::default();
    b.set_dialer(std::sync::Arc::new(net.clone()));
    let bytes = bytes_of(1, 80 * MIB);
    let blob = a.add_bytes(bytes.clone(), &job(1)).await.expect("adds");
    net.add(node(1), &a, Fault::DiesAfter(10 * MIB));
    net.add(node(2), &a, Fault::Flips(MIB));
    net.add(node(3), &a, Fault::Lies);
    net.add(node(4), &empty, Fault::None);
    net.add(node(5), &a, Fault::None);
    let all: Vec<_> = (1..=6).map(node).collect();
    let report = b.fetch(&blob, &all, &job(1), None).await.expect("fetches");
    assert!(report.corrupt == [node(2)], "{report:?}");
    assert!(b.read_all(&blob, blob.size).await.expect("reads") == bytes);
    for store in [a, b, empty] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_nobody_can_finish_names_each_holders_fault() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let empty = open(&dir.path().join("empty")).await;
    let net = Net::default();
    b.set_dialer(std::sync::Arc::new(net.clone()));
    let blob = a.add_bytes(bytes_of(1, 5 * MIB), &job(1)).await.expect("adds");
    net.add(node(1), &a, Fault::Flips(100_000));
    net.add(node(2), &a, Fault::Lies);
    net.add(node(3), &empty, Fault::None);
    let all: Vec<_> = (1..=4).map(node).collect();
    let Err(FetchError::Incomplete { faults, report, .. }) = b.fetch(&blob, &all, &job(1), None).await else {
        panic!("nobody has it");
    };
    assert_eq!(faults.len(), 4);
    assert_eq!(faults[0].1, HolderFault::Corrupt);
    assert!(matches!(faults[1].1, HolderFault::WrongSize { expected, .. } if expected == blob.size));
    assert_eq!(faults[2].1, HolderFault::Lacks);
    assert!(matches!(faults[3].1, HolderFault::Unreachable(_)));
    assert_eq!(report.corrupt, [node(1)]);
    let none = b.fetch(&blob, &[], &job(1), None).await;
    assert!(matches!(none, Err(FetchError::NoHolder { .. })));
    let wrong = BlobRef { size: blob.size + 1, ..blob };
    net.add(node(5), &a, Fault::None);
    let Err(FetchError::Incomplete { faults, .. }) = b.fetch(&wrong, &[node(5)], &job(1), None).await else {
        panic!("the size is wrong");
    };
    assert!(matches!(faults[0].1, HolderFault::WrongSize { .. }));
    for store in [a, b, empty] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_blobs_share_requests_and_each_may_be_elsewhere() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let c = open(&dir.path().join("c")).await;
    let net = Net::default();
    c.set_dialer(std::sync::Arc::new(net.clone()));
    let mut all = Vec::new();
    for n in 0..600_u64 {
        let holder = if n % 100 == 99 { &b } else { &a };
        all.push(holder.add_bytes(bytes_of(n, n * 40), &job(1)).await.expect("adds"));
    }
    net.add(node(1), &a, Fault::None);
    net.add(node(2), &b, Fault::None);
    let report = c.fetch_many(&all, &[node(1), node(2)], &job(1), None).await.expect("fetches");
    assert_eq!(report.bytes_moved, all.iter().map(|blob| blob.size).sum::<u64>());
    assert!(c.missing(&all).is_empty());
    for (n, blob) in all.iter().enumerate() {
        assert!(c.read_all(blob, u64::MAX).await.expect("reads") == bytes_of(n as u64, n as u64 * 40));
    }
    let streams = net.asked(node(1)) + net.asked(node(2));
    assert!(streams < 60, "{streams} streams");
    for store in [a, b, c] {
        store.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_fetches_of_one_blob_move_it_once() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let net = Net::default();
    net.add(node(1), &a, Fault::None);
    b.set_dialer(std::sync::Arc::new(net.clone()));
    let blob = a.add_bytes(bytes_of(1, 40 * MIB), &job(1)).await.expect("adds");
    let (holders, pin) = ([node(1)], job(1));
    let (one, two) = tokio::join!(b.fetch(&blob, &holders, &pin, None), b.fetch(&blob, &holders, &pin, None));
    let moved = one.expect("fetches").bytes_moved + two.expect("fetches").bytes_moved;
    assert_eq!(moved, blob.size + blob.part_count() * 32);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_above_the_quota_is_refused_before_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("dir");
    let a = open(&dir.path().join("a")).await;
    let b = open_with(&dir.path().join("b"), 4 * MIB).await;
    let net = Net::default();
    net.add(node(1), &a, Fault::None);
    b.set_dialer(std::sync::Arc::new(net.clone()));
    let blob = a.add_bytes(bytes_of(1, 5 * MIB), &job(1)).await.expect("adds");
    let refused = b.fetch(&blob, &[node(1)], &job(1), None).await;
    assert!(matches!(refused, Err(FetchError::Local(BlobError::QuotaExceeded { quota, .. })) if quota == 4 * MIB));
    assert_eq!(net.asked(node(1)), 0);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_gets_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let a = open(&dir.path().join("a")).await;
    let blob = a.add_bytes(bytes_of(1, MIB), &job(1)).await.expect("adds");
    let too_long = [[0_u8].as_slice(), &blob.hash.0, &[1; 70_000]].concat();
    let observe = [[1_u8].as_slice(), &blob.hash.0, &[1, 0]].concat();
    let push = [[8_u8, 36].as_slice(), &blob.hash.0, &[1, 0, 1, 0]].concat();
    let garbage = vec![0xff; 100];
    let get_garbage = vec![0, 1, 2, 3];
    for request in [too_long, observe, push, garbage, get_garbage, Vec::new()] {
        let (mut ours, theirs) = tokio::io::duplex(1 << 20);
        let serving = tokio::spawn({
            let a = a.clone();
            async move { a.serve(Box::new(theirs), node(7)).await }
        });
        let _ = ours.write_all(&request).await;
        ours.shutdown().await.expect("ends");
        let mut answer = Vec::new();
        let _ = ours.read_to_end(&mut answer).await;
        let result = serving.await.expect("no panic");
        assert!(matches!(result, Err(ServeError::Refused(_))), "{request:?}: {result:?}");
        assert!(answer.is_empty());
    }
    a.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_mute_holder_is_given_up_after_the_idle_time() {
    let dir = tempfile::tempdir().expect("dir");
    let b = open(&dir.path().join("b")).await;
    let net = Net::default();
    net.add(node(1), &b, Fault::Mute);
    b.set_dialer(std::sync::Arc::new(net));
    let absent = BlobRef { hash: BlobHash([9; 32]), size: 5 };
    let before = tokio::time::Instant::now();
    let result = b.fetch(&absent, &[node(1)], &job(1), None).await;
    assert!(matches!(result, Err(FetchError::Incomplete { .. })), "{result:?}");
    assert!(before.elapsed() < Duration::from_secs(120));
}
