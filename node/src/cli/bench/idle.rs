//! What a node costs that has nothing to do, and what the system knows of a process.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::nodes::Mesh;
use super::peers;
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, say};

const NODES: usize = 5;
const RESIDENT_MB_MAX: f64 = 40.0;
const CPU_PERCENT_MAX: f64 = 0.5;
/// Time for a fresh mesh to come to rest.
const SETTLE: Duration = Duration::from_secs(15);
const WATCH: Duration = Duration::from_secs(30);
const WATCH_QUICK: Duration = Duration::from_secs(10);

pub(super) async fn idle(plan: &Plan) -> anyhow::Result<Row> {
    let watch = if plan.quick { WATCH_QUICK } else { WATCH };
    let row = Row::new(
        "idle",
        format!("idle node in a {NODES}-node mesh, {} s", watch.as_secs()),
        format!("≤ {RESIDENT_MB_MAX:.0} MB resident, ≤ {CPU_PERCENT_MAX} % of a core"),
    );
    if !cfg!(target_os = "linux") {
        return Ok(row.not_measured("it reads /proc, which this system lacks"));
    }
    let mesh = Mesh::up(&plan.binary, &[1; NODES]).await?;
    tokio::time::sleep(SETTLE).await;
    let pids = mesh.nodes.iter().map(super::nodes::Node::pid).collect::<anyhow::Result<Vec<u32>>>()?;
    let before = pids.iter().map(|pid| cpu_seconds(*pid)).collect::<anyhow::Result<Vec<f64>>>()?;
    let begun = Instant::now();
    tokio::time::sleep(watch).await;
    let (mut resident, mut cpu) = (Samples::default(), Samples::default());
    for (pid, before) in pids.iter().zip(before) {
        cpu.push((cpu_seconds(*pid)? - before) / begun.elapsed().as_secs_f64() * 100.0);
        resident.push(status_kb(*pid, "VmRSS:")? * 1_024.0 / 1e6);
    }
    say(&format!("idle: {resident:?} MB, {cpu:?} %"));
    drop(mesh);
    let hyperqueue = peer_words(
        "HyperQueue (server, worker and client in one Python process)",
        peers::idle_hyperqueue(&plan.python).await,
        watch,
    )
    .await;
    let syncthing = peer_words("syncthing", peers::idle_syncthing().await, watch).await;
    let met = resident.max() <= RESIDENT_MB_MAX && cpu.max() <= CPU_PERCENT_MAX;
    let words = format!(
        "median {} MB, {} %; most {} MB, {} %",
        short(resident.median()),
        short(cpu.median()),
        short(resident.max()),
        short(cpu.max())
    );
    Ok(row
        .measured(met, words)
        .peer(hyperqueue)
        .peer(syncthing)
        .numbers("resident_mb", &resident)
        .numbers("cpu_percent", &cpu))
}

/// What a peer that does nothing costs.
async fn peer_words(name: &str, peer: anyhow::Result<peers::Idle>, watch: Duration) -> String {
    let cost = async {
        let peer = peer?;
        tokio::time::sleep(SETTLE).await;
        let cpu = |pids: &[u32]| pids.iter().filter_map(|pid| cpu_seconds(*pid).ok()).sum::<f64>();
        let (before, begun) = (cpu(&peer.pids), Instant::now());
        tokio::time::sleep(watch).await;
        let percent = (cpu(&peer.pids) - before) / begun.elapsed().as_secs_f64() * 100.0;
        let kb: f64 = peer.pids.iter().filter_map(|pid| status_kb(*pid, "VmRSS:").ok()).sum();
        peer.end().await;
        anyhow::Ok(format!("{name}: {} MB, {} %", short(kb * 1_024.0 / 1e6), short(percent)))
    };
    cost.await.unwrap_or_else(|error| format!("{name}: not measured: {error:#}"))
}

/// Time that a process has had on a core, in seconds, with a resolution of a tick (10 ms).
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("the process's stat is not understood")?;
    let mut fields = rest.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field.and_then(|field| field.parse::<f64>().ok());
    match (ticks(fields.next()), ticks(fields.next())) {
        (Some(user), Some(system)) => Ok((user + system) / 100.0),
        _ => bail!("the process's stat is not understood"),
    }
}

/// A line of `/proc/PID/status` that is in kB.
pub(super) fn status_kb(pid: u32, name: &str) -> anyhow::Result<f64> {
    value(&format!("/proc/{pid}/status"), name)
}

/// A counter of `/proc/PID/io`, in bytes.
pub(super) fn io_bytes(pid: u32, name: &str) -> anyhow::Result<f64> {
    value(&format!("/proc/{pid}/io"), name)
}

fn value(file: &str, name: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{file} has no {name}"))
}

/// Load of the last minute, where the system tells.
pub(super) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
