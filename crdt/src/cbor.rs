//! Canonical CBOR (RFC 8949 §4.2.1): the one encoding of a value, so that hashes and signatures agree everywhere.
//!
//! Maps are sorted by their encoded keys, lengths are definite, numbers take their shortest form, floats do not occur.
//! Decoding refuses every other form of the same value.

use ciborium::Value;
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::CBOR_DEPTH_MAX;

/// Why bytes are not a canonical value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// Not CBOR, not the wanted type, or nested deeper than [`CBOR_DEPTH_MAX`].
    #[error("not a readable value: {0}")]
    Format(String),
    /// CBOR of the right type, but not in its canonical form.
    #[error("the value is not in canonical form")]
    NotCanonical,
}

/// Encodes a value canonically.
///
/// # Panics
/// When the type cannot be a CBOR value (a map that fails to serialise): a defect of ours, never of a peer's bytes.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut tree = Value::serialized(value).expect("our own types serialise");
    sort(&mut tree);
    let mut bytes = Vec::new();
    ciborium::into_writer(&tree, &mut bytes).expect("writing to memory");
    bytes
}

/// Decodes a value and refuses any form but the canonical one.
///
/// # Errors
/// [`CborError`]: the bytes are not such a value, or are another form of one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    let tree = parse(bytes)?;
    tree.deserialized().map_err(|e| CborError::Format(e.to_string()))
}

/// Checks that bytes are one canonical value, of whatever type.
///
/// # Errors
/// [`CborError`] as in [`decode`].
pub fn check(bytes: &[u8]) -> Result<(), CborError> {
    parse(bytes).map(|_| ())
}

fn parse(bytes: &[u8]) -> Result<Value, CborError> {
    let mut rest = bytes;
    let mut tree: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
        .map_err(|e| CborError::Format(e.to_string()))?;
    if !rest.is_empty() {
        return Err(CborError::NotCanonical);
    }
    sort(&mut tree);
    if is_irregular(&tree) {
        return Err(CborError::NotCanonical);
    }
    let mut again = Vec::with_capacity(bytes.len());
    ciborium::into_writer(&tree, &mut again).map_err(|e| CborError::Format(e.to_string()))?;
    if again != bytes {
        return Err(CborError::NotCanonical);
    }
    Ok(tree)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "ciborium's enum is non-exhaustive; what is left holds no values")]
/// Floats and repeated map keys; the value's maps are sorted.
fn is_irregular(value: &Value) -> bool {
    match value {
        Value::Float(_) => true,
        Value::Array(items) => items.iter().any(is_irregular),
        Value::Map(pairs) => {
            pairs.windows(2).any(|two| two[0].0 == two[1].0)
                || pairs.iter().any(|(k, v)| is_irregular(k) || is_irregular(v))
        }
        Value::Tag(_, inner) => is_irregular(inner),
        _ => false,
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "ciborium's enum is non-exhaustive; what is left holds no maps")]
fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort),
        Value::Map(pairs) => {
            for (key, val) in pairs.iter_mut() {
                sort(key);
                sort(val);
            }
            pairs.sort_by_cached_key(|(key, _)| {
                let mut bytes = Vec::new();
                ciborium::into_writer(key, &mut bytes).expect("writing to memory");
                bytes
            });
        }
        Value::Tag(_, inner) => sort(inner),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn maps_are_sorted_by_their_encoded_keys() {
        let map: BTreeMap<&str, u8> = [("bb", 1), ("a", 2)].into();
        assert_eq!(encode(&map), [0xa2, 0x61, b'a', 2, 0x62, b'b', b'b', 1]);
    }

    #[test]
    fn other_forms_of_a_value_are_refused() {
        assert_eq!(decode::<u8>(&[0x05]), Ok(5));
        assert_eq!(decode::<u8>(&[0x18, 0x05]), Err(CborError::NotCanonical));
        assert_eq!(check(&[0xa2, 0x61, b'b', 1, 0x61, b'a', 2]), Err(CborError::NotCanonical));
        assert_eq!(check(&[0x05, 0x05]), Err(CborError::NotCanonical));
        assert_eq!(check(&[0xf9, 0x3c, 0x00]), Err(CborError::NotCanonical));
        assert!(matches!(check(&[0x81; 4096]), Err(CborError::Format(_))));
    }

    #[test]
    fn a_map_with_one_key_twice_is_refused() {
        assert!(check(&[0xa2, 0x61, b'a', 1, 0x61, b'a', 2]).is_err());
    }
}
