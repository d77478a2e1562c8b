//! In which order ideas are worth a look.
//!
//! Only additions, multiplications and divisions: the same on every machine. Nothing looks at a clock: ages count back from the
//! newest entries of the ledger itself.

use std::collections::BTreeSet;

use super::content::Relation;
use super::fold::{Incoming, Shown};

/// Age at which the term of age is half of what it was.
const AGE_HALVES_MS: f64 = 30.0 * 24.0 * 3_600.0 * 1_000.0;
/// What counts where nobody said anything.
const UNKNOWN: f64 = 0.5;
/// What an originator's own link counts, beside another person's.
const OWN_LINK: f64 = 0.25;

/// Most that a term counts.
const WEIGHT_MAX: f64 = 100.0;

/// Something for each term of a rank: what it is for a subject, from 0 to 1 (votes and support from -1 to 1), or how much it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// What it would be worth.
    pub value: f64,
    /// How little it would cost.
    pub effort: f64,
    /// How sure both are.
    pub confidence: f64,
    /// Votes.
    pub votes: f64,
    /// Support and objections.
    pub support: f64,
    /// How new it is.
    pub age: f64,
    /// How few others say the same.
    pub novelty: f64,
}

impl Terms {
    /// How much each counts.
    pub const WEIGHTS: Self =
        Self { value: 3.0, effort: 1.0, confidence: 1.0, votes: 2.0, support: 2.0, age: 1.0, novelty: 1.0 };

    /// What a policy says of how much each counts, such as `value=5 age=0`; what it does not name counts as in [`Terms::WEIGHTS`].
    ///
    /// # Errors
    /// The part that is none, and what would be one.
    pub fn weights(policy: &str) -> Result<Self, String> {
        let mut weights = Self::WEIGHTS;
        for part in policy.split([' ', ',']).filter(|part| !part.is_empty()) {
            let (name, number) = part.split_once('=').unwrap_or((part, ""));
            let term = match name {
                "value" => &mut weights.value,
                "effort" => &mut weights.effort,
                "confidence" => &mut weights.confidence,
                "votes" => &mut weights.votes,
                "support" => &mut weights.support,
                "age" => &mut weights.age,
                "novelty" => &mut weights.novelty,
                _ => {
                    let names = Self::WEIGHTS.weighted(&Self::WEIGHTS).map(|(name, _)| name).join(", ");
                    return Err(format!("{name:?} is no term of a rank: there are {names}"));
                }
            };
            *term = number
                .parse()
                .ok()
                .filter(|number| (0.0..=WEIGHT_MAX).contains(number))
                .ok_or_else(|| format!("{part:?} is no weight: write {name}=NUMBER, from 0 to {WEIGHT_MAX}"))?;
        }
        Ok(weights)
    }

    /// The terms of a subject. `newest_ms` is where ages begin; `own` are the relations of its own links.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "milliseconds and counts stay far below 2^52")]
    pub fn of(shown: &Shown, to: &[Incoming], own: &[Relation], newest_ms: u64) -> Self {
        let opinions = &shown.opinions;
        let part = |number: Option<u8>| number.map_or(UNKNOWN, |number| f64::from(number) / 100.0);
        let balance = |plus: f64, minus: f64| (plus - minus) / (plus + minus + 2.0);
        let mut seen = BTreeSet::new();
        let (mut supports, mut objects) = (f64::from(opinions.arguments_for), f64::from(opinions.arguments_against));
        let mut alike = own.iter().filter(|relation| **relation == Relation::Duplicates).count();
        for link in to {
            let counts = if link.person == shown.person { OWN_LINK } else { 1.0 };
            // A person's second link of a kind adds nothing.
            let is_new = seen.insert((&link.relation, link.person));
            if link.relation == Relation::Supports && is_new {
                supports += counts;
            } else if link.relation == Relation::ObjectsTo && is_new {
                objects += counts;
            } else if link.relation == Relation::Duplicates {
                alike += 1;
            }
        }
        let age_ms = newest_ms.saturating_sub(shown.created_ms) as f64;
        Self {
            value: part(opinions.value),
            effort: 1.0 - part(opinions.effort),
            confidence: part(opinions.confidence),
            votes: balance(f64::from(opinions.votes_for), f64::from(opinions.votes_against)),
            support: balance(supports, objects),
            age: 1.0 / (1.0 + age_ms / AGE_HALVES_MS),
            novelty: 1.0 / (1.0 + alike as f64),
        }
    }

    /// The weighted sum, in millionths: whole numbers, so that ties are ties everywhere.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "a few millions")]
    pub fn score(&self, weights: &Self) -> i64 {
        let sum: f64 = self.weighted(weights).iter().map(|(_, part)| part).sum();
        (sum * 1e6).round() as i64
    }

    /// Each term's part of the sum, by name.
    #[must_use]
    pub fn weighted(&self, weights: &Self) -> [(&'static str, f64); 7] {
        [
            ("value", self.value * weights.value),
            ("effort", self.effort * weights.effort),
            ("confidence", self.confidence * weights.confidence),
            ("votes", self.votes * weights.votes),
            ("support", self.support * weights.support),
            ("age", self.age * weights.age),
            ("novelty", self.novelty * weights.novelty),
        ]
    }
}
