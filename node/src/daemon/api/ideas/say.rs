//! What people say about an idea: checked before it is signed, so that they learn what is wrong with it.

use std::collections::BTreeSet;

use crdt::doc::DocId;
use crdt::ids::{BlobHash, EntryId, NodeId, PersonId};
use crdt::ledger::{Content, Evaluation, Kind, Link, Relation, Signed, Subject, Target, Transfer, Verdict};
use web_gateway::api::{ApiError, EntryAdded, EntryRequest};

use super::super::Api;
use super::{find_subject, sign, write};
use crate::daemon::api::jobs::find_job;
use crate::daemon::driver::NodeCore;

/// Subjects that are looked at for a cycle of links. Longer chains are let pass.
const CYCLE_LOOKS_MAX: usize = 10_000;

pub(in crate::daemon::api) async fn say(api: &Api, word: &str, request: EntryRequest) -> Result<EntryAdded, ApiError> {
    let (word, me, program) = (word.to_owned(), api.0.me, request.program.clone());
    let says = api
        .ask(move |core| {
            let subject = find_subject(core, &word)?;
            content(core, me, &subject, request)
        })
        .await??;
    let entry = sign(api, says, program.as_deref()).await?;
    let durable_on = write(api, std::slice::from_ref(&entry)).await?;
    Ok(EntryAdded { id: entry.id.to_string(), idea: entry.subject().to_string(), durable_on })
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::BadRequest(text.into())
}

fn content(core: &NodeCore, me: NodeId, subject: &Subject, request: EntryRequest) -> Result<Content, ApiError> {
    let kind = Kind::from(request.kind.as_str());
    let mut says = Content::about(kind.clone(), subject.root.id);
    says.title = request.title.trim().to_owned();
    says.body = request.body.clone();
    let seen = |kind: &Kind| {
        let of_kind = subject.about.iter().filter(|entry| entry.says.kind == *kind).map(|entry| entry.id);
        of_kind.rev().take(crdt::limits::ENTRY_SEEN_MAX).collect::<Vec<_>>()
    };
    match &kind {
        Kind::Observation => {
            if says.title.is_empty() && says.body.trim().is_empty() {
                return Err(bad("the observation says nothing: write what was seen"));
            }
        }
        Kind::Argument => {
            says.is_for =
                Some(request.is_for.ok_or_else(|| bad("an argument is for the idea or against it: say which"))?);
            if says.title.is_empty() && says.body.trim().is_empty() {
                return Err(bad("the argument says nothing: write why"));
            }
        }
        Kind::Evaluation => {
            let EntryRequest { value, effort, confidence, vote, .. } = request;
            if value.or(effort).or(confidence).is_none() && vote.is_none() {
                return Err(bad("the evaluation says nothing: give a value, an effort, a confidence, or a vote"));
            }
            says.evaluation = Some(Evaluation { value, effort, confidence, vote });
        }
        Kind::Decision => {
            let verdict = Verdict::from(request.verdict.as_deref().unwrap_or_default());
            if let Verdict::Other(other) = &verdict {
                let known = Verdict::KNOWN.join(", ");
                return Err(bad(format!("{other:?} is no decision: an idea is {known}")));
            }
            owns(core, me, subject, "decides what becomes of it")?;
            says.verdict = Some(verdict);
            says.seen = seen(&kind);
        }
        Kind::Link => says.link = Some(link(core, subject, &request)?),
        Kind::Transfer => {
            says.seen = seen(&kind);
            transfer(core, me, subject, &request, &mut says)?;
        }
        Kind::Retraction => says.on = retracted(core, me, subject, request.on.as_deref())?,
        Kind::Idea
        | Kind::Issue
        | Kind::Task
        | Kind::Attempt
        | Kind::Artifact
        | Kind::Outcome
        | Kind::KeyDelegation
        | Kind::Other(_) => {
            let known = "observation, argument, evaluation, decision, link, transfer, retraction";
            return Err(bad(format!("{:?} is nothing that can be said about an idea: {known}", request.kind)));
        }
    }
    Ok(says)
}

fn owns(core: &NodeCore, me: NodeId, subject: &Subject, what: &str) -> Result<(), ApiError> {
    let roster = core.replica().roster();
    let is_admin = roster.role(&me).is_some_and(|role| role.may_administer());
    if is_admin || roster.person(&me) == Some(subject.owner) {
        return Ok(());
    }
    let owner = name(core, subject.owner);
    Err(ApiError::NotAllowed(format!("only its owner, {owner}, or an admin {what}")))
}

fn name(core: &NodeCore, person: PersonId) -> String {
    let roster = core.replica().roster();
    let of_device = || roster.members.values().find(|member| member.person == person).map(|member| member.name.clone());
    let name = roster.persons.get(&person).cloned().or_else(of_device);
    name.map_or_else(|| format!("person {person}"), |name| format!("{name} ({})", person.short()))
}

/// A person by id, by a part of it, or by the name or id of the person or of one of the devices.
fn find_person(core: &NodeCore, word: &str) -> Result<PersonId, ApiError> {
    let roster = core.replica().roster();
    let low = word.to_lowercase();
    let is_named = |id: String| low.len() >= 4 && id.starts_with(&low);
    let mut found: BTreeSet<PersonId> = roster
        .persons
        .iter()
        .filter(|(id, name)| is_named(id.to_string()) || *name == word)
        .map(|(id, _)| *id)
        .collect();
    for (node, member) in &roster.members {
        if is_named(node.to_string()) || is_named(member.person.to_string()) || member.name == word {
            found.insert(member.person);
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(person), None) => Ok(person),
        (None, _) => Err(ApiError::NotFound(format!("nobody is called {word:?}: `v6 peers` lists the nodes"))),
        (Some(one), Some(two)) => {
            let (one, two) = (name(core, one), name(core, two));
            Err(ApiError::Ambiguous(format!("{word:?} may be {one} or {two}: write the person's id")))
        }
    }
}

fn link(core: &NodeCore, subject: &Subject, request: &EntryRequest) -> Result<Link, ApiError> {
    let relation = Relation::from(request.relation.as_deref().unwrap_or(Relation::Related.as_str()));
    if let Relation::Other(other) = &relation {
        let known = Relation::KNOWN.join(", ");
        return Err(bad(format!("{other:?} is no link: there are {known}")));
    }
    let word = request.to.as_deref().ok_or_else(|| bad("the link leads nowhere: name what it leads to"))?;
    let to = match word.split_once(':') {
        Some(("job", id)) => Target::Job(find_job(core, id)?),
        Some(("blob", hash)) => {
            Target::Blob(hash.parse::<BlobHash>().map_err(|error| bad(format!("{hash:?} is no blob: {error}")))?)
        }
        _ if relation == Relation::ExecutedBy => Target::Job(find_job(core, word)?),
        _ => Target::Entry(find_subject(core, word)?.root.id),
    };
    if !relation.takes(&to) {
        let takes = if relation == Relation::ExecutedBy { "a job" } else { "an idea" };
        return Err(bad(format!("{} leads to {takes}, not to {to}", relation.as_str())));
    }
    if to == Target::Entry(subject.root.id) {
        return Err(bad("an idea is not linked to itself"));
    }
    if let Target::Entry(id) = to
        && !relation.allows_cycles()
        && leads_back(core, id, subject.root.id, &relation)
    {
        let other = core.replica().subject_row(DocId::ledger(id)).map(|row| row.title).unwrap_or_default();
        return Err(ApiError::Conflict(format!(
            "{other:?} is already linked to this idea as {}, over one or several others: the link would close a circle",
            relation.as_str()
        )));
    }
    Ok(Link { relation, to, score: None, method: None })
}

/// Whether links of one kind lead from one subject to another.
fn leads_back(core: &NodeCore, from: EntryId, to: EntryId, relation: &Relation) -> bool {
    let (mut seen, mut next) = (BTreeSet::from([from]), vec![from]);
    while let Some(id) = next.pop() {
        if id == to {
            return true;
        }
        if seen.len() > CYCLE_LOOKS_MAX {
            return false;
        }
        for link in core.replica().links_of(DocId::ledger(id)) {
            if let (true, Target::Entry(id)) = (link.relation == *relation, link.to)
                && seen.insert(id)
            {
                next.push(id);
            }
        }
    }
    false
}

fn transfer(
    core: &NodeCore,
    me: NodeId,
    subject: &Subject,
    request: &EntryRequest,
    says: &mut Content,
) -> Result<(), ApiError> {
    let after = subject.handovers.last().map(|handover| handover.acceptance);
    if let Some(word) = &request.to {
        owns(core, me, subject, "hands it over")?;
        let to = find_person(core, word)?;
        if to == subject.owner {
            return Err(ApiError::Conflict(format!("it is {}'s already", name(core, to))));
        }
        says.transfer = Some(Transfer { to, after });
        return Ok(());
    }
    let me = core.replica().roster().person(&me);
    let offered = |id: &&EntryId| {
        let offer = subject.about.iter().find(|entry| entry.id == **id);
        let is_mine =
            offer.and_then(|offer| offer.says.transfer.as_ref()).is_some_and(|transfer| Some(transfer.to) == me);
        is_mine && request.on.as_ref().is_none_or(|on| id.to_string().starts_with(&on.to_lowercase()))
    };
    let offer = subject.offers.iter().find(offered);
    let offer = offer.ok_or_else(|| {
        ApiError::Conflict("it is not offered to you: its owner offers it with `v6 idea transfer ID PERSON`".into())
    })?;
    says.on = Some(*offer);
    says.transfer = me.map(|to| Transfer { to, after });
    Ok(())
}

/// The entry that is to be taken back; none: the whole subject.
fn retracted(core: &NodeCore, me: NodeId, subject: &Subject, on: Option<&str>) -> Result<Option<EntryId>, ApiError> {
    let roster = core.replica().roster();
    let (person, is_admin) = (roster.person(&me), roster.role(&me).is_some_and(|role| role.may_administer()));
    let Some(word) = on else {
        owns(core, me, subject, "takes it back")?;
        return Ok(None);
    };
    let low = word.to_lowercase();
    let named: Vec<&Signed> = subject.about.iter().filter(|entry| entry.id.to_string().starts_with(&low)).collect();
    let entry = match named[..] {
        [entry] => entry,
        [] => return Err(ApiError::NotFound(format!("nothing that was said about this idea is called {word:?}"))),
        _ => return Err(ApiError::Ambiguous(format!("several entries begin with {word:?}: write more of the id"))),
    };
    if !is_admin && person != Some(entry.by.person) {
        return Err(ApiError::NotAllowed(format!(
            "only {}, who wrote it, or an admin takes it back",
            name(core, entry.by.person)
        )));
    }
    if matches!(entry.says.kind, Kind::Retraction) || (entry.says.kind == Kind::Transfer && entry.says.on.is_some()) {
        return Err(bad(format!("a {} is not taken back", entry.says.kind.as_str())));
    }
    Ok(Some(entry.id))
}
