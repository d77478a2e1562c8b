//! A tree manifest from anybody: what is taken has one form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use node::tree::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
});
