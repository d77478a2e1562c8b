//! The ideas that jobs serve: those that their submitters name, or else an observation of the command.

use std::collections::BTreeMap;

use crdt::bundle::Change;
use crdt::ids::{EntryId, JobId, PersonId};
use crdt::job::JobSpec;
use crdt::ledger::{Content, Kind, OF_COMMAND};
use tokio::sync::MutexGuard;
use web_gateway::api::{ApiError, PlannedJob};

use super::super::Api;
use super::super::policy::REQUIRE_IDEA;
use super::{find_shown, sign};
use crate::daemon::driver::NodeCore;

/// Characters of a command that make the title of its observation.
const TITLE_CHARS_MAX: usize = 200;

/// What a job is to serve.
enum Served {
    /// It is there.
    Known(Option<EntryId>),
    /// What is to be written under this key: title and body.
    New(String, String, String),
}

/// Names what each job serves, and answers the observations that are to be written with them. A job that names no idea serves
/// the observation of its command: one for each command of a person, however often it runs. Whoever writes one holds the turn
/// until it is written: another request for the same command at the same moment finds it.
pub(in crate::daemon::api) async fn name_ideas<'a>(
    api: &'a Api,
    planned: &[PlannedJob],
    jobs: &mut [(JobId, JobSpec)],
) -> Result<(Vec<Change>, Option<MutexGuard<'a, ()>>), ApiError> {
    let asked: Vec<Asked> = planned
        .iter()
        .zip(jobs.iter())
        .map(|(planned, (id, spec))| (planned.request.idea.clone(), *id, spec.person, title(spec), body(spec)))
        .collect();
    let mut served = serve(api, asked.clone()).await?;
    let is_new = |served: &Served| matches!(served, Served::New(..));
    let mut turn = None;
    if served.iter().any(is_new) {
        turn = Some(api.0.ledger.observing.lock().await);
        served = serve(api, asked).await?;
    }
    let (mut entries, mut written) = (Vec::new(), BTreeMap::new());
    for ((_, spec), served) in jobs.iter_mut().zip(served) {
        spec.idea = match served {
            Served::Known(idea) => idea,
            Served::New(key, ..) if written.contains_key(&key) => written.get(&key).copied(),
            Served::New(key, title, body) => {
                let says = Content { body, key: Some(key.clone()), ..Content::new(Kind::Observation, title) };
                let entry = sign(api, says, None).await?;
                entries.push(Change::entry(&entry));
                written.insert(key, entry.id);
                Some(entry.id)
            }
        };
    }
    Ok((entries, turn))
}

/// What is asked of a job: the idea that it names, its id and person, title and body of its command.
type Asked = (Option<String>, JobId, PersonId, String, String);

async fn serve(api: &Api, asked: Vec<Asked>) -> Result<Vec<Served>, ApiError> {
    let required = api.0.options.require_idea;
    api.ask(move |core| {
        let required = required || core.replica().roster().policy(REQUIRE_IDEA) == Some("on");
        let serve = |(word, id, person, title, body): Asked| match word {
            Some(word) => named(core, &word, id).map(|idea| Served::Known(Some(idea))),
            None => observed(core, required, (id, person), title, body),
        };
        asked.into_iter().map(serve).collect()
    })
    .await?
}

/// The idea that a submitter names; another submit of the same job names the same one.
fn named(core: &NodeCore, word: &str, id: JobId) -> Result<EntryId, ApiError> {
    let idea = find_shown(core, word)?.id;
    match core.replica().job_row(id).and_then(|row| row.idea) {
        Some(other) if other != idea => Err(ApiError::Conflict(format!(
            "job {id} has this key and serves the idea {}: use another key, or name that idea",
            other.short()
        ))),
        _ => Ok(idea),
    }
}

fn observed(
    core: &NodeCore,
    required: bool,
    (id, person): (JobId, PersonId),
    title: String,
    body: String,
) -> Result<Served, ApiError> {
    if let Some(row) = core.replica().job_row(id) {
        return Ok(Served::Known(row.idea));
    }
    if required {
        return Err(ApiError::BadRequest(
            "a job must name the idea that it serves: add --idea ID (`v6 idea list` lists them, `v6 idea add TITLE` adds one)"
                .into(),
        ));
    }
    let key = format!("{OF_COMMAND}{}", blake3::hash(format!("{title}\0{body}").as_bytes()).to_hex());
    match core.replica().subject_under_key(person, &key) {
        Some(idea) => Ok(Served::Known(Some(idea))),
        None => Ok(Served::New(key, title, body)),
    }
}

/// A command in one line.
fn title(spec: &JobSpec) -> String {
    let text = if spec.name.is_empty() { spec.command.join(" ") } else { spec.name.clone() };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TITLE_CHARS_MAX).collect();
    if text.trim().is_empty() { "a command".to_owned() } else { text.trim().to_owned() }
}

/// A named job's command, or a long one as a whole, up to what an entry holds.
fn body(spec: &JobSpec) -> String {
    let text = spec.command.join(" ");
    if text == title(spec) {
        return String::new();
    }
    let most = crdt::limits::ENTRY_BODY_BYTES_MAX;
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= most).last().unwrap_or(0);
    text[..end].to_owned()
}
