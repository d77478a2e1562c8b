//! How alike two texts are: the same after folding, or near by their letters and words.
//!
//! Candidates come from MinHash with bands (Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3);
//! whether one is near is then measured on the whole sets.

use std::collections::BTreeSet;

use super::text::{folded, stem};

/// Bands per view of a text. More find more candidates.
const BANDS: usize = 16;
/// Hashes per band. More find fewer that are little alike.
const ROWS: usize = 3;
/// Letters in a shingle.
const SHINGLE_CHARS: usize = 3;
/// From this score on two texts are near each other.
pub const NEAR_MIN: f64 = 0.55;
/// Characters of a text that are compared. What comes after them does not count.
pub const COMPARED_CHARS_MAX: usize = 4_096;

/// How two texts were found alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// They fold to the same text.
    Exact,
    /// They share most of their letters and words.
    Near,
}

impl Method {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Near => "near",
        }
    }
}

/// What is compared of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    folded: String,
    shingles: BTreeSet<u64>,
    words: BTreeSet<u64>,
}

impl Print {
    /// Reads a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let short: String = text.chars().take(COMPARED_CHARS_MAX).collect();
        let folded = folded(&short);
        let words = folded.split(' ').filter(|word| !word.is_empty()).map(|word| hash(stem(word).as_bytes())).collect();
        let padded: Vec<char> = [' '].into_iter().chain(folded.chars()).chain([' ']).collect();
        // A character has 21 bits: three of them are their own number.
        let shingle = |chars: &[char]| mix(chars.iter().fold(0, |sum, c| sum << 21 | u64::from(u32::from(*c))));
        let shingles = padded.windows(SHINGLE_CHARS).map(shingle).collect();
        Self { folded, shingles, words }
    }

    /// Equal for texts that fold to the same, and only for them.
    #[must_use]
    pub fn exact(&self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&blake3::hash(self.folded.as_bytes()).as_bytes()[..16]);
        half
    }

    /// Numbers of which two texts that are near each other share at least one, nearly always.
    #[must_use]
    pub fn bands(&self) -> Vec<u64> {
        let of = |set: &BTreeSet<u64>, view: u64| {
            let least = |n: u64| set.iter().map(|value| mix(value ^ mix(n ^ (view << 32)))).min().unwrap_or(0);
            (0..BANDS as u64)
                .map(move |band| {
                    let rows = (0..ROWS as u64).map(|row| least(band * ROWS as u64 + row));
                    rows.fold(mix(band | (view << 32)), |sum, row| mix(sum ^ row))
                })
                .collect::<Vec<_>>()
        };
        if self.folded.is_empty() {
            return Vec::new();
        }
        [of(&self.shingles, 1), of(&self.words, 2)].concat()
    }

    /// How alike they are, from 0 to 1, and by what: 1 only for texts that fold to the same.
    #[must_use]
    pub fn compare(&self, other: &Self) -> (f64, Method) {
        if self.folded == other.folded {
            return (1.0, Method::Exact);
        }
        let letters = jaccard(&self.shingles, &other.shingles);
        let words = jaccard(&self.words, &other.words);
        ((letters.max(words) * 0.5 + (letters + words) * 0.25).min(0.999), Method::Near)
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a few thousand")]
fn jaccard(a: &BTreeSet<u64>, b: &BTreeSet<u64>) -> f64 {
    let common = a.intersection(b).count();
    let all = a.len() + b.len() - common;
    if all == 0 { 0.0 } else { common as f64 / all as f64 }
}

fn hash(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(blake3::hash(bytes).as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}

/// The finaliser of MurmurHash3 (Appleby, public domain): spreads a number over 64 bits.
const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
