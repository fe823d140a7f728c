//! The log in a redb file: which tables there are, and how a batch of changes becomes one transaction.
//!
//! Commits are two-phase. The one-phase commit that redb does by default falls back to the commit before when the newest one does not
//! verify, and so takes a flipped bit for a torn write: an acknowledged entry would vanish without a word. Two flushes for each group
//! commit are the price; at the few dozen entries a second of a control plane nobody notices.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, ReadableDatabase as _, ReadableTable, StorageBackend, TableDefinition};
use tidegate_proto::v1;

use super::record::{self, corrupt};
use crate::message::{Message, weight};
use crate::types::{Entry, LogId, Vote};

/// One change of what is on disk.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The vote of this node.
    Vote(Vote),
    /// Entries behind the last.
    Append(Vec<Entry>),
    /// Removes all entries behind this index, or all.
    TruncateAfter(Option<u64>),
    /// Removes all entries up to this one.
    Purge(LogId),
    /// How far the log is known to be committed.
    Committed(Option<LogId>),
    /// Who this node is.
    Identity(v1::RaftHello),
}

/// What was found on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The end of the log, as much as the tail cache takes.
    pub(crate) tail: Vec<Entry>,
    pub(crate) identity: Option<v1::RaftHello>,
}

/// The open file.
pub(crate) struct LogDatabase {
    database: Database,
}

impl LogDatabase {
    /// Opens or creates the log and checks every page and record in it. `tail_entries` and `tail_bytes` bound what is kept for the cache.
    pub(crate) fn open(backend: impl StorageBackend, tail_entries: usize, tail_bytes: usize) -> io::Result<(Self, Found)> {
        // The library answers most damage with an error and some with a panic; for us both are a file that is not to be used.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = Database::builder()
                .set_cache_size(CACHE)
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
                .map_err(|error| io_error(error.into()))?;
            let this = Self { database };
            this.create_tables()?;
            let found = this.find(tail_entries, tail_bytes)?;
            Ok((this, found))
        }));
        opened.unwrap_or_else(|_| Err(corrupt("a file that the database cannot make sense of")))
    }

    /// Makes the changes durable, all or none.
    pub(crate) fn commit(&self, changes: &[Change]) -> io::Result<()> {
        self.try_commit(changes).map_err(io_error)
    }

    /// The entries of a range of indices that are on disk, in order, up to about `bytes`; at least one when there is any.
    pub(crate) fn read(&self, range: Range<u64>, bytes: usize) -> io::Result<Vec<Entry>> {
        let transaction = self.database.begin_read().map_err(|error| io_error(error.into()))?;
        let table = transaction.open_table(LOG).map_err(|error| io_error(error.into()))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut taken = 0;
        for item in table.range(range).map_err(|error| io_error(error.into()))? {
            let (index, record) = item.map_err(|error| io_error(error.into()))?;
            let entry = open_entry(index.value(), record.value())?;
            taken += weight(&entry);
            if taken > bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn create_tables(&self) -> io::Result<()> {
        let absent = {
            let transaction = self.database.begin_read().map_err(|error| io_error(error.into()))?;
            match transaction.open_table(META) {
                Ok(_) => false,
                Err(redb::TableError::TableDoesNotExist(_)) => true,
                Err(error) => return Err(io_error(error.into())),
            }
        };
        if absent { self.commit(&[]) } else { Ok(()) }
    }

    fn try_commit(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        {
            let mut log = transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            for change in changes {
                match change {
                    Change::Vote(vote) => put(&mut meta, VOTE, &vote.to_proto())?,
                    Change::Append(entries) => {
                        for entry in entries {
                            let index = entry.log_id.index;
                            log.insert(index, record::seal(&index.to_be_bytes(), &entry.to_proto()).as_slice())?;
                        }
                    }
                    Change::TruncateAfter(last) => {
                        let from = last.map_or(0, |last| last.saturating_add(1));
                        // From the end, so that not even a half-done removal could leave a hole.
                        loop {
                            let last = log.last()?.map(|(index, _)| index.value());
                            let Some(index) = last.filter(|index| *index >= from) else {
                                break;
                            };
                            log.remove(index)?;
                        }
                    }
                    Change::Purge(upto) => {
                        put(&mut meta, PURGED, &upto.to_proto())?;
                        log.retain_in(..=upto.index, |_, _| false)?;
                    }
                    Change::Committed(Some(committed)) => put(&mut meta, COMMITTED, &committed.to_proto())?,
                    Change::Committed(None) => {
                        meta.remove(COMMITTED)?;
                    }
                    Change::Identity(identity) => put(&mut meta, IDENTITY, identity)?,
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn find(&self, tail_entries: usize, tail_bytes: usize) -> io::Result<Found> {
        let transaction = self.database.begin_read().map_err(|error| io_error(error.into()))?;
        let meta = transaction.open_table(META).map_err(|error| io_error(error.into()))?;
        let mut found = Found {
            vote: get::<v1::RaftVote>(&meta, VOTE)?.map(decode).transpose()?,
            committed: get::<v1::RaftLogId>(&meta, COMMITTED)?.map(decode).transpose()?,
            purged: get::<v1::RaftLogId>(&meta, PURGED)?.map(decode).transpose()?,
            tail: Vec::new(),
            identity: get(&meta, IDENTITY)?,
        };
        let log = transaction.open_table(LOG).map_err(|error| io_error(error.into()))?;
        let mut next = found.purged.map_or(0, |purged: LogId| purged.index + 1);
        let mut tail = std::collections::VecDeque::new();
        let mut bytes = 0;
        let mut last = found.purged;
        for item in log.iter().map_err(|error| io_error(error.into()))? {
            let (index, record) = item.map_err(|error| io_error(error.into()))?;
            let entry = open_entry(index.value(), record.value())?;
            if index.value() != next {
                return Err(corrupt(format!("index {} where {next} is due", index.value())));
            }
            if last.is_some_and(|last| last.leader_id > entry.log_id.leader_id) {
                return Err(corrupt(format!("term {} behind a later one at index {next}", entry.log_id.leader_id.term)));
            }
            last = Some(entry.log_id);
            next += 1;
            bytes += weight(&entry);
            tail.push_back(entry);
            while tail.len() > tail_entries || bytes > tail_bytes {
                bytes -= tail.pop_front().as_ref().map_or(0, weight);
            }
        }
        // Written before the snapshot that it speaks of was in place. It is a hint, so the end of the log will do.
        if found.committed.map(|committed| committed.index) > last.map(|last| last.index) {
            found.committed = last;
        }
        found.tail = tail.into();
        Ok(found)
    }
}

fn put(table: &mut redb::Table<'_, &str, &[u8]>, key: &str, message: &impl prost::Message) -> Result<(), redb::Error> {
    table.insert(key, record::seal(key.as_bytes(), message).as_slice())?;
    Ok(())
}

fn get<M: prost::Message + Default>(table: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> io::Result<Option<M>> {
    let value = table.get(key).map_err(|error| io_error(error.into()))?;
    value.map(|value| record::open(key.as_bytes(), value.value())).transpose()
}

fn decode<T: Message>(proto: T::Proto) -> io::Result<T> {
    T::from_proto(proto).map_err(corrupt)
}

fn open_entry(index: u64, record: &[u8]) -> io::Result<Entry> {
    let entry: Entry = decode(record::open::<v1::RaftEntry>(&index.to_be_bytes(), record)?)?;
    if entry.log_id.index != index {
        return Err(corrupt(format!("entry {} under index {index}", entry.log_id.index)));
    }
    Ok(entry)
}

/// The database's error as one of I/O, with the cause's kind where there is one.
fn io_error(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        error @ redb::Error::Corrupted(_) => corrupt(error),
        error => io::Error::other(error),
    }
}

const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("log");
const META: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "last_purged";
const IDENTITY: &str = "identity";
/// What is read from the file is either small or read once.
const CACHE: usize = 8 << 20;
