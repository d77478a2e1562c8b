//! Which ideas: by their words, and by their rank.

use crdt::doc::DocId;
use crdt::ids::EntryId;
use crdt::ledger::{Kind, Relation, Shown, Status, Target, Terms};
use web_gateway::api::*;

use super::super::policy::WEIGHTS;
use super::super::{Api, internal};
use super::row;
use crate::daemon::driver::NodeCore;
use crate::daemon::ledger;
use crate::ledger::index::{Filter, Hit};

const FOUND: u32 = 50;
/// Hits beyond which there are no more pages.
const OFFSET_MAX: usize = 100_000;
const TOP: u32 = 20;
/// Subjects that are read together.
const PAGE: usize = 1_000;

pub(in crate::daemon::api) async fn search(api: &Api, asked: IdeaSearch) -> Result<Page<IdeaFound>, ApiError> {
    let limit = asked.limit.unwrap_or(FOUND) as usize;
    let offset = match asked.cursor.as_deref() {
        None => 0,
        Some(text) => text.parse().ok().filter(|at| *at <= OFFSET_MAX).ok_or_else(|| {
            ApiError::BadRequest(format!("the cursor {text:?} is none that a search gave: begin anew without it"))
        })?,
    };
    let time = |text: Option<&str>| {
        let read = |text: &str| {
            let time: Result<jiff::Timestamp, _> = text.parse();
            let time =
                time.map_err(|_| ApiError::BadRequest(format!("{text:?} is no time such as 2026-01-31T08:00:00Z")))?;
            Ok::<u64, ApiError>(u64::try_from(time.as_millisecond()).unwrap_or(0))
        };
        text.map(read).transpose()
    };
    let filter = Filter {
        since_ms: time(asked.since.as_deref())?,
        until_ms: time(asked.until.as_deref())?,
        kind: asked.kind,
        status: asked.status,
        owner: asked.owner.map(|owner| owner.to_lowercase()),
        tag: asked.tag,
        language: asked.language.map(|language| language.to_lowercase()),
        all: asked.all,
    };
    let (mut hits, mut at, mut more) = (Vec::new(), offset, true);
    while more && hits.len() < limit {
        let some = ledger::search(&api.0, asked.q.clone(), filter.clone(), at, limit + 1).await?;
        more = some.len() > limit;
        for hit in with_job(api, some, asked.has_job).await? {
            if hits.len() == limit {
                more = true;
                break;
            }
            at += 1;
            hits.extend(hit);
        }
    }
    let found = api
        .ask(move |core| {
            let read = |id: EntryId| {
                let subject = core.replica().subject(DocId::ledger(id))?;
                let mut text = subject.root.says.body.clone();
                for entry in subject.standing() {
                    text.extend(["\n", entry.says.title.as_str(), "\n", entry.says.body.as_str()]);
                }
                Some((row(&subject.shown()), text))
            };
            let rows = hits.into_iter().filter_map(|hit| Some((hit.score, read(hit.id)?)));
            rows.collect::<Vec<_>>()
        })
        .await?;
    let texts = found.iter().map(|(_, (_, text))| text.clone()).collect();
    let pieces = ledger::pieces(&api.0, asked.q, texts).await?;
    let items = found.into_iter().zip(pieces).map(|((score, (row, _)), piece)| {
        let chars = |at: usize| piece.text.get(..at).map_or(0, |before| before.chars().count());
        let highlights = piece.marks.iter().map(|mark| (chars(mark.start), chars(mark.end))).collect();
        IdeaFound { row, score, snippet: piece.text.clone(), highlights }
    });
    let next = (more && at <= OFFSET_MAX).then(|| at.to_string());
    Ok(Page { items: items.collect(), next })
}

/// Hits with nothing in the place of those that a job serves and should not, or the other way round.
async fn with_job(api: &Api, hits: Vec<Hit>, has_job: Option<bool>) -> Result<Vec<Option<Hit>>, ApiError> {
    let Some(wanted) = has_job else { return Ok(hits.into_iter().map(Some).collect()) };
    let keep = move |hit: &Hit, core: &NodeCore| core.replica().is_served(hit.id) == wanted;
    api.ask(move |core| hits.into_iter().map(|hit| Some(hit).filter(|hit| keep(hit, core))).collect()).await
}

pub(in crate::daemon::api) async fn top(api: &Api, query: TopQuery) -> Result<Vec<IdeaRanked>, ApiError> {
    let limit = query.limit.unwrap_or(TOP) as usize;
    let policy = api.ask(|core| core.replica().roster().policy(WEIGHTS).map(str::to_owned)).await?;
    // What this version does not understand of a newer one's counts as usual.
    let weights = policy.and_then(|policy| Terms::weights(&policy).ok()).unwrap_or(Terms::WEIGHTS);
    let mut all: Vec<Shown> = Vec::new();
    loop {
        let after = all.last().map(|shown| (shown.created_ms, shown.id));
        let page = api.ask(move |core| core.replica().subjects(after, PAGE)).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            break;
        }
    }
    all.retain(|shown| {
        matches!(shown.kind, Kind::Idea | Kind::Issue) && matches!(shown.status(), Status::Open | Status::Accepted)
    });
    let newest_ms = newest(&all);
    let mut ranked = Vec::with_capacity(all.len());
    for some in all.chunks(PAGE) {
        let some = some.to_vec();
        let terms = api.ask(move |core| {
            let replica = core.replica();
            let of = |shown: Shown| {
                let own: Vec<Relation> =
                    replica.links_of(DocId::ledger(shown.id)).into_iter().map(|link| link.relation).collect();
                let terms = Terms::of(&shown, &replica.links_to(&Target::Entry(shown.id)), &own, newest_ms);
                (terms.score(&weights), terms, shown)
            };
            some.into_iter().map(of).collect::<Vec<_>>()
        });
        ranked.extend(terms.await.map_err(internal)?);
    }
    ranked.sort_by_key(|(score, _, shown)| (std::cmp::Reverse(*score), shown.created_ms, shown.id));
    ranked.truncate(limit);
    let shown = |(score, terms, shown): (i64, Terms, Shown)| {
        let terms = terms.weighted(&weights).map(|(name, part)| (name.to_owned(), (part * 1e6).round() / 1e6));
        IdeaRanked { row: row(&shown), score, terms: terms.to_vec() }
    };
    Ok(ranked.into_iter().map(shown).collect())
}

/// Where ages begin: the middle of each person's newest entries, so that one clock that runs ahead makes nothing old.
fn newest(all: &[Shown]) -> u64 {
    let mut newest = std::collections::BTreeMap::new();
    for shown in all {
        let of = newest.entry(shown.person).or_insert(0);
        *of = shown.created_ms.max(*of);
    }
    let mut newest: Vec<u64> = newest.into_values().collect();
    newest.sort_unstable();
    newest.get(newest.len() / 2).copied().unwrap_or(0)
}
