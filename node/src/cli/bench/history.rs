//! What finished jobs cost a node: memory, disk, the time to start, the time for another to join.

use std::time::Instant;

use web_gateway::api::StatusView;

use super::faults;
use super::idle::status_kb;
use super::nodes::Mesh;
use super::report::Row;
use super::stats::{Samples, short};
use super::throughput::{wait_done, write_batch};
use super::{Plan, say};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const SIZES_QUICK: [usize; 2] = [1_000, 5_000];
/// Jobs that are submitted at a time.
const AT_A_TIME: usize = 1_000;

pub(super) async fn history(plan: &Plan) -> anyhow::Result<Row> {
    let sizes = if plan.quick { &SIZES_QUICK[..] } else { &SIZES[..] };
    let mut row = Row::new(
        "history",
        "a node with so many finished jobs: memory, store, start, join",
        "none: how it grows; a million would take an hour to run",
    );
    if !cfg!(target_os = "linux") {
        return Ok(row.not_measured("it reads /proc, which this system lacks"));
    }
    let mut mesh = Mesh::up(&plan.binary, &[0, 2, 2]).await?;
    let (mut done, mut words) = (0, Vec::new());
    for size in sizes {
        while done < *size {
            let file = write_batch(&mesh, AT_A_TIME)?;
            mesh.first().time_v6(&["submit", &file.to_string_lossy()]).await?;
            done += AT_A_TIME;
            wait_done(&mesh, done).await?;
            say(&format!("history: {done} jobs"));
        }
        let ticket = mesh.first().ticket(1).await?;
        let begun = Instant::now();
        let joiner = mesh.join(&format!("joiner{size}"), 0, &ticket).await?;
        let joined = faults::history(&mesh, &joiner, begun).await?;
        drop(joiner);
        let node = &mut mesh.nodes[1];
        node.kill().await?;
        let begun = Instant::now();
        node.restart().await?;
        let start_s = begun.elapsed().as_secs_f64();
        let megabytes = status_kb(node.pid()?, "VmRSS:")? * 1_024.0 / 1e6;
        let status: StatusView = node.client.get("/v1/status").await?;
        let store = std::fs::metadata(node.dir.join("v6.redb"))?.len() / 1_000_000;
        let history = status.history_bytes / 1_000_000;
        let join_s = joined.map_or(f64::NAN, |joined| joined.as_secs_f64());
        words.push(format!(
            "{size} jobs: {} MB resident, store {store} MB ({history} MB of history), start {} s, join {} s",
            short(megabytes),
            short(start_s),
            short(join_s)
        ));
        for (name, value) in [("resident_mb", megabytes), ("start_s", start_s), ("join_s", join_s)] {
            let mut samples = Samples::default();
            samples.push(value);
            row = row.numbers(&format!("{name}_at_{size}"), &samples);
        }
        mesh.first().wait_peers(2, 0).await?;
    }
    Ok(row
        .told(words.join("; "))
        .note("started again after a kill -9, over the whole store; memory is what it holds then"))
}
