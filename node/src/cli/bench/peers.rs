//! What others need for the same work: each is looked for on this machine, and what is not there is not measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::stats::Samples;
use super::{TAKES_MAX, say};

/// HyperQueue's side: a script for a Python that has the package.
const HYPERQUEUE: &str = include_str!("hyperqueue.py");
/// Time for a daemon to listen.
const LISTENS_MAX: Duration = Duration::from_secs(20);

/// What a peer needed so far, or why that is not known.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) samples: Samples,
    why_not: Option<String>,
}

impl Peer {
    pub(super) fn keep(&mut self, name: &str, result: anyhow::Result<Duration>) {
        match result {
            Ok(took) => self.samples.push(took.as_secs_f64()),
            Err(error) => {
                say(&format!("{name}: {error:#}"));
                self.why_not = Some(format!("{error:#}"));
            }
        }
    }

    pub(super) fn words(&self, name: &str, unit: &str) -> String {
        match &self.why_not {
            Some(why) if self.samples.len() == 0 => format!("{name}: not measured: {why}"),
            _ => format!("{name}: {}", self.samples.spread(unit)),
        }
    }

    /// How many times the peer's time that is.
    pub(super) fn ratio(&self, ours: &Samples) -> Option<f64> {
        (self.samples.len() > 0).then(|| ours.median() / self.samples.median())
    }
}

/// A HyperQueue cluster to be measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cluster {
    pub(super) workers: usize,
    pub(super) cores: usize,
}

fn hyperqueue(python: &Path, mode: &str, count: usize, cluster: Cluster) -> Command {
    let mut command = Command::new(python);
    command.args(["-c", HYPERQUEUE, mode]);
    command.args([count, cluster.workers, cluster.cores].map(|number| number.to_string()));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The times that the script prints: of each job in mode `single`, else of all.
pub(super) async fn time_hyperqueue(
    python: &Path,
    mode: &str,
    count: usize,
    cluster: Cluster,
) -> anyhow::Result<Vec<Duration>> {
    let name = python.display();
    let found = Command::new(python).args(["-c", "import hyperqueue"]).stdin(Stdio::null()).output();
    if !found.await.with_context(|| format!("{name} is not here"))?.status.success() {
        bail!("{name} has no package hyperqueue (name one that has with --python)");
    }
    let mut script = hyperqueue(python, mode, count, cluster);
    let output = tokio::time::timeout(TAKES_MAX, script.output()).await.context("HyperQueue does not end")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let took = text.lines().filter_map(|line| line.strip_prefix("took ")?.trim().parse().ok());
    let took: Vec<Duration> = took.map(Duration::from_secs_f64).collect();
    ensure!(!took.is_empty(), "it failed: {}", last_line(&output.stderr));
    Ok(took)
}

/// The same where one time is printed.
pub(super) async fn time_hyperqueue_once(
    python: &Path,
    mode: &str,
    count: usize,
    cluster: Cluster,
) -> anyhow::Result<Duration> {
    time_hyperqueue(python, mode, count, cluster).await.map(|took| took[0])
}

fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().last().unwrap_or("no word").to_owned()
}

/// Processes of a peer that does nothing; they end with the handle.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) pids: Vec<u32>,
    child: Child,
    _dir: Option<tempfile::TempDir>,
}

impl Idle {
    /// Ends it in order: what it started ends with it.
    pub(super) async fn end(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(LISTENS_MAX, self.child.wait()).await.is_err() {
            drop(self.child.kill().await);
        }
    }
}

/// HyperQueue with one worker of one core; its package runs server, worker and client in one process.
pub(super) async fn idle_hyperqueue(python: &Path) -> anyhow::Result<Idle> {
    let mut child = hyperqueue(python, "idle", 0, Cluster { workers: 1, cores: 1 }).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let read = async {
        // It says more than that.
        while let Some(line) = lines.next_line().await? {
            if let Some(pids) = line.strip_prefix("pids ") {
                return anyhow::Ok(pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect());
            }
        }
        bail!("{} has no package hyperqueue", python.display())
    };
    let pids: Vec<u32> = tokio::time::timeout(LISTENS_MAX, read).await.context("it does not start")??;
    Ok(Idle { pids, child, _dir: None })
}

/// syncthing with an empty folder and no peers.
pub(super) async fn idle_syncthing() -> anyhow::Result<Idle> {
    let dir = tempfile::Builder::new().prefix("v6-bench-").tempdir()?;
    let mut command = Command::new("syncthing");
    command.args(["serve", "--no-browser", "--no-restart", "--no-upgrade", "--gui-address=127.0.0.1:0"]);
    command.arg("--home").arg(dir.path()).env("HOME", dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("syncthing is not here")?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    if let Some(status) = child.try_wait()? {
        bail!("syncthing ended with {status}");
    }
    let pid = child.id().context("it runs")?;
    Ok(Idle { pids: vec![pid], child, _dir: Some(dir) })
}

/// An rsync daemon on loopback that serves one directory.
#[derive(Debug)]
pub(super) struct RsyncDaemon {
    port: u16,
    _child: Child,
    _dir: tempfile::TempDir,
}

impl RsyncDaemon {
    pub(super) async fn start(serves: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("v6-bench-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let config = dir.path().join("rsyncd.conf");
        let text = format!(
            "use chroot = no\nreverse lookup = no\nlog file = {}\n[it]\npath = {}\nread only = yes\n",
            dir.path().join("log").display(),
            serves.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("rsync");
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]).arg(format!("--port={port}"));
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn().context("rsync is not here")?;
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(begun.elapsed() < LISTENS_MAX, "rsync's daemon does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { port, _child: child, _dir: dir })
    }

    /// Time to bring all of it to a directory.
    pub(super) async fn time(&self, to: &Path) -> anyhow::Result<Duration> {
        let from = format!("rsync://127.0.0.1:{}/it/", self.port);
        let begun = Instant::now();
        let output = Command::new("rsync").args(["-a", &from]).arg(to).stdin(Stdio::null()).output().await?;
        ensure!(output.status.success(), "rsync ended with {}: {}", output.status, last_line(&output.stderr));
        Ok(begun.elapsed())
    }
}

/// Time to bring a file over one TCP connection on loopback into another file.
pub(super) async fn time_tcp(from: PathBuf, to: PathBuf) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let begun = Instant::now();
    let sender = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        let mut file = tokio::fs::File::open(from).await?;
        copy(&mut file, &mut socket).await
    });
    let mut socket = TcpStream::connect(address).await?;
    let mut file = tokio::fs::File::create(to).await?;
    copy(&mut socket, &mut file).await?;
    sender.await??;
    Ok(begun.elapsed())
}

async fn copy(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            to.flush().await?;
            to.shutdown().await?;
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
