//! A bundle from anybody: taken in one form only, and it survives the loss of its bodies.
#![no_main]

use crdt::bundle::Bundle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = Bundle::decode(bytes.to_vec().into()) {
        let pruned = Bundle::decode(bundle.pruned()).expect("the signature covers the header only");
        assert_eq!(pruned.hash, bundle.hash);
        assert_eq!(Bundle::place(bytes), Some((bundle.header.author, bundle.header.seq)));
    }
});
