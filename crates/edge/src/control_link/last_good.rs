//! What an edge keeps over a restart, on disk.
//!
//! Three small files in a directory of the edge's own: the last good state in two generations, and the note of a trial (see
//! [`super::guard`]). Each is written under another name, synchronised, and renamed, so that a crash leaves the old one or the new one;
//! each ends with a BLAKE3 digest, so that a disk that lies is noticed and the older generation is used. Provider credentials in it are
//! sealed and keys are digests; the files are readable by their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use thiserror::Error;
use tidegate_proto::v1::{LastGood, Trial};

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Store {
    directory: PathBuf,
}

/// Why something could not be kept, or is not what was kept.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
}

impl Store {
    /// Makes the directory when it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(directory).map_err(|source| StoreError::Io { path: directory.to_owned(), source })?;
        restrict(directory, 0o700)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The newest state that can be read, and what is wrong with newer ones.
    pub(super) fn last_good(&self) -> (Option<LastGood>, Vec<StoreError>) {
        let mut problems = Vec::new();
        for name in [NEWEST, BEFORE] {
            match self.read(name) {
                Ok(Some(found)) => return (Some(found), problems),
                Ok(None) => {}
                Err(error) => problems.push(error),
            }
        }
        (None, problems)
    }

    /// Keeps a state; the one before stays as the second generation.
    pub(super) fn keep(&self, state: &LastGood) -> Result<(), StoreError> {
        let (newest, before) = (self.directory.join(NEWEST), self.directory.join(BEFORE));
        let written = self.write_beside(NEWEST, state)?;
        match fs::rename(&newest, &before) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { path: before, source }),
        }
        self.put(&written, &newest)
    }

    /// The note of a trial.
    pub(super) fn trial(&self) -> Result<Option<Trial>, StoreError> {
        self.read(TRIAL)
    }

    /// Notes a trial, durably: it has to be there when the process is not any more.
    pub(super) fn begin_trial(&self, trial: &Trial) -> Result<(), StoreError> {
        let written = self.write_beside(TRIAL, trial)?;
        self.put(&written, &self.directory.join(TRIAL))
    }

    /// The trial went well, or is over in another way.
    pub(super) fn end_trial(&self) -> Result<(), StoreError> {
        let path = self.directory.join(TRIAL);
        match fs::remove_file(&path) {
            Ok(()) => self.synchronise(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    fn read<M: Message + Default>(&self, name: &str) -> Result<Option<M>, StoreError> {
        let path = self.directory.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        }
        unframed(bytes).map(Some).map_err(|reason| StoreError::Content { path, reason })
    }

    fn write_beside(&self, name: &str, message: &impl Message) -> Result<PathBuf, StoreError> {
        let path = self.directory.join(format!("{name}.new"));
        let written = write(&path, &framed(message));
        written.map_err(|source| StoreError::Io { path: path.clone(), source })?;
        Ok(path)
    }

    fn put(&self, written: &Path, at: &Path) -> Result<(), StoreError> {
        fs::rename(written, at).map_err(|source| StoreError::Io { path: at.to_owned(), source })?;
        self.synchronise()
    }

    /// A rename is durable when its directory is.
    fn synchronise(&self) -> Result<(), StoreError> {
        let synchronised = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synchronised.map_err(|source| StoreError::Io { path: self.directory.clone(), source })
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg_attr(not(unix), expect(unused_variables, reason = "there are no modes to set"))]
fn restrict(path: &Path, mode: u32) -> Result<(), StoreError> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    Ok(())
}

fn framed(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + message.encoded_len() + DIGEST);
    bytes.extend_from_slice(MAGIC);
    // A vector grows as needed, so there is always room.
    let _ = message.encode(&mut bytes);
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

fn unframed<M: Message + Default>(mut bytes: Vec<u8>) -> Result<M, String> {
    let Some(length) = bytes.len().checked_sub(DIGEST).filter(|length| *length >= MAGIC.len()) else {
        return Err("too short; it was cut off".to_owned());
    };
    if !bytes.starts_with(MAGIC) {
        return Err("not written by this version of Tidegate".to_owned());
    }
    if blake3::hash(&bytes[..length]).as_bytes() != &bytes[length..] {
        return Err("its digest is wrong; it is damaged".to_owned());
    }
    bytes.truncate(length);
    M::decode(Bytes::from(bytes).slice(MAGIC.len()..)).map_err(|error| format!("cannot be read: {error}"))
}

/// Begins every file; the digit is the number of the format.
const MAGIC: &[u8] = b"tidegate-edge-1\n";
/// Length of a BLAKE3 digest.
const DIGEST: usize = 32;
const NEWEST: &str = "last-good";
const BEFORE: &str = "last-good.before";
const TRIAL: &str = "trial";

#[cfg(test)]
mod tests {
    use super::*;

    fn state(floor: u64) -> LastGood {
        LastGood { cluster_id: "c".to_owned(), floor, ..LastGood::default() }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    #[test]
    fn a_damaged_generation_gives_way_to_the_one_before() {
        let (directory, store) = store();
        assert!(store.last_good().0.is_none());
        store.keep(&state(1)).unwrap();
        store.keep(&state(2)).unwrap();
        assert_eq!(store.last_good().0.unwrap().floor, 2);
        let path = directory.path().join(NEWEST);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            let (found, problems) = store.last_good();
            assert_eq!((found.unwrap().floor, problems.len()), (1, 1), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(store.last_good().0.unwrap().floor, 1, "cut off at {at}");
        }
    }

    #[test]
    fn a_note_stays_until_the_trial_ends() {
        let (_directory, store) = store();
        assert!(store.trial().unwrap().is_none());
        store.begin_trial(&Trial { index: 7, ..Trial::default() }).unwrap();
        assert_eq!(store.trial().unwrap().unwrap().index, 7);
        store.end_trial().unwrap();
        store.end_trial().unwrap();
        assert!(store.trial().unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, store) = store();
        store.keep(&state(1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path()), 0o700);
        assert_eq!(mode(&directory.path().join(NEWEST)), 0o600);
    }
}
