//! How alike two texts are: the same after folding, or near by their letters and words.
//!
//! Candidates come from sketches, MinHash of which only a byte of each hash is kept (Li and König, "b-Bit Minwise Hashing", 2010);
//! whether one is near is then measured on the whole sets.

use std::collections::BTreeSet;

use super::text::{folded, stem};

/// Hashes per view of a text in its sketch. More estimate better.
const HASHES: usize = 32;
/// Bytes of a sketch: of the letters, then of the words.
pub const SKETCH_BYTES: usize = 2 * HASHES;
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
    /// A model finds that they mean the same.
    Semantic,
}

impl Method {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Near => "near",
            Self::Semantic => "semantic",
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

    /// The text's sketch; `None` where nothing of it is compared.
    #[must_use]
    pub fn sketch(&self) -> Option<Sketch> {
        if self.folded.is_empty() {
            return None;
        }
        let mut bytes = [0; SKETCH_BYTES];
        for (n, byte) in (0..).zip(&mut bytes) {
            let set = if n < HASHES as u64 { &self.shingles } else { &self.words };
            let least = set.iter().map(|value| mix(value ^ mix(n))).min().unwrap_or(0);
            *byte = least.to_le_bytes()[0];
        }
        Some(Sketch(bytes))
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

/// What estimates how alike two texts are without them: as many bytes of two sketches agree as their sets have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sketch(pub [u8; SKETCH_BYTES]);

impl Sketch {
    /// From this likeness on a text may be near: three deviations below what [`NEAR_MIN`] makes on average.
    pub const CANDIDATE_MIN: u32 = 44;

    /// An estimate of what [`Print::compare`] answers, times 128.
    #[must_use]
    pub fn likeness(&self, other: &Self) -> u32 {
        // At most 32 agree: sums of bytes are what processors add many of at once.
        let common = |view: std::ops::Range<usize>| -> u32 {
            let agree = self.0[view.clone()].iter().zip(&other.0[view]).map(|(a, b)| u8::from(a == b));
            agree.sum::<u8>().into()
        };
        let (letters, words) = (common(0..HASHES), common(HASHES..SKETCH_BYTES));
        2 * letters.max(words) + letters + words
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
