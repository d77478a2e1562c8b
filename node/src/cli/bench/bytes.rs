//! How bytes move: a large artifact between two nodes, also when the receiver dies in the middle, and a tree of which
//! little has changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use web_gateway::api::{BlobRow, JobRequest, JobState};

use super::idle::io_bytes;
use super::nodes::{Mesh, Node, job};
use super::peers::{Peer, RsyncDaemon, time_tcp};
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, say};

const TRANSFER_BYTES: u64 = 1 << 30;
const TRANSFER_MB_PER_S_MIN: f64 = 200.0;
/// A resumed transfer sends nothing again but what came in this time before the receiver was killed: the store writes its
/// index twice a second.
const RESENT_S_MAX: f64 = 1.0;
/// Interval in which the bytes of a transfer are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const TREE_FILES: usize = 10_000;
const TREE_FILES_QUICK: usize = 1_000;
const TREE_FILES_PER_DIRECTORY: usize = 100;
/// The changed file and the manifest.
const TREE_BLOBS_MAX: usize = 2;

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// A job on the second node that leaves a file of random bytes; waits until it has come to the first.
async fn artifact(mesh: &Mesh, bytes: u64) -> anyhow::Result<String> {
    let script = format!("head -c {bytes} /dev/urandom > big");
    let request = JobRequest { outputs: vec!["big".into()], ..job(&["sh", "-c", &script]) };
    let id = mesh.first().submit(&request).await?;
    let ended = mesh.first().follow(&id).await?;
    anyhow::ensure!(ended.state == JobState::Done, "the job that makes an artifact is {:?}", ended.state);
    Ok(id)
}

/// Has a node fetch a job's artifact: it answers the last byte only when it holds the whole, verified file.
async fn fetch(node: &Node, id: &str) -> anyhow::Result<Duration> {
    node.wait("the job on the third node", async |node| Ok(node.attempts(id).await.ok().filter(|a| !a.is_empty())))
        .await?;
    let begun = Instant::now();
    let mut stream = node.client.stream(&format!("/v1/jobs/{id}/artifacts/big")).await?;
    let took = begun.elapsed();
    futures::StreamExt::next(&mut stream).await.context("the artifact is empty")??;
    Ok(took)
}

pub(super) async fn transfer(plan: &Plan) -> anyhow::Result<Row> {
    let bytes = TRANSFER_BYTES;
    let mut mesh = Mesh::up(&plan.binary, &[0, 1, 0, 0]).await?;
    let (mut rates, mut home) = (Samples::default(), Samples::default());
    let mut whole_read = Samples::default();
    for round in 1..=plan.repeats(3) {
        let id = artifact(&mesh, bytes).await?;
        home.push(time_home(mesh.first(), &id).await?);
        let to = without_it(&mesh, &id).await?;
        let before = sent(&mesh, to)?;
        let took = fetch(&mesh.nodes[to], &id).await?;
        whole_read.push(sent(&mesh, to)? - before);
        rates.push(megabytes(bytes) / took.as_secs_f64());
        say(&format!("transfer {round}: {took:?}"));
    }
    let (mut rsync, mut tcp) = (Peer::default(), Peer::default());
    for _ in 0..plan.repeats(3) {
        rsync.keep("rsync", time_rsync(&mesh.dir("rsync"), bytes).await);
        tcp.keep("TCP", time_tcp_file(&mesh.dir("tcp"), bytes).await);
    }
    let rate = rates.median();
    let resumed = resume(&mut mesh, bytes, whole_read.median()).await?;
    let met =
        rate >= TRANSFER_MB_PER_S_MIN && resumed.is_none_or(|again| again * megabytes(bytes) <= rate * RESENT_S_MAX);
    let again = resumed.map_or_else(
        || "resume not measured".to_owned(),
        |again| format!("a resumed one {} % more", short(again * 100.0)),
    );
    let row = Row::new(
        "transfer",
        "artifact of 1 GiB between two nodes; the receiver killed in the middle",
        format!("≥ {TRANSFER_MB_PER_S_MIN:.0} MB/s; resume sends nothing twice"),
    );
    Ok(row
        .measured(met, format!("{}; {again}", rates.spread("MB/s")))
        .numbers("mb_per_s", &rates)
        .numbers("process_ended_to_done_s", &home)
        .numbers("rsync_s", &rsync.samples)
        .numbers("tcp_s", &tcp.samples)
        .peer(rsync.words("rsync from a local daemon", "s"))
        .peer(tcp.words("raw TCP", "s"))
        .note(format!(
            "from the request on a node that holds nothing of it until it holds the verified file; from the end of the process until the submitter has accepted it (hashed, stored, moved, verified): {}",
            home.spread("s")
        ))
        .note("resume: bytes that the other nodes read (/proc/PID/io) over both lives of the receiver, beside a transfer in one go; what came in the last second before the kill may come again"))
}

/// A file of random bytes in a directory of its own.
fn write_random(dir: &Path, bytes: u64) -> anyhow::Result<std::path::PathBuf> {
    std::fs::create_dir_all(dir)?;
    let file = dir.join("big");
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom")?, bytes);
    std::io::copy(&mut random, &mut std::fs::File::create(&file)?)?;
    Ok(file)
}

async fn time_rsync(dir: &Path, bytes: u64) -> anyhow::Result<Duration> {
    let from = dir.join("from");
    write_random(&from, bytes)?;
    let took = RsyncDaemon::start(&from).await?.time(&dir.join("to")).await;
    std::fs::remove_dir_all(dir)?;
    took
}

async fn time_tcp_file(dir: &Path, bytes: u64) -> anyhow::Result<Duration> {
    let from = write_random(dir, bytes)?;
    let took = time_tcp(from, dir.join("to")).await;
    std::fs::remove_dir_all(dir)?;
    took
}

/// Seconds from the end of the job's process until the submitter's node had accepted its files.
async fn time_home(node: &Node, id: &str) -> anyhow::Result<f64> {
    let attempts = node.attempts(id).await?;
    let ended = attempts.last().and_then(|attempt| attempt.ended.clone()).context("it has not ended")?;
    Ok(humantime::parse_rfc3339(&ended)?.elapsed().unwrap_or_default().as_secs_f64())
}

/// A node that holds nothing of an artifact: the runner has copied it to the submitter's node and one more.
async fn without_it(mesh: &Mesh, id: &str) -> anyhow::Result<usize> {
    let attempts = mesh.first().attempts(id).await?;
    let artifact = attempts.last().and_then(|attempt| attempt.artifacts.first()).context("it left no artifact")?;
    for (at, node) in mesh.nodes.iter().enumerate().skip(2) {
        if !held(node).await?.iter().any(|(blob, _)| *blob == artifact.blob) {
            return Ok(at);
        }
    }
    anyhow::bail!("every node holds the artifact already")
}

/// Bytes that all nodes but the receiver have read so far.
fn sent(mesh: &Mesh, receiver: usize) -> anyhow::Result<f64> {
    let holders = mesh.nodes.iter().enumerate().filter(|(at, _)| *at != receiver);
    holders.map(|(_, node)| io_bytes(node.pid()?, "rchar:")).sum()
}

/// Kills the receiver in the middle of a transfer and has it fetch again. Returns which share was sent twice.
async fn resume(mesh: &mut Mesh, bytes: u64, whole: f64) -> anyhow::Result<Option<f64>> {
    if !cfg!(target_os = "linux") || whole <= 0.0 {
        return Ok(None);
    }
    let id = artifact(mesh, bytes).await?;
    let to = without_it(mesh, &id).await?;
    let before = sent(mesh, to)?;
    let half = async {
        while sent(mesh, to)? - before < whole / 2.0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        reached = half => reached?,
        fetched = fetch(&mesh.nodes[to], &id) => {
            fetched?;
            anyhow::bail!("the transfer was over before its receiver could be killed");
        }
    }
    mesh.nodes[to].kill().await?;
    let first = sent(mesh, to)? - before;
    mesh.nodes[to].restart().await?;
    mesh.nodes[to].wait_peers(3, 1).await?;
    let took = fetch(&mesh.nodes[to], &id).await?;
    let both = sent(mesh, to)? - before;
    say(&format!("resume: {first:.0} bytes read, then {:.0} in {took:?}; in one go {whole:.0}", both - first));
    Ok(Some((both / whole - 1.0).max(0.0)))
}

fn write_tree(root: &Path, files: usize) -> std::io::Result<()> {
    for file in 0..files {
        let directory = root.join(format!("d{}", file / TREE_FILES_PER_DIRECTORY));
        if file % TREE_FILES_PER_DIRECTORY == 0 {
            std::fs::create_dir_all(&directory)?;
        }
        std::fs::write(directory.join(format!("f{file}.txt")), format!("file {file}\n").repeat(40))?;
    }
    Ok(())
}

async fn held(node: &Node) -> anyhow::Result<BTreeSet<(String, u64)>> {
    let rows: Vec<BlobRow> = node.client.get_pages("/v1/blobs", None).await?;
    Ok(rows.into_iter().map(|row| (row.blob, row.size)).collect())
}

pub(super) async fn tree(plan: &Plan) -> anyhow::Result<Row> {
    let files = if plan.quick { TREE_FILES_QUICK } else { TREE_FILES };
    let mesh = Mesh::up(&plan.binary, &[0, 1]).await?;
    let root = mesh.dir("tree");
    write_tree(&root, files)?;
    let path = root.to_str().context("the temporary directory's name is not UTF-8")?;
    let run = ["run", "--no-ignore", "--input", path, "--", "true"];
    let first = mesh.first().time_v6(&run).await?;
    let unchanged = mesh.first().time_v6(&run).await?;
    let before = [held(&mesh.nodes[0]).await?, held(&mesh.nodes[1]).await?];
    std::fs::write(root.join("d0/f7.txt"), "another content\n")?;
    let second = mesh.first().time_v6(&run).await?;
    let rsync = rsync_tree(&root, &mesh.dir("copy")).await;
    let after = [held(&mesh.nodes[0]).await?, held(&mesh.nodes[1]).await?];
    let fresh: Vec<Vec<&(String, u64)>> =
        after.iter().zip(&before).map(|(after, before)| after.difference(before).collect()).collect();
    let (here, there) = (fresh[0].len(), fresh[1].len());
    let bytes: u64 = fresh[1].iter().map(|(_, size)| size).sum();
    let met = here <= TREE_BLOBS_MAX && there <= TREE_BLOBS_MAX && before[1].len() >= files;
    let row = Row::new(
        "tree",
        format!("second `v6 run` of a {files}-file tree with one changed file"),
        "moves that file and the manifest only",
    );
    let words =
        format!("{here} blobs to the node, {there} to the worker ({bytes} bytes); {:.2} s", second.as_secs_f64());
    let beside = match rsync {
        Ok((first, second)) => {
            format!("rsync: {:.2} s, with one changed file {:.2} s", first.as_secs_f64(), second.as_secs_f64())
        }
        Err(error) => format!("rsync: not measured: {error:#}"),
    };
    Ok(row.measured(met, words).peer(beside).note(format!(
        "the first run took {:.2} s (blobs held by the worker: {}), one of the same tree {:.2} s",
        first.as_secs_f64(),
        before[1].len(),
        unchanged.as_secs_f64()
    )))
}

/// Time that rsync takes for a tree, and for it again with one changed file.
async fn rsync_tree(root: &Path, to: &Path) -> anyhow::Result<(Duration, Duration)> {
    let daemon = RsyncDaemon::start(root).await?;
    let first = daemon.time(to).await?;
    std::fs::write(root.join("d0/f8.txt"), "another content\n")?;
    Ok((first, daemon.time(to).await?))
}
