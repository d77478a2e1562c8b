//! A notebook through its public face: honest editors.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

mod hostile;

const NOTE: NoteId = NoteId([7; 16]);

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

type Sent = (NodeId, Vec<u8>);

/// Edits and hands the change back with its author.
fn edit(note: &mut Notebook, author: NodeId, text: &str) -> Sent {
    (author, note.edit(author, text, 1_000).expect("an honest edit").expect("a different text"))
}

fn copy(note: &Notebook) -> Notebook {
    let rebuilt = rebuild(note.id(), note.changes());
    assert_eq!(rebuilt.skipped, []);
    rebuilt.notebook
}

fn take(note: &mut Notebook, (author, bytes): &Sent) {
    assert_eq!(note.apply(*author, bytes), Ok(Applied::Fresh));
}

#[test]
fn two_nodes_create_the_same_notebook_offline_and_both_texts_survive() {
    let (mut left, mut right) = (Notebook::new(NOTE), Notebook::new(NOTE));
    assert_eq!(left.digest(), right.digest());
    let from_left = edit(&mut left, node(1), "milk\n");
    let from_right = edit(&mut right, node(2), "bread\n");
    take(&mut left, &from_right);
    take(&mut right, &from_left);
    assert_eq!(left.text(), right.text());
    assert!(left.text().contains("milk\n") && left.text().contains("bread\n"), "{}", left.text());
    assert_eq!(left.digest(), right.digest());
    assert_eq!(left.history(), right.history());
}

#[test]
fn an_edit_of_an_older_version_keeps_what_came_since() {
    let mut note = Notebook::new(NOTE);
    edit(&mut note, node(1), "one\ntwo\nthree\n");
    let base = note.heads();
    edit(&mut note, node(2), "zero\none\ntwo\nthree 🌍\n");
    let merged = note.merged(&base, "one\n2\nthree\n").expect("a known version");
    assert_eq!(merged, "zero\none\n2\nthree 🌍\n");
    assert_eq!(note.merged(&note.heads(), "all else"), Ok("all else".into()));
    edit(&mut note, node(1), &merged);
    assert_eq!(note.text(), merged);
    assert_eq!(copy(&note).text(), merged);
    for unknown in [vec![], vec![ChangeHash([9; 32])]] {
        assert_eq!(note.merged(&unknown, "x"), Err(EditRefusal::UnknownBase));
    }
}

#[test]
fn a_change_tells_its_size_and_always_fits_a_bundle() {
    let mut note = Notebook::new(NOTE);
    let all = "\u{10ffff}".repeat(OPS_PER_CHANGE_MAX);
    let (author, first) = edit(&mut note, node(1), &all);
    let told = examine(NOTE, author, &first).expect("sound");
    assert_eq!((told.seq, told.inserted, told.deleted, told.at_ms), (1, 65_536, 0, 1_000));
    assert!(first.len() < crate::limits::BUNDLE_BYTES_MAX - 100 * 1024, "{}", first.len());
    let half: String = all.chars().enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, c)| c).collect();
    let (_, second) = edit(&mut note, node(2), &half);
    assert_eq!(examine(NOTE, node(2), &second).expect("sound").deleted, 32_768);
}

#[test]
fn two_notebooks_share_nothing() {
    let mut one = Notebook::new(NOTE);
    let (author, change) = edit(&mut one, node(1), "text");
    let mut other = Notebook::new(NoteId([8; 16]));
    assert_ne!(one.digest(), Notebook::new(NOTE).digest());
    assert_ne!(other.digest(), Notebook::new(NOTE).digest());
    assert_eq!(other.apply(author, &change), Err(NoteRefusal::NotText));
}

#[test]
fn the_first_change_is_the_same_in_every_release() {
    let hash = data_encoding::HEXLOWER.encode(&Notebook::new(NOTE).heads()[0].0);
    assert_eq!(hash, "61ad8edd78737165582b68184e620aa1096ebd28dd9f1f84639a1819a177aca6");
}

#[test]
fn arabic_and_emoji_and_mixed_directions_survive_concurrent_edits() {
    let base = "العنوان: مرحبا بالعالم 🌍\nname = \"قيمة\" (v6) 👩‍👩‍👧‍👦\ncafe\u{301}\n";
    let mut left = Notebook::new(NOTE);
    edit(&mut left, node(1), base);
    let mut right = copy(&left);
    let from_left = edit(&mut left, node(1), &base.replace("مرحبا", "أهلاً"));
    let from_right = edit(&mut right, node(2), &base.replace("👩‍👩‍👧‍👦", "👨‍👩‍👧 ✅"));
    take(&mut left, &from_right);
    take(&mut right, &from_left);
    let merged = base.replace("مرحبا", "أهلاً").replace("👩‍👩‍👧‍👦", "👨‍👩‍👧 ✅");
    assert_eq!((left.text(), right.text()), (merged.clone(), merged));
}

#[test]
fn the_history_says_who_wrote_what_when() {
    let mut note = Notebook::new(NOTE);
    note.edit(node(1), "ab", 5).expect("an honest edit");
    note.edit(node(2), "b", 9).expect("an honest edit");
    assert_eq!(note.edit(node(2), "b", 10), Ok(None));
    let history: Vec<_> = note.history().into_iter().map(|e| (e.author, e.epoch, e.seq, e.at_ms, e.ops)).collect();
    assert_eq!(history, [(node(1), 0, 1, 5, 2), (node(2), 0, 1, 9, 1)]);
}

#[test]
fn a_long_text_is_written_in_parts_and_its_limit_is_named() {
    let mut note = Notebook::new(NOTE);
    let part = "x".repeat(OPS_PER_CHANGE_MAX);
    assert_eq!(
        note.edit(node(1), &format!("{part}y"), 0),
        Err(EditRefusal::TooMuchAtOnce { ops: OPS_PER_CHANGE_MAX + 1 })
    );
    edit(&mut note, node(1), &part);
    assert_eq!(
        note.edit(node(1), &"y".repeat(TEXT_CHARS_MAX + 1), 0),
        Err(EditRefusal::TextTooLong { chars: TEXT_CHARS_MAX + 1 })
    );
    let change = edit(&mut note, node(1), &format!("{part}z"));
    assert!(change.1.len() < 300, "{}", change.1.len());
    assert_eq!(copy(&note).text(), note.text());
}

#[test]
fn a_change_that_overtook_another_waits_for_it() {
    let mut source = Notebook::new(NOTE);
    let sent: Vec<Sent> = (1..=4).map(|n| edit(&mut source, node(n), &"line\n".repeat(usize::from(n)))).collect();
    let (mut late, mut pending) = (Notebook::new(NOTE), Pending::default());
    for (author, bytes) in sent[1..].iter().rev() {
        let offered = pending.offer(&mut late, *author, bytes);
        assert!(offered.held && offered.applied.is_empty() && offered.refused.is_empty());
    }
    assert!(matches!(late.apply(sent[3].0, &sent[3].1), Err(NoteRefusal::MissingDependencies { .. })));
    assert_eq!((pending.len(), pending.missing().count()), (3, 3));
    let offered = pending.offer(&mut late, sent[0].0, &sent[0].1);
    assert_eq!(offered.applied.len(), 4);
    assert!(pending.is_empty() && pending.missing().next().is_none());
    assert_eq!((late.text(), late.digest()), (source.text(), source.digest()));
}

#[test]
fn a_known_change_that_is_offered_again_wakes_what_waits_for_it() {
    let mut source = Notebook::new(NOTE);
    let first = edit(&mut source, node(1), "a");
    let second = edit(&mut source, node(2), "ab");
    let (mut late, mut pending) = (Notebook::new(NOTE), Pending::default());
    assert!(pending.offer(&mut late, second.0, &second.1).held);
    take(&mut late, &first); // past the buffer, as an edit of this node's own
    assert_eq!(pending.offer(&mut late, first.0, &first.1).applied.len(), 1);
    assert_eq!(late.digest(), source.digest());
}

#[test]
fn a_writer_that_has_written_its_share_is_stopped_and_others_go_on() {
    let mut note = Notebook::new(NOTE);
    let full = "x".repeat(OPS_PER_CHANGE_MAX);
    let refused = (0..20).find_map(|n| note.edit(node(1), if n % 2 == 0 { &full } else { "" }, 0).err());
    assert_eq!(refused, Some(EditRefusal::WriterFull));
    let ops: u64 = note.history().iter().map(|e| u64::from(e.ops)).sum();
    assert!(ops <= OPS_PER_WRITER_MAX && ops + OPS_PER_CHANGE_MAX as u64 > OPS_PER_WRITER_MAX);
    let text = note.text() + "still open";
    edit(&mut note, node(2), &text);
    assert_eq!(copy(&note).text(), text);
}

#[test]
fn a_full_buffer_says_that_it_is_incomplete_and_a_rebuild_mends_it() {
    let mut source = Notebook::new(NOTE);
    let first = edit(&mut source, node(1), "0");
    let sent: Vec<Sent> =
        (0..PENDING_CHANGES_MAX + 1).map(|n| edit(&mut source, node(2), if n % 2 == 0 { "1" } else { "0" })).collect();
    let (mut late, mut pending) = (Notebook::new(NOTE), Pending::default());
    for (author, bytes) in &sent {
        pending.offer(&mut late, *author, bytes);
    }
    assert_eq!((pending.len(), pending.is_incomplete()), (PENDING_CHANGES_MAX, true));
    let rebuilt = rebuild(NOTE, sent.into_iter().chain([first]));
    assert_eq!(rebuilt.notebook.digest(), source.digest());
}

#[test]
fn an_orphaned_author_writes_on_under_its_next_epoch() {
    let mut all = Notebook::new(NOTE);
    let mut sent = vec![edit(&mut all, node(1), "honest\n")];
    let cut = edit(&mut all, node(9), "honest\nforged\n");
    sent.push(edit(&mut all, node(1), "honest\nforged\nreply\n"));
    sent.push(edit(&mut all, node(2), "honest\nforged\nreply\nmore\n"));

    // The author of the cut change is revoked; what built on it goes too.
    let rebuilt = rebuild(NOTE, sent.clone());
    let mut after = rebuilt.notebook;
    assert_eq!(after.text(), "honest\n");
    assert_eq!(rebuilt.skipped.iter().map(|s| s.author).collect::<Vec<_>>(), [node(1), node(2)]);
    assert!(rebuilt.skipped.iter().all(|s| matches!(s.reason, NoteRefusal::MissingDependencies { .. })));

    sent.push(edit(&mut after, node(1), "honest\nagain\n"));
    assert_eq!(after.history().last().map(|e| (e.epoch, e.seq)), Some((1, 1)));
    // Replicas with the cut agree after a restart, and one that has not heard of it yet takes the change too.
    let again = rebuild(NOTE, sent.iter().rev().cloned());
    assert_eq!((again.notebook.text(), again.notebook.digest()), (after.text(), after.digest()));
    let last = sent.last().expect("just pushed");
    take(&mut all, last);
    let mut unaware = rebuild(NOTE, sent.iter().cloned().chain([cut])).notebook;
    assert_eq!((unaware.text(), unaware.digest()), (all.text(), all.digest()));
    assert_eq!(unaware.edit(node(1), "on", 0).map(|c| c.is_some()), Ok(true));
}

/// Five authors write, each on its own replica, and now and then take what another has.
fn written_by_five(steps: &[(u8, u8, u8)]) -> Vec<Sent> {
    let mut replicas: Vec<Notebook> = (0..5).map(|_| Notebook::new(NOTE)).collect();
    let mut sent = Vec::new();
    for (author, from, at) in steps {
        let (author, from) = (usize::from(author % 5), usize::from(from % 5));
        let known: Vec<Sent> = replicas[from].changes().map(|(a, b)| (a, b.to_vec())).collect();
        for (a, b) in known {
            replicas[author].apply(a, &b).expect("honest changes in causal order");
        }
        let mut text: Vec<char> = replicas[author].text().chars().collect();
        let at = usize::from(*at) % (text.len() + 1);
        let end = text.len().min(at + from);
        text.splice(at..end, ["م", "😀", "x", "é", "\n"][author].chars());
        let text: String = text.into_iter().collect();
        let id = node(u8::try_from(author).expect("below five") + 1);
        if let Some(bytes) = replicas[author].edit(id, &text, 0).expect("an honest edit") {
            sent.push((id, bytes));
        }
    }
    sent
}

/// An order and a choice of repetitions that a list of numbers stands for.
fn shuffled(sent: &[Sent], picks: &[u16]) -> Vec<Sent> {
    let mut order: BTreeMap<(u16, usize), Sent> = BTreeMap::new();
    for (i, change) in sent.iter().enumerate() {
        order.insert(
            (picks[i % picks.len()].wrapping_mul(31).wrapping_add(picks[(i * 7 + 3) % picks.len()]), i),
            change.clone(),
        );
    }
    let mut out: Vec<Sent> = order.into_values().collect();
    let repeats: Vec<Sent> =
        picks.iter().filter_map(|p| sent.get(usize::from(*p) % (2 * sent.len().max(1)))).cloned().collect();
    for (pick, change) in picks.iter().zip(repeats) {
        out.insert(usize::from(*pick) % (out.len() + 1), change);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_and_repetition_gives_the_same_notebook(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..40),
        picks in prop::collection::vec(any::<u16>(), 1..60),
    ) {
        let sent = written_by_five(&steps);
        let whole = rebuild(NOTE, sent.clone());
        prop_assert_eq!(&whole.skipped, &[]);
        let (mut live, mut pending) = (Notebook::new(NOTE), Pending::default());
        for (author, bytes) in shuffled(&sent, &picks) {
            let offered = pending.offer(&mut live, author, &bytes);
            prop_assert_eq!(&offered.refused, &[]);
        }
        prop_assert!(pending.is_empty());
        prop_assert_eq!((live.text(), live.digest()), (whole.notebook.text(), whole.notebook.digest()));
        prop_assert_eq!(live.history(), whole.notebook.history());
        prop_assert_eq!(live.heads(), whole.notebook.heads());
    }

    #[test]
    fn any_order_with_one_author_cut_anywhere_gives_the_same_notebook(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..40),
        picks in prop::collection::vec(any::<u16>(), 1..60),
        cut in 0_usize..12,
    ) {
        let mut of_one = 0;
        let mut sent = written_by_five(&steps);
        sent.retain(|(author, _)| {
            of_one += usize::from(*author == node(1));
            *author != node(1) || of_one <= cut
        });
        let straight = rebuild(NOTE, sent.clone());
        let mixed = rebuild(NOTE, shuffled(&sent, &picks));
        prop_assert_eq!(straight.notebook.text(), mixed.notebook.text());
        prop_assert_eq!(straight.notebook.digest(), mixed.notebook.digest());
        prop_assert_eq!(straight.skipped, mixed.skipped);
    }
}
