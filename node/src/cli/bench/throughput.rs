//! How many tasks and jobs a mesh gets through, beside what others need for the same in the same run.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use web_gateway::api::{JobState, StatusView};

use super::nodes::Mesh;
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, say};

const ARRAY_TASKS: usize = 5_000;
const ARRAY_TASKS_QUICK: usize = 1_000;
const WORKERS: usize = 2;
const HYPERQUEUE_RATIO_MAX: f64 = 0.4;
const XARGS_RATIO_MAX: f64 = 1.0;
const BATCH_JOBS: usize = 1_000;
const BATCH_JOBS_PER_S_MIN: f64 = 300.0;
/// Interval in which the end of a batch is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Longest that any of these may take.
const TAKES_MAX: Duration = Duration::from_secs(600);
/// HyperQueue's side of the array: a script for a Python that has the package.
const HYPERQUEUE: &str = include_str!("hq_array.py");

pub(super) async fn array(plan: &Plan) -> anyhow::Result<Row> {
    let tasks = if plan.quick { ARRAY_TASKS_QUICK } else { ARRAY_TASKS };
    let mesh = Mesh::up(&plan.binary, &[0, 1, 1]).await?;
    let count = tasks.to_string();
    let (mut ours, mut xargs, mut hyperqueue) = (Samples::default(), Samples::default(), Samples::default());
    let (mut no_xargs, mut no_hyperqueue) = (None, None);
    for _ in 0..plan.repeats(5) {
        ours.push(mesh.first().time_v6(&["run", "--array", &count, "--", "true"]).await?.as_secs_f64());
        let theirs = time_xargs(tasks).await;
        keep("xargs", theirs, &mut xargs, &mut no_xargs);
        let theirs = time_hyperqueue(&plan.python, tasks).await;
        keep("HyperQueue", theirs, &mut hyperqueue, &mut no_hyperqueue);
        say(&format!("array: {ours:?}, xargs {xargs:?}, HyperQueue {hyperqueue:?}"));
    }
    let ratio = |theirs: &Samples| (theirs.len() > 0).then(|| ours.median() / theirs.median());
    let (to_xargs, to_hyperqueue) = (ratio(&xargs), ratio(&hyperqueue));
    let met = to_xargs.is_none_or(|ratio| ratio <= XARGS_RATIO_MAX)
        && to_hyperqueue.is_none_or(|ratio| ratio <= HYPERQUEUE_RATIO_MAX);
    let shown = |ratio: Option<f64>| ratio.map_or_else(|| "?".to_owned(), short);
    let mut row = Row::new(
        "array",
        format!("{tasks} `true` as one array, 2 worker nodes with 1 slot"),
        format!("≤ {HYPERQUEUE_RATIO_MAX} × HyperQueue, ≤ {XARGS_RATIO_MAX:.1} × xargs -P2"),
    )
    .measured(met, format!("{}; {} × HyperQueue, {} × xargs", ours.spread("s"), shown(to_hyperqueue), shown(to_xargs)))
    .numbers("v6_s", &ours)
    .numbers("xargs_s", &xargs)
    .numbers("hyperqueue_s", &hyperqueue);
    if to_xargs.is_none() && to_hyperqueue.is_none() {
        row.met = None;
    }
    row = row.peer(beside("xargs -P2", &xargs, no_xargs)).peer(beside("HyperQueue", &hyperqueue, no_hyperqueue));
    Ok(row.note(
        "`v6 run --array` and `xargs -n1 -P2` are timed as whole processes, HyperQueue from submit to the end of waiting on a cluster that runs already (its Python client looks once a second)",
    ))
}

fn beside(name: &str, samples: &Samples, why_not: Option<String>) -> String {
    match why_not {
        Some(why) if samples.len() == 0 => format!("{name}: not measured: {why}"),
        _ => format!("{name}: {}", samples.spread("s")),
    }
}

fn keep(name: &str, result: anyhow::Result<Duration>, samples: &mut Samples, why_not: &mut Option<String>) {
    match result {
        Ok(took) => samples.push(took.as_secs_f64()),
        Err(error) => {
            say(&format!("{name}: {error:#}"));
            *why_not = Some(format!("{error:#}"));
        }
    }
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

async fn time_hyperqueue(python: &Path, tasks: usize) -> anyhow::Result<Duration> {
    let run = |script: &str| {
        let mut command = Command::new(python);
        command.args(["-c", script, &tasks.to_string(), &WORKERS.to_string()]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let name = python.display();
    let found = run("import hyperqueue").output().await.with_context(|| format!("{name} is not here"))?;
    if !found.status.success() {
        bail!("{name} has no package hyperqueue (name one that has with --python)");
    }
    let mut script = run(HYPERQUEUE);
    let output = tokio::time::timeout(TAKES_MAX, script.output()).await.context("HyperQueue does not end")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let took = text.lines().find_map(|line| line.strip_prefix("took ")).and_then(|took| took.trim().parse().ok());
    let took: f64 = took.with_context(|| format!("it failed: {}", last_line(&output.stderr)))?;
    Ok(Duration::from_secs_f64(took))
}

fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().last().unwrap_or("no word").to_owned()
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
