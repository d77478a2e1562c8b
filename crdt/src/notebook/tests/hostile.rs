//! What a peer may send instead of an honest change: each is refused with its reason and costs nothing.

use std::num::NonZeroU64;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ExpandedChange, ScalarValue};

use super::*;

const MALLORY: u8 = 9;

/// A notebook with two writers, and a change that the third would honestly send next.
fn scene() -> (Notebook, Vec<u8>) {
    let mut note = Notebook::new(NOTE);
    edit(&mut note, node(1), "one\n");
    edit(&mut note, node(MALLORY), "one\ntwo\n");
    let change = edit(&mut copy(&note), node(MALLORY), "one\n2\ntwo\n").1;
    (note, change)
}

/// The honest change after `mend`, encoded with a right checksum.
fn forged(honest: &[u8], mend: impl FnOnce(&mut ExpandedChange)) -> Vec<u8> {
    let mut change = Change::from_bytes(honest.to_vec()).expect("honest").decode();
    mend(&mut change);
    Change::from(change).raw_bytes().to_vec()
}

/// Refused for the reason; text and digest are as before; honest writers go on, on this replica and another.
fn refuses(mut note: Notebook, bytes: &[u8], is_reason: impl Fn(&NoteRefusal) -> bool) {
    let (text, digest) = (note.text(), note.digest());
    let refusal = note.apply(node(MALLORY), bytes).expect_err("a hostile change");
    assert!(is_reason(&refusal), "{refusal:?}");
    assert_eq!((note.text(), note.digest()), (text.clone(), digest));
    assert!(!note.is_poisoned());
    let mut other = copy(&note);
    let change = edit(&mut note, node(1), &format!("{text}later\n"));
    take(&mut other, &change);
    assert_eq!(other.text(), format!("{text}later\n"));
    assert_eq!(other.digest(), note.digest());
}

/// Control: the change that the forgeries start from is taken, also when it is encoded again.
#[test]
fn the_honest_change_is_taken() {
    let (mut note, honest) = scene();
    assert_eq!(forged(&honest, |_| {}), honest);
    take(&mut note, &(node(MALLORY), honest));
    assert_eq!(note.text(), "one\n2\ntwo\n");
}

#[test]
fn a_wrong_start_op_is_refused() {
    for start in [1, 2, 9, 11, 100, MAX_OP_MAX, u64::from(u32::MAX) - 1, u64::from(u32::MAX), u64::MAX >> 2] {
        let (note, honest) = scene();
        let bytes = forged(&honest, |c| {
            c.start_op = NonZeroU64::new(start).expect("not zero");
            c.operations.truncate(1); // the second names the first by its number
        });
        let reason = if start > MAX_OP_MAX {
            NoteRefusal::StartOpOutOfRange { start_op: start }
        } else {
            NoteRefusal::WrongStartOp { expected: 10, got: start }
        };
        refuses(note, &bytes, |r| *r == reason);
    }
}

/// Control for the guards and for the mending: without the guards automerge takes this change, and then every honest
/// write panics.
#[test]
fn a_document_that_was_spoilt_is_built_again_from_its_good_changes() {
    let (mut note, honest) = scene();
    let (text, digest) = (note.text(), note.digest());
    let bytes = forged(&honest, |c| {
        c.start_op = NonZeroU64::new(u64::from(u32::MAX) - 1).expect("not zero");
        c.operations.truncate(1);
    });
    let Engine::Live(doc) = &mut note.engine else { panic!("a live document") };
    doc.apply_changes([Change::from_bytes(bytes).expect("sound but for its counter")]).expect("automerge takes it");
    assert_eq!(note.edit(node(1), "an honest write", 0), Err(EditRefusal::Engine));
    assert_eq!((note.text(), note.digest()), (text, digest));
    edit(&mut note, node(1), "an honest write");
    assert_eq!(copy(&note).text(), "an honest write");
}

#[test]
fn a_change_that_automerge_does_not_take_leaves_the_notebook_as_it_was() {
    let (mut note, honest) = scene();
    let (text, digest) = (note.text(), note.digest());
    note.engine = Engine::Live(Box::new(create(NOTE).0)); // lacks what the change builds on
    assert_eq!(note.apply(node(MALLORY), &honest), Err(NoteRefusal::Engine));
    assert_eq!((note.text(), note.digest()), (text, digest));
    take(&mut note, &(node(MALLORY), honest));
}

#[test]
fn a_wrong_seq_is_refused() {
    for seq in [0, 1, 3, u64::from(u32::MAX), u64::MAX >> 2] {
        let (note, honest) = scene();
        let bytes = forged(&honest, |c| c.seq = seq);
        refuses(note, &bytes, |r| *r == NoteRefusal::WrongSeq { expected: 2, got: seq });
    }
}

#[test]
fn a_foreign_actor_is_refused() {
    for actor in [&node(1).0[..], &NOTE.0[..], &[], &[MALLORY; 33], &[MALLORY; 31], &[MALLORY; 200]] {
        let (note, honest) = scene();
        let bytes = forged(&honest, |c| c.actor_id = ActorId::from(actor));
        let by_epoch = actor.len() == 33 && actor[32] <= EPOCH_MAX;
        refuses(note, &bytes, |r| {
            matches!(r, NoteRefusal::ForeignActor | NoteRefusal::UnknownElement)
                || (by_epoch && matches!(r, NoteRefusal::WrongSeq { .. }))
        });
    }
}

#[test]
fn missing_dependencies_are_named() {
    let (note, honest) = scene();
    let unknown = ChangeHash([0xee; 32]);
    let bytes = forged(&honest, |c| c.deps.push(unknown));
    refuses(note, &bytes, |r| *r == NoteRefusal::MissingDependencies { missing: vec![unknown] });
}

#[test]
fn a_change_without_its_writers_past_is_refused() {
    let (note, honest) = scene();
    let genesis = Notebook::new(NOTE).heads();
    let bytes = forged(&honest, |c| {
        c.deps = genesis;
        c.start_op = NonZeroU64::MIN.saturating_add(1);
        c.operations.truncate(1);
        c.operations[0].key = Key::Seq(ElementId::Head);
    });
    refuses(note, &bytes, |r| *r == NoteRefusal::OutsidePast);
    let (note, honest) = scene();
    let bytes = forged(&honest, |c| {
        c.deps.clear();
        c.start_op = NonZeroU64::MIN;
        c.operations.truncate(1);
        c.operations[0].key = Key::Seq(ElementId::Head);
    });
    refuses(note, &bytes, |r| *r == NoteRefusal::OutsidePast);
}

#[test]
fn a_change_that_names_what_it_had_not_seen_is_refused() {
    let (mut note, honest) = scene();
    // Node 1 writes beside it; the forged change names a character of that without depending on it.
    let element = {
        let (_, bytes) = edit(&mut note, node(1), "one\ntwo\nunseen\n");
        let start = Change::from_bytes(bytes).expect("honest").start_op().get();
        OpId(start, Writer { author: node(1), epoch: 0 }.actor())
    };
    let bytes = forged(&honest, |c| c.operations[0].key = Key::Seq(ElementId::Id(element)));
    refuses(note, &bytes, |r| *r == NoteRefusal::OutsidePast);
}

#[test]
fn names_of_characters_that_do_not_exist_are_refused() {
    let writer = |n: u8| Writer { author: node(n), epoch: 0 }.actor();
    let ghosts = [
        OpId(1, automerge::ActorId::from(&NOTE.0[..])),
        OpId(1, writer(1)),
        OpId(40, writer(1)),
        OpId(2, writer(5)),
        OpId(11, writer(MALLORY)),
        OpId(MAX_OP_MAX, writer(MALLORY)),
    ];
    for ghost in ghosts {
        let (note, honest) = scene();
        let bytes = forged(&honest, |c| c.operations[0].key = Key::Seq(ElementId::Id(ghost)));
        refuses(note, &bytes, |r| *r == NoteRefusal::UnknownElement);
    }
}

/// What the forged operation is, out of an honest insertion.
type Twist = (&'static str, fn(&mut Op));

#[test]
fn anything_but_characters_in_the_text_is_refused() {
    let twists: [Twist; 9] = [
        ("a map in the root", |op| {
            op.obj = ObjectId::Root;
            op.key = Key::Map("text".into());
            op.action = OpType::Make(ObjType::Map);
            op.insert = false;
        }),
        ("another text object", |op| op.obj = ObjectId::Id(OpId(2, Writer { author: node(1), epoch: 0 }.actor()))),
        ("an object in the text", |op| op.action = OpType::Make(ObjType::List)),
        ("a number in the text", |op| op.action = OpType::Put(ScalarValue::Int(1))),
        ("a counter in the text", |op| op.action = OpType::Put(ScalarValue::counter(1))),
        ("a whole word as one character", |op| op.action = OpType::Put("word".into())),
        ("no character", |op| op.action = OpType::Put("".into())),
        ("an overwritten character", |op| op.insert = false),
        ("a deletion of nothing", |op| {
            op.insert = false;
            op.action = OpType::Delete;
            op.pred = SortedVec::new();
        }),
    ];
    for (what, twist) in twists {
        let (note, honest) = scene();
        let bytes = forged(&honest, |c| {
            c.operations.truncate(1);
            twist(&mut c.operations[0]);
        });
        refuses(note, &bytes, |r| {
            assert!(matches!(r, NoteRefusal::NotText), "{what}: {r:?}");
            true
        });
    }
}

#[test]
fn notes_beside_the_operations_are_refused() {
    let (note, honest) = scene();
    refuses(note, &forged(&honest, |c| c.message = Some("hello".into())), |r| *r == NoteRefusal::NotText);
    let (note, honest) = scene();
    refuses(note, &forged(&honest, |c| c.extra_bytes = vec![1; 64]), |r| *r == NoteRefusal::TrailingBytes);
    let (note, honest) = scene();
    refuses(note, &forged(&honest, |c| c.operations.clear()), |r| *r == NoteRefusal::Empty);
}

#[test]
fn a_compressed_change_is_refused_before_it_inflates() {
    let (note, _) = scene();
    let big = edit(&mut copy(&note), node(MALLORY), &"a".repeat(60_000)).1;
    let compressed = Change::from_bytes(big.clone()).expect("honest").bytes().into_owned();
    assert!(compressed.len() < big.len() / 4);
    refuses(note, &compressed, |r| *r == NoteRefusal::Compressed);
}

#[test]
fn oversized_and_garbled_bytes_are_refused() {
    let (note, _) = scene();
    refuses(note, &vec![0x85; CHANGE_BYTES_MAX + 1], |r| matches!(r, NoteRefusal::TooLarge { .. }));
    for garbage in [&b"garbage"[..], b"", &[0x85, 0x6f, 0x4a], &[0; 600]] {
        let (note, _) = scene();
        refuses(note, garbage, |r| matches!(r, NoteRefusal::Format(_) | NoteRefusal::Truncated));
    }
    let (note, _) = scene();
    let document = {
        let mut doc = automerge::AutoCommit::new();
        doc.put_object(ROOT, TEXT_KEY, ObjType::Text).expect("an empty document");
        doc.save_nocompress()
    };
    refuses(note, &document, |r| matches!(r, NoteRefusal::Format(_)));
}

#[test]
fn two_changes_in_one_are_refused() {
    let (note, honest) = scene();
    let twice = [honest.clone(), honest].concat();
    refuses(note, &twice, |r| *r == NoteRefusal::TrailingBytes);
}

#[test]
fn every_truncation_is_refused() {
    let (mut note, honest) = scene();
    let digest = note.digest();
    for len in 0..honest.len() {
        let refusal = note.apply(node(MALLORY), &honest[..len]).expect_err("cut short");
        assert_eq!(refusal, NoteRefusal::Truncated, "{len}");
    }
    assert_eq!(note.digest(), digest);
}

#[test]
fn every_flipped_bit_is_refused() {
    let (mut note, honest) = scene();
    let digest = note.digest();
    for bit in 0..honest.len() * 8 {
        let mut bytes = honest.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(note.apply(node(MALLORY), &bytes).is_err(), "bit {bit}");
    }
    assert_eq!(note.digest(), digest);
    take(&mut note, &(node(MALLORY), honest));
}

/// A change whose body is given; its checksum is wrong, for the walk over the bytes comes before it.
fn chunk(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1];
    let mut len = body.len();
    while len >= 0x80 {
        bytes.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
        len >>= 7;
    }
    bytes.push(u8::try_from(len).expect("seven bits"));
    bytes.extend_from_slice(body);
    bytes
}

/// No dependencies, an empty actor, seq 1, start 1, time 0, no message, no others; then columns and their data.
fn with_columns(columns: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 1, 0, 0, 0, u8::try_from(columns.len()).expect("few")];
    for (spec, data) in columns {
        body.extend([*spec, u8::try_from(data.len()).expect("short")]);
    }
    for (_, data) in columns {
        body.extend_from_slice(data);
    }
    chunk(&body)
}

#[test]
fn runs_that_stand_for_more_operations_than_allowed_are_refused() {
    const HUGE: [u8; 6] = [0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let long_run = [&HUGE[..], &[1]].concat();
    let long_null = [&[0][..], &HUGE].concat();
    let most_negative = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
    let cases: [(&str, Vec<u8>); 7] = [
        ("a long run of actions", with_columns(&[(0x42, &long_run)])),
        ("a long run of nothing", with_columns(&[(0x42, &long_null)])),
        ("a literal run of i64::MIN", with_columns(&[(0x42, &most_negative)])),
        ("many deletions", with_columns(&[(0x42, &[1, 3]), (0x70, &[[1].as_slice(), &HUGE].concat())])),
        ("many flags", with_columns(&[(0x34, &HUGE), (0x42, &[1, 3])])),
        ("an actor beyond the table", with_columns(&[(0x01, &[1, 9]), (0x42, &[1, 3])])),
        ("a counter beyond all", with_columns(&[(0x13, &[[1].as_slice(), &HUGE].concat()), (0x42, &[1, 3])])),
    ];
    for (what, bytes) in cases {
        let (note, _) = scene();
        refuses(note, &bytes, |r| {
            assert!(
                matches!(r, NoteRefusal::TooManyOps | NoteRefusal::NotText | NoteRefusal::Format(_)),
                "{what}: {r:?}"
            );
            true
        });
    }
    let (note, _) = scene();
    refuses(note, &with_columns(&[(0x42 | 0x08, &[1, 3])]), |r| *r == NoteRefusal::Compressed);
}

#[test]
fn a_second_change_for_a_place_never_counts_and_nothing_after_a_refused_one() {
    let (mut note, honest) = scene();
    let mut pending = Pending::default();
    let unknown = ChangeHash([0xee; 32]);
    let waiting = forged(&honest, |c| c.deps.push(unknown));
    assert!(pending.offer(&mut note, node(MALLORY), &waiting).held);
    let offered = pending.offer(&mut note, node(MALLORY), &honest);
    assert_eq!(offered.refused, [(node(MALLORY), NoteRefusal::SeqTaken { seq: 2 })]);

    let (mut note, honest) = scene();
    let mut pending = Pending::default();
    let wrong = forged(&honest, |c| {
        c.start_op = NonZeroU64::MIN.saturating_add(70);
        c.operations.truncate(1);
    });
    let offered = pending.offer(&mut note, node(MALLORY), &wrong);
    assert_eq!(offered.refused, [(node(MALLORY), NoteRefusal::WrongStartOp { expected: 10, got: 71 })]);
    let offered = pending.offer(&mut note, node(MALLORY), &honest);
    assert_eq!(offered.refused, [(node(MALLORY), NoteRefusal::WriterStopped)]);
}

/// The bytes with the checksum that belongs to them; None where the walk over them ends early.
fn with_right_checksum(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    super::super::chunk::walk(&bytes).ok()?;
    let hash = guarded(|| Change::from_bytes(bytes.clone()).map(|c| c.hash()))?.ok()?;
    bytes[4..8].copy_from_slice(&hash.0[..4]);
    Some(bytes)
}

/// Whatever a change does, either it is refused or every replica and every later write can live with it.
fn costs_nothing(mut note: Notebook, bytes: &[u8]) {
    let (text, digest) = (note.text(), note.digest());
    match note.apply(node(MALLORY), bytes) {
        Ok(_) => assert_eq!(copy(&note).text(), note.text()),
        Err(reason) => {
            assert_ne!(reason, NoteRefusal::Engine);
            assert_eq!((note.text(), note.digest()), (text, digest));
        }
    }
    let mut other = copy(&note);
    let change = edit(&mut note, node(1), "an honest write");
    take(&mut other, &change);
    assert_eq!(other.text(), "an honest write");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn altered_bytes_cost_nothing(
        at in any::<prop::sample::Index>(),
        with in prop::collection::vec(any::<u8>(), 0..6),
        cut in 0_usize..6,
    ) {
        let (note, honest) = scene();
        let mut bytes = honest.clone();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + cut).min(honest.len()), with);
        costs_nothing(note, &bytes);
    }

    #[test]
    fn altered_columns_with_a_right_checksum_cost_nothing(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (note, honest) = scene();
        let mut bytes = honest;
        for (at, byte) in places {
            let at = 10 + at.index(bytes.len() - 10);
            bytes[at] = byte;
        }
        if let Some(bytes) = with_right_checksum(bytes) {
            costs_nothing(note, &bytes);
        }
    }
}
