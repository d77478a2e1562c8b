//! An idea that is added: checked, compared with what is there, and joined to it where that is wanted.

use crdt::doc::DocId;
use crdt::ids::EntryId;
use crdt::ledger::{Content, Kind, Link, Method, OF_COMMAND, Relation, Signed, Source, Target};
use web_gateway::api::*;

use super::super::{Api, internal};
use super::{person, sign, write};
use crate::daemon::ledger::{self, Alike};

pub(in crate::daemon::api) async fn add(api: &Api, request: IdeaRequest) -> Result<IdeaAdded, ApiError> {
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
        return Ok(IdeaAdded {
            id: known.to_string(),
            known: true,
            observation: None,
            durable_on: 1,
            similar: Vec::new(),
        });
    }
    if request.dry_run {
        sign(api, says.clone(), None).await?;
        let similar = similar(api, &says).await?;
        return answer(api, Written::default(), similar).await;
    }
    let program = request.program.as_deref();
    // Two reports of one finding at the same time are one idea all the same.
    let _turn = if request.join { Some(api.0.ledger.joining.lock().await) } else { None };
    // Looked for before it is there itself.
    let similar = similar(api, &says).await?;
    let same = similar.iter().find(|like| like.method == Method::Exact).filter(|_| request.join);
    let written = match same {
        Some(same) => report(api, same.id, says, program).await?,
        None => new(api, says, similar.first(), request.join, program).await?,
    };
    answer(api, written, similar).await
}

/// What was written: the idea, and the entry that reports it.
#[derive(Debug, Default)]
struct Written {
    idea: Option<EntryId>,
    observation: Option<EntryId>,
    durable_on: u32,
}

async fn similar(api: &Api, says: &Content) -> Result<Vec<Alike>, ApiError> {
    ledger::similar(&api.0, &says.title, &says.body).await.map_err(|error| internal(format!("{error:#}")))
}

/// Writes a subject of its own, the link to what it is most like, and with `reported` the observation that reports it.
async fn new(
    api: &Api,
    says: Content,
    like: Option<&Alike>,
    reported: bool,
    program: Option<&str>,
) -> Result<Written, ApiError> {
    let report = reported.then(|| Content {
        source: says.source.clone(),
        language: says.language.clone(),
        ..Content::new(Kind::Observation, says.title.clone())
    });
    let idea = sign(api, says, program).await?;
    let mut entries = Vec::new();
    if let Some(like) = like {
        let link = Link {
            relation: Relation::Duplicates,
            to: Target::Entry(like.id),
            score: Some(thousandths(like.score)),
            method: Some(like.method.as_str().to_owned()),
        };
        let says = Content { link: Some(link), ..Content::about(Kind::Link, idea.id) };
        entries.push(sign(api, says, program).await?);
    }
    let mut observation = None;
    if let Some(says) = report {
        let entry = sign(api, Content { about: Some(idea.id), ..says }, program).await?;
        observation = Some(entry.id);
        entries.push(entry);
    }
    let id = idea.id;
    entries.insert(0, idea);
    Ok(Written { idea: Some(id), observation, durable_on: write(api, &entries).await? })
}

/// Reports again what is there.
async fn report(api: &Api, idea: EntryId, says: Content, program: Option<&str>) -> Result<Written, ApiError> {
    let (me, key) = (api.0.me, says.key.clone());
    let before = api
        .ask(move |core| {
            let person = core.replica().roster().person(&me);
            let subject = key.as_ref().and_then(|_| core.replica().subject(DocId::ledger(idea)))?;
            let is_it = |entry: &&Signed| Some(entry.by.person) == person && entry.says.key == key;
            subject.about.iter().find(is_it).map(|entry| entry.id)
        })
        .await?;
    if before.is_some() {
        return Ok(Written { idea: Some(idea), observation: before, durable_on: 1 });
    }
    let entry = sign(api, Content { kind: Kind::Observation, about: Some(idea), ..says }, program).await?;
    let durable_on = write(api, std::slice::from_ref(&entry)).await?;
    Ok(Written { idea: Some(idea), observation: Some(entry.id), durable_on })
}

async fn answer(api: &Api, written: Written, similar: Vec<Alike>) -> Result<IdeaAdded, ApiError> {
    api.ask(move |core| {
        let title = |id| core.replica().subject_row(DocId::ledger(id)).map(|row| row.title).unwrap_or_default();
        let like = similar.into_iter().filter(|like| Some(like.id) != written.idea);
        let like = like.map(|like| Similar {
            id: like.id.to_string(),
            score: f64::from(thousandths(like.score)) / 1_000.0,
            method: like.method.as_str().to_owned(),
            title: title(like.id),
        });
        IdeaAdded {
            id: written.idea.map(|id| id.to_string()).unwrap_or_default(),
            known: false,
            observation: written.observation.map(|id| id.to_string()),
            durable_on: written.durable_on,
            similar: like.collect(),
        }
    })
    .await
}

fn thousandths(score: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a score is between 0 and 1")]
    let thousandths = (score * 1_000.0).round() as u16;
    thousandths
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
