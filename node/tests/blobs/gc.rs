//! Collection under a quota, and its races.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use node::blobs::{BlobError, GcMode, Pin, PinReason};

use crate::net::{Fault, MIB, Net, bytes_of, job, node, open, open_with};

fn job_reason(n: u8) -> PinReason {
    job(n).reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_quota_the_oldest_unpinned_go_and_then_work_pauses() {
    let dir = tempfile::tempdir().expect("dir");
    let blobs = open_with(&dir.path().join("blobs"), 10 * MIB).await;
    let mut all = Vec::new();
    for n in 0..8 {
        all.push(blobs.add_bytes(bytes_of(n, MIB), &job(u8::try_from(n).expect("small"))).await.expect("adds"));
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    for n in [0, 1, 2, 3] {
        blobs.unpin(&job_reason(n)).await.expect("unpins");
    }
    blobs.read_all(&all[0], MIB).await.expect("reads");
    let big = blobs.add_bytes(bytes_of(100, 4 * MIB), &job(100)).await.expect("finds room");
    assert!(blobs.has(&all[0]), "it was used last");
    assert!(!blobs.has(&all[1]) && !blobs.has(&all[2]));
    assert!(all[4..].iter().all(|blob| blobs.has(blob)));
    assert!(!blobs.usage().paused);

    let refused = blobs.add_bytes(bytes_of(101, 4 * MIB), &job(101)).await;
    assert!(matches!(refused, Err(BlobError::QuotaExceeded { used, quota }) if used == 8 * MIB && quota == 10 * MIB));
    assert!(blobs.usage().paused);
    assert!(blobs.has(&big) && all[4..].iter().all(|blob| blobs.has(blob)), "nothing pinned is lost");
    blobs.unpin(&job_reason(100)).await.expect("unpins");
    assert!(!blobs.usage().paused);
    blobs.add_bytes(bytes_of(101, 4 * MIB), &job(101)).await.expect("there is room again");
    assert!(!blobs.has(&big));
    blobs.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_kept_for_its_time_only() {
    let dir = tempfile::tempdir().expect("dir");
    let blobs = open(&dir.path().join("blobs")).await;
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis()).expect("fits");
    let over = Pin::new(PinReason::Replica { until_ms: now - 1 });
    let lasting = Pin::new(PinReason::Replica { until_ms: now + 3_600_000 });
    let old = blobs.add_bytes(bytes_of(1, 20_000), &over).await.expect("adds");
    let kept = blobs.add_bytes(bytes_of(2, 20_000), &lasting).await.expect("adds");
    let both = blobs.add_bytes(bytes_of(3, 30 * MIB), &over).await.expect("adds");
    blobs.pin(&both, &Pin::new(PinReason::Manual)).await.expect("pins");
    let report = blobs.gc(GcMode::All).await.expect("collects");
    assert_eq!((report.deleted, report.freed_bytes), (1, 20_000));
    assert!(!blobs.has(&old) && blobs.has(&kept) && blobs.has(&both));
    let again = blobs.add_bytes(bytes_of(1, 20_000), &lasting).await.expect("adds");
    assert!(blobs.read_all(&again, 20_000).await.expect("reads") == bytes_of(1, 20_000));
    blobs.shutdown().await;
}

/// The same contents are added, pinned, unpinned, fetched, read and collected over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collecting_in_a_tight_loop_never_takes_what_is_pinned_or_in_flight() {
    let dir = tempfile::tempdir().expect("dir");
    let (a, b) = (open(&dir.path().join("a")).await, open(&dir.path().join("b")).await);
    let net = Net::default();
    net.add(node(1), &a, Fault::None);
    b.set_dialer(Arc::new(net));
    let stop = Arc::new(AtomicBool::new(false));
    let collectors = [a.clone(), b.clone()].map(|blobs| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let (mut runs, mut deleted) = (0_u64, 0);
            while !stop.load(Ordering::Relaxed) {
                deleted += blobs.gc(GcMode::All).await.expect("collects").deleted;
                runs += 1;
            }
            (runs, deleted)
        })
    });
    let workers = (0..4_u8).map(|worker| {
        let (a, b) = (a.clone(), b.clone());
        tokio::spawn(async move {
            for round in 0..12_u64 {
                // Workers share contents, so that one unpins what another is adding.
                let len = [500, 60_000, 3 * MIB, 17 * MIB][(round % 4) as usize];
                let bytes = bytes_of(round % 4, len);
                let pin = job(worker);
                let blob = a.add_bytes(bytes.clone(), &pin).await.expect("adds");
                b.fetch(&blob, &[node(1)], &pin, None).await.expect("fetches");
                assert!(a.read_all(&blob, len).await.expect("is pinned at the holder") == bytes);
                assert!(b.read_all(&blob, len).await.expect("is pinned here") == bytes);
                a.unpin(&pin.reason).await.expect("unpins");
                b.unpin(&pin.reason).await.expect("unpins");
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
    stop.store(true, Ordering::Relaxed);
    for collector in collectors {
        let (runs, deleted) = collector.await.expect("no panic");
        assert!(runs > 10 && deleted > 10, "{runs} runs deleted {deleted}");
    }
    a.shutdown().await;
    b.shutdown().await;
}
