//! The files of a journal: numbered segments in one directory, which one process holds at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tidegate_proto::v1::JournalEntry;
use tidegate_proto::v1::journal_entry::Entry;

use super::frame::{self, Frame};

/// A place in a journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Number of the segment; 0 is before the first.
    pub(crate) segment: u64,
    /// Bytes into it, head included.
    pub(crate) offset: u64,
}

/// The directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if there is none, and locks it against other processes.
    pub(crate) fn lock(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("ledger directory {}: {error}", path.display()));
        std::fs::create_dir_all(path).map_err(named)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")).map_err(named)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(named(io::Error::new(io::ErrorKind::WouldBlock, "another edge uses it; give each edge a directory of its own")))
            }
            Err(TryLockError::Error(error)) => Err(named(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Numbers of the segments in a directory, in order.
pub(crate) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".tgj")?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Where a segment is.
pub(crate) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("journal-{number:010}.tgj"))
}

/// The id of a journal: made once, and the same for as long as its directory lives.
pub(crate) fn journal_id(directory: &Path) -> io::Result<String> {
    let path = directory.join("id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = format!("{:032x}", fastrand::u128(..));
    let new = directory.join("id.new");
    std::fs::write(&new, format!("{id}\n"))?;
    std::fs::rename(new, path)?;
    Ok(id)
}

/// A new segment with its head; refuses to overwrite one.
pub(crate) fn create(directory: &Path, number: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(path(directory, number))?;
    file.write_all(MAGIC)?;
    Ok(file)
}

/// Reads the entries of a segment one after the other.
pub(crate) struct SegmentReader {
    file: BufReader<File>,
    pub(crate) position: Position,
}

/// What is next in a segment.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time on the stack, taken apart at once: a box would be an allocation per entry")]
pub(crate) enum Item {
    /// An entry.
    Entry(Entry),
    /// An entry of a newer version, which is skipped.
    Foreign,
    /// The end of what is whole.
    End,
    /// The end of what is whole; after it is something that is no entry.
    Torn,
}

impl SegmentReader {
    /// Opens a segment at a place; `offset` 0 means its first entry.
    pub(crate) fn open(directory: &Path, position: Position) -> io::Result<Self> {
        let mut file = File::open(path(directory, position.segment))?;
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            let message = format!(
                "segment {} of the journal is damaged at its start or was written by another version of Tidegate: let that version read it, or move the journal's directory away",
                position.segment
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let offset = position.offset.max(HEAD);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file: BufReader::with_capacity(64 * 1024, file), position: Position { offset, ..position } })
    }

    pub(crate) fn next(&mut self) -> io::Result<Item> {
        match frame::read(&mut self.file)? {
            Frame::End => Ok(Item::End),
            Frame::Torn => Ok(Item::Torn),
            Frame::Whole { payload, size } => {
                self.position.offset += size;
                match JournalEntry::decode(payload.as_slice()) {
                    Ok(JournalEntry { entry: Some(entry) }) => Ok(Item::Entry(entry)),
                    // The checksum holds, so it was written like this.
                    Ok(JournalEntry { entry: None }) | Err(_) => Ok(Item::Foreign),
                }
            }
        }
    }
}

/// Stands at the start of each segment; the last byte is the version of the frames.
const MAGIC: &[u8; 8] = b"TGJRNL\0\x02";
/// Bytes before the first entry.
pub(crate) const HEAD: u64 = MAGIC.len() as u64;
