//! The shelf on redb: rows are seen by reads at once and made durable in groups.
//!
//! One thread owns it. [`RedbShelf::commit`] writes everything that was put since the last commit in one transaction.

mod stamp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use crdt::shelf::{Shelf, Table, Write};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};
use stamp::Stamp;

/// Version of the tables' contents. A store with a higher one is left alone.
const SCHEMA: u64 = 1;
const SCHEMA_ROW: &[u8] = b"schema";
const CACHE_BYTES: usize = 8 * 1024 * 1024;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Bundles => "bundles",
        Table::Registers => "registers",
        Table::Notes => "notes",
        Table::Feeds => "feeds",
        Table::Buckets => "buckets",
        Table::Jobs => "jobs",
        Table::OpenJobs => "open_jobs",
        Table::JobsByTime => "jobs_by_time",
        Table::Ledger => "ledger",
        Table::LedgerByTime => "ledger_by_time",
        Table::LedgerLinks => "ledger_links",
        Table::Forks => "forks",
        Table::Votes => "votes",
        Table::Peers => "peers",
        Table::Meta => "meta",
    })
}

/// An open store and its newest state.
struct Open {
    db: Database,
    read: ReadTransaction,
}

/// A shelf in a redb file.
pub struct RedbShelf {
    path: PathBuf,
    /// `None` after a write failed, until the next commit: redb goes on only after it was opened anew.
    open: Option<Open>,
    fresh: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    stamp: Stamp,
}

impl std::fmt::Debug for RedbShelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbShelf").field("fresh", &self.fresh.len()).finish_non_exhaustive()
    }
}

/// A shelf and what had to be done to open it.
#[derive(Debug)]
pub struct OpenedShelf {
    /// The shelf.
    pub shelf: RedbShelf,
    /// Where a damaged store was moved.
    pub moved_to: Option<PathBuf>,
    /// Something else than this program wrote the file since its last commit: it is a copy, came from a backup, or was altered.
    /// The next commit has to note what follows from that; until then each opening says so again.
    pub is_altered: bool,
}

impl RedbShelf {
    /// Opens the store at `path`, which is made when it is missing. A damaged one is moved aside, never deleted.
    ///
    /// # Errors
    /// The file cannot be made, or its schema is newer than this binary's.
    pub fn open(path: &Path) -> anyhow::Result<OpenedShelf> {
        let (stamp, is_altered) = Stamp::of(path);
        match Self::open_at(path, stamp) {
            Ok(shelf) => Ok(OpenedShelf { shelf, moved_to: None, is_altered }),
            Err(Unopened::Refused(error)) => Err(error),
            Err(Unopened::Damaged(reason)) => {
                let stamp =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".damaged-{stamp}"));
                let aside = PathBuf::from(name);
                tracing::error!(%reason, moved_to = %aside.display(), "the store is damaged and is begun anew");
                std::fs::rename(path, &aside)
                    .with_context(|| format!("moving the damaged store {} aside", path.display()))?;
                let (stamp, is_altered) = Stamp::of(path);
                match Self::open_at(path, stamp) {
                    Ok(shelf) => Ok(OpenedShelf { shelf, moved_to: Some(aside), is_altered }),
                    Err(Unopened::Refused(error)) => Err(error),
                    Err(Unopened::Damaged(reason)) => anyhow::bail!("the store cannot be made: {reason}"),
                }
            }
        }
    }

    fn open_at(path: &Path, mut stamp: Stamp) -> Result<Self, Unopened> {
        stamp.begin();
        let open = Self::open_file(path)?;
        stamp.opened();
        Ok(Self { path: path.to_owned(), open: Some(open), fresh: BTreeMap::new(), stamp })
    }

    fn open_file(path: &Path) -> Result<Open, Unopened> {
        // A file that was altered from outside is found out now, and not by a panic when its page is read.
        let opened = Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
        let db = match opened {
            Ok(db) => db,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(Unopened::Refused(anyhow::anyhow!("another process has {} open", path.display())));
            }
            Err(error) => return Err(Unopened::by(path, error.into())),
        };
        let known = Self::schema(&db).map_err(|error| Unopened::by(path, error))?;
        if known > SCHEMA {
            return Err(Unopened::Refused(anyhow::anyhow!(
                "{} was written by a newer v6 (schema {known}, this one knows {SCHEMA}): start that version again",
                path.display()
            )));
        }
        let read = db.begin_read().map_err(|error| Unopened::by(path, error.into()))?;
        Ok(Open { db, read })
    }

    /// The schema's version. Tables that are missing are made; else nothing is written, for the disk may be full.
    fn schema(db: &Database) -> Result<u64, redb::Error> {
        if let Some(known) = Self::known_schema(db)? {
            return Ok(known);
        }
        let mut write = db.begin_write()?;
        write.set_quick_repair(true);
        for table in Table::ALL {
            write.open_table(definition(table))?;
        }
        {
            let mut meta = write.open_table(definition(Table::Meta))?;
            if meta.get(SCHEMA_ROW)?.is_none() {
                meta.insert(SCHEMA_ROW, &SCHEMA.to_be_bytes()[..])?;
            }
        }
        write.commit()?;
        Ok(Self::known_schema(db)?.unwrap_or(SCHEMA))
    }

    /// The schema's version, once all tables are there.
    fn known_schema(db: &Database) -> Result<Option<u64>, redb::Error> {
        let read = db.begin_read()?;
        for table in Table::ALL {
            match read.open_table(definition(table)) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                other => drop(other?),
            }
        }
        let meta = read.open_table(definition(Table::Meta))?;
        let row = meta.get(SCHEMA_ROW)?;
        Ok(row.and_then(|row| row.value().try_into().ok()).map(u64::from_be_bytes))
    }

    fn read(&self) -> &ReadTransaction {
        &self.open.as_ref().expect("nothing is read between a commit that failed and the next").read
    }

    /// Whether anything waits for [`RedbShelf::commit`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Makes everything durable that was put. On an error nothing is lost: the next call tries again, and until one succeeds
    /// nothing can be read.
    ///
    /// # Errors
    /// The store cannot be written (a full disk, say).
    ///
    /// # Panics
    /// The store turns out to be damaged when it is opened anew: as with a read that fails, the node has to end.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        if self.fresh.is_empty() && self.open.is_some() {
            return Ok(());
        }
        self.stamp.begin();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match Self::open_file(&self.path) {
                Ok(open) => open,
                Err(Unopened::Refused(error)) => return Err(error),
                Err(Unopened::Damaged(reason)) => panic!("the store is damaged: {reason}"),
            },
        };
        Self::write(&mut open, &self.fresh)?;
        self.open = Some(open);
        self.stamp.settle();
        self.fresh.clear();
        Ok(())
    }

    /// All rows that are durable.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot(self.open.as_ref().context("the store cannot be written")?.db.begin_read()?))
    }

    fn write(open: &mut Open, fresh: &BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>) -> anyhow::Result<()> {
        let mut write = open.db.begin_write()?;
        write.set_quick_repair(true);
        for table in Table::ALL {
            let rows = fresh.range((table, Vec::new())..).take_while(|((t, _), _)| *t == table);
            let mut rows = rows.peekable();
            if rows.peek().is_none() {
                continue;
            }
            let mut table = write.open_table(definition(table))?;
            for ((_, key), value) in rows {
                match value {
                    Some(value) => table.insert(&key[..], &value[..])?,
                    None => table.remove(&key[..])?,
                };
            }
        }
        write.commit()?;
        open.read = open.db.begin_read()?;
        Ok(())
    }

    fn stored(&self, table: Table, from: &[u8], prefix: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let open = self.read().open_table(definition(table)).expect("made at opening");
        let rows = open.range::<&[u8]>(from..).expect("the store is readable");
        rows.map(|row| row.expect("the store is readable"))
            .take_while(|(key, _)| key.value().starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
            .collect()
    }
}

impl Drop for RedbShelf {
    /// redb writes once more when it closes the file.
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.stamp.begin();
            drop(open);
            self.stamp.opened();
        }
    }
}

/// All rows as they were at one moment.
pub struct Snapshot(ReadTransaction);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    /// The rows of a table, in the order of their keys.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn rows(&self, table: Table) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(Vec<u8>, Vec<u8>)>>> {
        let rows = self.0.open_table(definition(table))?.range::<&[u8]>(..)?;
        Ok(rows.map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(Into::into)))
    }
}

enum Unopened {
    Refused(anyhow::Error),
    Damaged(String),
}

impl Unopened {
    /// A disk that is full or cannot be read says nothing of the store on it.
    fn by(path: &Path, error: redb::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        let context = format!("opening {}", path.display());
        if let redb::Error::Io(error) = error {
            if matches!(error.kind(), InvalidData | UnexpectedEof) {
                return Self::Damaged(error.to_string());
            }
            return Self::Refused(anyhow::Error::new(error).context(context));
        }
        if matches!(error, redb::Error::PreviousIo) {
            return Self::Refused(anyhow::Error::new(error).context(context));
        }
        Self::Damaged(error.to_string())
    }
}

impl Shelf for RedbShelf {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        if let Some(fresh) = self.fresh.get(&(table, key.to_vec())) {
            return fresh.clone();
        }
        let open = self.read().open_table(definition(table)).expect("made at opening");
        open.get(key).expect("the store is readable").map(|row| row.value().to_vec())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fresh: BTreeMap<&[u8], Option<&[u8]>> = self
            .fresh
            .range((table, from.to_vec())..)
            .take_while(|((t, key), _)| *t == table && key.starts_with(prefix))
            .map(|((_, key), value)| (key.as_slice(), value.as_deref()))
            .collect();
        let mut rows = self.stored(table, from, prefix, limit.saturating_add(fresh.len()));
        let cut = rows.len() == limit.saturating_add(fresh.len());
        let last = rows.last().map(|(key, _)| key.clone());
        rows.retain(|(key, _)| !fresh.contains_key(key.as_slice()));
        for (key, value) in fresh {
            let beyond = cut && last.as_deref().is_some_and(|last| key > last);
            if let Some(value) = value.filter(|_| !beyond) {
                rows.push((key.to_vec(), value.to_vec()));
            }
        }
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        rows.truncate(limit);
        rows
    }

    fn scan_back(&self, table: Table, before: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let end = if before.is_empty() { vec![0xff; 64] } else { before.to_vec() };
        let fresh: Vec<(&Vec<u8>, &Option<Vec<u8>>)> =
            self.fresh.range((table, Vec::new())..(table, end.clone())).map(|((_, key), value)| (key, value)).collect();
        let open = self.read().open_table(definition(table)).expect("made at opening");
        let range = open.range::<&[u8]>(..&end[..]).expect("the store is readable").rev();
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = range
            .take(limit + fresh.len())
            .map(|row| row.expect("the store is readable"))
            .map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
            .collect();
        for (key, value) in fresh {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        rows.into_iter().rev().take(limit).collect()
    }

    fn put(&mut self, (table, key, value): Write) {
        self.fresh.insert((table, key), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_found_when_the_store_is_opened_or_was_in_nobodys_page() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("v6.redb");
        let mut shelf = RedbShelf::open(&path).expect("opens").shelf;
        for at in 0u32..2_000 {
            shelf.put((Table::Jobs, at.to_be_bytes().to_vec(), Some(vec![7; 100])));
        }
        shelf.commit().expect("commits");
        drop(shelf);
        let whole = std::fs::read(&path).expect("is there");
        let (mut found, step) = (0, whole.len() / 60 + 7);
        for at in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(&path, &bytes).expect("written");
            let opened = RedbShelf::open(&path).expect("opens");
            if opened.moved_to.is_some() {
                found += 1;
            } else {
                let rows = opened.shelf.all(Table::Jobs, &[]);
                assert!(rows.len() == 2_000 && rows.iter().all(|(_, row)| *row == [7; 100]), "a bit of byte {at}");
            }
        }
        assert!(found > 5, "{found} of the bits were in use");
    }

    #[test]
    fn rows_are_seen_before_and_after_the_commit_and_after_reopening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("v6.redb");
        let mut shelf = RedbShelf::open(&path).expect("opens").shelf;
        for at in 0u8..10 {
            shelf.put((Table::Jobs, vec![1, at], Some(vec![at])));
        }
        assert_eq!(shelf.scan(Table::Jobs, &[1], &[1, 3], 2), [(vec![1, 3], vec![3]), (vec![1, 4], vec![4])]);
        shelf.commit().expect("commits");
        shelf.put((Table::Jobs, vec![1, 4], None));
        assert_eq!(shelf.scan(Table::Jobs, &[1], &[1, 3], 2), [(vec![1, 3], vec![3]), (vec![1, 5], vec![5])]);
        assert_eq!(shelf.scan_back(Table::Jobs, &[1, 6], 2), [(vec![1, 5], vec![5]), (vec![1, 3], vec![3])]);
        shelf.commit().expect("commits");
        drop(shelf);
        let shelf = RedbShelf::open(&path).expect("opens again").shelf;
        assert_eq!(shelf.all(Table::Jobs, &[1]).len(), 9);
    }

    #[test]
    fn a_store_that_came_from_a_backup_is_told_from_one_that_was_killed() {
        use std::fs::copy;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, stamp) = (dir.path().join("v6.redb"), dir.path().join("v6.stamp"));
        let (old, old_stamp) = (dir.path().join("old"), dir.path().join("old.stamp"));
        let is_altered = || RedbShelf::open(&path).expect("opens").is_altered;
        let put = |shelf: &mut RedbShelf, at: u8| {
            shelf.put((Table::Jobs, vec![at], Some(vec![at])));
            shelf.commit().expect("commits");
        };
        let mut opened = RedbShelf::open(&path).expect("opens");
        assert!(!opened.is_altered, "a new one");
        put(&mut opened.shelf, 1);
        drop(opened);
        assert!(!is_altered() && !is_altered(), "closed in order");
        copy(&path, &old).and_then(|_| copy(&stamp, &old_stamp)).expect("copied");
        let mut opened = RedbShelf::open(&path).expect("opens");
        put(&mut opened.shelf, 2);
        // A process that is killed closes nothing.
        if let Some(open) = opened.shelf.open.take() {
            std::mem::forget(open);
        }
        std::mem::forget(opened);
        assert!(!Stamp::of(&path).1, "killed");
        Stamp::of(&path).0.begin();
        std::fs::File::options().append(true).open(&path).and_then(|f| f.set_len(1 << 20)).expect("grows");
        assert!(!Stamp::of(&path).1, "killed within a commit");
        // Written over in place: the same number, made at the same time.
        for (from, to) in [(&old, &path), (&old_stamp, &stamp)] {
            std::fs::write(to, std::fs::read(from).expect("is there")).expect("written over");
        }
        assert!(Stamp::of(&path).1, "written over in place");
        // As a whole directory that is put in the place of another: on some file systems with the same number.
        std::fs::remove_file(&path).and_then(|()| copy(&old, &path)).expect("copied");
        let opened = RedbShelf::open(&path).expect("opens");
        assert!(opened.is_altered, "a copy");
        drop(opened);
        let mut opened = RedbShelf::open(&path).expect("opens");
        assert!(opened.is_altered, "nothing was noted yet");
        put(&mut opened.shelf, 3);
        drop(opened);
        assert!(!is_altered(), "it was noted");
    }

    #[test]
    fn a_damaged_store_is_moved_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("v6.redb");
        std::fs::write(&path, vec![7; 8192]).expect("writes");
        let opened = RedbShelf::open(&path).expect("begins anew");
        assert!(opened.moved_to.is_some_and(|aside| aside.exists()));
    }
}
