//! Nodes of the benchmark's own: this binary, in directories that are removed, on loopback and free ports.
//!
//! A node ends with its handle: it is killed by its process id, waited for, and its directory is removed after all nodes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use hyper::Method;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use web_gateway::api::{AttemptView, JobRequest, JobState, JobView, LogLine, PeerView, Submitted};

use crate::client::Client;

/// Longest wait for something that a healthy mesh does within a second.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Interval in which a node is asked whether something has come about.
const LOOK: Duration = Duration::from_millis(20);
/// Time for a killed process to be gone.
const REAP_MAX: Duration = Duration::from_secs(5);

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) dir: PathBuf,
    pub(super) id: String,
    pub(super) client: Client,
    binary: PathBuf,
    process: Process,
    slots: u32,
}

/// The process of a node. Dropping it kills it and waits until it is gone, also while the node is still starting.
#[derive(Debug)]
struct Process(Child);

/// Nodes of one mesh; the first founded it. Dropping it ends them and removes their directories.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) nodes: Vec<Node>,
    binary: PathBuf,
    root: tempfile::TempDir,
}

/// What a job wrote to its standard output, and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) state: JobState,
    pub(super) stdout: Vec<u8>,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub(super) async fn up(binary: &Path, dir: &Path, slots: u32, ticket: Option<&str>) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["up", "--api", "127.0.0.1:0", "--no-mdns", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.arg("--name").arg(dir.file_name().unwrap_or_default());
        command.arg("--slots").arg(slots.to_string()).arg("--data-dir").arg(dir);
        if let Some(ticket) = ticket {
            command.args(["--join", ticket]);
        }
        std::fs::create_dir_all(dir)?;
        let log = std::fs::File::options().create(true).append(true).open(dir.with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut process = Process(command.spawn().context("a node cannot be started")?);
        let mut lines = BufReader::new(process.0.stdout.take().context("its output is piped")?).lines();
        let line = tokio::time::timeout(WAIT_MAX, lines.next_line()).await.context("a node did not become ready")??;
        let failed = || std::fs::read_to_string(dir.with_extension("log")).unwrap_or_default();
        let Some(line) = line else { bail!("a node ended at once: {}", failed()) };
        let ready: serde_json::Value = serde_json::from_str(&line).context("the ready line is not understood")?;
        let id = ready["node"].as_str().context("the ready line names no node")?.to_owned();
        Ok(Self { binary: binary.to_owned(), dir: dir.to_owned(), id, client: Client::open(dir)?, process, slots })
    }

    /// Process id.
    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        self.process.0.id().context("the node has ended")
    }

    /// Ends the process at once, as a power cut does, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.0.kill().await.context("a node cannot be killed")
    }

    /// Starts a killed node again.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        let fresh = Self::up(&self.binary, &self.dir, self.slots, None).await?;
        *self = fresh;
        Ok(())
    }

    /// A command that asks this node.
    fn v6(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("V6_DATA_DIR", &self.dir).args(args).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs a command and returns how long it took as a whole.
    pub(super) async fn time_v6(&self, args: &[&str]) -> anyhow::Result<Duration> {
        let mut command = self.v6(args);
        let begun = Instant::now();
        let output = command.output().await?;
        let took = begun.elapsed();
        if !output.status.success() {
            bail!("v6 {} ended with {}: {}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }

    pub(super) async fn submit(&self, request: &JobRequest) -> anyhow::Result<String> {
        let submitted: Submitted = self.client.send_json(Method::POST, "/v1/jobs", request).await?;
        Ok(submitted.job)
    }

    pub(super) async fn job(&self, id: &str) -> anyhow::Result<JobView> {
        Ok(self.client.get(&format!("/v1/jobs/{id}?tasks_max=1")).await?)
    }

    /// The attempts of a job's first task.
    pub(super) async fn attempts(&self, id: &str) -> anyhow::Result<Vec<AttemptView>> {
        Ok(self.job(id).await?.tasks.into_iter().next().map(|task| task.attempts).unwrap_or_default())
    }

    /// Follows a job to its end, as `v6 run` does.
    pub(super) async fn follow(&self, id: &str) -> anyhow::Result<Ended> {
        let client = Client::open(&self.dir)?;
        let mut chunks = client.stream(&format!("/v1/jobs/{id}/logs?follow=true")).await?;
        let (mut pending, mut stdout) = (Vec::new(), Vec::new());
        while let Some(chunk) = chunks.next().await {
            pending.extend_from_slice(&chunk?);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                let line: LogLine = serde_json::from_slice(&line)?;
                if let LogLine::End { state, .. } = line {
                    return Ok(Ended { state, stdout });
                }
                stdout.extend(line.into_bytes().unwrap_or_default());
            }
        }
        bail!("the log of {id} broke off")
    }

    /// Waits until the node's answer to a question is good.
    pub(super) async fn wait<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self).await? {
                return Ok(found);
            }
            anyhow::ensure!(begun.elapsed() < WAIT_MAX, "{what} did not come about within {WAIT_MAX:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until so many peers are connected, and as many of them sell slots as should.
    pub(super) async fn wait_peers(&self, online: usize, selling: usize) -> anyhow::Result<()> {
        self.wait("a mesh of all nodes", async |node| {
            let peers: Vec<PeerView> = node.client.get("/v1/peers").await?;
            let here = peers.iter().filter(|peer| peer.online);
            let sell = here.clone().filter(|peer| peer.slots_free.unwrap_or(0) > 0).count();
            Ok((here.count() >= online && sell >= selling).then_some(()))
        })
        .await
    }

    pub(super) async fn ticket(&self, uses: usize) -> anyhow::Result<String> {
        let request = serde_json::json!({"role": "worker", "uses": uses});
        let invited: web_gateway::api::Invited = self.client.send_json(Method::POST, "/v1/invites", &request).await?;
        Ok(invited.ticket)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.start_kill());
        let begun = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begun.elapsed() < REAP_MAX {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Mesh {
    /// Starts a node for each number of slots, and waits until all know each other.
    pub(super) async fn up(binary: &Path, slots: &[u32]) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("v6-bench-").tempdir()?;
        let mut mesh = Self { nodes: Vec::new(), binary: binary.to_owned(), root };
        let first = Node::up(binary, &mesh.dir("n0"), slots.first().copied().unwrap_or(0), None).await?;
        let ticket = first.ticket(slots.len()).await?;
        mesh.nodes.push(first);
        for (at, slots) in slots.iter().enumerate().skip(1) {
            let node = mesh.join(&format!("n{at}"), *slots, &ticket).await?;
            mesh.nodes.push(node);
        }
        for (at, node) in mesh.nodes.iter().enumerate() {
            let others = || slots.iter().enumerate().filter(|(other, _)| *other != at);
            node.wait_peers(others().count(), others().filter(|(_, slots)| **slots > 0).count()).await?;
        }
        Ok(mesh)
    }

    /// Starts one more node with a ticket; it is not counted as one of the mesh's.
    pub(super) async fn join(&self, name: &str, slots: u32, ticket: &str) -> anyhow::Result<Node> {
        Node::up(&self.binary, &self.dir(name), slots, Some(ticket)).await
    }

    /// A path inside the directory that goes with the mesh.
    pub(super) fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The node that founded the mesh.
    pub(super) fn first(&self) -> &Node {
        &self.nodes[0]
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.nodes.clear();
    }
}

/// A job of this command and nothing else.
pub(super) fn job(command: &[&str]) -> JobRequest {
    JobRequest { command: command.iter().map(|&word| word.to_owned()).collect(), ..JobRequest::default() }
}
