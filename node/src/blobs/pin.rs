//! Pins: why a blob must stay. Each is a named tag of the store, so that the collector's roots are on disk.

use crdt::ids::{BlobHash, JobId};

/// Why a blob must stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PinReason {
    /// A job's inputs, logs, artifacts and checkpoints, until the job is sealed.
    Job(JobId),
    /// The ledger names it.
    Ledger,
    /// It is being written or uploaded.
    Upload,
    /// A copy pushed by another node, for its first time here.
    Replica {
        /// End of the pin, in Unix milliseconds.
        until_ms: u64,
    },
    /// A person said so.
    Manual,
}

impl PinReason {
    /// The start that all tags of this reason share, ending in `/`.
    fn prefix(&self) -> String {
        match self {
            Self::Job(id) => format!("job/{id}/"),
            Self::Ledger => "ledger/".to_owned(),
            Self::Upload => "upload/".to_owned(),
            Self::Replica { until_ms } => format!("replica/{until_ms:020}/"),
            Self::Manual => "manual/".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            Some(("job", id)) => Some(Self::Job(id.parse().ok()?)),
            Some(("replica", until)) => Some(Self::Replica { until_ms: until.parse().ok()? }),
            Some(_) => None,
            None => match text {
                "ledger" => Some(Self::Ledger),
                "upload" => Some(Self::Upload),
                "manual" => Some(Self::Manual),
                _ => None,
            },
        }
    }

    /// What to tell people: "job 3f2a…", "replica for 40 min".
    #[must_use]
    pub fn words(&self, now_ms: u64) -> String {
        match self {
            Self::Job(id) => format!("job {id}"),
            Self::Ledger => "the ledger".to_owned(),
            Self::Upload => "an upload".to_owned(),
            Self::Replica { until_ms } => {
                format!("replica for {} min", until_ms.saturating_sub(now_ms).div_ceil(60_000))
            }
            Self::Manual => "a person".to_owned(),
        }
    }

    /// Whether the pin has ended at this Unix time.
    #[must_use]
    pub fn is_over(&self, now_ms: u64) -> bool {
        matches!(self, Self::Replica { until_ms } if *until_ms <= now_ms)
    }
}

/// How a blob is kept when it is added or fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Why it must stay.
    pub reason: PinReason,
}

impl Pin {
    /// A pin for this reason.
    #[must_use]
    pub const fn new(reason: PinReason) -> Self {
        Self { reason }
    }

    /// A pin for a job.
    #[must_use]
    pub const fn job(id: JobId) -> Self {
        Self::new(PinReason::Job(id))
    }
}

/// One pin of one blob: the parsed name of a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinName {
    /// Why.
    pub reason: PinReason,
    /// What.
    pub hash: BlobHash,
}

impl PinName {
    /// The tag's name in the store.
    #[must_use]
    pub fn to_tag(&self) -> String {
        format!("{}{}", self.reason.prefix(), self.hash)
    }

    /// Reads a tag's name; `None` for a tag that is not a pin of ours.
    #[must_use]
    pub fn from_tag(tag: &[u8]) -> Option<Self> {
        let (reason, hash) = std::str::from_utf8(tag).ok()?.rsplit_once('/')?;
        Some(Self { reason: PinReason::parse(reason)?, hash: hash.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_survives_its_tag() {
        let hash = BlobHash([7; 32]);
        for reason in [
            PinReason::Job(JobId([1; 16])),
            PinReason::Ledger,
            PinReason::Upload,
            PinReason::Replica { until_ms: 123 },
            PinReason::Manual,
        ] {
            let name = PinName { reason, hash };
            assert_eq!(PinName::from_tag(name.to_tag().as_bytes()), Some(name));
        }
    }

    #[test]
    fn a_foreign_tag_is_not_a_pin() {
        for tag in ["", "auto-2026", "job/zz/00", "job/00", "ledger/", "replica/x/00"] {
            assert_eq!(PinName::from_tag(tag.as_bytes()), None, "{tag}");
        }
    }
}
