//! Samples and what is said about them. Nearest-rank percentiles: each is a value that was measured.

use std::time::Duration;

use serde::Serialize;

/// Measured values of one kind, in the order of measuring.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<f64>);

/// What is kept of samples in the report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) count: usize,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a length of time, in milliseconds.
    pub(super) fn push_ms(&mut self, length: Duration) {
        self.0.push(length.as_secs_f64() * 1_000.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that at least this share of the values do not exceed; 0 without a value.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0.0)
    }

    pub(super) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(super) fn max(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            count: self.0.len(),
            median: self.median(),
            p99: self.percentile(99),
            min: self.percentile(0),
            max: self.max(),
        }
    }

    /// "median 12.3 (11.0–19.2, 5 repeats)".
    pub(super) fn spread(&self, unit: &str) -> String {
        let Summary { count, median, min, max, .. } = self.summary();
        if count == 1 {
            return format!("{} {unit} (1 repeat)", short(median));
        }
        format!("median {} {unit} ({}–{}, {count} repeats)", short(median), short(min), short(max))
    }
}

/// A number with three significant places, or all its whole ones.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        (1..=100).rev().for_each(|value| samples.push(f64::from(value)));
        let summary = samples.summary();
        assert_eq!((summary.median, summary.p99, summary.min, summary.max), (50.0, 99.0, 1.0, 100.0));
        let mut one = Samples::default();
        one.push(7.0);
        assert_eq!((one.median(), one.percentile(99)), (7.0, 7.0));
        assert_eq!(Samples::default().median(), 0.0);
    }

    #[test]
    fn numbers_are_shown_with_three_places() {
        assert_eq!((short(0.456), short(12.34), short(1234.5)), ("0.46".into(), "12.3".into(), "1234".into()));
    }
}
