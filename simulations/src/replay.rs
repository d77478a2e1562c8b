//! Playing back what `v6 debug record` wrote: the same core code, step by step, to the same state.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;
use mesh::field_log::{Playback, Played};
use serde::Serialize;

/// What a playback came to.
#[derive(Debug, Clone, Serialize)]
pub struct Replayed {
    /// The node that was recorded.
    pub node: String,
    /// Steps.
    pub steps: u64,
    /// Inputs in them.
    pub inputs: u64,
    /// From the first to the last step, milliseconds.
    pub duration_ms: u64,
    /// State hash after the last step.
    pub state_hash: String,
    /// First step after which the core was not where the recorded one was, or signed something else, from 1.
    pub diverged_at: Option<u64>,
    /// Whether the recording was ended, and not cut off.
    pub complete: bool,
}

/// Plays back a field log to its end; `look` sees each step.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn replay(path: &Path, mut look: impl FnMut(u64, &Played)) -> anyhow::Result<Replayed> {
    let damaged = || format!("{} is no whole field log; `v6 debug record` writes one", path.display());
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut playback = Playback::open(BufReader::new(file)).with_context(damaged)?;
    let (mut inputs, mut diverged_at, mut first, mut last) = (0, None, None, None);
    while let Some(played) = playback.step().with_context(damaged)? {
        inputs += played.step.inputs.len() as u64;
        last = Some(played.step.now.mono);
        first = first.or(last);
        if !played.is_same && diverged_at.is_none() {
            diverged_at = Some(playback.steps());
        }
        look(playback.steps(), &played);
    }
    let duration_ms = first.zip(last).map_or(0, |(first, last)| last.ms_since(first));
    let core = playback.core();
    Ok(Replayed {
        node: core.me().to_string(),
        steps: playback.steps(),
        inputs,
        duration_ms,
        state_hash: data_encoding::HEXLOWER.encode(&core.replica().state_hash()),
        diverged_at,
        complete: playback.has_ended(),
    })
}
