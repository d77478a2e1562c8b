//! Why a node refuses: one enum, its HTTP status and its machine-readable code.

/// A refusal. The message says what happened, to what, and what to do next; it is shown to the user as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// There is no such thing (404).
    #[error("{0}")]
    NotFound(String),
    /// The prefix names several things (409).
    #[error("{0}")]
    Ambiguous(String),
    /// The request can never succeed as it is (400).
    #[error("{0}")]
    BadRequest(String),
    /// The caller's role does not suffice (403).
    #[error("{0}")]
    NotAllowed(String),
    /// The request contradicts what is there, such as a key reused with another spec (409).
    #[error("{0}")]
    Conflict(String),
    /// The node cannot do it at the moment: disk full, read-only, not a member yet (503).
    #[error("{0}")]
    NotReady(String),
    /// Larger than a bound allows (413).
    #[error("{0}")]
    TooLarge(String),
    /// Part of the contract, but not built yet (501).
    #[error("{0}")]
    NotBuilt(String),
    /// A defect or a failing disk on our side (500).
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound(_) => 404,
            Self::Ambiguous(_) | Self::Conflict(_) => 409,
            Self::BadRequest(_) => 400,
            Self::NotAllowed(_) => 403,
            Self::NotReady(_) => 503,
            Self::TooLarge(_) => 413,
            Self::NotBuilt(_) => 501,
            Self::Internal(_) => 500,
        }
    }

    /// The code that scripts compare.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Ambiguous(_) => "ambiguous",
            Self::BadRequest(_) => "bad_request",
            Self::NotAllowed(_) => "not_allowed",
            Self::Conflict(_) => "conflict",
            Self::NotReady(_) => "not_ready",
            Self::TooLarge(_) => "too_large",
            Self::NotBuilt(_) => "not_built",
            Self::Internal(_) => "internal",
        }
    }
}
