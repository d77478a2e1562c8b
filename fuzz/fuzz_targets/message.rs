//! A message from a peer survives its own encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh::msg::Msg;

fuzz_target!(|bytes: &[u8]| {
    if let Some(msg) = Msg::decode(bytes) {
        assert_eq!(Msg::decode(&msg.encode()), Some(msg));
    }
});
