//! The ledger as the API shows it.

mod add;
mod find;
mod graph;
mod program;
mod say;
mod serve;
mod transport;

use ::mesh::Command;
use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::{BlobHash, EntryId, NoteId, PersonId};
use crdt::ledger::{
    Content, Handover, Incoming, Kind, Link, OUTCOME_OF, Relation, Shown, Signed, Status, Subject, Target,
};
use serde_json::{Value, json};
use web_gateway::api::*;

pub(super) use add::add;
pub(super) use find::{search, top};
pub(super) use graph::graph;
pub(super) use say::say;
pub(super) use serve::name_ideas;
pub(super) use transport::{export, import};

use super::policy::accepts_duplicate;
use super::{Api, internal};
use crate::daemon::driver::NodeCore;
use crate::daemon::{now_ms, random, views};

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
                    let is_listed =
                        shown.status() != Status::Retracted && !shown.of_command && shown.kind != Kind::KeyDelegation;
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

/// Signs an entry as this node's person, or as a program of his.
async fn sign(api: &Api, says: Content, program: Option<&str>) -> Result<Signed, ApiError> {
    let (me, key, nonce, created_ms) = (api.0.me, api.0.key.clone(), random().map_err(internal)?, now_ms());
    let Some(person) = person(api, me).await? else {
        return Err(ApiError::NotAllowed("this node's role does not allow it to write to the ledger".into()));
    };
    let signed = match program {
        Some(name) => {
            let (key, mandate) = program::mandate(api, person, name).await?;
            Signed::sign_under(&key, &mandate, created_ms, nonce, says)
        }
        None => Signed::sign(&key, person, created_ms, nonce, says),
    };
    signed.map_err(|error| ApiError::BadRequest(format!("nothing was added: {error}")))
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
    let accepted = |link: &Link| {
        let by_policy = |score| accepts_duplicate(replica.roster(), score);
        link.method.is_none() || link.score.is_some_and(by_policy)
    };
    let link = |(entry, link): (&Signed, &Link)| LinkView {
        entry: entry.id.to_string(),
        relation: link.relation.as_str().to_owned(),
        from: subject.root.id.to_string(),
        to: if let Target::Entry(id) = link.to { id.to_string() } else { link.to.to_string() },
        title: if let Target::Entry(id) = link.to { title(id) } else { None },
        person: entry.by.person.to_string(),
        score: link.score,
        method: link.method.clone(),
        accepted: accepted(link),
    };
    let to_it = Target::Entry(subject.root.id);
    let spoken = |link: &Incoming| link.relation.as_str() != OUTCOME_OF;
    let backlinks = replica.links_to(&to_it).into_iter().filter(spoken).map(|link| {
        // Only duplicates are found; all others somebody said.
        let is_found = link.relation == Relation::Duplicates;
        let entry = is_found.then(|| replica.entry(DocId::ledger(link.from), link.entry)).flatten();
        let found = entry.and_then(|entry| entry.says.link);
        LinkView {
            entry: link.entry.to_string(),
            relation: link.relation.as_str().to_owned(),
            from: link.from.to_string(),
            to: subject.root.id.to_string(),
            title: title(link.from),
            person: link.person.to_string(),
            accepted: found.as_ref().is_none_or(accepted),
            score: found.as_ref().and_then(|link| link.score),
            method: found.and_then(|link| link.method),
        }
    });
    IdeaView {
        row: row(&subject.shown()),
        program: program_of(&subject.root),
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

/// Name of the program that wrote an entry.
fn program_of(entry: &Signed) -> Option<String> {
    entry.mandate()?.says.delegation.map(|delegation| delegation.name)
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
        program: program_of(signed),
        person: signed.by.person.to_string(),
        created: views::time(signed.by.created_ms),
        retracted: subject.retracted.contains(&signed.id),
        detail: if detail.is_empty() { Value::Null } else { Value::Object(detail) },
    }
}
