//! A full disk: a small tmpfs in a mount namespace of its own.

use std::process::Command;

use node::blobs::{BlobError, BlobsConfig};

use crate::net::{MIB, bytes_of, job};

const DIR_VAR: &str = "V6_TEST_FULL_DISK_DIR";

/// Not a test of its own: runs where the next one has mounted a small disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR_VAR) else {
        return;
    };
    let dir = std::path::Path::new(&dir);
    let config = BlobsConfig { quota_bytes: 1 << 40 };
    let blobs = node::blobs::Blobs::open(&dir.join("blobs"), config).await.expect("opens").blobs;
    let first = blobs.add_bytes(bytes_of(1, 10 * MIB), &job(1)).await.expect("there is room");
    blobs.sync().await.expect("syncs");
    let loose = blobs.add_bytes(bytes_of(2, 10 * MIB), &job(2)).await.expect("there is room");
    blobs.unpin(&job(2).reason).await.expect("unpins");

    // The reserve is met: what is unpinned goes first, then there is a clear error.
    let mut added = 0;
    let error = loop {
        match blobs.add_bytes(bytes_of(100 + added, 10 * MIB), &job(1)).await {
            Ok(_) => added += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BlobError::DiskFull { .. }), "{error}");
    assert!(!blobs.has(&loose));
    assert!(added >= 3);

    // Somebody else takes the reserve too: even the database cannot grow.
    let junk = dir.join("junk");
    let mut full = std::fs::File::create(&junk).expect("creates");
    while std::io::Write::write_all(&mut full, &[1; 4096]).is_ok() {}
    let mut failed = None;
    for n in 0..20_000_u64 {
        let pin = node::blobs::Pin::new(node::blobs::PinReason::Replica { until_ms: u64::MAX - n });
        if let Err(error) = blobs.pin(&first, &pin).await {
            failed = Some(error);
            break;
        }
    }
    assert!(matches!(failed, Some(BlobError::DiskFull { .. })), "{failed:?}");
    let refused = blobs.add_bytes(bytes_of(3, 100), &job(1)).await;
    assert!(matches!(refused, Err(BlobError::DiskFull { .. })), "{refused:?}");

    drop(full);
    std::fs::remove_file(&junk).expect("removes");
    blobs.unpin(&job(1).reason).await.map_err(|e| e.to_string()).ok();
    let after = match blobs.add_bytes(bytes_of(3, 100), &job(3)).await {
        Ok(blob) => blob,
        Err(_) => blobs.add_bytes(bytes_of(3, 100), &job(3)).await.expect("works again"),
    };
    assert!(blobs.has(&after));
    let read = blobs.read_all(&first, 10 * MIB).await.expect("is still here");
    assert!(read == bytes_of(1, 10 * MIB));
    blobs.shutdown().await;
    std::fs::write(dir.join("done"), "").expect("writes");
    println!("small disk: passed");
}

#[test]
fn a_full_disk_gives_a_clear_error_and_leaves_the_store_usable() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "mount -t tmpfs -o size=96m none \"$1\" || exit 77; exec \"$2\" --exact \
                  full::child_on_a_small_disk --nocapture";
    let own = std::env::current_exe().expect("own path");
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .args([dir.path(), &own])
        .env(DIR_VAR, dir.path())
        .output();
    let Ok(run) = run else {
        println!("skipped: there is no unshare");
        return;
    };
    let text = String::from_utf8_lossy(&run.stdout);
    if !text.contains("running 1 test") {
        println!("skipped: no mount namespace here: {}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    assert!(
        run.status.success() && text.contains("small disk: passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
