//! Records of generations: where they are, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tidegate_ledger::Retention;

/// Records and sums of generations. A later start continues where an earlier one ended when both have the same directory.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Where the journal and the file of sums are; `None` keeps sums in memory only, until the process ends.
    pub directory: Option<PathBuf>,
    /// Size at which a new segment is begun, bytes.
    pub segment_bytes: u64,
    /// Segments older than this are removed, once everything that reads them has.
    pub keep: Duration,
    /// Oldest segments are removed beyond this, whoever has not read them, bytes.
    pub keep_bytes: u64,
    /// The journal is made safe against power loss this often, while something is written. A crash of the process alone loses nothing that
    /// was written.
    pub fsync_every: Duration,
    /// And after this many bytes.
    pub fsync_bytes: u64,
    /// How often what open streams have delivered is noted: the most that a crash leaves uncharged.
    pub checkpoint: Duration,
    /// Notes of requests that wait for the journal's thread; beyond it they are lost and counted.
    pub waiting_notes: usize,
    /// Entries that wait in memory for a disk that takes nothing, bytes, and the notes of one round more; beyond it notes wait.
    pub waiting_bytes: usize,
    /// How long sums are kept.
    pub retention: Retention,
    /// Files of records for a warehouse; needs a directory.
    pub export: Option<ExportConfig>,
    /// The same records in an object store; needs a directory.
    pub objects: Option<ObjectsConfig>,
    /// Where prompts and answers of keys that opted in go; `None` stores nothing for anybody.
    pub content: Option<ContentConfig>,
}

/// Files of records, one JSON object per line, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// Where finished files appear.
    pub directory: PathBuf,
    /// A file is finished when it holds this many bytes before compression.
    pub rotate_bytes: u64,
    /// And when it is this old.
    pub rotate_every: Duration,
}

/// Objects of records in a bucket of an S3-compatible store, in the form of the files of [`ExportConfig`].
#[derive(Debug, Clone)]
pub struct ObjectsConfig {
    /// The bucket.
    pub bucket: String,
    /// What every object's name begins with, without a slash at its ends; may be empty.
    pub prefix: String,
    /// The store's region, part of every signature.
    pub region: String,
    /// `https://host:port` of a store that is not Amazon's; `None` asks `s3.<region>.amazonaws.com`.
    pub endpoint: Option<String>,
    /// A PEM file with authorities that are trusted beside the system's.
    pub extra_roots: Option<PathBuf>,
    /// Who asks.
    pub access_key_id: SecretString,
    /// What signs.
    pub secret_access_key: SecretString,
    /// Of temporary credentials.
    pub session_token: Option<SecretString>,
    /// An object is finished when it holds this many bytes before compression.
    pub rotate_bytes: u64,
    /// And when it is this old.
    pub rotate_every: Duration,
    /// Finished objects that the store has not taken wait on the disk up to this many bytes; beyond it records wait in the journal.
    pub waiting_bytes: u64,
}

/// Files of prompts and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentConfig {
    /// Where they are written, one file per key and day, readable by the owner of the process only.
    pub directory: PathBuf,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            directory: None,
            segment_bytes: 64 << 20,
            keep: Duration::from_secs(7 * 24 * 3600),
            keep_bytes: 4 << 30,
            fsync_every: Duration::from_secs(1),
            fsync_bytes: 1 << 20,
            checkpoint: Duration::from_millis(250),
            // A second of 16 000 requests with two notes each, and again as much.
            waiting_notes: 65_536,
            waiting_bytes: 16 << 20,
            retention: Retention::default(),
            export: None,
            objects: None,
            content: None,
        }
    }
}
