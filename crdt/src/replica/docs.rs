//! Registers and folds of a replica's documents.

use std::collections::BTreeSet;

use serde_bytes::ByteArray;

use super::Replica;
use super::ledger::served_by;
use super::rows::{
    JobRow, Stored, bundle_key, read_register_key, read_register_value, register_key, register_value, time_key,
};
use crate::bundle::{Body, Bundle};
use crate::cbor;
use crate::doc::{DocId, DocKind, Key};
use crate::ids::{JobId, NodeId, NoteId};
use crate::job::{Job, JobState};
use crate::mutant::{Mutant, is_made};
use crate::roster;
use crate::shelf::{Shelf, Table};
use crate::state_hash::Sum;

const TITLE_CHARS_MAX: usize = 160;
/// Rows of [`Table::Meta`] under this prefix and a document: a notebook's part in the state hash.
const NOTE_DIGEST: &[u8] = b"note-digest/";

impl<S: Shelf> Replica<S> {
    pub(super) fn write_register(&mut self, doc: DocId, author: NodeId, key: &Key, seq: u64, value: &[u8]) {
        let row = register_key(doc, &key.to_string(), author);
        // What is not there is not looked for among the rows.
        let in_memory = doc.as_job().map(|id| self.load_job(id).0.written_at(author, key));
        let old = if in_memory == Some(Ok(None)) { None } else { self.shelf.get(Table::Registers, &row) };
        let old = old.as_deref().and_then(read_register_value);
        // Of a write-once key the first write counts, of any other the last, in whatever order they come.
        let stays = |old_seq: u64| if key.is_write_once() { old_seq <= seq } else { old_seq >= seq };
        if old.is_some_and(|(old_seq, _)| stays(old_seq)) {
            return;
        }
        if let Some(id) = doc.as_job() {
            let old = old.map(|(_, value)| value.to_vec());
            self.load_job(id).0.set(author, key, seq, value, old.as_deref());
        }
        self.shelf.put((Table::Registers, row, Some(register_value(seq, value))));
    }

    pub(super) fn write_note(&mut self, doc: DocId, author: NodeId, seq: u64, at: usize, bytes: &[u8]) {
        let mut row = doc.to_bytes().to_vec();
        row.extend_from_slice(&author.0);
        row.extend_from_slice(&seq.to_be_bytes());
        row.extend_from_slice(&u16::try_from(at).unwrap_or(u16::MAX).to_be_bytes());
        self.shelf.put((Table::Notes, row, Some(bytes.to_vec())));
    }

    /// A notebook's changes with their authors, in the order of their rows; those that do not count are left out.
    #[must_use]
    pub fn note_changes(&self, doc: DocId) -> Vec<(NodeId, u64, Vec<u8>)> {
        let rows = self.shelf.all(Table::Notes, &doc.to_bytes());
        rows.into_iter()
            .filter_map(|(key, change)| {
                let author = NodeId(key.get(DocId::LEN..DocId::LEN + 32)?.try_into().ok()?);
                let seq = u64::from_be_bytes(key.get(DocId::LEN + 32..DocId::LEN + 40)?.try_into().ok()?);
                self.roster.role_at(&author, seq).filter(|role| role.may_submit())?;
                Some((author, seq, change))
            })
            .collect()
    }

    /// Notebooks that have a change that counts.
    #[must_use]
    pub fn notes(&self) -> Vec<NoteId> {
        let rows = self.shelf.all(Table::Meta, NOTE_DIGEST);
        let doc = |key: &[u8]| DocId::from_bytes(key.get(NOTE_DIGEST.len()..)?);
        rows.iter().filter_map(|(key, _)| doc(key)).map(|doc| NoteId(doc.id)).collect()
    }

    /// Whether a notebook has a change that counts.
    #[must_use]
    pub fn has_note(&self, id: NoteId) -> bool {
        self.shelf.get(Table::Meta, &[NOTE_DIGEST, &DocId::note(id).to_bytes()].concat()).is_some()
    }

    /// When an author wrote a bundle, by its clock, in milliseconds since 1970; `None` where the bundle is not here.
    #[must_use]
    pub fn written_ms(&self, author: NodeId, seq: u64) -> Option<u64> {
        let wire = self.shelf.get(Table::Bundles, &bundle_key(author, seq))?;
        Bundle::header_of(&wire).ok().map(|header| header.hlc >> 16)
    }

    /// The registers of a document.
    pub(super) fn registers(&self, doc: DocId) -> Vec<Stored> {
        let rows = self.shelf.all(Table::Registers, &doc.to_bytes());
        rows.into_iter()
            .filter_map(|(row, value)| {
                let (doc, author, text) = read_register_key(&row)?;
                let key = Key::parse(doc, author, &text).ok()?;
                let (seq, value) = read_register_value(&value)?;
                Some(Stored { author, key, seq, value: value.to_vec() })
            })
            .collect()
    }

    /// Registers of a document for people: author, key, seq, canonical value.
    #[must_use]
    pub fn show(&self, doc: DocId) -> Vec<(NodeId, Key, u64, Vec<u8>)> {
        self.registers(doc).into_iter().map(|r| (r.author, r.key, r.seq, r.value)).collect()
    }

    pub(super) fn load_job(&mut self, id: JobId) -> &mut (Job, Option<JobRow>) {
        if !self.jobs.contains_key(&id) {
            let mut job = Job::new(id);
            for r in self.registers(DocId::job(id)) {
                job.set(r.author, &r.key, r.seq, &r.value, None);
            }
            job.refresh(&self.roster);
            let row = self.job_row(id);
            self.jobs.insert(id, Box::new((job, row)));
        }
        self.jobs.get_mut(&id).expect("just inserted")
    }

    /// A job's line in lists.
    #[must_use]
    pub fn job_row(&self, id: JobId) -> Option<JobRow> {
        if let Some(loaded) = self.jobs.get(&id) {
            return loaded.1.clone();
        }
        self.shelf.get(Table::Jobs, &id.0).and_then(|row| cbor::decode(&row).ok())
    }

    /// Folds documents again and writes their rows.
    pub(super) fn refold(&mut self, docs: &BTreeSet<DocId>) {
        for doc in docs {
            match doc.kind {
                DocKind::Job => self.refold_job(JobId(doc.id)),
                DocKind::Note => self.refold_note(*doc),
                DocKind::Ledger => self.refold_subject(*doc),
                DocKind::Roster | DocKind::Feed => {}
            }
        }
        self.look_for_missing();
    }

    fn refold_job(&mut self, id: JobId) {
        self.load_job(id);
        let (job, row) = &mut **self.jobs.get_mut(&id).expect("just loaded");
        job.refresh(&self.roster);
        let new = (!job.is_unknown()).then(|| row_of(job, job.digest()));
        let before = std::mem::replace(row, new.clone());
        if before.as_ref().is_some_and(|row| row.sealed_ms.is_some()) && job.sealed_by().is_none() {
            self.reopened.insert(id);
        }
        let digest = |row: &Option<JobRow>| row.as_ref().map(|row| row.digest);
        self.state.replace(&mut self.shelf, DocId::job(id), digest(&before).as_ref(), digest(&new).as_ref());
        if new.is_none() {
            self.jobs.remove(&id);
        }
        self.put_job_rows(id, before.as_ref(), new.as_ref());
    }

    /// Writes what lists are made from, or takes it away where a revocation left nothing of the job.
    fn put_job_rows(&mut self, id: JobId, before: Option<&JobRow>, row: Option<&JobRow>) {
        let is_open = |row: Option<&JobRow>| row.is_some_and(|row| row.state().is_none_or(|state| !state.is_final()));
        let open = is_open(row);
        if is_open(before) != open {
            self.shelf.put((Table::OpenJobs, id.0.to_vec(), open.then(Vec::new)));
        }
        let time_row = |row: Option<&JobRow>| row.filter(|r| r.submitter.is_some()).map(|r| time_key(r.created_ms, id));
        let (old, new) = (time_row(before), time_row(row));
        if old != new {
            old.into_iter().for_each(|key| self.shelf.put((Table::JobsByTime, key, None)));
            new.into_iter().for_each(|key| self.shelf.put((Table::JobsByTime, key, Some(Vec::new()))));
        }
        let idea = |row: Option<&JobRow>| row.and_then(|row| row.idea);
        if idea(before) != idea(row) {
            idea(before).into_iter().for_each(|idea| self.shelf.put(served_by(idea, id, None)));
            idea(row).into_iter().for_each(|idea| self.shelf.put(served_by(idea, id, Some(()))));
        }
        self.counts.moved(&mut self.shelf, before, row);
        self.shelf.put((Table::Jobs, id.0.to_vec(), row.map(cbor::encode)));
    }

    fn refold_note(&mut self, doc: DocId) {
        let key = [NOTE_DIGEST, &doc.to_bytes()].concat();
        let old = self.shelf.get(Table::Meta, &key).and_then(|v| Sum::try_from(v.as_slice()).ok());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&doc.to_bytes());
        let changes = self.note_changes(doc);
        for (author, seq, change) in &changes {
            hasher.update(&author.0).update(&seq.to_be_bytes()).update(blake3::hash(change).as_bytes());
        }
        let new: Option<Sum> = (!changes.is_empty()).then(|| *hasher.finalize().as_bytes());
        self.state.replace(&mut self.shelf, doc, old.as_ref(), new.as_ref());
        self.shelf.put((Table::Meta, key, new.map(|digest| digest.to_vec())));
    }

    /// The roster as its registers fold, and its part in the state hash.
    /// The roster with its part in the state hash; none while nothing was written to it.
    pub(super) fn fold_roster(&self) -> (roster::Roster, Option<Sum>) {
        let registers = self.registers(DocId::ROSTER);
        let folded = roster::fold(
            self.mesh,
            self.founder,
            registers.iter().map(|r| (r.author, r.key.clone(), r.seq, r.value.as_slice())),
        );
        let digest = (!registers.is_empty()).then(|| roster_digest(&folded, &registers));
        (folded, digest)
    }

    /// Folds the roster again; adds to `docs` what its changes touch, and answers whether it changed.
    pub(super) fn refold_roster(&mut self, docs: &mut BTreeSet<DocId>) -> bool {
        let (new, digest) = self.fold_roster();
        let old = std::mem::replace(&mut self.roster_digest, digest);
        self.state.replace(&mut self.shelf, DocId::ROSTER, old.as_ref(), digest.as_ref());
        if new == self.roster {
            return false;
        }
        let before = std::mem::replace(&mut self.roster, new);
        let authors: BTreeSet<NodeId> = before.members.keys().chain(self.roster.members.keys()).copied().collect();
        for author in authors {
            let (old_cut, new_cut) = (before.last_counting(&author), self.roster.last_counting(&author));
            if old_cut != new_cut && !is_made(Mutant::JudgesAtArrival) {
                let touched = self.docs_touched(author, old_cut.min(new_cut).saturating_add(1));
                docs.extend(touched.iter().copied());
                self.rewrite_author(author, &touched);
            }
            if before.members.get(&author) != self.roster.members.get(&author) {
                docs.extend(self.docs_touched(author, 1));
            }
            if before.members.get(&author) != self.roster.members.get(&author)
                || before.revoked.contains_key(&author) != self.roster.revoked.contains_key(&author)
            {
                docs.extend(self.docs_carried(author));
            }
        }
        docs.remove(&DocId::ROSTER);
        let live: Vec<DocId> = self.jobs.keys().map(|id| DocId::job(*id)).collect();
        docs.extend(live);
        true
    }

    /// Documents that an author's bundles from `from_seq` on change.
    pub(super) fn docs_touched(&self, author: NodeId, from_seq: u64) -> BTreeSet<DocId> {
        let from = bundle_key(author, from_seq);
        let rows = self.shelf.scan(Table::Bundles, &author.0, &from, usize::MAX);
        rows.into_iter()
            .filter_map(|(_, wire)| Bundle::decode(wire.into()).ok())
            .flat_map(|bundle| bundle.header.changes.into_iter().map(|c| c.doc))
            .collect()
    }

    /// Writes an author's registers and notes in `docs` again from those of its bundles that count, then folds.
    pub(super) fn rebuild_author(&mut self, author: NodeId, mut docs: BTreeSet<DocId>) {
        self.rewrite_author(author, &docs);
        if docs.contains(&DocId::ROSTER) {
            for r in self.registers(DocId::ROSTER) {
                let head = self.feeds.get(&author).map_or(0, |feed| feed.seq);
                if r.author == author && r.seq > head {
                    let row = register_key(DocId::ROSTER, &r.key.to_string(), author);
                    self.shelf.put((Table::Registers, row, None));
                }
            }
            self.refold_roster(&mut docs);
        }
        docs.remove(&DocId::ROSTER);
        self.refold(&docs);
    }

    pub(super) fn rewrite_author(&mut self, author: NodeId, docs: &BTreeSet<DocId>) {
        let docs: BTreeSet<DocId> = docs.iter().filter(|d| d.kind != DocKind::Roster).copied().collect();
        for doc in &docs {
            for r in self.registers(*doc).into_iter().filter(|r| r.author == author) {
                let row = register_key(*doc, &r.key.to_string(), author);
                self.shelf.put((Table::Registers, row, None));
            }
            let prefix = [&doc.to_bytes()[..], &author.0].concat();
            for (row, _) in self.shelf.all(Table::Notes, &prefix) {
                self.shelf.put((Table::Notes, row, None));
            }
        }
        // They are read from their rows again, and their lines in lists are as they were until they are folded.
        for id in docs.iter().filter_map(DocId::as_job) {
            self.jobs.remove(&id);
        }
        for (_, wire) in self.shelf.all(Table::Bundles, &author.0) {
            let Ok(bundle) = Bundle::decode(wire.into()) else {
                continue;
            };
            let seq = bundle.header.seq;
            if !self.counts(&author, seq) {
                break;
            }
            for (at, (change, body)) in bundle.header.changes.iter().zip(&bundle.bodies).enumerate() {
                match body {
                    Body::Register { key, value } if docs.contains(&change.doc) => {
                        self.write_register(change.doc, author, key, seq, value);
                    }
                    Body::Notebook(bytes) if docs.contains(&change.doc) => {
                        self.write_note(change.doc, author, seq, at, bytes);
                    }
                    Body::Register { .. } | Body::Notebook(_) | Body::Pruned => {}
                }
            }
        }
    }
}

fn row_of(job: &Job, digest: Sum) -> JobRow {
    let spec = job.spec();
    let title = spec.map(|(_, s)| if s.name.is_empty() { s.command.join(" ") } else { s.name.clone() });
    let owner = job.claims().iter().rev().find(|(id, _)| !job.is_void(id)).map(|(id, _)| id.owner);
    JobRow {
        id: job.id,
        state: job.state().map(|s| s as u8),
        submitter: spec.map(|(node, _)| *node),
        owner,
        idea: spec.and_then(|(_, s)| s.idea),
        trace: spec.map(|(_, s)| s.trace).unwrap_or_default(),
        created_ms: spec.map_or(0, |(_, s)| s.created_ms),
        ended_ms: job.ended_ms(),
        tasks: spec.map_or(0, |(_, s)| s.tasks()),
        done: job.count(JobState::Done),
        title: title.unwrap_or_default().chars().take(TITLE_CHARS_MAX).collect(),
        sealed_ms: job.seal().map(|seal| seal.3.2),
        digest,
    }
}

fn roster_digest(folded: &roster::Roster, registers: &[Stored]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    let counting = |r: &&Stored| folded.authors.contains(&r.author) || matches!(r.key, Key::Recover(_));
    for r in registers.iter().filter(counting) {
        let line = cbor::encode(&(r.author, r.key.to_string(), r.seq, serde_bytes::Bytes::new(&r.value)));
        hasher.update(blake3::hash(&line).as_bytes());
    }
    for (node, member) in &folded.members {
        hasher.update(&cbor::encode(&(node, &member.name, member.person, &member.roles)));
    }
    for (node, (seq, hash)) in &folded.revoked {
        hasher.update(&cbor::encode(&(node, seq, ByteArray::new(hash.0), folded.suspended.contains(node))));
    }
    *hasher.finalize().as_bytes()
}
