//! The index of the ledger: full text, filters, and what finds entries that are alike. It is made from the documents, and made
//! anew when its files are missing or damaged.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use crdt::ids::EntryId;
use crdt::ledger::Print;
use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::{AllQuery, BooleanQuery, BoostQuery, Occur, Query, QueryParser, RangeQuery, TermQuery};
use tantivy::schema::{
    Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TantivyDocument, TextFieldIndexing, TextOptions, Value,
};
use tantivy::snippet::SnippetGenerator;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, Term};

use super::analyser::Folding;

/// Directory of the index below the node's; another layout has another name.
const DIRECTORY: &str = "index/ledger-2";
const ANALYSER: &str = "folding";
/// Memory of a writer, in bytes: the least that it takes. It is there only while something is written.
const WRITER_BYTES: usize = 15_000_000;
/// Subjects of a piece of the index up to which it is merged with others. Each subject has dozens of words that no other has (its
/// bands), and to sort them again costs more than to look into a few pieces more.
const MERGED_MAX: usize = 10_000;
/// Entries that are compared with a new one, the most promising first.
const CANDIDATES_MAX: usize = 64;
/// How much more a word counts in a title than elsewhere.
const TITLE_BOOST: f32 = 3.0;
const SNIPPET_CHARS: usize = 160;

/// What is indexed of a subject.
#[derive(Debug, Clone)]
pub(crate) struct Indexed {
    pub(crate) id: EntryId,
    /// Changes with the subject's fold.
    pub(crate) digest: String,
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
    id: Field,
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
    exact: Field,
    band: Field,
}

/// The index and its files. Who reads never waits for who writes.
pub(crate) struct LedgerIndex {
    index: Index,
    reader: IndexReader,
    writer: Mutex<Option<IndexWriter>>,
    fields: Fields,
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing =
        TextFieldIndexing::default().set_tokenizer(ANALYSER).set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let text = TextOptions::default().set_indexing_options(indexing);
    let fields = Fields {
        id: builder.add_text_field("id", STRING | STORED),
        digest: builder.add_text_field("digest", STORED),
        title: builder.add_text_field("title", text.clone()),
        body: builder.add_text_field("body", text.clone()),
        comments: builder.add_text_field("comments", text),
        tag: builder.add_text_field("tag", STRING),
        kind: builder.add_text_field("kind", STRING),
        status: builder.add_text_field("status", STRING),
        owner: builder.add_text_field("owner", STRING),
        language: builder.add_text_field("language", STRING),
        created: builder.add_u64_field("created", INDEXED),
        exact: builder.add_text_field("exact", STRING),
        band: builder.add_u64_field("band", INDEXED),
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
    /// Opens the index below a node's directory. Files that do not open are removed: what is in them is in the documents.
    ///
    /// # Errors
    /// What keeps it from being made anew.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let directory = data_dir.join(DIRECTORY);
        match Self::open_at(&directory) {
            Ok(index) => Ok(index),
            Err(error) => {
                if directory.exists() {
                    tracing::warn!(%error, "the index of the ledger does not open and is made anew");
                    std::fs::remove_dir_all(&directory).context("the old index cannot be removed")?;
                }
                Self::open_at(&directory)
            }
        }
    }

    fn open_at(directory: &PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        remove_unfinished(directory)?;
        let (schema, fields) = schema();
        let index = Index::open_or_create(MmapDirectory::open(directory)?, schema)?;
        index.tokenizers().register(ANALYSER, TextAnalyzer::from(Folding));
        let damaged = index.validate_checksum()?;
        anyhow::ensure!(damaged.is_empty(), "{} of its files are damaged", damaged.len());
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { index, reader, writer: Mutex::default(), fields })
    }

    /// The subjects that are in it, each with the digest that it had.
    pub(crate) fn known(&self) -> anyhow::Result<BTreeMap<EntryId, String>> {
        let searcher = self.reader.searcher();
        let mut known = BTreeMap::new();
        for segment in searcher.segment_readers() {
            let store = segment.get_store_reader(8)?;
            for doc in store.iter::<TantivyDocument>(segment.alive_bitset()) {
                let doc = doc?;
                let text = |field| doc.get_first(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
                if let Ok(id) = text(self.fields.id).parse() {
                    known.insert(id, text(self.fields.digest));
                }
            }
        }
        Ok(known)
    }

    /// Replaces subjects, and leaves out those that are gone; found by searches from [`LedgerIndex::commit`] on.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub(crate) fn put(&self, subjects: &[Indexed], gone: &[EntryId]) -> anyhow::Result<()> {
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
        let fields = self.fields;
        for id in gone.iter().chain(subjects.iter().map(|subject| &subject.id)) {
            writer.delete_term(Term::from_field_text(fields.id, &id.to_string()));
        }
        for subject in subjects {
            let mut doc = TantivyDocument::default();
            for (field, text) in [
                (fields.id, &subject.id.to_string()),
                (fields.digest, &subject.digest),
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
            doc.add_u64(fields.created, subject.created_ms);
            for print in prints(&subject.title, &subject.body) {
                doc.add_text(fields.exact, exact(&print));
                print.bands().into_iter().for_each(|band| doc.add_u64(fields.band, band));
            }
            writer.add_document(doc)?;
        }
        Ok(())
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
    pub(crate) fn candidates(&self, prints: &[Print]) -> anyhow::Result<Vec<EntryId>> {
        let mut parts: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for print in prints {
            let term = Term::from_field_text(self.fields.exact, &exact(print));
            let same = BoostQuery::new(Box::new(TermQuery::new(term, IndexRecordOption::Basic)), 100.0);
            parts.push((Occur::Should, Box::new(same)));
            parts.extend(print.bands().into_iter().map(|band| {
                let term = Term::from_field_u64(self.fields.band, band);
                let query: Box<dyn Query> = Box::new(TermQuery::new(term, IndexRecordOption::Basic));
                (Occur::Should, query)
            }));
        }
        let searcher = self.reader.searcher();
        let found =
            searcher.search(&BooleanQuery::new(parts), &TopDocs::with_limit(CANDIDATES_MAX).order_by_score())?;
        Ok(self.hits(&searcher, found)?.into_iter().map(|hit| hit.id).collect())
    }

    fn hits(&self, searcher: &Searcher, found: Vec<(f32, tantivy::DocAddress)>) -> anyhow::Result<Vec<Hit>> {
        let mut hits = Vec::with_capacity(found.len());
        for (score, address) in found {
            let doc: TantivyDocument = searcher.doc(address)?;
            let id = doc.get_first(self.fields.id).and_then(|value| value.as_str()).and_then(|id| id.parse().ok());
            hits.extend(id.map(|id| Hit { id, score }));
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

fn exact(print: &Print) -> String {
    data_encoding::HEXLOWER.encode(&print.exact())
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
            digest: format!("{n}"),
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
    fn what_a_kill_left_half_written_goes_when_the_index_is_opened() {
        let root = tempfile::tempdir().expect("a directory");
        drop(LedgerIndex::open(root.path()).expect("opens"));
        let half = root.path().join(DIRECTORY).join(".tmpXYZ");
        std::fs::write(&half, "half").expect("written");
        drop(LedgerIndex::open(root.path()).expect("opens"));
        assert!(!half.exists());
    }

    #[test]
    fn what_is_put_is_found_by_any_spelling_and_a_damaged_index_is_made_anew() {
        let root = tempfile::tempdir().expect("a directory");
        let subjects = [
            subject(1, "تخزين أدوات البناء على كل جهاز", "لا تُنزَّل الأدوات مرتين"),
            subject(2, "Cache the toolchains", "Compilers are downloaded twice a day, says the log."),
            subject(9, "Cache everything", ""),
        ];
        let index = LedgerIndex::open(root.path()).expect("opens");
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
        let alike = index.candidates(&prints("Cache the tool chains", "")).expect("looked for");
        assert_eq!(alike.first(), Some(&EntryId([2; 32])));
        index.rest().expect("rests");
        drop(index);
        for file in std::fs::read_dir(root.path().join(DIRECTORY)).expect("files").flatten() {
            let path = file.path();
            if path.extension().is_some_and(|ending| ending == "idx" || ending == "term") {
                let bytes = std::fs::read(&path).expect("read");
                std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
            }
        }
        let index = LedgerIndex::open(root.path()).expect("made anew");
        assert!(index.known().expect("read").is_empty());
    }
}
