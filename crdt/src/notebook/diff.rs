//! Which characters an edit replaced: the smaller the replaced pieces, the better concurrent edits merge.
//!
//! Lines that are unique in both texts anchor the comparison (patience diff); between two anchors the characters are
//! compared by longest common subsequence where that is cheap, else the piece is replaced as a whole. Time and memory
//! are bounded by the texts' lengths times a constant.

use std::collections::BTreeMap;

/// Cells of the table that compares two pieces character by character. Larger pieces are replaced as a whole.
const CELLS_MAX: usize = 1 << 20;

/// Replace `deleted` characters at `at` (counted in the old text) by `inserted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) at: usize,
    pub(super) deleted: usize,
    pub(super) inserted: String,
}

/// The splices from one text to the other, in order of position; none where the texts are equal.
pub(super) fn splices(old: &str, new: &str) -> Vec<Splice> {
    let (old_chars, new_chars): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    let mut found = Vec::new();
    let (mut old_at, mut new_at) = (0, 0);
    for (old_line, new_line, len) in anchors(&lines(&old_chars), &lines(&new_chars)) {
        piece(&old_chars[old_at..old_line], &new_chars[new_at..new_line], old_at, &mut found);
        (old_at, new_at) = (old_line + len, new_line + len);
    }
    piece(&old_chars[old_at..], &new_chars[new_at..], old_at, &mut found);
    found
}

/// Each line with its end, and the position of its first character.
fn lines(chars: &[char]) -> Vec<(usize, &[char])> {
    let mut at = 0;
    chars
        .split_inclusive(|c| *c == '\n')
        .map(|line| {
            let start = at;
            at += line.len();
            (start, line)
        })
        .collect()
}

/// Lines that occur once in each text and in the same order in both: `(old position, new position, length)`.
fn anchors(old: &[(usize, &[char])], new: &[(usize, &[char])]) -> Vec<(usize, usize, usize)> {
    let (old_once, new_once) = (once(old), once(new));
    let mut pairs: Vec<(usize, usize, usize)> = old_once
        .iter()
        .filter_map(|(line, old_at)| new_once.get(line).map(|new_at| (*old_at, *new_at, line.len())))
        .collect();
    pairs.sort_unstable();
    longest_ascending(&pairs)
}

fn once<'a>(lines: &[(usize, &'a [char])]) -> BTreeMap<&'a [char], usize> {
    let mut seen: BTreeMap<&[char], Option<usize>> = BTreeMap::new();
    for (at, line) in lines {
        seen.entry(line).and_modify(|at| *at = None).or_insert(Some(*at));
    }
    seen.into_iter().filter_map(|(line, at)| at.map(|at| (line, at))).collect()
}

/// The longest run of pairs whose second members ascend (by patience sorting).
fn longest_ascending(pairs: &[(usize, usize, usize)]) -> Vec<(usize, usize, usize)> {
    let mut piles: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (i, pair) in pairs.iter().enumerate() {
        let pile = piles.partition_point(|top| pairs[*top].1 < pair.1);
        before.push(pile.checked_sub(1).map(|p| piles[p]));
        if pile == piles.len() {
            piles.push(i);
        } else {
            piles[pile] = i;
        }
    }
    let mut chain = Vec::new();
    let mut next = piles.last().copied();
    while let Some(i) = next {
        chain.push(pairs[i]);
        next = before[i];
    }
    chain.reverse();
    chain
}

/// Compares two pieces between anchors; `at` is the old piece's position.
fn piece(old: &[char], new: &[char], at: usize, found: &mut Vec<Splice>) {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new, at) = (&old[..old.len() - tail], &new[..new.len() - tail], at + head);
    if old.is_empty() && new.is_empty() {
        return;
    }
    if old.is_empty() || new.is_empty() || old.len().saturating_mul(new.len()) > CELLS_MAX {
        found.push(Splice { at, deleted: old.len(), inserted: new.iter().collect() });
        return;
    }
    by_character(old, new, at, found);
}

fn by_character(old: &[char], new: &[char], at: usize, found: &mut Vec<Splice>) {
    let width = new.len() + 1;
    // common[i * width + j]: length of the longest common subsequence of old[i..] and new[j..]
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut open: Option<Splice> = None;
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            found.extend(open.take());
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let splice = open.get_or_insert_with(|| Splice { at: at + i, deleted: 0, inserted: String::new() });
        let delete = j == new.len() || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]);
        if delete {
            splice.deleted += 1;
            i += 1;
        } else {
            splice.inserted.push(new[j]);
            j += 1;
        }
    }
    found.extend(open);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(old: &str, splices: &[Splice]) -> String {
        let mut chars: Vec<char> = old.chars().collect();
        for s in splices.iter().rev() {
            chars.splice(s.at..s.at + s.deleted, s.inserted.chars());
        }
        chars.into_iter().collect()
    }

    #[test]
    fn an_edit_at_both_ends_leaves_the_middle_alone() {
        let middle: String = (0..5_000).map(|n| format!("line {n}\n")).collect();
        let (old, new) = (format!("a\n{middle}z\n"), format!("b\n{middle}y\n"));
        let found = splices(&old, &new);
        assert_eq!(found.iter().map(|s| s.deleted).sum::<usize>(), 2);
        assert_eq!(applied(&old, &found), new);
    }

    #[test]
    fn a_rewritten_book_is_replaced_as_a_whole() {
        let (old, new) = ("ab".repeat(50_000), "cd".repeat(50_000));
        assert_eq!(splices(&old, &new).len(), 1);
    }

    proptest! {
        #[test]
        fn splices_lead_from_one_text_to_the_other(old in "[abسلا\n😀]{0,60}", new in "[abسلا\n😀]{0,60}") {
            prop_assert_eq!(applied(&old, &splices(&old, &new)), new);
        }
    }
}
