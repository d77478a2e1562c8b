//! The mirror in PostgreSQL. Each batch of bundles is one transaction: the bundles, the rows of what they changed as it is
//! folded then, and the checkpoint of each feed. So a kill of either side leaves nothing missing and nothing double.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};
use tokio::sync::mpsc;

use super::{AGAIN_MAX, Order, State, set};
use crate::api::{
    ApiError, FeedView, IdeaView, IdeasQuery, Items, JobQuery, JobView, JobsQuery, MirrorBundle, MirrorCheck, NodeApi,
    Touched,
};

/// Bundles of one transaction at most.
const BATCH: usize = 1_000;
/// Tasks of a job that are mirrored.
const TASKS_MAX: u32 = 10_000;
/// Times that what changes meanwhile is compared.
const COMPARES_MAX: u32 = 5;
/// Differences that a comparison names.
const DIFFERENCES_MAX: usize = 100;
/// Time without news after which the feeds are looked at all the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time in which what comes together is gathered.
const GATHER: Duration = Duration::from_millis(50);
/// Pause after the first failed try; it doubles up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_millis(250);

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Mirrors for ever.
pub(super) async fn run(
    options: PgConnectOptions,
    node: Arc<dyn NodeApi>,
    state: Arc<Mutex<State>>,
    mut orders: mpsc::Receiver<Order>,
) {
    let (mut pause, mut held) = (AGAIN, BTreeMap::new());
    loop {
        match follow(&options, node.as_ref(), &state, &mut orders, (&mut pause, &mut held)).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "the mirror in PostgreSQL waits for its server");
                set(&state, |state| state.view.error = Some(error.to_string()));
            }
        }
        if let Ok(feeds) = node.feeds().await {
            let oldest = oldest(node.as_ref(), &feeds, &held).await;
            tell(&state, &feeds, &held, oldest.as_ref());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// The oldest of the next bundles of all feeds.
async fn oldest(node: &dyn NodeApi, feeds: &[FeedView], held: &BTreeMap<String, u64>) -> Option<MirrorBundle> {
    let mut found: Option<MirrorBundle> = None;
    for feed in feeds {
        let known = held.get(&feed.author).copied().unwrap_or(0);
        if feed.seq > known
            && let Ok(some) = node.bundles(&feed.author, known + 1, 1).await
            && let Some(next) = some.into_iter().next()
            && found.as_ref().is_none_or(|other| next.at < other.at)
        {
            found = Some(next);
        }
    }
    found
}

async fn follow(
    options: &PgConnectOptions,
    node: &dyn NodeApi,
    state: &Mutex<State>,
    orders: &mut mpsc::Receiver<Order>,
    (pause, held): (&mut Duration, &mut BTreeMap<String, u64>),
) -> Result<(), Failed> {
    // The migrations' own table is in the schema too, whatever the search path of this user.
    let options = options.clone().options([("search_path", "v6")]);
    let mut server = PgConnection::connect_with(&options).await?;
    sqlx::query("create schema if not exists v6").execute(&mut server).await?;
    sqlx::migrate!("./migrations").run_direct(&mut server).await?;
    *held = checkpoints(&mut server).await?;
    let mut news = node.events(None).await?;
    set(state, |state| state.view.error = None);
    *pause = AGAIN;
    loop {
        let feeds = node.feeds().await?;
        let batch = gather(node, &feeds, held, &mut server).await?;
        tell(state, &feeds, held, batch.iter().map(|(_, bundle)| bundle).min_by(|a, b| a.at.cmp(&b.at)));
        if batch.is_empty() {
            nodes(node, &mut server).await?;
            tokio::select! {
                () = wait(&mut news) => {}
                order = orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Verify(reply)) => {
                        drop(reply.send(verify(node, &mut server, held).await.map_err(broken)));
                    },
                    Some(Order::Rebuild(reply)) => {
                        let done = clear(&mut server).await;
                        held.clear();
                        drop(reply.send(done.map_err(broken)));
                    }
                },
            }
            continue;
        }
        write(node, &mut server, &batch, held).await?;
    }
}

fn broken(error: Failed) -> ApiError {
    ApiError::NotReady(format!("the mirror's server said no: {error}"))
}

/// Until something changes, or a second has passed.
async fn wait(news: &mut Items<crate::api::Event>) {
    if tokio::time::timeout(LOOK_EVERY, news.next()).await.is_err() {
        return;
    }
    // What comes together is one transaction.
    let until = tokio::time::sleep(GATHER);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return,
            event = news.next() => if event.is_none() { return until.await },
        }
    }
}

async fn checkpoints(server: &mut PgConnection) -> Result<BTreeMap<String, u64>, Failed> {
    let rows = sqlx::query("select author, seq from v6.checkpoints").fetch_all(server).await?;
    let pair = |row: sqlx::postgres::PgRow| -> Result<(String, u64), Failed> {
        Ok((row.try_get(0)?, u64::try_from(row.try_get::<i64, _>(1)?)?))
    };
    rows.into_iter().map(pair).collect()
}

/// The next bundles of all feeds that are not mirrored yet. A feed that was set back to its fork is set back here too.
async fn gather(
    node: &dyn NodeApi,
    feeds: &[FeedView],
    held: &mut BTreeMap<String, u64>,
    server: &mut PgConnection,
) -> Result<Vec<(String, MirrorBundle)>, Failed> {
    let mut batch = Vec::new();
    for feed in feeds {
        let known = held.get(&feed.author).copied().unwrap_or(0);
        if feed.seq < known {
            set_back(server, feed).await?;
            held.insert(feed.author.clone(), feed.seq);
        }
        let known = known.min(feed.seq);
        if feed.seq > known && batch.len() < BATCH {
            let some = node.bundles(&feed.author, known + 1, BATCH - batch.len()).await?;
            batch.extend(some.into_iter().map(|bundle| (feed.author.clone(), bundle)));
        }
    }
    Ok(batch)
}

async fn set_back(server: &mut PgConnection, feed: &FeedView) -> Result<(), Failed> {
    let seq = i64::try_from(feed.seq)?;
    let mut turn = server.begin().await?;
    for table in ["bundles", "events"] {
        let gone = format!("delete from v6.{table} where author = $1 and seq > $2");
        sqlx::query(&gone).bind(&feed.author).bind(seq).execute(&mut *turn).await?;
    }
    let set = "update v6.checkpoints set seq = $2, hash = $3 where author = $1";
    sqlx::query(set).bind(&feed.author).bind(seq).bind(&feed.hash).execute(&mut *turn).await?;
    turn.commit().await?;
    Ok(())
}

fn tell(state: &Mutex<State>, feeds: &[FeedView], held: &BTreeMap<String, u64>, oldest: Option<&MirrorBundle>) {
    let behind = |feed: &FeedView| feed.seq.saturating_sub(held.get(&feed.author).copied().unwrap_or(0));
    let pending: u64 = feeds.iter().map(behind).sum();
    let age = oldest.and_then(|bundle| {
        let at = humantime::parse_rfc3339(&bundle.at).ok()?;
        SystemTime::now().duration_since(at).ok()
    });
    let lag_ms = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    set(state, |state| {
        state.view.lag_ms = lag_ms;
        state.held.clone_from(held);
        if pending == 0 {
            state.whole = Instant::now();
        }
    });
}

/// One transaction: bundles, what they changed, checkpoints.
async fn write(
    node: &dyn NodeApi,
    server: &mut PgConnection,
    batch: &[(String, MirrorBundle)],
    held: &mut BTreeMap<String, u64>,
) -> Result<(), Failed> {
    let touched: BTreeSet<&Touched> = batch.iter().flat_map(|(_, bundle)| &bundle.touches).collect();
    let mut turn = server.begin().await?;
    bundles(&mut turn, batch).await?;
    let mut ideas = BTreeSet::new();
    for what in touched {
        match what {
            Touched::Roster => members(node, &mut turn).await?,
            Touched::Job(id) => match node.job(id, JobQuery { tasks_from: None, tasks_max: Some(TASKS_MAX) }).await {
                Ok(view) => {
                    job(&mut turn, &view).await?;
                    // The outcome of a job is a document of its own: it belongs to what the job served.
                    ideas.extend(view.idea);
                }
                // It is not wholly known yet: what is missing comes with a later bundle.
                Err(ApiError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            },
            Touched::Idea(id) => drop(ideas.insert(id.clone())),
            Touched::Note(_) | Touched::Feed(_) => {}
        }
    }
    for id in ideas {
        match node.idea(&id).await {
            Ok(view) => idea(&mut turn, &view).await?,
            Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut heads: BTreeMap<&String, &MirrorBundle> = BTreeMap::new();
    for (author, bundle) in batch {
        heads.insert(author, bundle);
    }
    for (author, bundle) in &heads {
        let set = "insert into v6.checkpoints (author, seq, hash) values ($1, $2, $3)
                   on conflict (author) do update set seq = excluded.seq, hash = excluded.hash";
        let seq = i64::try_from(bundle.seq)?;
        sqlx::query(set).bind(*author).bind(seq).bind(&bundle.hash).execute(&mut *turn).await?;
    }
    turn.commit().await?;
    for (author, bundle) in heads {
        held.insert(author.clone(), bundle.seq);
    }
    Ok(())
}

async fn bundles(turn: &mut PgConnection, batch: &[(String, MirrorBundle)]) -> Result<(), Failed> {
    let (mut authors, mut seqs, mut hashes, mut wires) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut events = Vec::new();
    for (author, bundle) in batch {
        authors.push(author.as_str());
        seqs.push(i64::try_from(bundle.seq)?);
        hashes.push(bundle.hash.as_str());
        wires.push(bundle.wire.to_vec());
        for (n, touched) in bundle.touches.iter().enumerate() {
            let (kind, id) = touched.words();
            events.push(json!({"author": author, "seq": bundle.seq, "n": n, "at": bundle.at, "kind": kind, "id": id}));
        }
    }
    let insert = "insert into v6.bundles (author, seq, hash, wire)
                  select * from unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[]) on conflict do nothing";
    sqlx::query(insert).bind(authors).bind(seqs).bind(hashes).bind(wires).execute(&mut *turn).await?;
    rows(turn, "events", "author, seq, n", false, events).await
}

/// Rows as JSON, so that one statement takes all of them.
async fn rows(turn: &mut PgConnection, table: &str, key: &str, replaces: bool, rows: Vec<Value>) -> Result<(), Failed> {
    let Some(Value::Object(first)) = rows.first() else { return Ok(()) };
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let columns = names.join(", ");
    let set: Vec<String> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let then = match (key.is_empty(), replaces) {
        (true, _) => String::new(),
        (false, false) => format!("on conflict ({key}) do nothing"),
        (false, true) => format!("on conflict ({key}) do update set {}", set.join(", ")),
    };
    // Table and columns are words of this file; what members wrote is bound.
    let insert = format!(
        "insert into v6.{table} ({columns}) select {columns} from jsonb_populate_recordset(null::v6.{table}, $1) {then}"
    );
    sqlx::query(&insert).bind(sanitised(Value::Array(rows))).execute(turn).await?;
    Ok(())
}

/// PostgreSQL's text holds no NUL.
fn sanitised(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.into_iter().map(sanitised).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, sanitised(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

async fn members(node: &dyn NodeApi, turn: &mut PgConnection) -> Result<(), Failed> {
    let members = node.members().await?.into_iter().map(|one| {
        json!({"node": one.node, "name": one.name, "role": one.role, "person": one.person, "joined": one.joined,
               "revoked": one.revoked, "reason": one.reason})
    });
    rows(turn, "members", "node", true, members.collect()).await
}

/// What machines offer is no part of the feeds: it is looked at when there is time.
async fn nodes(node: &dyn NodeApi, server: &mut PgConnection) -> Result<(), Failed> {
    let here = node.status().await?;
    let own = json!({"node": here.node, "name": here.name, "online": true, "labels": here.labels, "slots": here.slots,
                     "price_micros_per_hour": 0, "region": null, "os": std::env::consts::OS, "last_seen": null});
    let peers = node.peers().await?.into_iter().map(|peer| {
        json!({"node": peer.node, "name": peer.name, "online": peer.online, "labels": peer.labels, "slots": peer.slots,
               "price_micros_per_hour": peer.price_micros_per_hour, "region": peer.region, "os": peer.os,
               "last_seen": peer.last_seen})
    });
    rows(server, "nodes", "node", true, std::iter::once(own).chain(peers).collect()).await
}

async fn job(turn: &mut PgConnection, view: &JobView) -> Result<(), Failed> {
    let attempts = || view.tasks.iter().flat_map(|task| task.attempts.iter().map(move |attempt| (task, attempt)));
    let cost: u64 = attempts().filter_map(|(_, attempt)| attempt.cost_micros).sum();
    let owner = attempts().filter(|(_, one)| one.started.is_some()).max_by(|a, b| a.1.started.cmp(&b.1.started));
    let owner = owner.or_else(|| attempts().last()).map(|(_, attempt)| &attempt.node);
    let row = json!({
        "id": view.id, "state": view.state, "submitter": view.submitter, "owner": owner, "trace": view.trace,
        "command": view.command, "created": view.created, "ended": view.ended, "cost_micros": cost, "name": view.name,
        "idea": view.idea, "person": view.person, "tasks": view.tasks_total,
    });
    rows(turn, "jobs", "id", true, vec![row]).await?;
    for table in ["tasks", "attempts", "artifacts"] {
        sqlx::query(&format!("delete from v6.{table} where job_id = $1")).bind(&view.id).execute(&mut *turn).await?;
    }
    let tasks = view.tasks.iter().map(|task| {
        json!({"job_id": view.id, "index": task.index, "state": task.state, "accepted_attempt": task.accepted_attempt})
    });
    rows(turn, "tasks", "", false, tasks.collect()).await?;
    let executions = attempts().map(|(task, one)| {
        json!({"job_id": view.id, "index": task.index, "attempt": one.attempt, "node_id": one.node, "state": one.state,
               "started": one.started, "ended": one.ended, "exit": one.exit, "cost_micros": one.cost_micros,
               "reason": one.reason})
    });
    rows(turn, "attempts", "job_id, index, attempt, node_id", true, executions.collect()).await?;
    let files = attempts().flat_map(|(task, one)| {
        let (id, node) = (&view.id, &one.node);
        one.artifacts.iter().map(move |file| {
            json!({"job_id": id, "index": task.index, "attempt": one.attempt, "node_id": node, "path": file.path,
                   "blob": file.blob, "size": file.size})
        })
    });
    rows(turn, "artifacts", "", false, files.collect()).await
}

async fn idea(turn: &mut PgConnection, view: &IdeaView) -> Result<(), Failed> {
    let id = &view.row.id;
    let row = json!({
        "id": id, "title": view.row.title, "body": view.body, "author": view.row.author, "owner": view.row.owner,
        "status": view.row.status, "created": view.row.created, "kind": view.row.kind, "tags": view.tags,
    });
    rows(turn, "ideas", "id", true, vec![row]).await?;
    sqlx::query("delete from v6.links where from_id = $1").bind(id).execute(&mut *turn).await?;
    let links = view.links.iter().map(|link| {
        json!({"entry": link.entry, "from_id": link.from, "relation": link.relation, "to_id": link.to,
               "person": link.person, "score": link.score, "method": link.method, "accepted": link.accepted})
    });
    rows(turn, "links", "entry", true, links.collect()).await?;
    let outcomes = view.outcomes.iter().map(|one| {
        json!({"entry": one.entry, "idea": id, "job": one.job, "state": one.state, "exit": one.exit, "tasks": one.tasks,
               "done": one.done, "duration_ms": one.duration_ms, "cost_micros": one.cost_micros, "created": one.created})
    });
    rows(turn, "outcomes", "entry", true, outcomes.collect()).await
}

async fn clear(server: &mut PgConnection) -> Result<(), Failed> {
    let all =
        "truncate v6.members, v6.nodes, v6.jobs, v6.tasks, v6.attempts, v6.artifacts, v6.ideas, v6.links, v6.outcomes,
               v6.bundles, v6.events, v6.checkpoints";
    sqlx::query(all).execute(server).await?;
    Ok(())
}

/// Compares once all is written that there is. What came in while it was compared may differ: then it compares again.
async fn verify(
    node: &dyn NodeApi,
    server: &mut PgConnection,
    held: &mut BTreeMap<String, u64>,
) -> Result<MirrorCheck, Failed> {
    let mut tries = 0;
    loop {
        loop {
            let feeds = node.feeds().await?;
            let batch = gather(node, &feeds, held, server).await?;
            if batch.is_empty() {
                break;
            }
            write(node, server, &batch, held).await?;
        }
        let check = compared(node, server).await?;
        tries += 1;
        let moved = node.feeds().await?.iter().any(|feed| held.get(&feed.author) != Some(&feed.seq));
        if check.ok || !moved || tries == COMPARES_MAX {
            return Ok(check);
        }
    }
}

/// Compares jobs, ideas and feeds, both ways.
async fn compared(node: &dyn NodeApi, server: &mut PgConnection) -> Result<MirrorCheck, Failed> {
    let mut check = MirrorCheck { kind: "postgres".into(), ..MirrorCheck::default() };
    let mut jobs = pairs(server, "select id, state from v6.jobs").await?;
    let mut query = JobsQuery::default();
    loop {
        let page = node.jobs(query.clone()).await?;
        for row in page.items {
            check.jobs += 1;
            compare(&mut check.differences, &mut jobs, "job", &row.id, row.state.as_str());
        }
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    let mut ideas = pairs(server, "select id, status from v6.ideas").await?;
    let mut query = IdeasQuery { all: true, commands: true, ..IdeasQuery::default() };
    loop {
        let page = node.ideas(query.clone()).await?;
        for row in page.items {
            check.ideas += 1;
            compare(&mut check.differences, &mut ideas, "idea", &row.id, &row.status);
        }
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    let mut heads = pairs(server, "select author, hash from v6.checkpoints").await?;
    for feed in node.feeds().await? {
        compare(&mut check.differences, &mut heads, "feed", &feed.author, &feed.hash);
    }
    let beyond = [("job", jobs), ("idea", ideas), ("feed", heads)];
    for (what, rest) in beyond {
        for id in rest.into_keys() {
            differs(&mut check.differences, format!("{what} {id} is in the mirror and not in the mesh"));
        }
    }
    check.ok = check.differences.is_empty();
    Ok(check)
}

async fn pairs(server: &mut PgConnection, query: &'static str) -> Result<BTreeMap<String, String>, Failed> {
    let rows = sqlx::query(query).fetch_all(server).await?;
    rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn compare(found: &mut Vec<String>, mirror: &mut BTreeMap<String, String>, what: &str, id: &str, value: &str) {
    match mirror.remove(id) {
        Some(other) if other == value => {}
        Some(other) => differs(found, format!("{what} {id} is {value} in the mesh and {other} in the mirror")),
        None => differs(found, format!("{what} {id} is in the mesh and not in the mirror")),
    }
}

fn differs(found: &mut Vec<String>, what: String) {
    if found.len() < DIFFERENCES_MAX {
        found.push(what);
    }
}
