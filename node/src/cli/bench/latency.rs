//! How long a single job takes: until its process starts on another node, and as a whole command.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use web_gateway::api::JobState;

use super::nodes::{Mesh, Node, job};
use super::peers::{Cluster, Peer, time_hyperqueue};
use super::report::Row;
use super::stats::{Samples, short};
use super::{Plan, say};

const START_MEDIAN_MS_MAX: f64 = 15.0;
const START_P99_MS_MAX: f64 = 60.0;
const RUN_MS_MAX: f64 = 40.0;
/// Pause between two repeats: the mesh is idle again, as it is when a person types commands.
const PAUSE: Duration = Duration::from_millis(300);
/// Furthest that the wall clock may have moved against the monotonic one during a repeat that counts.
const CLOCK_STEP_MAX: Duration = Duration::from_millis(1);

/// Three idle nodes: one that only submits, two with a slot each.
async fn three(plan: &Plan) -> anyhow::Result<Mesh> {
    Mesh::up(&plan.binary, &[0, 1, 1]).await
}

struct Start {
    /// From before the request was sent until the job's own process read its clock.
    outside: Option<Duration>,
    /// From `created` to `started` as `v6 job show` says.
    inside_ms: f64,
    owner: String,
}

pub(super) async fn start(plan: &Plan) -> anyhow::Result<Row> {
    let row = Row::new(
        "start",
        "submit → process started on another node, 3 idle nodes",
        format!("median ≤ {START_MEDIAN_MS_MAX:.0} ms, p99 ≤ {START_P99_MS_MAX:.0} ms"),
    );
    if !cfg!(target_os = "linux") {
        return Ok(row.not_measured("the job reads its clock by `date +%s%N`, which this system lacks"));
    }
    let mesh = three(plan).await?;
    let node = mesh.first();
    warm(node).await?;
    let (mut outside, mut inside, mut stepped) = (Samples::default(), Samples::default(), 0);
    for at in 0..plan.repeats(100) {
        tokio::time::sleep(PAUSE).await;
        let start = one(node).await?;
        anyhow::ensure!(start.owner != node.id, "the job ran on the node that submitted it");
        inside.push(start.inside_ms);
        match start.outside {
            Some(length) => outside.push_ms(length),
            None => stepped += 1,
        }
        say(&format!("start {}: {:?}", at + 1, start.outside));
    }
    let (median, p99) = (outside.median(), outside.percentile(99));
    let met = median <= START_MEDIAN_MS_MAX && p99 <= START_P99_MS_MAX;
    let words =
        format!("median {} ms, p99 {} ms ({} repeats, {PAUSE:?} apart)", short(median), short(p99), outside.len());
    let mut row = row.measured(met, words).numbers("outside_ms", &outside).numbers("created_to_started_ms", &inside);
    row = row.note(format!(
        "from before the request leaves until the job's own process (`date`) reads its clock; `created` → `started` of `job show`: median {} ms, p99 {} ms",
        short(inside.median()),
        short(inside.percentile(99))
    ));
    if stepped > 0 {
        row = row.note(format!("{stepped} repeats left out: the wall clock was set meanwhile"));
    }
    Ok(row)
}

async fn one(node: &Node) -> anyhow::Result<Start> {
    let (wall, begun) = (SystemTime::now(), Instant::now());
    let id = node.submit(&job(&["date", "+%s%N"])).await?;
    let ended = node.follow(&id).await?;
    anyhow::ensure!(ended.state == JobState::Done, "the job {id} is {:?}", ended.state);
    let wall_took = SystemTime::now().duration_since(wall).unwrap_or_default();
    let steady = wall_took.abs_diff(begun.elapsed()) <= CLOCK_STEP_MAX;
    let read: u64 = std::str::from_utf8(&ended.stdout)?.trim().parse().context("`date` printed no number")?;
    let read = SystemTime::UNIX_EPOCH + Duration::from_nanos(read);
    let outside = read.duration_since(wall).ok().filter(|_| steady);
    let shown = node.job(&id).await?;
    let attempt = shown.tasks.first().and_then(|task| task.attempts.last()).context("the job has no attempt")?;
    let started = humantime::parse_rfc3339(attempt.started.as_deref().context("it has not started")?)?;
    let inside = started.duration_since(humantime::parse_rfc3339(&shown.created)?).unwrap_or_default();
    Ok(Start { outside, inside_ms: inside.as_secs_f64() * 1_000.0, owner: attempt.node.clone() })
}

/// A few jobs before the clock starts: caches are warm, and the nodes know how long such a job takes.
async fn warm(node: &Node) -> anyhow::Result<()> {
    for _ in 0..5 {
        let id = node.submit(&job(&["true"])).await?;
        node.follow(&id).await?;
    }
    Ok(())
}

pub(super) async fn run(plan: &Plan) -> anyhow::Result<Row> {
    let mesh = three(plan).await?;
    let node = mesh.first();
    warm(node).await?;
    let (mut whole, mut bare, mut hyperqueue) = (Samples::default(), Samples::default(), Peer::default());
    for at in 0..plan.repeats(100) {
        tokio::time::sleep(PAUSE).await;
        let took = node.time_v6(&["run", "--", "true"]).await?;
        whole.push_ms(took);
        bare.push_ms(node.time_v6(&["--version"]).await?);
        say(&format!("run {}: {took:?}", at + 1));
    }
    // Its client looks once a second: few repeats say all.
    let cluster = Cluster { workers: 2, cores: 1 };
    match time_hyperqueue(&plan.python, "single", plan.repeats(10), cluster).await {
        Ok(took) => took.into_iter().for_each(|took| hyperqueue.samples.push_ms(took)),
        Err(error) => hyperqueue.keep("HyperQueue", Err(error)),
    }
    let median = whole.median();
    let words =
        format!("median {} ms, p99 {} ms ({} repeats)", short(median), short(whole.percentile(99)), whole.len());
    let row = Row::new("run", "`v6 run -- true` as a whole, 3 idle nodes", format!("median ≤ {RUN_MS_MAX:.0} ms"));
    let row = row.measured(median <= RUN_MS_MAX, words).numbers("run_ms", &whole).numbers("version_ms", &bare);
    let row = row.peer(format!("`v6 --version`: median {} ms", short(bare.median())));
    Ok(row.peer(hyperqueue.words("HyperQueue, submit and wait", "ms")).numbers("hyperqueue_ms", &hyperqueue.samples))
}
