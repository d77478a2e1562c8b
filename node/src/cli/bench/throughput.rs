//! How many tasks and jobs a mesh gets through, beside what others need for the same in the same run.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use web_gateway::api::{JobState, StatusView};

use super::nodes::{Mesh, job};
use super::peers::{Cluster, Peer, time_hyperqueue_once};
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, TAKES_MAX, say};

const ARRAY_TASKS: usize = 5_000;
const ARRAY_TASKS_QUICK: usize = 1_000;
const LONG_ARRAY_TASKS: usize = 50_000;
const LONG_ARRAY_TASKS_QUICK: usize = 10_000;
const WORKERS: usize = 2;
const HYPERQUEUE_RATIO_MAX: f64 = 0.4;
const XARGS_RATIO_MAX: f64 = 1.0;
const BATCH_JOBS: usize = 1_000;
const BATCH_JOBS_QUICK: usize = 200;
const BATCH_JOBS_PER_S_MIN: f64 = 300.0;
/// Slots of each of the two nodes that sleep.
const SLEEP_SLOTS: u32 = 50;
const SLEEP_TASKS: usize = 1_000;
const SLEEP_TASKS_QUICK: usize = 300;
/// Interval in which the end of a batch is looked for.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn array(plan: &Plan) -> anyhow::Result<Row> {
    let tasks = if plan.quick { ARRAY_TASKS_QUICK } else { ARRAY_TASKS };
    array_of(plan, "array", tasks, plan.repeats(5)).await
}

pub(super) async fn long_array(plan: &Plan) -> anyhow::Result<Row> {
    let tasks = if plan.quick { LONG_ARRAY_TASKS_QUICK } else { LONG_ARRAY_TASKS };
    array_of(plan, "long-array", tasks, plan.repeats(1)).await
}

async fn array_of(plan: &Plan, name: &'static str, tasks: usize, repeats: usize) -> anyhow::Result<Row> {
    let mesh = Mesh::up(&plan.binary, &[0, 1, 1]).await?;
    let count = tasks.to_string();
    let (mut ours, mut xargs, mut hyperqueue) = (Samples::default(), Peer::default(), Peer::default());
    let cluster = Cluster { workers: WORKERS, cores: 1 };
    for _ in 0..repeats {
        ours.push(mesh.first().time_v6(&["run", "--array", &count, "--", "true"]).await?.as_secs_f64());
        xargs.keep("xargs", time_xargs(tasks).await);
        hyperqueue.keep("HyperQueue", time_hyperqueue_once(&plan.python, "array", tasks, cluster).await);
        say(&format!("{name}: {ours:?}, {xargs:?}, {hyperqueue:?}"));
    }
    let (to_xargs, to_hyperqueue) = (xargs.ratio(&ours), hyperqueue.ratio(&ours));
    let met = to_xargs.is_none_or(|ratio| ratio <= XARGS_RATIO_MAX)
        && to_hyperqueue.is_none_or(|ratio| ratio <= HYPERQUEUE_RATIO_MAX);
    let shown = |ratio: Option<f64>| ratio.map_or_else(|| "?".to_owned(), short);
    let mut row = Row::new(
        name,
        format!("{tasks} `true` as one array, 2 worker nodes with 1 slot"),
        format!("≤ {HYPERQUEUE_RATIO_MAX} × HyperQueue, ≤ {XARGS_RATIO_MAX:.1} × xargs -P2"),
    )
    .measured(met, format!("{}; {} × HyperQueue, {} × xargs", ours.spread("s"), shown(to_hyperqueue), shown(to_xargs)))
    .numbers("v6_s", &ours)
    .numbers("xargs_s", &xargs.samples)
    .numbers("hyperqueue_s", &hyperqueue.samples);
    if to_xargs.is_none() && to_hyperqueue.is_none() {
        row.met = None;
    }
    row = row.peer(xargs.words("xargs -P2", "s")).peer(hyperqueue.words("HyperQueue", "s"));
    Ok(row.note(
        "`v6 run --array` and `xargs -n1 -P2` are timed as whole processes, HyperQueue from submit to the end of waiting on a cluster that runs already (its Python client looks once a second)",
    ))
}

/// Single jobs, each submitted when the one before it is acknowledged.
pub(super) async fn sequence(plan: &Plan) -> anyhow::Result<Row> {
    let jobs = if plan.quick { BATCH_JOBS_QUICK } else { BATCH_JOBS };
    let mesh = Mesh::up(&plan.binary, &[0, 1, 1]).await?;
    let (mut ours, mut acknowledged, mut hyperqueue) = (Samples::default(), Samples::default(), Peer::default());
    let request = job(&["true"]);
    for round in 1..=plan.repeats(3) {
        let begun = Instant::now();
        for _ in 0..jobs {
            let one = Instant::now();
            mesh.first().submit(&request).await?;
            acknowledged.push_ms(one.elapsed());
        }
        wait_done(&mesh, round * jobs).await?;
        ours.push(begun.elapsed().as_secs_f64());
        let cluster = Cluster { workers: WORKERS, cores: 1 };
        hyperqueue.keep("HyperQueue", time_hyperqueue_once(&plan.python, "together", jobs, cluster).await);
        say(&format!("sequence: {ours:?}, {hyperqueue:?}"));
    }
    let row = Row::new(
        "sequence",
        format!("{jobs} single jobs (`true`) one after the other, 2 worker nodes with 1 slot, until all are done"),
        "none: beside HyperQueue",
    );
    let row = row.told(format!("{}; each acknowledged after {}", ours.spread("s"), acknowledged.spread("ms")));
    let row = row.numbers("v6_s", &ours).numbers("hyperqueue_s", &hyperqueue.samples);
    Ok(row.numbers("acknowledged_ms", &acknowledged).peer(hyperqueue.words("HyperQueue", "s")))
}

/// Tasks that only take time, on many slots.
pub(super) async fn sleep(plan: &Plan) -> anyhow::Result<Row> {
    let tasks = if plan.quick { SLEEP_TASKS_QUICK } else { SLEEP_TASKS };
    let mesh = Mesh::up(&plan.binary, &[0, SLEEP_SLOTS, SLEEP_SLOTS]).await?;
    let slots = 2 * usize::try_from(SLEEP_SLOTS)?;
    let ideal = f64::from(u32::try_from(tasks.div_ceil(slots))?);
    let (mut ours, mut hyperqueue) = (Samples::default(), Peer::default());
    for _ in 0..plan.repeats(3) {
        let args = ["run", "--array", &tasks.to_string(), "--", "sleep", "1"];
        ours.push(mesh.first().time_v6(&args).await?.as_secs_f64());
        let cluster = Cluster { workers: WORKERS, cores: slots / 2 };
        hyperqueue.keep("HyperQueue", time_hyperqueue_once(&plan.python, "sleep", tasks, cluster).await);
        say(&format!("sleep: {ours:?}, {hyperqueue:?}"));
    }
    let row = Row::new(
        "sleep",
        format!("{tasks} `sleep 1` as one array, 2 worker nodes with {SLEEP_SLOTS} slots: ideally {ideal:.0} s"),
        "none: beside HyperQueue",
    );
    let over = (ours.median() / ideal - 1.0) * 100.0;
    let row = row.told(format!("{}: {} % over the ideal", ours.spread("s"), short(over)));
    let row = row.numbers("v6_s", &ours).numbers("hyperqueue_s", &hyperqueue.samples);
    Ok(row.peer(hyperqueue.words("HyperQueue", "s")))
}

async fn time_xargs(tasks: usize) -> anyhow::Result<Duration> {
    let words: String = (0..tasks).fold(String::new(), |mut words, task| {
        let _ = writeln!(words, "{task}");
        words
    });
    let mut command = Command::new("xargs");
    command.args(["-n1", &format!("-P{WORKERS}"), "true"]).stdin(Stdio::piped()).kill_on_drop(true);
    let begun = Instant::now();
    let mut child = command.spawn().context("xargs is not here")?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    stdin.write_all(words.as_bytes()).await?;
    drop(stdin);
    let status = tokio::time::timeout(TAKES_MAX, child.wait()).await.context("xargs does not end")??;
    anyhow::ensure!(status.success(), "xargs ended with {status}");
    Ok(begun.elapsed())
}

pub(super) async fn batch(plan: &Plan) -> anyhow::Result<Row> {
    let mesh = Mesh::up(&plan.binary, &[2, 2, 2]).await?;
    let node = mesh.first();
    let file = write_batch(&mesh, BATCH_JOBS)?;
    let file = file.to_str().context("the temporary directory's name is not UTF-8")?;
    let (mut rates, mut acknowledged) = (Samples::default(), Samples::default());
    for round in 1..=plan.repeats(3) {
        let begun = Instant::now();
        acknowledged.push_ms(node.time_v6(&["submit", file]).await?);
        wait_done(&mesh, round * BATCH_JOBS).await?;
        let took = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a thousand is exact")]
        rates.push(BATCH_JOBS as f64 / took);
        say(&format!("batch {round}: {took:.2} s"));
    }
    let rate = rates.median();
    let row = Row::new(
        "batch",
        format!("{BATCH_JOBS} single jobs (`true`) in one `v6 submit`, 3 nodes with 2 slots, until all are done"),
        format!("≥ {BATCH_JOBS_PER_S_MIN:.0} jobs/s"),
    );
    let row = row.measured(rate >= BATCH_JOBS_PER_S_MIN, rates.spread("jobs/s"));
    let row = row.numbers("jobs_per_s", &rates).numbers("acknowledged_ms", &acknowledged);
    Ok(row.note(format!("all are acknowledged (durable) after {}", acknowledged.spread("ms"))))
}

/// A file with so many jobs.
pub(super) fn write_batch(mesh: &Mesh, jobs: usize) -> anyhow::Result<PathBuf> {
    let file = mesh.dir("batch.toml");
    std::fs::write(&file, "[[job]]\ncommand = [\"true\"]\n".repeat(jobs))?;
    Ok(file)
}

/// Waits until the first node knows that so many jobs are done.
pub(super) async fn wait_done(mesh: &Mesh, jobs: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let status: StatusView = mesh.first().client.get("/v1/status").await?;
        let done = status.jobs.get(&JobState::Done).copied().unwrap_or(0);
        if done >= jobs as u64 {
            return Ok(());
        }
        let failed = status.jobs.get(&JobState::Failed).copied().unwrap_or(0);
        anyhow::ensure!(failed == 0, "{failed} jobs failed, {done} of {jobs} are done");
        anyhow::ensure!(begun.elapsed() < TAKES_MAX, "{done} of {jobs} jobs are done after {TAKES_MAX:?}");
        tokio::time::sleep(LOOK).await;
    }
}
