//! The file of the memory store: one line of header, then JSON.
//!
//! `tidegate-quota <version> <bytes> <blake3>`; the checksum covers the body. It is written to a neighbour, synced and renamed, so a
//! crash leaves the old file or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cells::Counters;

/// The version this build writes and the only one it reads.
const VERSION: u32 = 1;
const MAGIC: &str = "tidegate-quota";

/// Why the file of the memory store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused.
    #[error("{action} the quota file `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content is not what was written.
    #[error(
        "the quota file `{path}` is damaged ({what}); it was set aside as `{aside}`. Start again to count from zero, or restore a copy first"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A newer build wrote it.
    #[error(
        "the quota file `{path}` has version {version}, this build reads version {VERSION}: use the newer build, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The state cannot be written down.
    #[error("write down the quota state")]
    Encode(#[source] serde_json::Error),
}

/// The counters of each organisation, by key prefix.
pub(super) type Loaded = Vec<(Arc<str>, Counters)>;

pub(super) fn save(path: &Path, all: Loaded) -> Result<(), FileError> {
    let organisations: BTreeMap<Arc<str>, Counters> = all.into_iter().collect();
    let body = serde_json::to_vec(&organisations).map_err(FileError::Encode)?;
    let header = format!("{MAGIC} {VERSION} {} {}\n", body.len(), blake3::hash(&body).to_hex());
    let fresh = neighbour(path, "new");
    let failed = |action| move |source| FileError::Io { action, path: path.to_owned(), source };
    let mut file = File::create(&fresh).map_err(failed("create"))?;
    file.write_all(header.as_bytes()).and_then(|()| file.write_all(&body)).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    fs::rename(&fresh, path).map_err(failed("replace"))?;
    // The rename itself must survive a power cut.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))
}

/// The state, or `None` when there is no file.
pub(super) fn load(path: &Path) -> Result<Option<Loaded>, FileError> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Io { action: "read", path: path.to_owned(), source }),
    };
    let what = match parse(&content) {
        Ok(all) => return Ok(Some(all)),
        Err(Problem::Newer(version)) => return Err(FileError::Newer { path: path.to_owned(), version }),
        Err(Problem::Damaged(what)) => what,
    };
    let aside = (0..).map(|number| neighbour(path, &format!("damaged-{number}"))).find(|aside| !aside.exists()).unwrap_or_default();
    fs::rename(path, &aside).map_err(|source| FileError::Io { action: "set aside", path: path.to_owned(), source })?;
    Err(FileError::Damaged { path: path.to_owned(), aside, what })
}

enum Problem {
    Newer(u32),
    Damaged(String),
}

fn parse(content: &[u8]) -> Result<Loaded, Problem> {
    let damaged = |what: &str| Problem::Damaged(what.to_owned());
    let end = content.iter().take(200).position(|byte| *byte == b'\n').ok_or_else(|| damaged("no header"))?;
    let (header, body) = (&content[..end], &content[end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| damaged("no header"))?;
    let mut words = header.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(damaged("not a quota file"));
    }
    let version: u32 = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| damaged("no version"))?;
    if version > VERSION {
        return Err(Problem::Newer(version));
    }
    if words.next().and_then(|word| word.parse().ok()) != Some(body.len()) {
        return Err(damaged("its length is not the one in its header"));
    }
    if words.next() != Some(blake3::hash(body).to_hex().as_str()) {
        return Err(damaged("its checksum is not the one in its header"));
    }
    let organisations: BTreeMap<Arc<str>, Counters> = serde_json::from_slice(body).map_err(|error| Problem::Damaged(error.to_string()))?;
    Ok(organisations.into_iter().collect())
}

fn neighbour(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}
