//! Reading the journal while it is written, from where one left off.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_proto::v1::GenerationRecord;
use tidegate_proto::v1::journal_entry::Entry;

use super::Progress;
use super::segment::{self, Item, Position, SegmentReader};

/// A reader of records.
pub(crate) struct Tail {
    directory: PathBuf,
    name: &'static str,
    progress: Arc<Progress>,
    reader: Option<SegmentReader>,
    at: Position,
    /// Segments that were gone before they were read.
    pub(crate) missed: u64,
}

/// What a look found.
#[derive(Debug)]
pub(crate) enum Tailed {
    /// A record; everything up to the position was read.
    Record(Box<GenerationRecord>, Position),
    /// Nothing new.
    Nothing,
}

impl Tail {
    /// Reads on from `from`; a position before the first segment means everything that is still there.
    pub(crate) fn new(directory: PathBuf, name: &'static str, from: Position, progress: Arc<Progress>) -> Self {
        progress.reader_at(name, from.segment);
        Self { directory, name, progress, reader: None, at: from, missed: 0 }
    }

    /// The next record, if it is written already.
    pub(crate) fn next(&mut self) -> io::Result<Tailed> {
        loop {
            let written = self.progress.written();
            if self.reader.is_none() && !self.open(written)? {
                return Ok(Tailed::Nothing);
            }
            let Some(reader) = &mut self.reader else { return Ok(Tailed::Nothing) };
            if reader.position.segment >= written.segment && reader.position.offset >= written.offset {
                return Ok(Tailed::Nothing);
            }
            let item = reader.next()?;
            self.at = reader.position;
            match item {
                Item::Entry(Entry::Ended(record)) => return Ok(Tailed::Record(Box::new(record), self.at)),
                Item::Entry(_) | Item::Foreign => {}
                // The rest of a finished segment is done with, also when it is damaged, which the start has reported.
                Item::End | Item::Torn if self.at.segment < written.segment => {
                    self.at = Position { segment: self.at.segment + 1, offset: 0 };
                    self.reader = None;
                }
                Item::End | Item::Torn => {
                    // The newest segment is read up to what is known to be whole; to come here means a file that lies.
                    return Ok(Tailed::Nothing);
                }
            }
        }
    }

    /// Everything before this is done with for good.
    pub(crate) fn done_until(&self, position: Position) {
        self.progress.reader_at(self.name, position.segment);
    }

    /// Opens the segment to read, or the oldest one that is left after it.
    fn open(&mut self, written: Position) -> io::Result<bool> {
        let numbers = segment::numbers(&self.directory)?;
        let Some(number) = numbers.iter().copied().find(|number| *number >= self.at.segment && *number <= written.segment) else {
            return Ok(false);
        };
        if number != self.at.segment {
            let first = self.at.segment.max(1);
            self.missed += number.saturating_sub(first).min(if self.at.segment == 0 { 0 } else { u64::MAX });
            self.at = Position { segment: number, offset: 0 };
        }
        match SegmentReader::open(&self.directory, self.at) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) if error.kind() == io::ErrorKind::InvalidData && number < written.segment => {
                self.at = Position { segment: number + 1, offset: 0 };
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}
