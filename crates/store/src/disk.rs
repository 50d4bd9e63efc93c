//! The durable log: one redb table from revision to record, one for marks. Written by the writer thread only and read
//! once, at open. Knows nothing of watchers.

use bytes::{BufMut, Bytes};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::sync::Arc;

use crate::entry::{Entry, Event, EventKind};
use crate::error::OpenError;
use crate::seal::Seals;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");
const FORMAT: u64 = 1;
/// The index holds everything, so the database's own page cache only has to serve the append path.
pub(crate) const PAGE_CACHE_BYTES: usize = 8 << 20;

const DELETED: u8 = 1;
const SEALED: u8 = 2;
/// Records written anew in one transaction when their seals are out of date.
const RESEAL_BATCH: usize = 1024;
const FIXED_BYTES: usize = 1 + 8 + 8 + 4;

/// The open database.
#[derive(Debug)]
pub(crate) struct Disk {
    database: Database,
    seals: Seals,
}

/// A record read back.
pub(crate) struct Record {
    pub(crate) kind: EventKind,
    pub(crate) entry: Entry,
}

impl Disk {
    /// Prepares the tables and returns the database, its newest revision (as far as marks know) and compaction mark.
    pub(crate) fn open(database: Database, seals: Seals) -> Result<(Self, u64, u64), OpenError> {
        let transaction = database.begin_write()?;
        let (format, revision, compacted) = {
            transaction.open_table(LOG)?;
            let mut marks = transaction.open_table(MARKS)?;
            if marks.get("format")?.is_none() {
                marks.insert("format", FORMAT)?;
            }
            let mark = |name: &str| Ok::<_, redb::StorageError>(marks.get(name)?.map_or(0, |value| value.value()));
            (mark("format")?, mark("revision")?, mark("compacted")?)
        };
        transaction.commit()?;
        if format != FORMAT {
            return Err(OpenError::Format { found: format, expected: FORMAT });
        }
        Ok((Self { database, seals }, revision, compacted))
    }

    /// Calls `each` with every record in revision order. Records that are not sealed as they would be now are written anew.
    pub(crate) fn load(&self, mut each: impl FnMut(Record)) -> Result<(), OpenError> {
        let transaction = self.database.begin_read()?;
        let mut stale = Vec::new();
        for row in transaction.open_table(LOG)?.iter()? {
            let (revision, bytes) = row?;
            let revision = revision.value();
            let damaged = |what| OpenError::Damaged { revision, what };
            let (record, current) = decode(revision, bytes.value(), &self.seals).map_err(damaged)?;
            if !current {
                stale.push(revision);
            }
            each(record);
        }
        drop(transaction);
        stale.chunks(RESEAL_BATCH).try_for_each(|revisions| self.reseal(revisions))
    }

    /// Writes records anew in their places.
    fn reseal(&self, revisions: &[u64]) -> Result<(), OpenError> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            for &revision in revisions {
                let Some(bytes) = log.get(revision)?.map(|bytes| bytes.value().to_vec()) else { continue };
                let damaged = |what| OpenError::Damaged { revision, what };
                let (record, _) = decode(revision, &bytes, &self.seals).map_err(damaged)?;
                let mut fresh = Vec::new();
                encode(record.kind, &record.entry, &self.seals, &mut fresh);
                log.insert(revision, fresh.as_slice())?;
            }
        }
        tracing::info!(records = revisions.len(), "stored records were sealed anew");
        Ok(transaction.commit()?)
    }

    /// Makes the events durable before it returns.
    pub(crate) fn append(&self, events: &[Arc<Event>]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut record = Vec::new();
            for event in events {
                encode(event.kind, &event.entry, &self.seals, &mut record);
                log.insert(event.revision(), record.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Removes records and moves the marks.
    pub(crate) fn compact(&self, dropped: &[u64], revision: u64, compacted: u64) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            for revision in dropped {
                log.remove(revision)?;
            }
            let mut marks = transaction.open_table(MARKS)?;
            marks.insert("revision", revision)?;
            marks.insert("compacted", compacted)?;
        }
        Ok(transaction.commit()?)
    }
}

/// `flags:u8 created:u64 version:u64 key_length:u32 key value`, integers little-endian.
fn encode(kind: EventKind, entry: &Entry, seals: &Seals, record: &mut Vec<u8>) {
    record.clear();
    record.put_u8(if kind == EventKind::Delete { DELETED } else { 0 });
    record.put_u64_le(entry.create_revision);
    record.put_u64_le(entry.version);
    record.put_u32_le(u32::try_from(entry.key.len()).expect("the writer refuses keys longer than a kilobyte"));
    record.put_slice(entry.key.as_bytes());
    if seals.seal(&entry.key, entry.mod_revision, &entry.value, record) {
        record[0] |= SEALED;
    } else {
        record.put_slice(&entry.value);
    }
}

/// The record, and whether it is as it would be written now.
fn decode(revision: u64, record: &[u8], seals: &Seals) -> Result<(Record, bool), &'static str> {
    let (fixed, rest) = record.split_at_checked(FIXED_BYTES).ok_or("header")?;
    let kind = match fixed[0] & !SEALED {
        0 => EventKind::Put,
        DELETED => EventKind::Delete,
        _ => return Err("flags"),
    };
    let number = |at: usize| fixed[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| "header");
    let key_bytes = fixed[17..21].try_into().map(u32::from_le_bytes).map_err(|_| "header")?;
    let (key, value) = rest.split_at_checked(key_bytes as usize).ok_or("key length")?;
    let key = std::str::from_utf8(key).map_err(|_| "key")?;
    let (value, current) = seals.open(key, revision, value, fixed[0] & SEALED != 0)?;
    let entry = Entry::new(key.into(), Bytes::from(value), number(1)?, revision, number(9)?);
    Ok((Record { kind, entry }, current))
}
