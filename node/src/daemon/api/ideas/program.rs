//! Programs that write to the ledger for this node's person, each under a key of its own and a delegation that says what it may.
//!
//! The key lies beside the node's own, in `programs/NAME.json`, with the delegation that the ledger holds. Taken back
//! (`v6 idea retract`), the program writes no more here; a new name, or the file's removal, lets it ask again.

use std::path::{Path, PathBuf};

use crdt::Signer;
use crdt::SigningKey;
use crdt::doc::DocId;
use crdt::ids::PersonId;
use crdt::ledger::{Content, Delegation, Kind, Signed, Status};
use serde::{Deserialize, Serialize};
use web_gateway::api::ApiError;

use super::super::{Api, internal};
use super::write;
use crate::daemon::{now_ms, random};
use crate::platform::files;

/// How long a delegation holds.
const HOLDS_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// With less than this left a new one is given.
const RENEWED_MS: u64 = 24 * 3_600 * 1_000;
/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 32;
/// What programs write: nothing that only an owner or an admin may say.
const KINDS: [Kind; 6] = [Kind::Idea, Kind::Observation, Kind::Issue, Kind::Argument, Kind::Evaluation, Kind::Link];

/// What is kept of a program.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// The key's seed, hexadecimal.
    seed: String,
    /// The delegation's bytes, base64.
    delegation: String,
}

/// A program's key with a delegation that holds; both are made when it writes for the first time.
pub(super) async fn mandate(api: &Api, person: PersonId, name: &str) -> Result<(SigningKey, Signed), ApiError> {
    let path = path(&api.0.options.data_dir, name)?;
    // Two requests of one program make one key.
    let _turn = api.0.ledger.programs.lock().await;
    let kept = read(&path).map_err(|error| internal(format!("{}: {error}", path.display())))?;
    let key = match &kept {
        Some((key, _)) => key.clone(),
        None => SigningKey::from_bytes(&random().map_err(internal)?),
    };
    if let Some((key, mandate)) = kept.filter(|(_, mandate)| mandate.by.person == person) {
        let id = mandate.id;
        let status =
            api.ask(move |core| core.replica().subject(DocId::ledger(id)).map(|subject| subject.status)).await?;
        if status == Some(Status::Retracted) {
            return Err(ApiError::NotAllowed(format!(
                "the program {name:?} may not write any more: its delegation {id} was taken back; remove {} to let it ask again",
                path.display()
            )));
        }
        let until_ms = mandate.says.delegation.as_ref().map_or(0, |delegation| delegation.until_ms);
        if status.is_some() && until_ms > now_ms() + RENEWED_MS {
            return Ok((key, mandate));
        }
    }
    let delegation =
        Delegation { key: key.node(), name: name.to_owned(), kinds: KINDS.to_vec(), until_ms: now_ms() + HOLDS_MS };
    let says = Content { delegation: Some(delegation), ..Content::new(Kind::KeyDelegation, name) };
    let mandate = Signed::sign(&api.0.key, person, now_ms(), random().map_err(internal)?, says).map_err(internal)?;
    write(api, std::slice::from_ref(&mandate)).await?;
    let kept = Kept {
        seed: data_encoding::HEXLOWER.encode(&key.to_bytes()),
        delegation: data_encoding::BASE64.encode(&mandate.bytes),
    };
    let kept = serde_json::to_vec(&kept).map_err(internal)?;
    let written = tokio::task::spawn_blocking(move || {
        files::create_private_dir(path.parent().unwrap_or(Path::new(".")))?;
        files::write_private(&path, &kept)
    });
    written
        .await
        .map_err(internal)?
        .map_err(|error| internal(format!("the key of {name:?} cannot be kept: {error}")))?;
    Ok((key, mandate))
}

/// Where a program's key lies. Its name is part of the path: letters, digits and dashes.
fn path(data_dir: &Path, name: &str) -> Result<PathBuf, ApiError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fits) {
        return Err(ApiError::BadRequest(format!(
            "{name:?} is no program's name: up to {NAME_CHARS_MAX} of a to z, 0 to 9 and -"
        )));
    }
    Ok(data_dir.join("programs").join(format!("{name}.json")))
}

/// What is kept; nothing where the file is not there or damaged: then a new key is made.
fn read(path: &Path) -> std::io::Result<Option<(SigningKey, Signed)>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept = || {
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        let seed: [u8; 32] = data_encoding::HEXLOWER.decode(kept.seed.as_bytes()).ok()?.try_into().ok()?;
        let mandate = Signed::verify(&data_encoding::BASE64.decode(kept.delegation.as_bytes()).ok()?).ok()?;
        Some((SigningKey::from_bytes(&seed), mandate))
    };
    Ok(kept())
}
