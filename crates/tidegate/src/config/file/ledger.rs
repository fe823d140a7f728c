//! Where use is counted and what is kept of it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_edge::config as domain;

use crate::config::scalar::{SecretRef, Size, Span};

/// Records of generations, and sums over them.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ledger {
    /// Where the journal and the file of sums are: a directory of this edge's own, on a disk that outlives the process. Without it sums are
    /// kept in memory and budgets begin anew with each start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<PathBuf>,
    /// Size at which a new segment of the journal is begun.
    pub(crate) segment_bytes: Size,
    /// Segments older than this are removed, once they were passed on.
    pub(crate) keep: Span,
    /// The oldest segments are removed beyond this, passed on or not.
    pub(crate) keep_bytes: Size,
    /// The journal is made safe against power loss this often. The end of the process alone, however sudden, loses nothing that was written.
    pub(crate) fsync_every: Span,
    /// And after this many bytes.
    pub(crate) fsync_bytes: Size,
    /// How often it is noted what open streams have delivered: the most that the sudden end of the process leaves uncharged.
    pub(crate) checkpoint: Span,
    /// How long hourly sums are kept.
    pub(crate) keep_hours: Span,
    /// How long daily sums are kept. Sums per key since the beginning are kept for ever.
    pub(crate) keep_days: Span,
    /// Files of records for a warehouse. Needs `directory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) export: Option<Export>,
    /// The same records in a bucket of an S3-compatible object store. Needs `directory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) objects: Option<Objects>,
    /// Where prompts and answers of keys with `store_content` go. Without it nothing is stored, whatever a key says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Content>,
}

/// Files of records: one JSON object per line, compressed with zstd.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Export {
    /// Where finished files appear; moving them on is up to whoever reads them.
    pub(crate) directory: PathBuf,
    /// A file is finished when it holds this much before compression. Without it: `64MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_bytes: Option<Size>,
    /// And when it is this old. Without it: `1h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_every: Option<Span>,
}

/// Objects of records: one JSON object per line, compressed with zstd. The credentials need the right to put objects, and no other.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Objects {
    /// The bucket.
    pub(crate) bucket: String,
    /// What the name of every object begins with, such as `tidegate/production`; then follow the day, the journal and the part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    /// The store's region, which is part of every signature. Without it: `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// A store other than Amazon's: `https://minio.internal:9000`, or `https://storage.googleapis.com` with its HMAC keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// Allows an endpoint with `http://`: records can be read on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_plain_http: Option<bool>,
    /// PEM file of authorities that are trusted beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Who asks: `env:NAME` or `file:/path`.
    pub(crate) access_key_id: SecretRef,
    /// What signs: `env:NAME` or `file:/path`.
    pub(crate) secret_access_key: SecretRef,
    /// Of temporary credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_token: Option<SecretRef>,
    /// An object is finished when it holds this much before compression. Without it: `64MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_bytes: Option<Size>,
    /// And when it is this old. Without it: `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotate_every: Option<Span>,
    /// Objects that the store does not take wait on the disk up to this much, further records in the journal. Without it: `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_bytes: Option<Size>,
}

/// Files of prompts and answers, one per key and day.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Content {
    /// Where they are written, readable by this process's user only.
    pub(crate) directory: PathBuf,
}

impl Default for Ledger {
    fn default() -> Self {
        let domain = domain::LedgerConfig::default();
        Self {
            directory: None,
            segment_bytes: Size(domain.segment_bytes),
            keep: Span(domain.keep),
            keep_bytes: Size(domain.keep_bytes),
            fsync_every: Span(domain.fsync_every),
            fsync_bytes: Size(domain.fsync_bytes),
            checkpoint: Span(domain.checkpoint),
            keep_hours: Span(std::time::Duration::from_secs(u64::from(domain.retention.hours) * 3_600)),
            keep_days: Span(std::time::Duration::from_secs(u64::from(domain.retention.days) * 86_400)),
            export: None,
            objects: None,
            content: None,
        }
    }
}
