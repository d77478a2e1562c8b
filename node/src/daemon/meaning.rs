//! Asks the owner's model what ideas mean, and which mean the same as another text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use crdt::doc::DocId;

use super::Shared;
use crate::ledger::meaning::{Endpoint, Meanings};

/// Texts that are asked for together.
const TEXTS_PER_QUESTION: usize = 32;
/// Characters of a text that are asked for: small models read no more.
const CHARS_MAX: usize = 2_000;
/// Patience with the model for many texts; for one, for which somebody waits.
const MANY_WAIT: Duration = Duration::from_secs(120);
const ONE_WAIT: Duration = Duration::from_secs(2);
/// Time after which a model that does not answer is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Longest time between two looks for entries whose meaning is not known.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Shortest such time.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Asks for the meanings of all entries, of which the index knows.
pub(super) async fn keep(shared: Arc<Shared>) {
    let Some(endpoint) = shared.options.embeddings.clone() else { return };
    let (directory, model) = (shared.options.data_dir.clone(), endpoint.model.clone());
    let opened = tokio::task::spawn_blocking(move || Meanings::open(&directory, &model)).await;
    let Ok(opened) = opened else { return };
    let meanings = Arc::clone(shared.ledger.meanings.get_or_init(|| Arc::new(Mutex::new(opened))));
    let mut answers = true;
    loop {
        let indexed = shared.ledger.indexed.notified();
        let lacking = lacking(&shared, &meanings).await;
        if lacking.is_empty() {
            drop(tokio::time::timeout(LOOK_EVERY, indexed).await);
        }
        for docs in lacking.chunks(TEXTS_PER_QUESTION) {
            if let Err(error) = learn(&shared, &endpoint, &meanings, docs.to_vec()).await {
                if std::mem::take(&mut answers) {
                    tracing::warn!(error = format!("{error:#}"), "ideas are not compared by their meaning meanwhile");
                }
                tokio::time::sleep(AGAIN_AFTER).await;
                break;
            }
            answers = true;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn lacking(shared: &Shared, meanings: &Mutex<Meanings>) -> Vec<DocId> {
    let docs = shared.ledger.ask(|index| Ok(index.docs())).await.ok().flatten().unwrap_or_default();
    let meanings = meanings.lock().unwrap_or_else(PoisonError::into_inner);
    docs.into_iter().filter(|doc| !meanings.knows(doc)).collect()
}

/// Asks what some entries mean.
async fn learn(
    shared: &Shared,
    endpoint: &Endpoint,
    meanings: &Arc<Mutex<Meanings>>,
    docs: Vec<DocId>,
) -> anyhow::Result<()> {
    let read = shared.core.ask(move |core| {
        let text =
            |doc| core.replica().subject(doc).map(|subject| text(&subject.root.says.title, &subject.root.says.body));
        docs.into_iter().filter_map(|doc| Some((doc, text(doc)?))).collect::<Vec<_>>()
    });
    let (docs, texts): (Vec<DocId>, Vec<String>) = read.await.context("the node is stopping")?.into_iter().unzip();
    if docs.is_empty() {
        return Ok(());
    }
    let vectors = endpoint.embed(&texts, MANY_WAIT).await?;
    let rows: Vec<_> = docs.into_iter().zip(vectors).collect();
    let meanings = Arc::clone(meanings);
    tokio::task::spawn_blocking(move || meanings.lock().unwrap_or_else(PoisonError::into_inner).add(&rows)).await?
}

fn text(title: &str, body: &str) -> String {
    format!("{title}\n{body}").trim().chars().take(CHARS_MAX).collect()
}

/// The entries that mean the same as a text, with the cosine of both; none while the model does not answer.
pub(super) async fn same(shared: &Shared, title: &str, body: &str) -> BTreeMap<DocId, f64> {
    let (Some(endpoint), Some(meanings)) = (&shared.options.embeddings, shared.ledger.meanings.get().cloned()) else {
        return BTreeMap::new();
    };
    match endpoint.embed(&[text(title, body)], ONE_WAIT).await {
        Ok(vectors) => {
            let least = endpoint.same_min;
            let look = move || {
                let meanings = meanings.lock().unwrap_or_else(PoisonError::into_inner);
                vectors.first().map(|asked| meanings.nearest(asked, least)).unwrap_or_default()
            };
            tokio::task::spawn_blocking(look).await.unwrap_or_default().into_iter().collect()
        }
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "an idea was not compared by its meaning");
            BTreeMap::new()
        }
    }
}
