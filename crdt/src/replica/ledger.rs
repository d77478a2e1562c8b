//! The ledger's subjects: their folds, their rows, and what leads to them.

use std::collections::{BTreeMap, BTreeSet};

use super::Replica;
use super::rows::{JobRow, Stored, read_register_value, register_prefix};
use crate::cbor;
use crate::doc::{DocId, DocKind, Key};
use crate::ids::{EntryId, JobId, NodeId, PersonId};
use crate::ledger::{Counted, IdeaRow, Incoming, OUTCOME_OF, Relation, RowLink, Shown, Signed, Subject, Target, fold};
use crate::shelf::{Shelf, Table, Write};
use crate::state_hash::Sum;

/// Rows of [`Table::Meta`] under this prefix, a node and a document: an entry of that node came by another's feed, so that what
/// the roster says of it is part of the document's fold.
const CARRIED: &[u8] = b"carried/";
/// Rows of [`Table::Meta`] under this prefix and a hash: the subject that a person wrote under a key.
const KEYED: &[u8] = b"idea-key/";
/// Rows that are read at a time.
const PAGE_ROWS: usize = 1_000;
/// Where a link's name begins in the key of a row of [`Table::LedgerLinks`].
const LINK_AT: usize = 16;

impl<S: Shelf> Replica<S> {
    /// A subject with all that was said about it; `None` while its first entry is not here.
    #[must_use]
    pub fn subject(&self, doc: DocId) -> Option<Subject> {
        fold(self.counted(doc))
    }

    /// A subject's line in lists.
    #[must_use]
    pub fn subject_row(&self, doc: DocId) -> Option<Shown> {
        self.idea_row(doc)?.shown
    }

    /// What changes when a subject's fold does.
    #[must_use]
    pub fn subject_digest(&self, doc: DocId) -> Option<Sum> {
        self.idea_row(doc).map(|row| row.digest)
    }

    /// Where a subject leads, by its links that hold.
    #[must_use]
    pub fn links_of(&self, doc: DocId) -> Vec<RowLink> {
        self.idea_row(doc).map(|row| row.links).unwrap_or_default()
    }

    /// What leads to a subject, a job or a blob, by the name of the link.
    #[must_use]
    pub fn links_to(&self, target: &Target) -> Vec<Incoming> {
        let Some(prefix) = target_key(target) else { return Vec::new() };
        let rows = self.shelf.all(Table::LedgerLinks, &prefix);
        rows.into_iter()
            .filter_map(|(key, row)| {
                let entry = EntryId(key.get(LINK_AT..)?.try_into().ok()?);
                let (from, relation, person, to): (EntryId, Relation, PersonId, Target) = cbor::decode(&row).ok()?;
                // Two names may share their first half.
                (to == *target).then_some(Incoming { from, entry, relation, person })
            })
            .collect()
    }

    /// What came of the jobs that served a subject, or of one job: each job once, by time and name. Of several outcomes of one
    /// job counts that of the node that submitted it, where the job is known, and else that with the lowest name.
    #[must_use]
    pub fn outcomes(&self, of: &Target) -> Vec<Signed> {
        let mut found: BTreeMap<JobId, (bool, Signed)> = BTreeMap::new();
        for link in self.links_to(of).into_iter().filter(|link| link.relation.as_str() == OUTCOME_OF) {
            for entry in self.entries_of(DocId::ledger(link.entry)) {
                let Some(job) = entry.says.outcome.as_ref().map(|outcome| outcome.job) else { continue };
                let row = self.job_row(job);
                // Nothing came of what is not over, whoever says so.
                if row.as_ref().and_then(JobRow::state).is_some_and(|state| !state.is_final()) {
                    continue;
                }
                let is_foreign = row.is_some_and(|row| row.submitter != Some(entry.by.node));
                let known = found.entry(job).or_insert_with(|| (is_foreign, entry.clone()));
                if (is_foreign, entry.id) < (known.0, known.1.id) {
                    *known = (is_foreign, entry);
                }
            }
        }
        let mut entries: Vec<Signed> = found.into_values().map(|(_, entry)| entry).collect();
        entries.sort_by_key(|entry| (entry.by.created_ms, entry.id));
        entries
    }

    /// Jobs that name a subject as theirs, sealed ones aside.
    #[must_use]
    pub fn jobs_of(&self, idea: EntryId) -> Vec<JobId> {
        let rows = self.shelf.all(Table::LedgerLinks, &idea.0[..LINK_AT]);
        rows.into_iter()
            .filter(|(key, row)| key.len() == LINK_AT + JobId::LEN && row[..] == idea.0)
            .filter_map(|(key, _)| key.get(LINK_AT..)?.try_into().ok().map(JobId))
            .collect()
    }

    /// Whether a job serves a subject, or did.
    #[must_use]
    pub fn is_served(&self, idea: EntryId) -> bool {
        let by_link = |link: &RowLink| link.relation == Relation::ExecutedBy;
        let by_outcome = |link: &Incoming| link.relation.as_str() == OUTCOME_OF;
        self.links_of(DocId::ledger(idea)).iter().any(by_link)
            || !self.jobs_of(idea).is_empty()
            || self.links_to(&Target::Entry(idea)).iter().any(by_outcome)
    }

    /// Whether a document is what came of a job.
    #[must_use]
    pub fn is_outcome(&self, doc: DocId) -> bool {
        self.idea_row(doc).is_some_and(|row| row.shown.is_none() && !row.links.is_empty())
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

    /// Subjects with what changes when their folds do, document by document, up to `limit` after one of them.
    #[must_use]
    pub fn subject_digests(&self, after: Option<DocId>, limit: usize) -> Vec<(DocId, Option<EntryId>, Sum)> {
        let from = after.map_or_else(Vec::new, |doc| [&doc.id[..], &[0]].concat());
        let rows = self.shelf.scan(Table::Ledger, &[], &from, limit).into_iter();
        rows.filter_map(|(id, row)| {
            let doc = DocId { kind: DocKind::Ledger, id: id.try_into().ok()? };
            let row: IdeaRow = cbor::decode(&row).ok()?;
            Some((doc, row.shown.map(|shown| shown.id), row.digest))
        })
        .collect()
    }

    /// The subject that a person wrote under a key.
    #[must_use]
    pub fn subject_of_key(&self, person: PersonId, key: &str) -> Option<Subject> {
        let id = self.subject_under_key(person, key)?;
        self.subject(DocId::ledger(id))
    }

    /// The name of the subject that a person wrote under a key.
    #[must_use]
    pub fn subject_under_key(&self, person: PersonId, key: &str) -> Option<EntryId> {
        let row = self.shelf.get(Table::Meta, &keyed(person, key))?;
        let id = EntryId(row.try_into().ok()?);
        self.subject_row(DocId::ledger(id)).is_some_and(|row| row.id == id).then_some(id)
    }

    /// The entries of a document, whoever wrote them and whether they count or not: its first one, then by time and name.
    #[must_use]
    pub fn entries_of(&self, doc: DocId) -> Vec<Signed> {
        let registers = self.registers(doc).into_iter();
        let entries: BTreeMap<EntryId, Signed> =
            registers.filter_map(|r| Signed::read(&r.value).ok()).map(|entry| (entry.id, entry)).collect();
        let mut entries: Vec<Signed> = entries.into_values().collect();
        entries.sort_by_key(|entry| (entry.says.about.is_some(), entry.by.created_ms, entry.id));
        entries
    }

    /// Entries of the ledger that are here.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        let count = |(_, row): &(Vec<u8>, Vec<u8>)| {
            let row = cbor::decode::<IdeaRow>(row).ok()?;
            // Without a subject it is what came of a job, or waits for the subject.
            Some(row.shown.map_or(u64::from(!row.links.is_empty()), |shown| u64::from(shown.entries) + 1))
        };
        let (mut sum, mut from) = (0, Vec::new());
        loop {
            let rows = self.shelf.scan(Table::Ledger, &[], &from, PAGE_ROWS);
            let Some((last, _)) = rows.last() else { return sum };
            from = [&last[..], &[0]].concat();
            sum += rows.iter().filter_map(count).sum::<u64>();
        }
    }

    /// Whether an entry is here, whoever wrote it.
    #[must_use]
    pub fn has_entry(&self, doc: DocId, id: EntryId) -> bool {
        self.entry_row(doc, id).is_some()
    }

    /// An entry of a document, whoever wrote it and whether it counts or not.
    #[must_use]
    pub fn entry(&self, doc: DocId, id: EntryId) -> Option<Signed> {
        Signed::read(read_register_value(&self.entry_row(doc, id)?)?.1).ok()
    }

    fn entry_row(&self, doc: DocId, id: EntryId) -> Option<Vec<u8>> {
        let prefix = register_prefix(doc, &Key::Entry(id).to_string());
        self.shelf.scan(Table::Registers, &prefix, &prefix, 1).into_iter().next().map(|(_, row)| row)
    }

    fn idea_row(&self, doc: DocId) -> Option<IdeaRow> {
        let row = self.shelf.get(Table::Ledger, &doc.id)?;
        cbor::decode(&row).ok()
    }

    /// The entries of a document that count.
    fn counted(&self, doc: DocId) -> Vec<Counted> {
        self.registers(doc).into_iter().filter_map(|r| self.judge(&r, Signed::read(&r.value).ok()?)).collect()
    }

    /// Whether an entry counts that an author's feed has at a place. Its writer may submit, and it is its own; or it speaks for a
    /// member in good standing as the roster knows him, and so somebody else may have brought it; or an admin vouches for it.
    /// A program's entry stands for whoever gave it its delegation.
    #[must_use]
    pub fn counts_from(&self, author: &NodeId, seq: u64, signed: &Signed) -> bool {
        let Some(role) = self.roster.role_at(author, seq).filter(|role| role.may_submit()) else { return false };
        let principal = principal(signed);
        let is_his = self.roster.person(&principal) == Some(signed.by.person);
        if principal == *author {
            return is_his;
        }
        role.may_administer() || (is_his && !self.roster.revoked.contains_key(&principal))
    }

    fn judge(&self, r: &Stored, signed: Signed) -> Option<Counted> {
        if !self.counts_from(&r.author, r.seq, &signed) {
            return None;
        }
        let seq = (signed.by.node == r.author).then_some(r.seq);
        // What an admin brings of others is not his word, and no delegation covers an admin's acts.
        let is_admin = self.roster.role_at(&r.author, r.seq).is_some_and(|role| role.may_administer());
        let by_admin = is_admin && signed.by.node == r.author;
        Some(Counted { signed, seq, by_admin })
    }

    /// Documents whose folds change when the roster speaks of a node otherwise than before.
    pub(super) fn docs_carried(&self, node: NodeId) -> BTreeSet<DocId> {
        let prefix = [CARRIED, &node.0].concat();
        let rows = self.shelf.all(Table::Meta, &prefix);
        rows.iter().filter_map(|(key, _)| DocId::from_bytes(key.get(prefix.len()..)?)).collect()
    }

    pub(super) fn refold_subject(&mut self, doc: DocId) {
        let before = self.idea_row(doc);
        let mut entries = Vec::new();
        for r in self.registers(doc) {
            let Ok(signed) = Signed::read(&r.value) else { continue };
            let principal = principal(&signed);
            if principal != r.author {
                // The fold goes by what the roster says of an entry's author.
                let key = [CARRIED, &principal.0, &doc.to_bytes()].concat();
                self.shelf.put((Table::Meta, key, Some(Vec::new())));
            }
            entries.extend(self.judge(&r, signed));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&doc.to_bytes());
        let ids: BTreeSet<EntryId> = entries.iter().map(|entry| entry.signed.id).collect();
        ids.iter().for_each(|id| {
            hasher.update(&id.0);
        });
        let of_outcome = outcome_links(doc, &entries);
        let subject = fold(entries);
        let shown = subject.as_ref().map(Subject::shown);
        let links = subject.as_ref().map_or(of_outcome, Subject::row_links);
        hasher.update(&cbor::encode(&shown));
        let digest: Sum = *hasher.finalize().as_bytes();
        let after = (!ids.is_empty()).then_some(IdeaRow { digest, shown, links });
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
        self.put_links(before.as_ref(), after.as_ref());
        if let Some(root) = subject.as_ref().map(|subject| &subject.root)
            && let Some(key) = &root.says.key
        {
            self.shelf.put((Table::Meta, keyed(root.by.person, key), Some(root.id.0.to_vec())));
        }
        self.shelf.put((Table::Ledger, doc.id.to_vec(), after.as_ref().map(cbor::encode)));
    }

    /// Writes the rows by which the ends of its links find a subject.
    fn put_links(&mut self, before: Option<&IdeaRow>, after: Option<&IdeaRow>) {
        let rows = |row: Option<&IdeaRow>| -> BTreeMap<Vec<u8>, Vec<u8>> {
            let Some(row) = row else { return BTreeMap::new() };
            let of = |link: &RowLink| {
                let key = [&target_key(&link.to)?[..], &link.entry.0].concat();
                // What came of a job speaks for itself.
                let from = row.shown.as_ref().map_or(link.entry, |shown| shown.id);
                Some((key, cbor::encode(&(from, &link.relation, link.person, &link.to))))
            };
            row.links.iter().filter_map(of).collect()
        };
        let (old, new) = (rows(before), rows(after));
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            self.shelf.put((Table::LedgerLinks, key.clone(), None));
        }
        for (key, row) in new {
            if old.get(&key) != Some(&row) {
                self.shelf.put((Table::LedgerLinks, key, Some(row)));
            }
        }
    }
}

/// The device that answers for an entry: its signer, or who gave the program that signed it its delegation.
fn principal(signed: &Signed) -> NodeId {
    signed.mandate().map_or(signed.by.node, |mandate| mandate.by.node)
}

/// Where an outcome leads: to what its job served, and to the job.
fn outcome_links(doc: DocId, entries: &[Counted]) -> Vec<RowLink> {
    let outcomes = entries.iter().map(|entry| &entry.signed).filter(|entry| entry.document() == doc);
    let ends = |entry: &Signed| {
        let job = entry.says.outcome.as_ref().map(|outcome| Target::Job(outcome.job));
        let targets = entry.says.about.map(Target::Entry).into_iter().chain(job).collect::<Vec<_>>();
        let link = |to| RowLink { entry: entry.id, relation: OUTCOME_OF.into(), to, person: entry.by.person };
        targets.into_iter().map(link).collect::<Vec<_>>()
    };
    outcomes.filter(|entry| entry.says.outcome.is_some()).flat_map(ends).collect()
}

/// The row by which a subject finds a job that names it.
pub(super) fn served_by(idea: EntryId, job: JobId, is: Option<()>) -> Write {
    (Table::LedgerLinks, [&idea.0[..LINK_AT], &job.0].concat(), is.map(|()| idea.0.to_vec()))
}

fn keyed(person: PersonId, key: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("v6 subject of a person's key 1");
    hasher.update(&person.0).update(key.as_bytes());
    [KEYED, hasher.finalize().as_bytes()].concat()
}

/// Key under which a subject stands in the order of lists.
fn order_key(created_ms: u64, id: EntryId) -> Vec<u8> {
    [&created_ms.to_be_bytes()[..], &id.0].concat()
}

/// The first half of what a link leads to.
fn target_key(target: &Target) -> Option<[u8; LINK_AT]> {
    let half = |bytes: &[u8]| bytes.get(..LINK_AT).and_then(|half| half.try_into().ok());
    match target {
        Target::Entry(id) => half(&id.0),
        Target::Job(id) => half(&id.0),
        Target::Blob(hash) => half(&hash.0),
        Target::Other(_) => None,
    }
}
