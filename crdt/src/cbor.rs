//! Canonical CBOR (RFC 8949 §4.2.1): the one encoding of a value, so that hashes and signatures agree everywhere.
//!
//! Maps are sorted by their encoded keys, lengths are definite, numbers take their shortest form, floats and tags do not
//! occur. Decoding refuses every other form of the same value.

mod walk;

use serde::{Serialize, de::DeserializeOwned};

use crate::limits::CBOR_DEPTH_MAX;

/// Room for an encoded value of the usual kind.
const ENCODED_BYTES: usize = 256;

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
    let mut bytes = Vec::with_capacity(ENCODED_BYTES);
    ciborium::into_writer(value, &mut bytes).expect("our own types serialise");
    if walk::check(&bytes, CBOR_DEPTH_MAX).is_ok() {
        return bytes;
    }
    walk::sorted(&bytes).expect("our own types have maps and lists of known lengths")
}

/// Decodes a value and refuses any form but the canonical one.
///
/// # Errors
/// [`CborError`]: the bytes are not such a value, or are another form of one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CborError> {
    check(bytes)?;
    ciborium::de::from_reader_with_recursion_limit(bytes, CBOR_DEPTH_MAX).map_err(|e| CborError::Format(e.to_string()))
}

/// Checks that bytes are one canonical value, of whatever type.
///
/// # Errors
/// [`CborError`] as in [`decode`].
pub fn check(bytes: &[u8]) -> Result<(), CborError> {
    walk::check(bytes, CBOR_DEPTH_MAX)
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
        assert!(check(&[]).is_err());
        assert!(check(&[0x9f, 0xff]).is_err());
        assert!(check(&[0xc1, 0x05]).is_err());
        assert!(check(&[0xf7]).is_err());
        assert!(check(&[0x62, 0xff, 0xfe]).is_err());
        assert!(check(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn nested_maps_are_sorted_at_every_depth() {
        let inner: Vec<(String, u64)> = vec![("z".into(), 1), ("a".into(), 300)];
        #[derive(Serialize)]
        struct Outer {
            z: Option<u8>,
            b: std::collections::BTreeMap<String, u64>,
            aa: Vec<Inner>,
        }
        #[derive(Serialize)]
        struct Inner {
            y: bool,
            x: i64,
        }
        let outer = Outer { z: None, b: inner.into_iter().collect(), aa: vec![Inner { y: true, x: -70_000 }] };
        let bytes = encode(&outer);
        check(&bytes).expect("canonical");
        let same: ciborium::Value = decode(&bytes).expect("a value");
        assert_eq!(encode(&same), bytes);
        assert_eq!(bytes[..4], [0xa3, 0x61, b'b', 0xa2]);
    }

    #[test]
    fn a_map_with_one_key_twice_is_refused() {
        assert!(check(&[0xa2, 0x61, b'a', 1, 0x61, b'a', 2]).is_err());
    }
}
