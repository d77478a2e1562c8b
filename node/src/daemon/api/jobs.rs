//! Jobs: submitting, listing, showing, ending them.

use std::str::FromStr;
use std::sync::Arc;

use ::mesh::{Command, Refusal};
use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::{BlobHash, EntryId, JobId, NodeId, TraceId};
use crdt::job::{Job, JobSpec, job_id_of_key, job_id_of_nonce};
use crdt::ledger::Target;
use crdt::limits::TASKS_PER_JOB_MAX;
use crdt::shelf::{Shelf, Table};
use web_gateway::api::*;

use super::{Api, internal, refusal, stopping, wish};
use crate::daemon::driver::NodeCore;
use crate::daemon::{logs, now_ms, random, views};
use crate::tree::Manifest;

/// Time that the answer to a cancel waits for the job's end: a task has 2 s to end in order.
const CANCEL_WAIT: std::time::Duration = std::time::Duration::from_secs(3);
/// Time that a request waits for the roster to come from a member that is there; who lets in late in a long history is known late.
const ROSTER_WAIT: std::time::Duration = std::time::Duration::from_secs(60);
/// The same while no member is there.
const ROSTER_WAIT_ALONE: std::time::Duration = std::time::Duration::from_secs(5);
const ROSTER_LOOK: std::time::Duration = std::time::Duration::from_millis(20);
/// Most rows of a page.
const JOBS_PAGE: usize = 1_000;
/// Rows that are read at a time, and that one page of a filtered list looks at before it is given out short.
const LOOK_STEP: usize = 200;
const LOOKED_AT_MAX: usize = 20_000;
/// Waiting jobs that are explained for the overview, and those of a group that are named.
const WAITING_LOOKED_AT_MAX: usize = 500;
const WAITING_NAMED: usize = 3;
/// Most tasks that are shown at once.
const TASKS_WINDOW: u32 = 10_000;

pub(super) async fn jobs(api: &Api, query: JobsQuery) -> Result<Page<JobRow>, ApiError> {
    api.ask(move |core| {
        let most = query.limit.map_or(JOBS_PAGE, |l| l as usize).clamp(1, JOBS_PAGE);
        let cursor = query.cursor.as_ref().and_then(|c| data_encoding::HEXLOWER.decode(c.as_bytes()).ok());
        let (mut before, mut items, mut looked) = (cursor.unwrap_or_default(), Vec::new(), 0);
        let words = query.q.as_deref().map(str::to_lowercase);
        let is_filtered =
            words.is_some() || query.state.is_some() || query.submitter.is_some() || query.label.is_some();
        let step = if is_filtered { LOOK_STEP } else { most };
        // A filter that few jobs pass is looked on for, up to a bound: a page may then be short, and there is a next one.
        loop {
            let rows = core.replica().shelf().scan_back(Table::JobsByTime, &before, step);
            let is_last = rows.len() < step;
            for (key, _) in rows {
                let id = key.get(8..).and_then(|id| id.try_into().ok()).map(JobId);
                before = key;
                looked += 1;
                let row = id
                    .and_then(|id| job_row(core, id))
                    .filter(|row| !is_filtered || passes(core, row, &query, words.as_deref()));
                items.extend(row);
                if items.len() == most {
                    return Page { items, next: Some(data_encoding::HEXLOWER.encode(&before)) };
                }
            }
            if is_last {
                return Page { items, next: None };
            }
            if looked >= LOOKED_AT_MAX {
                return Page { items, next: Some(data_encoding::HEXLOWER.encode(&before)) };
            }
        }
    })
    .await
}

/// Whether a job is wanted in a list.
fn passes(core: &mut NodeCore, row: &JobRow, query: &JobsQuery, words: Option<&str>) -> bool {
    let has_label = |core: &mut NodeCore, label: &str| {
        let spec = row.id.parse().ok().and_then(|id| core.replica_mut().job(id)).and_then(Job::spec);
        spec.is_some_and(|(_, spec)| spec.labels.iter().any(|one| one == label))
    };
    let says = |words: &str| {
        let text = format!("{} {}", row.name.as_deref().unwrap_or_default(), row.command.join(" ")).to_lowercase();
        text.contains(words) || row.id.starts_with(words) || row.trace.starts_with(words)
    };
    query.state.is_none_or(|state| state == row.state)
        && query.submitter.as_ref().is_none_or(|submitter| row.submitter.starts_with(submitter))
        && words.is_none_or(says)
        && query.label.as_ref().is_none_or(|label| has_label(core, label))
}

pub(super) async fn waiting(api: &Api) -> Result<WaitingView, ApiError> {
    api.ask(move |core| {
        let waiting = core.replica().job_counts().get(&crdt::job::JobState::Queued).copied().unwrap_or(0);
        let groups = core.waiting(WAITING_LOOKED_AT_MAX).into_iter().map(|group| WaitingGroup {
            code: group.what.code().to_owned(),
            text: group.summary,
            count: u32::try_from(group.jobs.len()).unwrap_or(u32::MAX),
            jobs: group.jobs.iter().take(WAITING_NAMED).filter_map(|id| job_row(core, *id)).collect(),
        });
        WaitingView { waiting, groups: groups.collect() }
    })
    .await
}

pub(super) async fn preview(api: &Api, job: PlannedJob) -> Result<Explain, ApiError> {
    let (_, spec) = spec(api, &job, &[], &mut Vec::new()).await?;
    api.ask(move |core| {
        let explanation = core.explain_spec(&spec);
        Explain {
            id: String::new(),
            state: JobState::Queued,
            summary: explanation.summary,
            reasons: Vec::new(),
            offers: explanation.offers.into_iter().map(|offer| offer_view(offer, None)).collect(),
        }
    })
    .await
}

pub(super) async fn job(api: &Api, id: &str, query: JobQuery) -> Result<JobView, ApiError> {
    let id = job_id(api, id).await?;
    let lists = super::blobs::lists(api, id).await?;
    let view = api.ask(move |core| {
        let (job, provisional) = views::shown(core, id)?;
        let (from, most) = (query.tasks_from.unwrap_or(0), query.tasks_max.unwrap_or(TASKS_WINDOW));
        let mut view = views::job_view((&job, provisional), &lists, from, most)?;
        if view.idea.is_none() {
            // The record of a sealed job does not name it; the ledger does.
            let outcomes = core.replica().outcomes(&Target::Job(id));
            view.idea = outcomes.first().and_then(|entry| entry.says.about).map(|idea| idea.to_string());
        }
        Some(view)
    });
    view.await?.ok_or_else(|| ApiError::NotFound(format!("job {id} is not wholly known here yet; try again")))
}

pub(super) async fn explain(api: &Api, id: &str) -> Result<Explain, ApiError> {
    let id = job_id(api, id).await?;
    let explained = api.ask(move |core| {
        let explanation = core.explain(id)?;
        let job = core.replica_mut().job(id)?;
        let winner = job.attempts(0).iter().rev().find(|a| a.award).map(|a| a.id.owner);
        let offers = explanation.offers.into_iter().map(|offer| offer_view(offer, winner)).collect();
        Some(Explain {
            id: id.to_string(),
            state: views::state(job.state()?),
            summary: explanation.summary,
            reasons: Vec::new(),
            offers,
        })
    });
    explained.await?.ok_or_else(|| ApiError::NotFound(format!("job {id} is not wholly known here yet; try again")))
}

fn offer_view(offer: ::mesh::core::OfferView, winner: Option<NodeId>) -> ExplainOffer {
    ExplainOffer {
        node: offer.node.to_string(),
        name: offer.name,
        fits: offer.lacks.is_empty(),
        bid_micros: offer.bid_micros,
        rank: None,
        detail: None,
        codes: offer.lacks.iter().map(|l| format!("{l:?}").to_lowercase()).collect(),
        lacks: offer.lacks.iter().map(ToString::to_string).collect(),
        won: winner == Some(offer.node),
    }
}

pub(super) async fn submit(api: &Api, jobs: Vec<PlannedJob>) -> Result<Vec<Submitted>, ApiError> {
    let (mut ids, mut specs) = (Vec::new(), Vec::new());
    for planned in &jobs {
        let known = ids.clone();
        specs.push(spec(api, planned, &known, &mut ids).await?);
    }
    let (entries, _turn) = super::ideas::name_ideas(api, &jobs, &mut specs).await?;
    submit_specs(api, specs, entries).await
}

pub(super) async fn cancel(api: &Api, id: &str) -> Result<Cancelled, ApiError> {
    let id = job_id(api, id).await?;
    let answer = wish(&api.0.core, Command::Cancel(id)).await?;
    let durable_on = match answer {
        Ok(ack) => ack.durable_on,
        Err(Refusal::Over(..)) => 1,
        Err(other) => return Err(refusal(other)),
    };
    let deadline = tokio::time::Instant::now() + CANCEL_WAIT;
    let state = loop {
        let state = api.ask(move |core| core.replica_mut().job(id).and_then(Job::state)).await?;
        if state.is_none_or(crdt::job::JobState::is_final) || tokio::time::Instant::now() >= deadline {
            break state.map_or(JobState::Cancelled, views::state);
        }
        tokio::time::sleep(ROSTER_LOOK).await;
    };
    Ok(Cancelled { job: id.to_string(), state, durable_on })
}

pub(super) async fn retry(api: &Api, id: &str) -> Result<Submitted, ApiError> {
    let id = job_id(api, id).await?;
    let old = api.ask(move |core| {
        let job = core.replica_mut().job(id)?;
        let over = job.state().is_some_and(crdt::job::JobState::is_final);
        job.spec().map(|(_, spec)| (over, job.sealed_by().is_some(), (**spec).clone()))
    });
    let (over, sealed, spec) = old.await?.ok_or_else(|| ApiError::NotFound(format!("job {id} is not known here")))?;
    if !over {
        return Err(ApiError::Conflict(format!("job {id} is not over; cancel it first (`v6 job cancel {id}`)")));
    }
    if sealed {
        let text = format!("job {id} was sealed: what it needed is no longer kept; submit it again with `v6 run`");
        return Err(ApiError::Conflict(text));
    }
    let nonce: [u8; 16] = random().map_err(internal)?;
    let trace = TraceId(random().map_err(internal)?);
    let spec = JobSpec { key: None, nonce: Some(nonce.into()), trace, created_ms: now_ms(), ..spec };
    let submitted = submit_specs(api, vec![(job_id_of_nonce(api.0.me, &nonce), spec)], Vec::new()).await?;
    submitted.into_iter().next().ok_or_else(stopping)
}

pub(super) async fn logs(api: &Api, id: &str, query: LogQuery) -> Result<Items<LogItem>, ApiError> {
    let id = job_id(api, id).await?;
    if api.ask(move |core| core.replica().is_dropped(id)).await? {
        return Err(ApiError::NotFound(format!("job {id} was sealed: its log is no longer kept")));
    }
    Ok(logs::stream(Arc::clone(&api.0), id, query))
}

/// Finds a job by its id or an unambiguous prefix.
pub(super) fn find_job(core: &NodeCore, word: &str) -> Result<JobId, ApiError> {
    if let Ok(id) = JobId::from_str(word) {
        return Ok(id);
    }
    let valid = word.len() >= 2 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let whole = data_encoding::HEXLOWER.decode(word.get(..word.len() & !1).unwrap_or("").to_lowercase().as_bytes());
    let (true, Ok(prefix)) = (valid, whole) else {
        return Err(ApiError::NotFound(format!("no job {word:?}: ids are listed by `v6 jobs`")));
    };
    let rows = core.replica().shelf().scan(Table::Jobs, &prefix, &prefix, JOBS_PAGE);
    let mut found = rows
        .into_iter()
        .filter_map(|(key, _)| Some(JobId(key.try_into().ok()?)))
        .filter(|id| id.to_string().starts_with(&word.to_lowercase()));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => {
            Err(ApiError::Ambiguous(format!("several jobs begin with {word:?}: write more of the id")))
        }
        (None, _) => Err(ApiError::NotFound(format!("no job {word:?}: ids are listed by `v6 jobs`"))),
    }
}

/// The id of a job that is known here.
pub(super) async fn job_id(api: &Api, word: &str) -> Result<JobId, ApiError> {
    let word = word.to_owned();
    api.ask(move |core| {
        let id = find_job(core, &word)?;
        core.replica_mut()
            .job(id)
            .map(|job| job.id)
            .ok_or_else(|| ApiError::NotFound(format!("no job {word} is known here")))
    })
    .await?
}

/// The person of this node; a node that has just joined or lost its store waits for the roster to arrive.
async fn person(api: &Api, me: NodeId) -> Result<crdt::ids::PersonId, ApiError> {
    let begun = tokio::time::Instant::now();
    loop {
        let known = api.ask(move |core| (core.replica().roster().person(&me), core.connected().next().is_none()));
        let (person, alone) = known.await?;
        if let Some(person) = person {
            return Ok(person);
        }
        if begun.elapsed() >= if alone { ROSTER_WAIT_ALONE } else { ROSTER_WAIT } {
            let text = "this node does not know its mesh yet: no member is reachable; see `v6 peers` and `v6 doctor`";
            return Err(ApiError::NotReady(text.into()));
        }
        tokio::time::sleep(ROSTER_LOOK).await;
    }
}

/// The spec of a planned job; `ids` are those of the jobs before it, `names` gets its own.
async fn spec(
    api: &Api,
    planned: &PlannedJob,
    ids: &[JobId],
    names: &mut Vec<JobId>,
) -> Result<(JobId, JobSpec), ApiError> {
    let request = &planned.request;
    if let Some(tasks) = request.array.filter(|tasks| *tasks > TASKS_PER_JOB_MAX) {
        let text = format!("an array has at most {TASKS_PER_JOB_MAX} tasks, not {tasks}: split it over several jobs");
        return Err(ApiError::BadRequest(text));
    }
    let me = api.0.me;
    let person = person(api, me).await?;
    let mut after = Vec::new();
    for word in &request.after {
        after.push(job_id(api, word).await?);
    }
    after.extend(planned.after_earlier.iter().filter_map(|at| ids.get(*at).copied()));
    let (input, input_manifest_bytes, input_bytes) = input(api, request.input.as_deref()).await?;
    let (id, nonce) = match &request.key {
        Some(key) => (job_id_of_key(person, key), None),
        None => {
            let nonce: [u8; 16] = random().map_err(internal)?;
            (job_id_of_nonce(me, &nonce), Some(nonce.into()))
        }
    };
    names.push(id);
    let spec = JobSpec {
        command: request.command.clone(),
        name: request.name.clone().unwrap_or_default(),
        input,
        input_bytes,
        input_manifest_bytes,
        outputs: request.outputs.clone(),
        labels: request.labels.clone(),
        env: request.env.clone(),
        timeout_ms: request.timeout_ms.unwrap_or(0),
        retries: request.retries,
        array: request.array.unwrap_or(0),
        after,
        key: request.key.clone(),
        nonce,
        priority: request.priority,
        value: request.value_micros,
        max_price: request.max_price_micros_per_hour,
        cores: request.cores.unwrap_or(0),
        memory_bytes: request.memory_bytes.unwrap_or(0),
        os: request.os.clone(),
        region: request.region.clone(),
        network: request.network,
        at_most_once: request.at_most_once,
        voters: Vec::new(),
        idea: None,
        person,
        trace: TraceId(random().map_err(internal)?),
        created_ms: now_ms(),
    };
    Ok((id, spec))
}

/// Hash of an input tree, bytes of its manifest, bytes of its files.
async fn input(api: &Api, tree: Option<&str>) -> Result<(Option<BlobHash>, u64, u64), ApiError> {
    let Some(tree) = tree else { return Ok((None, 0, 0)) };
    let hash: BlobHash =
        tree.parse().map_err(|_| ApiError::BadRequest(format!("input {tree:?} is no hash of a tree")))?;
    let blobs = &api.0.blobs;
    let blob = blobs
        .resolve(&hash)
        .ok_or_else(|| ApiError::NotFound(format!("the input tree {tree} is not here: upload it first")))?;
    let bytes = blobs.read_all(&blob, blob.size).await.map_err(internal)?;
    let manifest = Manifest::decode(&bytes).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    Ok((Some(hash), blob.size, manifest.size_bytes()))
}

async fn submit_specs(
    api: &Api,
    jobs: Vec<(JobId, JobSpec)>,
    entries: Vec<Change>,
) -> Result<Vec<Submitted>, ApiError> {
    let ids: Vec<(JobId, TraceId, String, Option<EntryId>)> =
        jobs.iter().map(|(id, spec)| (*id, spec.trace, spec.name.clone(), spec.idea)).collect();
    let docs: Vec<DocId> = entries.iter().map(|entry| entry.doc).collect();
    let ack = api.command(Command::Submit(jobs, entries)).await?;
    api.0.ledger.changed(docs);
    let wanted: Vec<JobId> = ids.iter().map(|(id, ..)| *id).collect();
    let traces = api
        .ask(move |core| {
            wanted
                .iter()
                .map(|id| core.replica_mut().job(*id).and_then(|j| j.spec()).map(|(_, s)| s.trace))
                .collect::<Vec<_>>()
        })
        .await?;
    let mut warnings = ack.warnings.into_iter();
    Ok(ids
        .into_iter()
        .zip(traces)
        .map(|((id, trace, name, idea), known)| Submitted {
            job: id.to_string(),
            trace: known.unwrap_or(trace).to_string(),
            idea: idea.map(|idea| idea.to_string()),
            durable_on: ack.durable_on,
            warning: warnings.next().flatten(),
            name: (!name.is_empty()).then_some(name),
        })
        .collect())
}

/// A job's line in lists.
pub(super) fn job_row(core: &mut NodeCore, id: JobId) -> Option<JobRow> {
    let row = core.replica().job_row(id)?;
    let away = row.submitter.is_some_and(|node| core.is_away(&node));
    let provisional = || core.replica().cached_job(&id).and_then(Job::provisional_state).filter(|_| away);
    let (row_state, provisional) = (row.state(), provisional());
    let state = provisional.or(row_state)?;
    let all_done = provisional == Some(crdt::job::JobState::Done);
    let spec = core.replica().cached_job(&id).and_then(|job| job.spec()).map(|(_, spec)| spec);
    let (command, name) = spec.map(|spec| (spec.command.clone(), spec.name.clone())).unzip();
    Some(JobRow {
        id: id.to_string(),
        state: views::state(state),
        trace: row.trace.to_string(),
        submitter: row.submitter?.to_string(),
        owner: row.owner.map(|o| o.to_string()),
        created: views::time(row.created_ms),
        ended: row.ended_ms.map(views::time),
        tasks: row.tasks,
        done: if all_done { row.tasks } else { row.done },
        idea: row.idea.map(|idea| idea.to_string()),
        name: name.filter(|name| !name.is_empty()),
        command: command.unwrap_or_else(|| vec![row.title]),
    })
}
