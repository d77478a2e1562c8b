//! Sketches of all entries: what is like a text is found by looking at each of them.
//!
//! To look through them keeps nothing sorted (docs/decisions/0021-what-is-alike-is-looked-through.md).

use std::collections::HashMap;

use crdt::doc::DocId;
use crdt::ledger::{Print, SKETCH_BYTES, Sketch};

/// Entries that are compared with a new one, the most promising first.
const CANDIDATES_MAX: usize = 24;
/// Bytes of the hash by which the same texts are told from others.
const EXACT_BYTES: usize = 8;
/// Length of [`Sketched::encode`].
const ENCODED_BYTES: usize = EXACT_BYTES + 2 * SKETCH_BYTES;

/// What is kept of an entry to compare it: of its whole text, and of its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sketched {
    exact: [u8; EXACT_BYTES],
    whole: Sketch,
    title: Sketch,
}

impl Sketched {
    /// Of a text's prints: its title's first, its whole text's last. `None` where nothing of it is compared.
    pub(super) fn of(prints: &[Print]) -> Option<Self> {
        let last = prints.last()?;
        let whole = last.sketch()?;
        let mut exact = [0; EXACT_BYTES];
        exact.copy_from_slice(&last.exact()[..EXACT_BYTES]);
        Some(Self { exact, whole, title: prints.first().and_then(Print::sketch).unwrap_or(whole) })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.exact[..], &self.whole.0, &self.title.0].concat()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENCODED_BYTES] = bytes.try_into().ok()?;
        let (exact, sketches) = bytes.split_first_chunk()?;
        let (whole, title) = sketches.split_first_chunk()?;
        Some(Self { exact: *exact, whole: Sketch(*whole), title: Sketch(title.try_into().ok()?) })
    }

    fn likeness(&self, other: &Self) -> u32 {
        if self.exact == other.exact {
            return u32::MAX;
        }
        self.whole.likeness(&other.whole).max(self.title.likeness(&other.title))
    }
}

/// The sketches of all entries, each under its document's name.
#[derive(Debug, Default)]
pub(super) struct Sketches {
    rows: Vec<(DocId, Sketched)>,
    at: HashMap<DocId, u32>,
}

impl Sketches {
    /// Puts an entry's sketch in, or in the place of its old one; `None` takes it out.
    pub(super) fn set(&mut self, id: DocId, sketched: Option<Sketched>) {
        match (self.at.get(&id).map(|at| *at as usize), sketched) {
            (Some(at), Some(sketched)) => self.rows[at].1 = sketched,
            (Some(at), None) => {
                self.at.remove(&id);
                self.rows.swap_remove(at);
                if let Some((moved, _)) = self.rows.get(at) {
                    self.at.insert(*moved, number(at));
                }
            }
            (None, Some(sketched)) => {
                if self.rows.len() == self.rows.capacity() {
                    // Twice as much, as vectors grow by themselves, would be most of it.
                    self.rows.reserve_exact(self.rows.len() / 8 + 64);
                }
                self.at.insert(id, number(self.rows.len()));
                self.rows.push((id, sketched));
            }
            (None, None) => {}
        }
    }

    /// The entries that are in it.
    pub(super) fn docs(&self) -> Vec<DocId> {
        self.rows.iter().map(|(doc, _)| *doc).collect()
    }

    /// The entries that may be near, the most promising first.
    pub(super) fn candidates(&self, own: &Sketched) -> Vec<DocId> {
        let likeness = self.rows.iter().map(|(id, row)| (own.likeness(row), *id));
        let mut found: Vec<_> = likeness.filter(|(likeness, _)| *likeness >= Sketch::CANDIDATE_MIN).collect();
        let best_first = |a: &(u32, DocId), b: &(u32, DocId)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
        if found.len() > CANDIDATES_MAX {
            found.select_nth_unstable_by(CANDIDATES_MAX, best_first);
            found.truncate(CANDIDATES_MAX);
        }
        found.sort_unstable_by(best_first);
        found.into_iter().map(|(_, id)| id).collect()
    }
}

/// A row's number. There are never as many rows as it has room for: they would be 600 GB.
fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use crdt::ids::EntryId;

    use super::super::index::prints;
    use super::*;

    fn name(n: u8) -> DocId {
        DocId::ledger(EntryId([n; 32]))
    }

    fn sketched(title: &str, body: &str) -> Sketched {
        Sketched::of(&prints(title, body)).expect("it has words")
    }

    #[test]
    fn the_same_text_comes_first_then_what_is_near_and_nothing_else_comes() {
        let mut sketches = Sketches::default();
        let known = [
            (1, "Cache the tool chains on every node", ""),
            (2, "Cache the toolchains on each node", "They are downloaded twice a day."),
            (3, "A page that nobody reads", ""),
            (4, "cache the TOOL chains, on every node!", ""),
        ];
        for (n, title, body) in known {
            sketches.set(name(n), Some(sketched(title, body)));
        }
        let own = sketched("Cache the tool chains on every node", "");
        let found = |sketches: &Sketches| sketches.candidates(&own).iter().map(|doc| doc.id[0]).collect::<Vec<_>>();
        assert_eq!(found(&sketches), [1, 4, 2]);
        sketches.set(name(1), None);
        assert_eq!(found(&sketches), [4, 2]);
        sketches.set(name(4), Some(sketched("Something else", "")));
        assert_eq!(found(&sketches), [2]);
        assert_eq!(sketches.rows.len(), 3);
    }

    #[test]
    fn a_sketch_is_read_as_it_was_kept_and_of_nothing_there_is_none() {
        let kept = sketched("عنوان", "نص");
        assert_eq!(Sketched::decode(&kept.encode()), Some(kept));
        assert_eq!(Sketched::decode(&kept.encode()[1..]), None);
        assert_eq!(Sketched::of(&prints("…", "")), None);
    }
}
