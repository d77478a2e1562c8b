//! The ledger as the API shows it.

mod find;
mod graph;
mod say;
mod serve;
mod transport;

use ::mesh::Command;
use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::{BlobHash, EntryId, NoteId, PersonId};
use crdt::ledger::{
    Content, Handover, Incoming, Kind, Link, OF_COMMAND, OUTCOME_OF, Shown, Signed, Source, Status, Subject, Target,
};
use serde_json::{Value, json};
use web_gateway::api::*;

pub(super) use find::{search, top};
pub(super) use graph::graph;
pub(super) use say::say;
pub(super) use serve::name_ideas;
pub(super) use transport::{export, import};

use super::{Api, internal};
use crate::daemon::driver::NodeCore;
use crate::daemon::{ledger, now_ms, random, views};

const ROWS: u32 = 1_000;
/// Subjects that a part of a name may fit before it is refused.
const NAMED_MAX: usize = 8;
/// Shortest part of a name, in characters.
const PREFIX_MIN: usize = 2;

pub(super) async fn ideas(api: &Api, query: IdeasQuery) -> Result<Page<IdeaRow>, ApiError> {
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let limit = query.limit.unwrap_or(ROWS) as usize;
    let (rows, more) = api
        .ask(move |core| {
            let (mut rows, mut after, mut more) = (Vec::new(), after, true);
            while rows.len() < limit && more {
                let some = core.replica().subjects(after, limit);
                more = some.len() == limit;
                after = some.last().map(|shown| (shown.created_ms, shown.id));
                rows.extend(some.into_iter().filter(|shown| {
                    let is_listed = shown.status() != Status::Retracted && !shown.of_command;
                    query.all || is_listed || (query.commands && shown.of_command)
                }));
            }
            more |= rows.len() > limit;
            rows.truncate(limit);
            (rows, more)
        })
        .await?;
    let next = rows.last().filter(|_| more).map(|shown| format!("{:016x}{}", shown.created_ms, shown.id));
    Ok(Page { items: rows.iter().map(row).collect(), next })
}

fn read_cursor(text: &str) -> Result<(u64, EntryId), ApiError> {
    let read = || {
        let (created, id) = text.split_at_checked(16)?;
        Some((u64::from_str_radix(created, 16).ok()?, id.parse().ok()?))
    };
    read().ok_or_else(|| {
        ApiError::BadRequest(format!("the cursor {text:?} is none that a list gave: begin anew without it"))
    })
}

fn row(shown: &Shown) -> IdeaRow {
    IdeaRow {
        id: shown.id.to_string(),
        kind: shown.kind.as_str().to_owned(),
        title: shown.title.clone(),
        author: shown.node.to_string(),
        person: shown.person.to_string(),
        owner: shown.owner.to_string(),
        created: views::time(shown.created_ms),
        status: shown.status().as_str().to_owned(),
        entries: shown.entries,
    }
}

/// Signs an entry as this node's person.
async fn sign(api: &Api, says: Content) -> Result<Signed, ApiError> {
    let (me, key, nonce, created_ms) = (api.0.me, api.0.key.clone(), random().map_err(internal)?, now_ms());
    let Some(person) = person(api, me).await? else {
        return Err(ApiError::NotAllowed("this node's role does not allow it to write to the ledger".into()));
    };
    Signed::sign(&key, person, created_ms, nonce, says)
        .map_err(|error| ApiError::BadRequest(format!("nothing was added: {error}")))
}

/// The person whom this node writes for; none where it may not.
async fn person(api: &Api, me: crdt::ids::NodeId) -> Result<Option<PersonId>, ApiError> {
    api.ask(move |core| {
        let roster = core.replica().roster();
        roster.role(&me).and_then(|role| role.may_submit().then(|| roster.person(&me)).flatten())
    })
    .await
}

/// Writes entries, and answers how durable they are.
async fn write(api: &Api, entries: &[Signed]) -> Result<u32, ApiError> {
    let ack = api.command(Command::Write(entries.iter().map(Change::entry).collect())).await?;
    api.0.ledger.changed(entries.iter().map(Signed::document));
    Ok(ack.durable_on)
}

pub(super) async fn add(api: &Api, request: IdeaRequest) -> Result<IdeaAdded, ApiError> {
    let kind = match request.kind.as_deref().map(Kind::from) {
        None => Kind::Idea,
        Some(kind @ (Kind::Idea | Kind::Observation | Kind::Issue)) => kind,
        Some(other) => {
            let known = "an entry of its own is an idea, an observation or an issue";
            return Err(ApiError::BadRequest(format!("{:?} is no kind of subject: {known}", other.as_str())));
        }
    };
    let source = Source { url: request.url, file: request.file, line: request.line, person: None };
    let says = Content {
        body: request.body,
        language: request.language.unwrap_or_default(),
        tags: request.tags,
        source: (source != Source::default()).then_some(source),
        key: request.key.filter(|key| !key.is_empty()),
        ..Content::new(kind, request.title.trim())
    };
    if says.key.as_ref().is_some_and(|key| key.starts_with(OF_COMMAND)) {
        return Err(ApiError::BadRequest(format!("keys that begin with {OF_COMMAND:?} are V6's own: use another")));
    }
    if let Some(known) = known(api, &says).await? {
        return Ok(IdeaAdded { id: known.to_string(), known: true, durable_on: 1, similar: Vec::new() });
    }
    let (title, body) = (says.title.clone(), says.body.clone());
    let entry = sign(api, says).await?;
    // Looked for before it is there itself.
    let similar = ledger::similar(&api.0, &title, &body).await.map_err(|error| internal(format!("{error:#}")))?;
    let durable_on = if request.dry_run { 0 } else { write(api, std::slice::from_ref(&entry)).await? };
    let id = if request.dry_run { String::new() } else { entry.id.to_string() };
    let similar = api.ask(move |core| {
        let title = |id| core.replica().subject_row(DocId::ledger(id)).map(|row| row.title).unwrap_or_default();
        let like = similar.into_iter().filter(|like| like.id != entry.id);
        let like = like.map(|like| Similar {
            id: like.id.to_string(),
            score: (like.score * 1_000.0).round() / 1_000.0,
            method: like.method.as_str().to_owned(),
            title: title(like.id),
        });
        IdeaAdded { id, known: false, durable_on, similar: like.collect() }
    });
    similar.await
}

/// The idea that this person wrote under the same key, if its words are the same.
async fn known(api: &Api, says: &Content) -> Result<Option<EntryId>, ApiError> {
    let Some(key) = says.key.clone() else { return Ok(None) };
    let Some(person) = person(api, api.0.me).await? else { return Ok(None) };
    let asked = key.clone();
    let Some(before) = api.ask(move |core| core.replica().subject_of_key(person, &asked)).await? else {
        return Ok(None);
    };
    if before.root.says != *says {
        let id = before.root.id;
        return Err(ApiError::Conflict(format!(
            "the key {key:?} is that of idea {id}, which has other words: use another key"
        )));
    }
    Ok(Some(before.root.id))
}

pub(super) async fn idea(api: &Api, word: &str) -> Result<IdeaView, ApiError> {
    let word = word.to_owned();
    api.ask(move |core| {
        let subject = find_subject(core, &word)?;
        Ok(view(core, &subject))
    })
    .await?
}

/// A subject by its id or an unambiguous part of it.
fn find_subject(core: &NodeCore, word: &str) -> Result<Subject, ApiError> {
    let id = find_shown(core, word)?.id;
    core.replica().subject(DocId::ledger(id)).ok_or_else(|| missing(word))
}

fn missing(word: &str) -> ApiError {
    ApiError::NotFound(format!("no idea {word:?}: `v6 idea list` lists them"))
}

/// A subject's line, by its id or an unambiguous part of it.
pub(super) fn find_shown(core: &NodeCore, word: &str) -> Result<Shown, ApiError> {
    let bare = word.strip_prefix("ledger/").or_else(|| word.strip_prefix("idea:")).unwrap_or(word).to_lowercase();
    let missing = || missing(word);
    let is_hex = bare.bytes().all(|b| b.is_ascii_hexdigit());
    if bare.len() < PREFIX_MIN || bare.len() > 2 * EntryId::LEN || !is_hex {
        return Err(missing());
    }
    // Of an odd number of characters the last is compared by itself.
    let prefix = data_encoding::HEXLOWER.decode(&bare.as_bytes()[..bare.len() / 2 * 2]).map_err(internal)?;
    let named = core.replica().subjects_named(&prefix, 16 * NAMED_MAX);
    let mut named = named.into_iter().filter(|shown| shown.id.to_string().starts_with(&bare));
    match (named.next(), named.next()) {
        (None, _) => Err(missing()),
        (Some(one), None) => Ok(one),
        (Some(one), Some(two)) => {
            let name = |shown: &Shown| format!("{} ({})", &shown.id.to_string()[..16], shown.title);
            let names: Vec<String> =
                [one, two].iter().chain(named.take(NAMED_MAX - 2).collect::<Vec<_>>().iter()).map(name).collect();
            Err(ApiError::Ambiguous(format!("{word:?} may be {}: write more of the id", names.join(", "))))
        }
    }
}

fn view(core: &NodeCore, subject: &Subject) -> IdeaView {
    let replica = core.replica();
    let root = &subject.root.says;
    let title = |id: EntryId| replica.subject_row(DocId::ledger(id)).map(|row| row.title);
    let handover = |handover: &Handover| HandoverView {
        offer: handover.offer.to_string(),
        acceptance: Some(handover.acceptance.to_string()),
        from: handover.from.to_string(),
        to: handover.to.to_string(),
    };
    let offer = |id: &EntryId| {
        let to = subject.about.iter().find(|entry| entry.id == *id)?.says.transfer.as_ref()?.to.to_string();
        Some(HandoverView { offer: id.to_string(), acceptance: None, from: subject.owner.to_string(), to })
    };
    let link = |(entry, link): (&Signed, &Link)| LinkView {
        entry: entry.id.to_string(),
        relation: link.relation.as_str().to_owned(),
        from: subject.root.id.to_string(),
        to: if let Target::Entry(id) = link.to { id.to_string() } else { link.to.to_string() },
        title: if let Target::Entry(id) = link.to { title(id) } else { None },
        person: entry.by.person.to_string(),
    };
    let to_it = Target::Entry(subject.root.id);
    let spoken = |link: &Incoming| link.relation.as_str() != OUTCOME_OF;
    let backlinks = replica.links_to(&to_it).into_iter().filter(spoken).map(|link| LinkView {
        entry: link.entry.to_string(),
        relation: link.relation.as_str().to_owned(),
        from: link.from.to_string(),
        to: subject.root.id.to_string(),
        title: title(link.from),
        person: link.person.to_string(),
    });
    IdeaView {
        row: row(&subject.shown()),
        body: root.body.clone(),
        language: root.language.clone(),
        tags: root.tags.clone(),
        about: subject.about.iter().map(|entry| entry_view(subject, entry)).collect(),
        handovers: subject.handovers.iter().map(handover).collect(),
        forestalled: subject.forestalled.iter().map(handover).collect(),
        offers: subject.offers.iter().filter_map(offer).collect(),
        links: subject.links().map(link).collect(),
        backlinks: backlinks.collect(),
        has_note: replica.has_note(NoteId::of_idea(subject.root.id)),
        jobs: replica.jobs_of(subject.root.id).iter().map(ToString::to_string).collect(),
        outcomes: replica.outcomes(&to_it).iter().filter_map(outcome_view).collect(),
    }
}

fn outcome_view(entry: &Signed) -> Option<OutcomeView> {
    let outcome = entry.says.outcome.as_ref()?;
    let artifact = |(path, blob, bytes): &(String, BlobHash, u64)| OutcomeArtifact {
        path: path.clone(),
        blob: blob.to_string(),
        size: *bytes,
    };
    Some(OutcomeView {
        entry: entry.id.to_string(),
        job: outcome.job.to_string(),
        state: outcome.state.clone(),
        exit: outcome.exit,
        tasks: outcome.tasks,
        done: outcome.done,
        duration_ms: outcome.duration_ms,
        cost_micros: outcome.cost_micros,
        nodes: outcome.nodes.iter().map(ToString::to_string).collect(),
        trace: outcome.trace.to_string(),
        artifacts: outcome.artifacts.iter().map(artifact).collect(),
        author: entry.by.node.to_string(),
        created: views::time(entry.by.created_ms),
    })
}

fn entry_view(subject: &Subject, signed: &Signed) -> EntryView {
    let says = &signed.says;
    let mut detail = serde_json::Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        detail.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("on", says.on.map(|on| json!(on)));
    add("link", says.link.as_ref().map(|link| json!(link)));
    add("for", says.is_for.map(|is_for| json!(is_for)));
    add("evaluation", says.evaluation.map(|evaluation| json!(evaluation)));
    add("verdict", says.verdict.as_ref().map(|verdict| json!(verdict)));
    add("to", says.transfer.as_ref().map(|transfer| json!(transfer.to)));
    add("outcome", says.outcome.as_ref().map(|outcome| json!(outcome)));
    EntryView {
        id: signed.id.to_string(),
        kind: says.kind.as_str().to_owned(),
        title: says.title.clone(),
        body: says.body.clone(),
        author: signed.by.node.to_string(),
        person: signed.by.person.to_string(),
        created: views::time(signed.by.created_ms),
        retracted: subject.retracted.contains(&signed.id),
        detail: if detail.is_empty() { Value::Null } else { Value::Object(detail) },
    }
}
