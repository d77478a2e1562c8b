//! The ledger as the API shows it.

use ::mesh::Command;
use crdt::bundle::Change;
use crdt::doc::DocId;
use crdt::ids::EntryId;
use crdt::ledger::{Draft, Kind, Shown, Signed, Status, Subject};
use web_gateway::api::*;

use super::{Api, internal};
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
                rows.extend(some.into_iter().filter(|shown| query.all || shown.status() != Status::Retracted));
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

pub(super) async fn add(api: &Api, request: IdeaRequest) -> Result<IdeaAdded, ApiError> {
    let kind = match request.kind.as_deref().map(Kind::from) {
        None => Kind::Idea,
        Some(kind @ (Kind::Idea | Kind::Observation | Kind::Issue)) => kind,
        Some(other) => {
            let known = "an entry of its own is an idea, an observation or an issue";
            return Err(ApiError::BadRequest(format!("{:?} is no kind of subject: {known}", other.as_str())));
        }
    };
    let draft = Draft {
        body: request.body,
        language: request.language.unwrap_or_default(),
        tags: request.tags,
        ..Draft::new(kind, request.title.trim())
    };
    let (me, key, nonce, created_ms) = (api.0.me, api.0.key.clone(), random().map_err(internal)?, now_ms());
    let person = api.ask(move |core| {
        core.replica()
            .roster()
            .role(&me)
            .and_then(|role| role.may_submit().then(|| core.replica().roster().person(&me)).flatten())
    });
    let Some(person) = person.await? else {
        return Err(ApiError::NotAllowed("this node's role does not allow it to add ideas".into()));
    };
    let entry = Signed::sign(&key, person, created_ms, nonce, draft)
        .map_err(|error| ApiError::BadRequest(format!("nothing was added: {error}")))?;
    let ack = api.command(Command::Write(vec![Change::entry(&entry)])).await?;
    Ok(IdeaAdded { id: entry.id.to_string(), durable_on: ack.durable_on, similar: Vec::new() })
}

pub(super) async fn idea(api: &Api, word: &str) -> Result<IdeaView, ApiError> {
    let bare = word.strip_prefix("ledger/").unwrap_or(word).to_lowercase();
    let missing = || ApiError::NotFound(format!("no idea {word:?}: `v6 idea list` lists them"));
    let is_hex = bare.bytes().all(|b| b.is_ascii_hexdigit());
    if bare.len() < PREFIX_MIN || bare.len() > 2 * EntryId::LEN || !is_hex {
        return Err(missing());
    }
    // Of an odd number of characters the last is compared by itself.
    let prefix = data_encoding::HEXLOWER.decode(&bare.as_bytes()[..bare.len() / 2 * 2]).map_err(internal)?;
    let subject = api
        .ask(move |core| {
            let named = core.replica().subjects_named(&prefix, 16 * NAMED_MAX);
            let mut named = named.into_iter().filter(|shown| shown.id.to_string().starts_with(&bare));
            match (named.next(), named.next()) {
                (None, _) => Ok(None),
                (Some(one), None) => Ok(core.replica().subject(DocId::ledger(one.id))),
                (Some(one), Some(two)) => Err([one, two].into_iter().chain(named).take(NAMED_MAX).collect::<Vec<_>>()),
            }
        })
        .await?;
    match subject {
        Ok(Some(subject)) => Ok(view(&subject)),
        Ok(None) => Err(missing()),
        Err(several) => {
            let name = |shown: &Shown| format!("{} ({})", &shown.id.to_string()[..16], shown.title);
            let names: Vec<String> = several.iter().map(name).collect();
            Err(ApiError::Ambiguous(format!("{word:?} may be {}: write more of the id", names.join(", "))))
        }
    }
}

fn view(subject: &Subject) -> IdeaView {
    let root = &subject.root.entry;
    let entry = |signed: &Signed| EntryView {
        id: signed.id.to_string(),
        kind: signed.entry.kind.as_str().to_owned(),
        title: signed.entry.title.clone(),
        body: signed.entry.body.clone(),
        author: signed.entry.node.to_string(),
        person: signed.entry.person.to_string(),
        created: views::time(signed.entry.created_ms),
    };
    IdeaView {
        row: row(&subject.shown()),
        body: root.body.clone(),
        language: root.language.clone(),
        tags: root.tags.clone(),
        about: subject.about.iter().map(entry).collect(),
    }
}
