//! Token buckets: how much a peer may send per second. Time goes in as a parameter.

use std::time::{Duration, Instant};

/// Refills at a steady rate and holds at most one period's worth.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_period: f64,
    period: Duration,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket of `per_period` tokens.
    pub(crate) fn new(per_period: u32, period: Duration, now: Instant) -> Self {
        Self { per_period: f64::from(per_period), period, tokens: f64::from(per_period), at: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / self.period.as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_period).min(self.per_period);
        self.at = now;
    }

    /// Takes the tokens if they are there.
    pub(crate) fn try_take(&mut self, tokens: u32, now: Instant) -> bool {
        self.refill(now);
        if self.tokens < f64::from(tokens) {
            return false;
        }
        self.tokens -= f64::from(tokens);
        true
    }

    /// Takes the tokens, into debt if need be, and answers how long to wait until the debt is paid.
    pub(crate) fn take(&mut self, tokens: u32, now: Instant) -> Duration {
        self.refill(now);
        self.tokens -= f64::from(tokens);
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        self.period.mul_f64(-self.tokens / self.per_period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_refuses_until_time_has_passed() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, Duration::from_secs(1), start);
        assert!(bucket.try_take(2, start));
        assert!(!bucket.try_take(1, start));
        assert!(bucket.try_take(1, start + Duration::from_millis(501)));
    }

    #[test]
    fn a_debt_is_paid_by_waiting() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, Duration::from_secs(1), start);
        assert_eq!(bucket.take(100, start), Duration::ZERO);
        let wait = bucket.take(50, start);
        assert!((0.49..0.51).contains(&wait.as_secs_f64()), "{wait:?}");
    }
}
