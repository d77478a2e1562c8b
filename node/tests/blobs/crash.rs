//! Crashes and damage: a killed process, a garbled database.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crdt::ids::BlobHash;
use node::blobs::{BlobRef, Blobs, BlobsConfig};

use crate::net::{MIB, bytes_of, job, open};

const DIR_VAR: &str = "V6_TEST_BLOBS_DIR";

/// Not a test of its own: the process that the next one kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_adds_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR_VAR) else {
        return;
    };
    let blobs = Blobs::open(dir.as_ref(), BlobsConfig { quota_bytes: 1 << 40 }).await.expect("opens").blobs;
    for n in 0.. {
        let len = [100, 20_000, MIB, 18 * MIB][(n % 4) as usize];
        let blob = blobs.add_bytes(bytes_of(n, len), &job(1)).await.expect("adds");
        blobs.sync().await.expect("syncs");
        println!("\nsynced {n} {} {}", blob.hash, blob.size);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_synced_survives_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("blobs");
    let mut promised = Vec::new();
    for round in 0..3_u64 {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "crash::child_that_adds_until_it_is_killed", "--nocapture"])
            .env(DIR_VAR, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut count = 0;
        for line in lines {
            let line = line.expect("text");
            let Some(rest) = line.strip_prefix("synced ") else {
                continue;
            };
            let words: Vec<_> = rest.split(' ').collect();
            let hash: BlobHash = words[1].parse().expect("hash");
            promised
                .push((words[0].parse::<u64>().expect("n"), BlobRef { hash, size: words[2].parse().expect("size") }));
            count += 1;
            if count == 7 + round {
                child.kill().expect("kills");
                break;
            }
        }
        child.wait().expect("ends");
        let blobs = open(&path).await;
        for (n, blob) in &promised {
            assert!(blobs.has(blob), "{n}");
            assert!(blobs.read_all(blob, blob.size).await.expect("reads") == bytes_of(*n, blob.size));
        }
        let left = std::fs::read_dir(path.join("temp")).expect("lists").count();
        assert_eq!(left, 0, "temporary files of the killed process are gone");
        let recorded = blobs.list(None, 1_000);
        for file in std::fs::read_dir(path.join("data")).expect("lists") {
            let name = file.expect("entry").file_name().into_string().expect("text");
            let hash = name.split('.').next().and_then(|stem| stem.parse::<BlobHash>().ok()).expect("a hash");
            assert!(recorded.iter().any(|info| info.hash == hash), "{name} belongs to nothing");
        }
        blobs.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_moved_aside_and_begun_anew() {
    for damage in ["garbage", "torn", "empty", "zeroed middle"] {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("blobs");
        let blobs = open(&path).await;
        for n in 0..40 {
            blobs.add_bytes(bytes_of(n, 10_000), &job(1)).await.expect("adds");
        }
        blobs.shutdown().await;
        let database = path.join("blobs.db");
        let mut bytes = std::fs::read(&database).expect("reads");
        match damage {
            "garbage" => bytes = bytes_of(1, 100_000).to_vec(),
            "torn" => bytes.truncate(bytes.len() / 3),
            "empty" => bytes = vec![1],
            _ => bytes[4096..].fill(0),
        }
        std::fs::write(&database, bytes).expect("writes");
        let opened = Blobs::open(&path, BlobsConfig { quota_bytes: 1 << 40 }).await.expect("opens");
        assert!(opened.recovered, "{damage}");
        let aside = opened.moved_to.expect("was moved");
        assert!(aside.file_name().expect("name").to_string_lossy().starts_with("blobs.damaged-"));
        assert!(aside.join("blobs.db").exists());
        let blob = opened.blobs.add_bytes(bytes_of(1, MIB), &job(1)).await.expect("adds");
        assert!(opened.blobs.has(&blob));
        opened.blobs.shutdown().await;
    }
}
