//! What a job costs a node that has no part in it, in a mesh where others submit and run without a pause.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use tokio::process::Command;
use web_gateway::api::{JobState, StatusView};

use super::idle::cpu_seconds;
use super::nodes::{Mesh, Node};
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, say};

const NODES: usize = 20;
/// Nodes that run the jobs, with two slots each; one more submits them.
const WORKERS: usize = 3;
const JOBS_PER_S: u32 = 50;
const SECONDS: u32 = 30;
const SECONDS_QUICK: u32 = 10;
/// Time for a fresh mesh to come to rest.
const SETTLE: Duration = Duration::from_secs(15);
/// Submissions that wait for their acknowledgements at a time.
const UNDER_WAY_MAX: usize = 64;
const CPU_MS_MAX: f64 = 0.5;
const BYTES_MAX: f64 = 3_000.0;

/// What a process has had so far.
#[derive(Debug, Clone, Copy)]
struct Had {
    cpu_ms: f64,
    bytes: Option<f64>,
}

pub(super) async fn bystander(plan: &Plan) -> anyhow::Result<Row> {
    let seconds = if plan.quick { SECONDS_QUICK } else { SECONDS };
    let row = Row::new(
        "bystander",
        format!("a job's cost to a node without a part in it, {NODES} nodes, {JOBS_PER_S} jobs/s, {seconds} s"),
        format!("≤ {CPU_MS_MAX} ms of a core, ≤ {:.0} kB received", BYTES_MAX / 1e3),
    );
    if !cfg!(target_os = "linux") {
        return Ok(row.not_measured("it reads /proc, which this system lacks"));
    }
    let slots: Vec<u32> = (0..NODES).map(|at| if (1..=WORKERS).contains(&at) { 2 } else { 0 }).collect();
    let mesh = Mesh::up(&plan.binary, &slots).await?;
    let bystanders = &mesh.nodes[1 + WORKERS..];
    let period = Duration::from_secs(seconds.into());
    tokio::time::sleep(SETTLE).await;
    let rested = all(bystanders).await?;
    tokio::time::sleep(period).await;
    let before = all(bystanders).await?;
    let begun = Instant::now();
    run_jobs(mesh.first(), JOBS_PER_S * seconds).await?;
    let took = begun.elapsed();
    let after = all(bystanders).await?;
    let (mut cpu, mut bytes, mut idle_cpu, mut idle_bytes) = <(Samples, Samples, Samples, Samples)>::default();
    let jobs = f64::from(JOBS_PER_S * seconds);
    for ((rested, before), after) in rested.iter().zip(&before).zip(&after) {
        // What the node costs without any job is in the row `idle`.
        let share = took.as_secs_f64() / period.as_secs_f64();
        idle_cpu.push((before.cpu_ms - rested.cpu_ms) * share / jobs);
        cpu.push((after.cpu_ms - before.cpu_ms - (before.cpu_ms - rested.cpu_ms) * share) / jobs);
        if let (Some(rested), Some(before), Some(after)) = (rested.bytes, before.bytes, after.bytes) {
            idle_bytes.push((before - rested) * share / jobs);
            bytes.push((after - before - (before - rested) * share) / jobs);
        }
    }
    say(&format!("bystander: {cpu:?} ms, {bytes:?} bytes per job"));
    let met = cpu.median() <= CPU_MS_MAX && (bytes.len() == 0 || bytes.median() <= BYTES_MAX);
    let shown = if bytes.len() > 0 {
        format!("{} bytes", short(bytes.median()))
    } else {
        "bytes: not measured: no `ss`".into()
    };
    let row = row
        .measured(met, format!("{} ms, {shown}", short(cpu.median())))
        .numbers("cpu_ms_per_job", &cpu)
        .numbers("bytes_per_job", &bytes)
        .numbers("idle_cpu_ms_per_job", &idle_cpu)
        .numbers("idle_bytes_per_job", &idle_bytes);
    Ok(row.note(format!(
        "over what the node costs in as much time without jobs; {} jobs ended {} s after the first submission",
        jobs,
        short(took.as_secs_f64())
    )))
}

/// Submits jobs at a steady rate and waits until all are over.
async fn run_jobs(node: &Node, jobs: u32) -> anyhow::Result<()> {
    let begun = tokio::time::Instant::now();
    let request = super::nodes::job(&["true"]);
    let submits = futures::stream::iter(0..jobs).map(|number| {
        let request = &request;
        async move {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * number / JOBS_PER_S).await;
            node.submit(request).await
        }
    });
    submits.buffered(UNDER_WAY_MAX).try_collect::<Vec<String>>().await?;
    node.wait("the end of all jobs", async |node| {
        let status: StatusView = node.client.get("/v1/status").await?;
        let done = status.jobs.get(&JobState::Done).copied().unwrap_or(0);
        Ok((done >= u64::from(jobs)).then_some(()))
    })
    .await
}

async fn all(nodes: &[Node]) -> anyhow::Result<Vec<Had>> {
    let sockets = sockets().await;
    if let Err(error) = &sockets {
        say(&format!("bystander: {error:#}"));
    }
    nodes
        .iter()
        .map(|node| {
            let pid = node.pid()?;
            let bytes = sockets.as_ref().ok().map(|sockets| received_bytes(sockets, pid));
            Ok(Had { cpu_ms: cpu_seconds(pid)? * 1e3, bytes })
        })
        .collect()
}

/// What the system knows of all TCP connections, one a line.
async fn sockets() -> anyhow::Result<String> {
    let output = Command::new("ss").args(["-tnipOH"]).output().await.context("`ss` cannot be run")?;
    if !output.status.success() {
        bail!("`ss` ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Bytes that a process has received over the connections that it has.
fn received_bytes(sockets: &str, pid: u32) -> f64 {
    let owner = format!("pid={pid},");
    let of = |line: &str| {
        let (_, rest) = line.split_once("bytes_received:")?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    sockets.lines().filter(|line| line.contains(&owner)).filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_over_the_connections_of_one_process() {
        let sockets = "ESTAB 0 0 127.0.0.1:1 127.0.0.1:2 users:((\"v6\",pid=12,fd=9)) cubic bytes_sent:7 bytes_received:30 x\n\
                       ESTAB 0 0 127.0.0.1:3 127.0.0.1:4 users:((\"v6\",pid=12,fd=8)) cubic bytes_received:4\n\
                       ESTAB 0 0 127.0.0.1:5 127.0.0.1:6 users:((\"v6\",pid=123,fd=8)) cubic bytes_received:500\n";
        assert!((received_bytes(sockets, 12) - 34.0).abs() < f64::EPSILON);
    }
}
