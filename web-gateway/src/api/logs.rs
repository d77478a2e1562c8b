//! A job's output as a stream of items: bytes with their origin, and what happened between them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{AttemptState, JobState};

/// Which part of a job's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only this attempt; without it all attempts in order, those of dead nodes too.
    pub attempt: Option<u32>,
    /// Only this task.
    pub task: Option<u32>,
    /// Go on until the job ends.
    #[serde(default)]
    pub follow: bool,
    /// The bare bytes as a file to keep, whatever `Accept` says.
    #[serde(default)]
    pub text: bool,
}

/// Where bytes were written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One item of a job's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// What the job waits for, in plain words (who offers, who won, why); only while following and before any byte.
    Waiting {
        /// One line.
        text: String,
    },
    /// An attempt changed its state. Comes before its first byte (claimed or running) and after its last (with `exit`).
    Attempt {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Index of the task.
        task: u32,
        /// Node that runs it, whole id.
        node: String,
        /// The state that it has come to.
        state: AttemptState,
        /// Exit code once it has ended; 128 + N after signal N.
        exit: Option<i32>,
    },
    /// Output.
    Bytes {
        /// Number of the attempt.
        attempt: u32,
        /// Index of the task.
        task: u32,
        /// Which stream of the process.
        stream: LogStream,
        /// Place of the first byte in that stream of that attempt.
        offset: u64,
        /// The bytes, 64 KiB at most.
        bytes: Bytes,
    },
    /// The attempt's node vanished; what follows belongs to the next attempt.
    Lost {
        /// Number of the attempt.
        attempt: u32,
        /// Index of the task.
        task: u32,
        /// The node, whole id.
        node: String,
    },
    /// The job has ended; nothing follows.
    End {
        /// Its final state.
        state: JobState,
        /// The code that `v6 run` ends with: 0 when done, else that of the first failing task, if its process had one.
        exit: Option<i32>,
        /// Why, where no exit code tells ("timeout", "skipped because job … failed").
        reason: Option<String>,
    },
}

/// [`LogItem`] as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum LogLine {
    /// What the job waits for.
    Waiting {
        /// One line.
        text: String,
    },
    /// An attempt changed its state.
    Attempt {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Index of the task.
        task: u32,
        /// Node that runs it.
        node: String,
        /// Its state.
        state: AttemptState,
        /// Exit code once it has ended.
        exit: Option<i32>,
    },
    /// Output: `text` where the bytes are UTF-8, else `base64`.
    Bytes {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Index of the task.
        task: u32,
        /// Which stream of the process.
        stream: LogStream,
        /// Place of the first byte in that stream of that attempt.
        offset: u64,
        /// The bytes as text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// The bytes in base64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    /// The attempt's node vanished.
    Lost {
        /// Number of the attempt.
        attempt: u32,
        /// Index of the task.
        task: u32,
        /// The node.
        node: String,
    },
    /// The job has ended; nothing follows.
    End {
        /// Its final state.
        state: JobState,
        /// The code that `v6 run` ends with.
        exit: Option<i32>,
        /// Why, where no exit code tells.
        reason: Option<String>,
    },
    /// The node could not go on; nothing follows.
    Error {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// Nothing happened for a while, but the stream lives.
    Beat,
}

impl From<LogItem> for LogLine {
    fn from(item: LogItem) -> Self {
        match item {
            LogItem::Waiting { text } => Self::Waiting { text },
            LogItem::Attempt { attempt, task, node, state, exit } => Self::Attempt { attempt, task, node, state, exit },
            LogItem::Bytes { attempt, task, stream, offset, bytes } => {
                let (text, base64) = match std::str::from_utf8(&bytes) {
                    Ok(text) => (Some(text.to_owned()), None),
                    Err(_) => (None, Some(data_encoding::BASE64.encode(&bytes))),
                };
                Self::Bytes { attempt, task, stream, offset, text, base64 }
            }
            LogItem::Lost { attempt, task, node } => Self::Lost { attempt, task, node },
            LogItem::End { state, exit, reason } => Self::End { state, exit, reason },
        }
    }
}

impl LogLine {
    /// The bytes of a [`LogLine::Bytes`]; `None` for other lines and for base64 that is none.
    #[must_use]
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Bytes { text: Some(text), .. } => Some(text.into_bytes().into()),
            Self::Bytes { base64: Some(base64), .. } => {
                data_encoding::BASE64.decode(base64.as_bytes()).ok().map(Bytes::from)
            }
            Self::Bytes { .. }
            | Self::Waiting { .. }
            | Self::Attempt { .. }
            | Self::Lost { .. }
            | Self::End { .. }
            | Self::Error { .. }
            | Self::Beat => None,
        }
    }
}
