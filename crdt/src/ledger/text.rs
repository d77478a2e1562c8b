//! Text as the ledger compares it: what only looks different is made the same.

use std::sync::LazyLock;

use frostem::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;

static ENGLISH: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::new(Algorithm::English));

/// Prefixes and suffixes of the light stemmer for Arabic, after Larkey, Ballesteros and Connell, "Light stemming for Arabic
/// information retrieval" (2007): light10.
const ARTICLES: [&str; 6] = ["وال", "بال", "كال", "فال", "ال", "لل"];
const SUFFIXES: [&str; 10] = ["ها", "ان", "ات", "ون", "ين", "يه", "ية", "ه", "ة", "ي"];
/// Letters that a light stem keeps.
const STEM_CHARS_MIN: usize = 3;

/// Folds a text: compatibility forms, case, accents, tashkeel and tatweel, the forms of alef, hamza, yeh and teh marbuta, digits,
/// punctuation and white space. Two texts that fold to the same say the same in the same words.
#[must_use]
pub fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfkd().flat_map(char::to_lowercase) {
        match c {
            // Marks that carry no letter of their own, hamza above or below among them, and what is not seen.
            '\u{0300}'..='\u{036f}'
            | '\u{0610}'..='\u{061a}'
            | '\u{0640}'
            | '\u{064b}'..='\u{065f}'
            | '\u{0670}'
            | '\u{06d6}'..='\u{06ed}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => {}
            'ٱ' => out.push('ا'),
            'ء' => {}
            'ى' | 'ی' => out.push('ي'),
            'ک' => out.push('ك'),
            'ة' => out.push('ه'),
            'ß' => out.push_str("ss"),
            '٠'..='٩' => out.push(digit(c, '٠')),
            '۰'..='۹' => out.push(digit(c, '۰')),
            c if c.is_alphanumeric() => out.push(c),
            // An apostrophe is within a word.
            '\'' | '’' => {}
            _ if out.ends_with(' ') || out.is_empty() => {}
            _ => out.push(' '),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn digit(c: char, zero: char) -> char {
    let value = u32::from(c).saturating_sub(u32::from(zero));
    char::from_digit(value, 10).unwrap_or(c)
}

/// The stem of a folded word.
#[must_use]
pub fn stem(word: &str) -> String {
    if word.chars().any(is_arabic) { light(word).to_owned() } else { ENGLISH.stem(word).to_string() }
}

/// The stems of a text's words, in their order.
#[must_use]
pub fn stems(text: &str) -> Vec<String> {
    folded(text).split(' ').filter(|word| !word.is_empty()).map(stem).collect()
}

fn is_arabic(c: char) -> bool {
    matches!(c, '\u{0600}'..='\u{06ff}' | '\u{0750}'..='\u{077f}' | '\u{08a0}'..='\u{08ff}')
}

fn light(word: &str) -> &str {
    let long = |rest: &str, least| rest.chars().count() >= least;
    let mut rest = word;
    if let Some(bare) = rest.strip_prefix('و').filter(|bare| long(bare, STEM_CHARS_MIN)) {
        rest = bare;
    }
    let bare = ARTICLES.iter().find_map(|article| rest.strip_prefix(article));
    rest = bare.filter(|bare| long(bare, STEM_CHARS_MIN - 1)).unwrap_or(rest);
    for suffix in SUFFIXES {
        rest = rest.strip_suffix(suffix).filter(|bare| long(bare, STEM_CHARS_MIN - 1)).unwrap_or(rest);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_different_folds_to_the_same() {
        for (a, b) in [
            ("مَاكُو فِكْرَة تَضِيع", "ماكو فكرة تضيع"),
            ("مـــاكو فكره تضيع!", "ماكو فكرة تضيع"),
            ("إدارة الأجهزة", "اداره الاجهزه"),
            ("مسؤول شؤون", "مسوول شوون"),
            ("على", "علي"),
            ("بناء ١٢٣", "بنا 123"),
            ("۴۵", "45"),
            ("Build, TEST & ship", "build test ship"),
            ("the café’s naïve plan", "The cafes naive plan"),
            ("ﻻ", "لا"),
            ("a\u{202e}b", "ab"),
        ] {
            assert_eq!(folded(a), folded(b), "{a} and {b}");
        }
        assert_ne!(folded("build"), folded("built"));
        assert_eq!(folded(" … "), "");
    }

    #[test]
    fn words_of_one_root_have_one_stem() {
        assert_eq!(stems("Running builds"), stems("run build"));
        assert_eq!(stem("والاجهزه"), stem("اجهزه"));
        assert_eq!(stem("المهندسون"), stem("مهندسين"));
        assert_eq!(stem("لا"), "لا");
    }
}
