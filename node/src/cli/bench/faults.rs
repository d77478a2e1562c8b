//! What a lost owner costs, and what a late joiner waits for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use web_gateway::api::{AttemptState, FeedView, JobState, StatusView};

use super::nodes::{Mesh, Node, job};
use super::report::Row;
use super::stats::{Samples, short};
use super::throughput::{wait_done, write_batch};
use super::{Plan, say};

/// What the bar adds to a lease.
const RESTART_SLACK_S: f64 = 2.0;
/// Short jobs that are acknowledged just before the owner is killed.
const ACKNOWLEDGED: usize = 100;
/// Jobs of one submission while a history is made.
const FILL_JOBS: usize = 1_000;
/// Longest time to spend on a history.
const FILL_MAX: Duration = Duration::from_secs(15 * 60);
const FILL_MAX_QUICK: Duration = Duration::from_secs(60);
const SCHEDULE_S_MAX: f64 = 10.0;
const HISTORY_S_MAX: f64 = 60.0;
/// Longest wait for the whole history.
const HISTORY_MAX: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn kill(plan: &Plan) -> anyhow::Result<Row> {
    let mut mesh = Mesh::up(&plan.binary, &[0, 1, 1, 1]).await?;
    let status: StatusView = mesh.first().client.get("/v1/status").await?;
    #[expect(clippy::cast_precision_loss, reason = "a lease has seconds")]
    let lease_s = status.lease_ms as f64 / 1_000.0;
    let bar_s = lease_s + RESTART_SLACK_S;
    let (mut gaps, mut expected) = (Samples::default(), 0);
    for round in 1..=plan.repeats(5) {
        let gap = one_kill(&mut mesh).await?;
        expected += ACKNOWLEDGED + 1;
        wait_done(&mesh, expected).await?;
        gaps.push(gap.as_secs_f64());
        say(&format!("kill {round}: {gap:?}"));
    }
    let row = Row::new(
        "kill",
        "owner killed with -9 → next attempt started, 3 workers",
        format!("≤ lease ({lease_s:.0} s) + {RESTART_SLACK_S:.0} s; nothing acknowledged is lost"),
    );
    let words = format!("{}; all {expected} acknowledged jobs done", gaps.spread("s"));
    Ok(row.measured(gaps.max() <= bar_s, words).numbers("kill_to_started_s", &gaps))
}

/// One job whose owner is killed beside a batch of short ones; returns the time from the kill to the next `started`.
async fn one_kill(mesh: &mut Mesh) -> anyhow::Result<Duration> {
    // The first attempt stays until it is killed, the next ends at once.
    let id = mesh.first().submit(&job(&["sh", "-c", "[ $V6_ATTEMPT -gt 1 ] || sleep 600"])).await?;
    let owner = mesh
        .first()
        .wait("a running attempt", async |node| {
            let attempts = node.attempts(&id).await?;
            Ok(attempts.iter().find(|a| a.state == AttemptState::Running).map(|a| a.node.clone()))
        })
        .await?;
    let file = write_batch(mesh, ACKNOWLEDGED)?;
    mesh.first().time_v6(&["submit", &file.to_string_lossy()]).await?;
    let at = mesh.nodes.iter().position(|node| node.id == owner).context("the owner is one of the nodes")?;
    let killed = SystemTime::now();
    mesh.nodes[at].kill().await?;
    let started = mesh
        .first()
        .wait("the next attempt", async |node| {
            let attempts = node.attempts(&id).await?;
            Ok(attempts.iter().find(|a| a.attempt > 1).and_then(|a| a.started.clone()))
        })
        .await?;
    mesh.nodes[at].restart().await?;
    mesh.first().wait_peers(3, 0).await?;
    Ok(humantime::parse_rfc3339(&started)?.duration_since(killed).unwrap_or_default())
}

pub(super) async fn join(plan: &Plan) -> anyhow::Result<Row> {
    let mesh = Mesh::up(&plan.binary, &[2, 2, 2]).await?;
    let (jobs, fill) = fill(&mesh, plan).await?;
    let ticket = mesh.first().ticket(1).await?;
    let begun = Instant::now();
    let joiner = mesh.join("joiner", 1, &ticket).await?;
    let ready = begun.elapsed();
    let schedule = schedule(&joiner, begun).await?;
    let history = history(&mesh, &joiner, begun).await?;
    say(&format!("join: ready {ready:?}, scheduled {schedule:?}, history {history:?}"));
    let known: StatusView = joiner.client.get("/v1/status").await?;
    let done = known.jobs.get(&JobState::Done).copied().unwrap_or(0);
    let enough = jobs >= plan.jobs;
    let met = schedule.as_secs_f64() <= SCHEDULE_S_MAX && history.is_some_and(|h| h.as_secs_f64() <= HISTORY_S_MAX);
    let mut row = Row::new(
        "join",
        format!("cold join to a mesh with {jobs} finished jobs"),
        format!("{} jobs: ≤ {SCHEDULE_S_MAX:.0} s to schedule, ≤ {HISTORY_S_MAX:.0} s to full history", plan.jobs),
    );
    let shown = history.map_or_else(
        || format!("not within {} s", HISTORY_MAX.as_secs()),
        |length| format!("{} s", short(length.as_secs_f64())),
    );
    row = row.measured(met, format!("first job done after {} s, full history {shown}", short(schedule.as_secs_f64())));
    row = row.note(format!(
        "every job ran: `true`, submitted {FILL_JOBS} at a time, on 3 nodes with 2 slots, in {:.0} s ({:.0} jobs/s); the joiner shows {done} done, and was ready after {:.2} s",
        fill.as_secs_f64(),
        count(jobs) / fill.as_secs_f64().max(0.001),
        ready.as_secs_f64()
    ));
    if !enough {
        row.met = None;
        row =
            row.note(format!("no verdict: {jobs} of {} jobs were done when the time to make them was over", plan.jobs));
    }
    Ok(row)
}

fn count(jobs: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = jobs as f64;
    count
}

/// Runs jobs until there are enough or the time is over. Returns how many, and how long it took.
pub(super) async fn fill(mesh: &Mesh, plan: &Plan) -> anyhow::Result<(usize, Duration)> {
    let most = if plan.quick { FILL_MAX_QUICK } else { FILL_MAX };
    let begun = Instant::now();
    let mut jobs = 0;
    while jobs < plan.jobs && begun.elapsed() < most {
        let batch = FILL_JOBS.min(plan.jobs - jobs);
        let file = write_batch(mesh, batch)?;
        mesh.first().time_v6(&["submit", &file.to_string_lossy()]).await?;
        jobs += batch;
        wait_done(mesh, jobs).await?;
        say(&format!("join: {jobs} jobs after {:?}", begun.elapsed()));
    }
    Ok((jobs, begun.elapsed()))
}

/// Time until a job that the joiner submits is done.
async fn schedule(joiner: &Node, begun: Instant) -> anyhow::Result<Duration> {
    let id = joiner.submit(&job(&["true"])).await?;
    let ended = joiner.follow(&id).await?;
    anyhow::ensure!(ended.state == JobState::Done, "the joiner's job is {:?}", ended.state);
    Ok(begun.elapsed())
}

/// Time until the joiner has all that the first node has; none if it takes too long.
pub(super) async fn history(mesh: &Mesh, joiner: &Node, begun: Instant) -> anyhow::Result<Option<Duration>> {
    while begun.elapsed() < HISTORY_MAX {
        let whole = heads(mesh.first()).await?;
        let here = heads(joiner).await?;
        if whole.iter().all(|(author, seq)| here.get(author).is_some_and(|have| have >= seq)) {
            return Ok(Some(begun.elapsed()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(None)
}

async fn heads(node: &Node) -> anyhow::Result<BTreeMap<String, u64>> {
    let feeds: Vec<FeedView> = node.client.get("/v1/feeds").await?;
    Ok(feeds.into_iter().map(|feed| (feed.author, feed.seq)).collect())
}
