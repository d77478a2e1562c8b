//! A ticket from anybody: what is taken has one form.
#![no_main]

use crdt::ticket::Ticket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(ticket) = Ticket::decode(text) {
        assert_eq!(ticket.encode(), text.trim());
    }
});
