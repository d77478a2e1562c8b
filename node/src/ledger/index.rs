//! The index of the ledger: full text, filters, and what finds entries that are alike. It is made from the documents, and made
//! anew when its files are missing or damaged.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Context;
use crdt::doc::DocId;
use crdt::ids::EntryId;
use crdt::ledger::Print;
use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::{AllQuery, BooleanQuery, Occur, Query, QueryParser, RangeQuery, TermQuery};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TantivyDocument, TextFieldIndexing, TextOptions,
    Value,
};
use tantivy::snippet::SnippetGenerator;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, Term};

use super::analyser::Folding;
use super::sketches::{Sketched, Sketches};

/// Directory of the index below the node's; another layout has another name.
const DIRECTORY: &str = "index/ledger-3";
const ANALYSER: &str = "folding";
const QUARTERS: [&str; 4] = ["id0", "id1", "id2", "id3"];
/// Memory of a writer, in bytes: the least that it takes. It is there only while something is written.
const WRITER_BYTES: usize = 15_000_000;
/// Subjects of a piece of the index up to which it is merged with others: to look into a few pieces more costs less than to sort
/// their words again.
const MERGED_MAX: usize = 10_000;
/// How much more a word counts in a title than elsewhere.
const TITLE_BOOST: f32 = 3.0;
const SNIPPET_CHARS: usize = 160;

/// What is indexed of a subject.
#[derive(Debug, Clone)]
pub(crate) struct Indexed {
    pub(crate) id: EntryId,
    /// Changes with the subject's fold.
    pub(crate) digest: [u8; 32],
    pub(crate) title: String,
    pub(crate) body: String,
    /// What others said about it.
    pub(crate) comments: String,
    pub(crate) tags: Vec<String>,
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) owner: String,
    pub(crate) language: String,
    pub(crate) created_ms: u64,
}

/// What a search is narrowed to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) kind: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) since_ms: Option<u64>,
    pub(crate) until_ms: Option<u64>,
    /// Those that were taken back too.
    pub(crate) all: bool,
}

/// Something that was found.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    pub(crate) id: EntryId,
    pub(crate) score: f32,
}

/// A piece of a text, and where in it the words are that were asked for, in bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) marks: Vec<Range<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct Fields {
    /// The name of its document.
    doc: Field,
    /// The subject's id, for who opens the index; and a quarter of it each, for searches: their columns are a small part of what is
    /// stored, and pages that a search touched stay in memory.
    id: Field,
    quarters: [Field; 4],
    digest: Field,
    title: Field,
    body: Field,
    comments: Field,
    tag: Field,
    kind: Field,
    status: Field,
    owner: Field,
    language: Field,
    created: Field,
    sketch: Field,
}

/// The index and its files. Who reads never waits for who writes.
pub(crate) struct LedgerIndex {
    index: Index,
    reader: IndexReader,
    writer: Mutex<Option<IndexWriter>>,
    sketches: RwLock<Sketches>,
    fields: Fields,
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing =
        TextFieldIndexing::default().set_tokenizer(ANALYSER).set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let text = TextOptions::default().set_indexing_options(indexing);
    let fields = Fields {
        doc: builder.add_text_field("doc", STRING),
        id: builder.add_bytes_field("id", STORED),
        quarters: QUARTERS.map(|name| builder.add_u64_field(name, FAST)),
        digest: builder.add_bytes_field("digest", STORED),
        title: builder.add_text_field("title", text.clone()),
        body: builder.add_text_field("body", text.clone()),
        comments: builder.add_text_field("comments", text),
        tag: builder.add_text_field("tag", STRING),
        kind: builder.add_text_field("kind", STRING),
        status: builder.add_text_field("status", STRING),
        owner: builder.add_text_field("owner", STRING),
        language: builder.add_text_field("language", STRING),
        created: builder.add_u64_field("created", INDEXED),
        sketch: builder.add_bytes_field("sketch", STORED),
    };
    (builder.build(), fields)
}

/// What is compared of a subject: its title, and where there is more the whole.
pub(crate) fn prints(title: &str, body: &str) -> Vec<Print> {
    let mut prints = vec![Print::of(title)];
    if !body.trim().is_empty() {
        prints.push(Print::of(&format!("{title}\n{body}")));
    }
    prints
}

impl LedgerIndex {
    /// Opens the index below a node's directory, and answers the subjects that are in it, each with the digest that it had. Files
    /// that do not open are removed: what is in them is in the documents.
    ///
    /// # Errors
    /// What keeps it from being made anew.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<(Self, BTreeMap<DocId, [u8; 32]>)> {
        let directory = data_dir.join(DIRECTORY);
        remove_other_layouts(&directory)?;
        match Self::open_at(&directory) {
            Ok(opened) => Ok(opened),
            Err(error) => {
                if directory.exists() {
                    tracing::warn!(%error, "the index of the ledger does not open and is made anew");
                    std::fs::remove_dir_all(&directory).context("the old index cannot be removed")?;
                }
                Self::open_at(&directory)
            }
        }
    }

    fn open_at(directory: &PathBuf) -> anyhow::Result<(Self, BTreeMap<DocId, [u8; 32]>)> {
        std::fs::create_dir_all(directory)?;
        remove_unfinished(directory)?;
        // All of it is read once, and then mapped anew: pages that were read stay in memory as long as their mapping.
        let (index, fields) = files(directory)?;
        let damaged = index.validate_checksum()?;
        anyhow::ensure!(damaged.is_empty(), "{} of its files are damaged", damaged.len());
        let (sketches, known) = read_back(&index, fields)?;
        drop(index);
        let (index, fields) = files(directory)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok((Self { index, reader, writer: Mutex::default(), sketches: RwLock::new(sketches), fields }, known))
    }

    /// Replaces subjects, and leaves out those that are gone; found by searches from [`LedgerIndex::commit`] on. Answers whether
    /// there is something to commit.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub(crate) fn put(&self, subjects: &[Indexed], gone: &[DocId]) -> anyhow::Result<bool> {
        let (searcher, fields) = (self.reader.searcher(), self.fields);
        let term = |doc: &DocId| Term::from_field_text(fields.doc, &doc.to_string());
        let mut old = Vec::new();
        for doc in gone {
            if searcher.doc_freq(&term(doc))? > 0 {
                old.push(*doc);
            }
        }
        if subjects.is_empty() && old.is_empty() {
            return Ok(false);
        }
        old.extend(subjects.iter().map(|subject| DocId::ledger(subject.id)));
        let mut slot = self.writer();
        let writer = match &mut *slot {
            Some(writer) => writer,
            None => {
                let options = IndexWriterOptions::builder()
                    .num_worker_threads(1)
                    .num_merge_threads(1)
                    .memory_budget_per_thread(WRITER_BYTES)
                    .build();
                let writer = self.index.writer_with_options(options)?;
                let mut merges = LogMergePolicy::default();
                merges.set_max_docs_before_merge(MERGED_MAX);
                writer.set_merge_policy(Box::new(merges));
                slot.insert(writer)
            }
        };
        let mut sketches = self.sketches.write().unwrap_or_else(PoisonError::into_inner);
        for doc in old {
            writer.delete_term(term(&doc));
            sketches.set(doc, None);
        }
        drop(sketches);
        for subject in subjects {
            let mut doc = TantivyDocument::default();
            let name = DocId::ledger(subject.id);
            for (field, text) in [
                (fields.doc, &name.to_string()),
                (fields.title, &subject.title),
                (fields.body, &subject.body),
                (fields.comments, &subject.comments),
                (fields.kind, &subject.kind),
                (fields.status, &subject.status),
                (fields.owner, &subject.owner),
                (fields.language, &subject.language.to_lowercase()),
            ] {
                doc.add_text(field, text);
            }
            for tag in &subject.tags {
                doc.add_text(fields.tag, crdt::ledger::folded(tag));
            }
            doc.add_bytes(fields.id, &subject.id.0);
            for (field, quarter) in fields.quarters.into_iter().zip(subject.id.0.as_chunks().0) {
                doc.add_u64(field, u64::from_be_bytes(*quarter));
            }
            doc.add_bytes(fields.digest, &subject.digest);
            doc.add_u64(fields.created, subject.created_ms);
            let sketched = Sketched::of(&prints(&subject.title, &subject.body));
            if let Some(sketched) = &sketched {
                doc.add_bytes(fields.sketch, &sketched.encode());
            }
            writer.add_document(doc)?;
            self.sketches.write().unwrap_or_else(PoisonError::into_inner).set(name, sketched);
        }
        Ok(true)
    }

    /// Makes what was put durable, and seen by searches.
    ///
    /// # Errors
    /// Its files cannot be written; the next [`LedgerIndex::put`] begins with another writer.
    pub(crate) fn commit(&self) -> anyhow::Result<()> {
        let mut slot = self.writer();
        let Some(writer) = &mut *slot else { return Ok(()) };
        if let Err(error) = writer.commit() {
            *slot = None;
            return Err(error.into());
        }
        self.reader.reload()?;
        Ok(())
    }

    fn writer(&self) -> MutexGuard<'_, Option<IndexWriter>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the writer and its threads, until something is put again.
    pub(crate) fn rest(&self) -> anyhow::Result<()> {
        let writer = self.writer().take();
        if let Some(writer) = writer {
            writer.wait_merging_threads()?;
        }
        Ok(())
    }

    /// The subjects that have most in common with these prints, the most promising first.
    pub(crate) fn candidates(&self, prints: &[Print]) -> Vec<DocId> {
        let Some(own) = Sketched::of(prints) else { return Vec::new() };
        self.sketches.read().unwrap_or_else(PoisonError::into_inner).candidates(&own)
    }

    /// The subjects that are in it and have words.
    pub(crate) fn docs(&self) -> Vec<DocId> {
        self.sketches.read().unwrap_or_else(PoisonError::into_inner).docs()
    }

    fn hits(&self, searcher: &Searcher, found: Vec<(f32, tantivy::DocAddress)>) -> anyhow::Result<Vec<Hit>> {
        let mut hits = Vec::with_capacity(found.len());
        let mut columns = BTreeMap::new();
        for (score, address) in found {
            let of_segment = match columns.entry(address.segment_ord) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    let fields = searcher.segment_reader(address.segment_ord).fast_fields();
                    let opened: Vec<_> = QUARTERS.iter().map(|name| fields.u64(name)).collect::<Result<_, _>>()?;
                    vacant.insert(opened)
                }
            };
            let mut id = [0; EntryId::LEN];
            for (quarter, column) in id.as_chunks_mut().0.iter_mut().zip(of_segment) {
                *quarter = column.first(address.doc_id).context("a subject without its id")?.to_be_bytes();
            }
            hits.push(Hit { id: EntryId(id), score });
        }
        Ok(hits)
    }

    fn words(&self, words: &str) -> Box<dyn Query> {
        let fields = self.fields;
        let mut parser =
            QueryParser::for_index(&self.index, vec![fields.title, fields.body, fields.comments, fields.tag]);
        parser.set_conjunction_by_default();
        parser.set_field_boost(fields.title, TITLE_BOOST);
        // What people type is never an error: what is no query is taken for words.
        parser.parse_query(words).unwrap_or_else(|_| {
            let words: String = words.chars().map(|c| if super::analyser::is_in_word(c) { c } else { ' ' }).collect();
            parser.parse_query_lenient(&words.to_lowercase()).0
        })
    }

    /// Searches: `limit` hits from the `offset`-th on, the best first.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub(crate) fn search(&self, words: &str, filter: &Filter, offset: usize, limit: usize) -> anyhow::Result<Vec<Hit>> {
        let fields = self.fields;
        let words: Box<dyn Query> = if words.trim().is_empty() { Box::new(AllQuery) } else { self.words(words) };
        let mut parts = vec![(Occur::Must, words)];
        let mut only = |field, text: &str, occur| {
            let term = Term::from_field_text(field, text);
            let query: Box<dyn Query> = Box::new(TermQuery::new(term, IndexRecordOption::Basic));
            parts.push((occur, query));
        };
        let texts = [
            (fields.kind, &filter.kind),
            (fields.status, &filter.status),
            (fields.owner, &filter.owner),
            (fields.language, &filter.language),
        ];
        for (field, text) in texts.into_iter().filter_map(|(field, text)| Some((field, text.as_ref()?))) {
            only(field, text, Occur::Must);
        }
        if let Some(tag) = &filter.tag {
            only(fields.tag, &crdt::ledger::folded(tag), Occur::Must);
        }
        if !filter.all && filter.status.is_none() {
            only(fields.status, "retracted", Occur::MustNot);
        }
        if filter.since_ms.is_some() || filter.until_ms.is_some() {
            let bound = |at: Option<u64>| {
                at.map_or(Bound::Unbounded, |at| Bound::Included(Term::from_field_u64(fields.created, at)))
            };
            parts.push((Occur::Must, Box::new(RangeQuery::new(bound(filter.since_ms), bound(filter.until_ms)))));
        }
        let searcher = self.reader.searcher();
        let top = TopDocs::with_limit(limit.max(1)).and_offset(offset).order_by_score();
        let found = searcher.search(&BooleanQuery::new(parts), &top)?;
        self.hits(&searcher, found)
    }

    /// The piece of a text that shows best why it was found.
    pub(crate) fn piece(&self, words: &str, text: &str) -> anyhow::Result<Piece> {
        let searcher = self.reader.searcher();
        let query = self.words(words);
        let mut generator = SnippetGenerator::create(&searcher, &query, self.fields.body)?;
        generator.set_max_num_chars(SNIPPET_CHARS);
        let found = generator.snippet(text);
        Ok(Piece { text: found.fragment().to_owned(), marks: found.highlighted().to_vec() })
    }
}

/// Removes what versions with another layout have left.
fn remove_other_layouts(directory: &Path) -> anyhow::Result<()> {
    let Some(parent) = directory.parent().filter(|parent| parent.is_dir()) else { return Ok(()) };
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        let is_index = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger-"));
        if path != directory && is_index {
            std::fs::remove_dir_all(path).context("an old index cannot be removed")?;
        }
    }
    Ok(())
}

fn files(directory: &Path) -> anyhow::Result<(Index, Fields)> {
    let (schema, fields) = schema();
    // What is looked up lies anywhere: to read its surroundings too would fill memory.
    #[cfg(unix)]
    let mapped = MmapDirectory::open_with_madvice(directory, tantivy::directory::Advice::Random)?;
    #[cfg(not(unix))]
    let mapped = MmapDirectory::open(directory)?;
    let index = Index::open_or_create(mapped, schema)?;
    index.tokenizers().register(ANALYSER, TextAnalyzer::from(Folding));
    Ok((index, fields))
}

/// The sketches that are kept, and the digests of all subjects.
fn read_back(index: &Index, fields: Fields) -> anyhow::Result<(Sketches, BTreeMap<DocId, [u8; 32]>)> {
    let (mut sketches, mut known) = (Sketches::default(), BTreeMap::new());
    for segment in index.reader()?.searcher().segment_readers() {
        let store = segment.get_store_reader(1)?;
        for doc in store.iter::<TantivyDocument>(segment.alive_bitset()) {
            let doc = doc?;
            let kept = |field| doc.get_first(field).and_then(|value| value.as_bytes());
            let hash = |field| -> Option<[u8; 32]> { kept(field)?.try_into().ok() };
            if let Some((id, digest)) = hash(fields.id).zip(hash(fields.digest)) {
                let doc = DocId::ledger(EntryId(id));
                sketches.set(doc, kept(fields.sketch).and_then(Sketched::decode));
                known.insert(doc, digest);
            }
        }
    }
    Ok((sketches, known))
}

/// Removes files that were being written when a process ended.
fn remove_unfinished(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".tmp") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(n: u8, title: &str, body: &str) -> Indexed {
        Indexed {
            id: EntryId([n; 32]),
            digest: [n; 32],
            title: title.into(),
            body: body.into(),
            comments: String::new(),
            tags: vec!["أدوات".into()],
            kind: "idea".into(),
            status: if n == 9 { "retracted" } else { "open" }.into(),
            owner: "me".into(),
            language: "AR".into(),
            created_ms: u64::from(n),
        }
    }

    fn ids(hits: &[Hit]) -> Vec<u8> {
        hits.iter().map(|hit| hit.id.0[0]).collect()
    }

    #[test]
    fn what_a_kill_left_half_written_and_what_another_version_left_goes_when_the_index_is_opened() {
        let root = tempfile::tempdir().expect("a directory");
        drop(LedgerIndex::open(root.path()).expect("opens"));
        let half = root.path().join(DIRECTORY).join(".tmpXYZ");
        std::fs::write(&half, "half").expect("written");
        let old = root.path().join("index/ledger-1");
        std::fs::create_dir(&old).expect("a directory of an older version");
        drop(LedgerIndex::open(root.path()).expect("opens"));
        assert!(!half.exists() && !old.exists());
    }

    #[test]
    fn what_is_put_is_found_by_any_spelling_and_a_damaged_index_is_made_anew() {
        let root = tempfile::tempdir().expect("a directory");
        let subjects = [
            subject(1, "تخزين أدوات البناء على كل جهاز", "لا تُنزَّل الأدوات مرتين"),
            subject(2, "Cache the toolchains", "Compilers are downloaded twice a day, says the log."),
            subject(9, "Cache everything", ""),
        ];
        let (index, _) = LedgerIndex::open(root.path()).expect("opens");
        index.put(&subjects, &[]).expect("put");
        index.commit().expect("committed");
        let find =
            |index: &LedgerIndex, words: &str| ids(&index.search(words, &Filter::default(), 0, 10).expect("searched"));
        assert_eq!(find(&index, "ادواتُ الــبناء"), [1]);
        assert_eq!(find(&index, "CACHED toolchain"), [2]);
        assert_eq!(find(&index, "compiler \" (day:"), [2], "no query is an error");
        assert_eq!(find(&index, ""), [1, 2], "what was taken back is not shown");
        let narrow = |filter| ids(&index.search("", &filter, 0, 10).expect("searched"));
        assert_eq!(narrow(Filter { since_ms: Some(2), ..Filter::default() }), [2]);
        assert_eq!(narrow(Filter { tag: Some("ادوات".into()), until_ms: Some(1), ..Filter::default() }), [1]);
        assert_eq!(
            narrow(Filter { language: Some("ar".into()), all: true, since_ms: Some(9), ..Filter::default() }),
            [9]
        );
        let piece = index.piece("downloading", &subjects[1].body).expect("a piece");
        assert_eq!(&piece.text[piece.marks[0].clone()], "downloaded");
        let alike = |index: &LedgerIndex| index.candidates(&prints("Cache the tool chains", "")).first().copied();
        let two = DocId::ledger(EntryId([2; 32]));
        assert_eq!(alike(&index), Some(two));
        index.rest().expect("rests");
        drop(index);
        let (index, known) = LedgerIndex::open(root.path()).expect("opens again");
        assert_eq!((known.len(), alike(&index)), (3, Some(two)));
        index.put(&[], &[two]).expect("put");
        index.commit().expect("committed");
        assert_eq!((find(&index, "toolchain"), alike(&index)), (vec![], None));
        index.rest().expect("rests");
        drop(index);
        for file in std::fs::read_dir(root.path().join(DIRECTORY)).expect("files").flatten() {
            let path = file.path();
            if path.extension().is_some_and(|ending| ending == "idx" || ending == "term") {
                let bytes = std::fs::read(&path).expect("read");
                std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
            }
        }
        let (_, known) = LedgerIndex::open(root.path()).expect("made anew");
        assert!(known.is_empty());
    }
}
