//! Reads CBOR as bytes, without building values: whether it is canonical, and its maps in canonical order.
//!
//! A peer's bytes come here first: depth and lengths are bounded by what is there.

use super::CborError;

/// A head: major type, argument, and where its content begins.
struct Head {
    major: u8,
    argument: u64,
    content: usize,
}

fn cut() -> CborError {
    CborError::Format("the value ends early".into())
}

/// Reads a head in its shortest form; indefinite lengths are none.
fn head(bytes: &[u8], at: usize) -> Result<Head, CborError> {
    let first = *bytes.get(at).ok_or_else(cut)?;
    let (major, info) = (first >> 5, first & 0x1f);
    let wide = |len: usize| {
        let raw = bytes.get(at + 1..at + 1 + len).ok_or_else(cut)?;
        Ok::<_, CborError>(raw.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (argument, len, least) = match info {
        0..=23 => (u64::from(info), 0, 0),
        24 => (wide(1)?, 1, 24),
        25 => (wide(2)?, 2, 1 << 8),
        26 => (wide(4)?, 4, 1 << 16),
        27 => (wide(8)?, 8, 1 << 32),
        _ => return Err(CborError::NotCanonical),
    };
    if argument < least {
        return Err(CborError::NotCanonical);
    }
    Ok(Head { major, argument, content: at + 1 + len })
}

/// The end of a string's content.
fn string_end(bytes: &[u8], head: &Head) -> Result<usize, CborError> {
    let len = usize::try_from(head.argument).map_err(|_| cut())?;
    head.content.checked_add(len).filter(|end| *end <= bytes.len()).ok_or_else(cut)
}

/// Checks that bytes are one canonical value, nested no deeper than `depth`. Cost: linear.
pub(super) fn check(bytes: &[u8], depth: usize) -> Result<(), CborError> {
    if item(bytes, 0, depth)? == bytes.len() { Ok(()) } else { Err(CborError::NotCanonical) }
}

/// The end of the canonical value that begins at `at`.
fn item(bytes: &[u8], at: usize, depth: usize) -> Result<usize, CborError> {
    let head = head(bytes, at)?;
    match head.major {
        0 | 1 => Ok(head.content),
        2 => string_end(bytes, &head),
        3 => {
            let end = string_end(bytes, &head)?;
            std::str::from_utf8(&bytes[head.content..end]).map_err(|e| CborError::Format(e.to_string()))?;
            Ok(end)
        }
        4 | 5 => {
            let Some(depth) = depth.checked_sub(1) else {
                return Err(CborError::Format("it is nested too deep".into()));
            };
            if head.major == 4 { list(bytes, &head, depth) } else { map(bytes, &head, depth) }
        }
        7 if matches!(head.argument, 20..=22) && head.content == at + 1 => Ok(head.content),
        _ => Err(CborError::NotCanonical),
    }
}

fn list(bytes: &[u8], head: &Head, depth: usize) -> Result<usize, CborError> {
    let mut at = head.content;
    for _ in 0..head.argument {
        at = item(bytes, at, depth)?;
    }
    Ok(at)
}

fn map(bytes: &[u8], head: &Head, depth: usize) -> Result<usize, CborError> {
    let mut at = head.content;
    let mut before: Option<&[u8]> = None;
    for _ in 0..head.argument {
        let end = item(bytes, at, depth)?;
        let key = &bytes[at..end];
        if before.is_some_and(|before| before >= key) {
            return Err(CborError::NotCanonical);
        }
        before = Some(key);
        at = item(bytes, end, depth)?;
    }
    Ok(at)
}

/// The same value with the maps in canonical order; `None` for what has no canonical form.
pub(super) fn sorted(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let end = sort_item(bytes, 0, &mut out).ok()?;
    (end == bytes.len() && check(&out, usize::MAX).is_ok()).then_some(out)
}

fn sort_item(bytes: &[u8], at: usize, out: &mut Vec<u8>) -> Result<usize, CborError> {
    let head = head(bytes, at)?;
    let end = match head.major {
        2 | 3 => string_end(bytes, &head)?,
        _ => head.content,
    };
    out.extend_from_slice(&bytes[at..end]);
    match head.major {
        4 => {
            let mut at = end;
            for _ in 0..head.argument {
                at = sort_item(bytes, at, out)?;
            }
            Ok(at)
        }
        5 => {
            let (mut at, mut pairs) = (end, Vec::new());
            for _ in 0..head.argument {
                let mut pair = Vec::new();
                let value = sort_item(bytes, at, &mut pair)?;
                let key_len = pair.len();
                at = sort_item(bytes, value, &mut pair)?;
                pairs.push((key_len, pair));
            }
            pairs.sort_by(|(a_len, a), (b_len, b)| a[..*a_len].cmp(&b[..*b_len]));
            pairs.iter().for_each(|(_, pair)| out.extend_from_slice(pair));
            Ok(at)
        }
        _ => Ok(end),
    }
}
