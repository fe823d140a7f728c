//! The file of sums: roll-ups and open requests as of a place in the journal, so that a start reads seconds of journal and not days.
//!
//! Written whole to a new file that then takes the place of the old one. A file that does not hold is not used, and everything that the
//! journal still has is read instead.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use prost::Message;
use tidegate_ledger::{Rollups, Row};
use tidegate_proto::v1::{Begun, Delivered, GenerationRecord, Holding, JournalPosition, RollupHead, RollupRow};

use super::frame::{self, Frame};
use super::segment::Position;

/// What a file of sums says.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) position: Position,
    pub(crate) rollups: Rollups,
    pub(crate) open: Vec<(Begun, Option<Delivered>)>,
    pub(crate) holding: Vec<Holding>,
    pub(crate) unsettled: Vec<GenerationRecord>,
}

/// Requests that are not done at the place of a file of sums.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// Begun and not ended.
    pub(crate) open: Vec<Begun>,
    /// What the open ones had delivered, where anything.
    pub(crate) delivered: Vec<Delivered>,
    /// What attempts of the open ones have reserved.
    pub(crate) holding: Vec<Holding>,
    /// Ended and not settled with the counting store.
    pub(crate) unsettled: Vec<GenerationRecord>,
}

/// The bytes of a file of sums.
pub(crate) fn encode(rollups: &Rollups, requests: Requests, position: Position, now_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + rollups.len() * 200);
    let head = RollupHead {
        format: FORMAT,
        position: Some(JournalPosition { segment: position.segment, offset: position.offset }),
        written_ms: now_ms,
        rows: rollups.len() as u64,
        open: requests.open,
        delivered: requests.delivered,
        unsettled: requests.unsettled,
        holding: requests.holding,
    };
    frame::append(&mut out, &head);
    for row in rollups.rows() {
        frame::append(&mut out, &RollupRow::from(&row));
    }
    out
}

/// Puts the bytes in place of the old file, safe against a crash at any moment.
pub(crate) fn replace(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, new) = (directory.join(NAME), directory.join(format!("{NAME}.new")));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()
}

/// Reads the file; `None` when there is none, or none that holds.
pub(crate) fn read(directory: &Path) -> io::Result<Option<Sums>> {
    let file = match File::open(directory.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut file = BufReader::with_capacity(64 * 1024, file);
    let mut next = || -> io::Result<Option<Vec<u8>>> {
        Ok(match frame::read(&mut file)? {
            Frame::Whole { payload, .. } => Some(payload),
            Frame::End | Frame::Torn => None,
        })
    };
    let Some(head) = next()?.and_then(|payload| RollupHead::decode(payload.as_slice()).ok()) else { return Ok(None) };
    if head.format != FORMAT {
        return Ok(None);
    }
    let mut rollups = Rollups::default();
    for _ in 0..head.rows {
        let Some(row) = next()?.and_then(|payload| RollupRow::decode(payload.as_slice()).ok()) else { return Ok(None) };
        rollups.merge(Row::from(row));
    }
    let position = head.position.unwrap_or_default();
    let mut delivered: HashMap<String, Delivered> = head.delivered.into_iter().map(|delivered| (delivered.id.clone(), delivered)).collect();
    let open = head.open.into_iter().map(|begun| {
        let delivered = delivered.remove(&begun.id);
        (begun, delivered)
    });
    Ok(Some(Sums {
        position: Position { segment: position.segment, offset: position.offset },
        rollups,
        open: open.collect(),
        holding: head.holding,
        unsettled: head.unsettled,
    }))
}

const NAME: &str = "sums.tgr";
/// Grows when an older reader would misread the file.
const FORMAT: u32 = 1;
