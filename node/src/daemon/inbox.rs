//! The folder `inbox/` of a node: what is put there becomes an idea.
//!
//! A text file's first line is the title, what follows is the text. A file that was taken in goes to `inbox/added/`, one that
//! is no idea to `inbox/refused/` with the reason beside it. Nothing is removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use web_gateway::api::{ApiError, IdeaRequest, NodeApi};

use super::Shared;
use super::api::Api;

/// Interval of looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Most bytes of a file; the ledger takes less and says how much.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks into the folder again and again. A file is taken in once it is as it was at the look before.
pub(super) async fn watch(shared: Arc<Shared>) {
    let inbox = shared.options.data_dir.join("inbox");
    if let Err(error) = tokio::fs::create_dir_all(&inbox).await {
        tracing::warn!(%error, "the inbox cannot be made: nothing is taken in from it");
        return;
    }
    let api = Api(shared);
    let mut before = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = match look(&inbox) {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "the inbox cannot be read");
                continue;
            }
        };
        for (path, state) in &now {
            if before.get(path) == Some(state)
                && let Err(error) = take(&api, &inbox, path).await
            {
                tracing::warn!(file = %path.display(), error = format!("{error:#}"), "the inbox");
            }
        }
        before = now;
    }
}

/// The files of the folder that are not hidden, with length and time of change.
fn look(inbox: &Path) -> std::io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(inbox)? {
        let entry = entry?;
        // Links are not followed: the inbox takes in what lies in it.
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type()?.is_file() && !is_hidden {
            let about = entry.metadata()?;
            files.insert(entry.path(), (about.len(), about.modified()?));
        }
    }
    Ok(files)
}

async fn take(api: &Api, inbox: &Path, path: &Path) -> anyhow::Result<()> {
    match read(path) {
        Err(reason) => put_aside(inbox, path, "refused", Some(&reason)),
        Ok(request) => match api.idea_add(request).await {
            Ok(_) => put_aside(inbox, path, "added", None),
            // The node is not ready, or waits: the file is looked at again.
            Err(error @ (ApiError::NotReady(_) | ApiError::Internal(_))) => Err(anyhow::anyhow!("{error}")),
            Err(error) => put_aside(inbox, path, "refused", Some(&error.to_string())),
        },
    }
}

fn read(path: &Path) -> Result<IdeaRequest, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("it has {bytes} bytes, more than {FILE_BYTES_MAX}: attach large files to a short text"));
    }
    let text = std::fs::read_to_string(path).map_err(|_| "it is no text in UTF-8".to_owned())?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let (title, body) = text.split_once('\n').unwrap_or((text, ""));
    // The same words again are the same idea, whatever the file is called.
    let key = format!("inbox/{}", blake3::hash(text.as_bytes()).to_hex());
    Ok(IdeaRequest {
        title: title.trim().trim_start_matches("# ").to_owned(),
        body: body.trim().to_owned(),
        key: Some(key),
        ..IdeaRequest::default()
    })
}

fn put_aside(inbox: &Path, path: &Path, folder: &str, reason: Option<&str>) -> anyhow::Result<()> {
    let folder = inbox.join(folder);
    std::fs::create_dir_all(&folder)?;
    let name = path.file_name().context("a file has a name")?;
    let mut to = folder.join(name);
    for n in 1.. {
        if !to.exists() {
            break;
        }
        to = folder.join(format!("{n}-{}", name.to_string_lossy()));
    }
    std::fs::rename(path, &to)?;
    if let Some(reason) = reason {
        let mut beside = to.into_os_string();
        beside.push(".reason");
        std::fs::write(beside, format!("{reason}\n"))?;
    }
    Ok(())
}
