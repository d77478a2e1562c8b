//! The ledger's subjects: their folds and their rows.

use std::collections::BTreeMap;

use super::Replica;
use crate::cbor;
use crate::doc::DocId;
use crate::ids::EntryId;
use crate::ledger::{IdeaRow, Shown, Signed, Subject, fold};
use crate::shelf::{Shelf, Table};
use crate::state_hash::Sum;

impl<S: Shelf> Replica<S> {
    /// A subject with all that was said about it; `None` while its first entry is not here.
    #[must_use]
    pub fn subject(&self, doc: DocId) -> Option<Subject> {
        fold(self.entries(doc).into_values(), &self.roster)
    }

    /// A subject's line in lists.
    #[must_use]
    pub fn subject_row(&self, doc: DocId) -> Option<Shown> {
        let row = self.shelf.get(Table::Ledger, &doc.id)?;
        cbor::decode::<IdeaRow>(&row).ok()?.shown
    }

    /// Subjects in the order of (created, name), up to `limit` after one of them.
    #[must_use]
    pub fn subjects(&self, after: Option<(u64, EntryId)>, limit: usize) -> Vec<Shown> {
        let from = after.map_or_else(Vec::new, |(created_ms, id)| {
            let mut key = order_key(created_ms, id);
            key.push(0);
            key
        });
        let rows = self.shelf.scan(Table::LedgerByTime, &[], &from, limit).into_iter();
        rows.filter_map(|(key, _)| {
            let id = key.get(8..)?.try_into().ok().map(EntryId)?;
            self.subject_row(DocId::ledger(id))
        })
        .collect()
    }

    /// Subjects whose names begin so, `limit` at most: for people who type a part of one.
    #[must_use]
    pub fn subjects_named(&self, prefix: &[u8], limit: usize) -> Vec<Shown> {
        let prefix = &prefix[..prefix.len().min(16)];
        let rows = self.shelf.scan(Table::Ledger, prefix, prefix, limit).into_iter();
        rows.filter_map(|(_, row)| cbor::decode::<IdeaRow>(&row).ok()?.shown).collect()
    }

    /// The entries of a document that count, each once whoever wrote it.
    fn entries(&self, doc: DocId) -> BTreeMap<EntryId, Signed> {
        let registers = self.registers(doc).into_iter();
        registers
            .filter(|r| self.roster.role_at(&r.author, r.seq).is_some_and(|role| role.may_submit()))
            .filter_map(|r| Signed::read(&r.value).ok())
            .map(|entry| (entry.id, entry))
            .collect()
    }

    pub(super) fn refold_subject(&mut self, doc: DocId) {
        let before = self.shelf.get(Table::Ledger, &doc.id).and_then(|row| cbor::decode::<IdeaRow>(&row).ok());
        let entries = self.entries(doc);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&doc.to_bytes());
        entries.keys().for_each(|id| {
            hasher.update(&id.0);
        });
        let is_empty = entries.is_empty();
        let subject = fold(entries.into_values(), &self.roster);
        let shown = subject.as_ref().map(Subject::shown);
        hasher.update(&cbor::encode(&shown));
        let digest: Sum = *hasher.finalize().as_bytes();
        let after = (!is_empty).then_some(IdeaRow { digest, shown });
        let digest = |row: &Option<IdeaRow>| row.as_ref().map(|row| row.digest);
        self.state.replace(&mut self.shelf, doc, digest(&before).as_ref(), digest(&after).as_ref());
        let order = |row: &Option<IdeaRow>| {
            let shown = row.as_ref()?.shown.as_ref()?;
            Some(order_key(shown.created_ms, shown.id))
        };
        let (old, new) = (order(&before), order(&after));
        if old != new {
            old.into_iter().for_each(|key| self.shelf.put((Table::LedgerByTime, key, None)));
            new.into_iter().for_each(|key| self.shelf.put((Table::LedgerByTime, key, Some(Vec::new()))));
        }
        self.shelf.put((Table::Ledger, doc.id.to_vec(), after.as_ref().map(cbor::encode)));
    }
}

/// Key under which a subject stands in the order of lists.
fn order_key(created_ms: u64, id: EntryId) -> Vec<u8> {
    [&created_ms.to_be_bytes()[..], &id.0].concat()
}
