//! Time as the core sees it: what the driver says it is.

use serde::{Deserialize, Serialize};

/// A point on one machine's monotonic clock, in microseconds from an origin of its own. Never compared between machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// Later by milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Milliseconds since `earlier`, rounded down; 0 if it is not earlier.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000
    }
}

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// The monotonic clock: everything that is decided.
    pub mono: Time,
    /// Milliseconds since 1970: only what is stated.
    pub wall_ms: u64,
}
