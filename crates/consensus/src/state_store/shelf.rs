//! The snapshots of one node on disk: the newest, and the one before until the newest has been read back and found whole.

use std::io;

use bytes::Bytes;
use parking_lot::Mutex;

use super::files::Files;
use crate::snapshot::{self, Snapshot};
use crate::types::LogId;

/// The snapshots of one node.
pub(crate) struct Shelf {
    files: Box<dyn Files>,
    /// Building a snapshot and installing one may come together.
    putting: Mutex<()>,
}

impl Shelf {
    pub(crate) fn new(files: Box<dyn Files>) -> Self {
        Self { files, putting: Mutex::new(()) }
    }

    /// The newest snapshot, when there is one. A file that is not whole is an error, not a reason to take an older one: it was whole
    /// when it was put here, so the disk cannot be trusted.
    pub(crate) fn newest(&self) -> io::Result<Option<(Bytes, Snapshot)>> {
        let Some(name) = self.names()?.pop() else {
            return Ok(None);
        };
        let file = self.files.read(&name)?;
        let snapshot = Snapshot::decode(&file).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {error}")))?;
        Ok(Some((file, snapshot)))
    }

    /// Puts a snapshot on the shelf and then, once it was read back, takes off all but the newest.
    pub(crate) fn put(&self, last: Option<LogId>, file: &[u8]) -> io::Result<()> {
        let name = name(last);
        let _putting = self.putting.lock();
        self.files.write(&name, file)?;
        let back = self.files.read(&name)?;
        snapshot::verify(&back).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{name}, read back: {error}")))?;
        if back != file {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name}: what was read back is not what was written")));
        }
        let mut names = self.names()?;
        names.pop();
        names.iter().try_for_each(|older| self.files.remove(older))
    }

    /// Names in the order of what they cover.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.files.list()?;
        names.retain(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        names.sort();
        Ok(names)
    }
}

/// Index first, in so many digits that the order of names is that of indices.
fn name(last: Option<LogId>) -> String {
    match last {
        Some(last) => format!("{PREFIX}{:020}-{:020}-{:020}{SUFFIX}", last.index, last.leader_id.term, last.leader_id.node_id),
        None => format!("{PREFIX}{SUFFIX}"),
    }
}

const PREFIX: &str = "snapshot-";
const SUFFIX: &str = ".tgs";
