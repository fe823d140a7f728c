//! What to do when the disk fills up. Pure, but for [`Ballast`].
//!
//! A node whose disk is full cannot even start to make room, as that takes a snapshot first. So some space is set aside in a file of no
//! content, and given back when it is needed: see [`Space::judge`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Room {
    /// Enough.
    #[default]
    Plenty,
    /// Less than a twentieth of the disk: what is not essential should not be written.
    Low,
    /// Nearly none: proposals are refused until there is more.
    None,
}

/// What is known of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes that may still be written.
    pub(crate) free: u64,
    /// Bytes of the disk.
    pub(crate) total: u64,
}

impl Space {
    /// Asks the file system of a directory.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(directory)?;
        Ok(Self { free: stat.f_bavail.saturating_mul(stat.f_frsize), total: stat.f_blocks.saturating_mul(stat.f_frsize) })
    }

    /// How much room there is, beside a ballast that is worth `held` bytes now. `before` is the last answer: from `None` there is no way back
    /// before the ballast fits again twice, or the node would swing between the two.
    pub(crate) fn judge(self, before: Room, ballast: u64, held: u64) -> Room {
        let enough = if before == Room::None && held == 0 { ballast.saturating_mul(3) } else { ballast.min(LEAST) };
        if self.free < enough {
            Room::None
        } else if self.free < self.total / LOW_SHARE {
            Room::Low
        } else {
            Room::Plenty
        }
    }
}

/// The file that holds space for bad times.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    pub(crate) fn new(directory: &Path, bytes: u64) -> Self {
        Self { path: directory.join("ballast"), bytes }
    }

    /// Bytes that would be given back.
    pub(crate) fn held(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len().min(self.bytes))
    }

    /// Sets the space aside, when it is not and there is plenty. A disk that is too small for it is not an error.
    pub(crate) fn load(&self, space: Space) -> io::Result<()> {
        if self.bytes == 0 || self.held() == self.bytes || space.free < self.bytes.saturating_mul(3) {
            return Ok(());
        }
        let file = File::create(&self.path)?;
        // Blocks, not a hole: a hole holds nothing.
        let outcome = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes);
        if let Err(error) = outcome {
            drop(file);
            self.drop_it()?;
            // Some file systems cannot; such a node goes without.
            tracing::warn!(%error, "set aside space for bad times");
        }
        Ok(())
    }

    /// Gives the space back. True when there was any.
    pub(crate) fn drop_it(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Room for one more snapshot and for the log until it is purged.
const LEAST: u64 = 64 << 20;
const LOW_SHARE: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn the_answer_follows_the_free_space_and_does_not_swing() {
        let space = |free: u64| Space { free: free * MB, total: 10_000 * MB };
        let ballast = 64 * MB;
        let table = [
            (5_000, Room::Plenty, ballast, Room::Plenty),
            (400, Room::Plenty, ballast, Room::Low),
            (50, Room::Low, ballast, Room::None),
            // The ballast is gone and has given 64 MB: not enough to go on.
            (114, Room::None, 0, Room::None),
            (250, Room::None, 0, Room::Low),
            (600, Room::None, 0, Room::Plenty),
        ];
        for (free, before, held, expected) in table {
            assert_eq!(space(free).judge(before, ballast, held), expected, "{free} MB free after {before:?}");
        }
    }

    #[test]
    fn the_ballast_is_loaded_once_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(directory.path(), MB);
        ballast.load(Space { free: 2 * MB, total: 100 * MB }).unwrap();
        assert_eq!(ballast.held(), 0, "no room for it");
        ballast.load(Space { free: 50 * MB, total: 100 * MB }).unwrap();
        assert_eq!(ballast.held(), MB);
        assert!(ballast.drop_it().unwrap());
        assert!(!ballast.drop_it().unwrap());
        assert!(Space::of(directory.path()).unwrap().total > 0);
    }
}
