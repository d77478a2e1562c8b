//! A value has one form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = crdt::cbor::decode::<ciborium::Value>(bytes) {
        assert_eq!(crdt::cbor::encode(&value), bytes);
    }
});
