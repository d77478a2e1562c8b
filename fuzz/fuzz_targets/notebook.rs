//! A change from a peer, behind an honest one: refused, or part of a notebook that works on.
#![no_main]

use crdt::ids::{NodeId, NoteId};
use crdt::notebook::Notebook;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut note = Notebook::new(NoteId([5; 16]));
    note.edit(NodeId([1; 32]), "hello", 1).expect("a short text");
    drop(note.apply(NodeId([6; 32]), bytes));
    assert!(!note.is_poisoned());
    assert!(note.edit(NodeId([1; 32]), "hello again", 2).is_ok());
});
