//! What is kept of generations, and where it is passed on to.

use std::time::Duration;

use tidegate_edge::config::{ContentConfig, ExportConfig, LedgerConfig, ObjectsConfig};
use tidegate_ledger::Retention;

use super::{Lowering, Place};
use crate::config::file::{Ledger, Objects};
use crate::config::scalar::Span;

impl<'a> Lowering<'a> {
    pub(super) fn ledger(&mut self, raw: &Ledger, place: Place<'a>) -> LedgerConfig {
        for (name, nothing) in [
            ("segment_bytes", raw.segment_bytes.0 == 0),
            ("fsync_every", raw.fsync_every.0.is_zero()),
            ("checkpoint", raw.checkpoint.0.is_zero()),
        ] {
            if nothing {
                self.error(place.get(name), format!("`{name}` at 0 would keep the disk busy with nothing"), "leave it out for the default");
            }
        }
        if raw.keep_bytes.0 < raw.segment_bytes.0 {
            self.error(place.get("keep_bytes"), "less than one segment is kept", "make it several times `segment_bytes`");
        }
        if raw.export.is_some() && raw.directory.is_none() {
            self.error(place.get("export"), "records are exported from the journal, and there is none", "set `ledger.directory`");
        }
        if raw.objects.is_some() && raw.directory.is_none() {
            self.error(place.get("objects"), "records are exported from the journal, and there is none", "set `ledger.directory`");
        }
        let units = |span: Span, unit: u64| u32::try_from(span.0.as_secs().div_ceil(unit)).unwrap_or(u32::MAX);
        LedgerConfig {
            directory: raw.directory.clone(),
            segment_bytes: raw.segment_bytes.0,
            keep: raw.keep.0,
            keep_bytes: raw.keep_bytes.0,
            fsync_every: raw.fsync_every.0,
            fsync_bytes: raw.fsync_bytes.0,
            checkpoint: raw.checkpoint.0,
            retention: Retention { hours: units(raw.keep_hours, 3_600), days: units(raw.keep_days, 86_400) },
            export: raw.export.as_ref().map(|export| ExportConfig {
                directory: export.directory.clone(),
                rotate_bytes: export.rotate_bytes.map_or(EXPORT_BYTES, |size| size.0),
                rotate_every: export.rotate_every.map_or(EXPORT_EVERY, |span| span.0),
            }),
            objects: raw.objects.as_ref().and_then(|objects| self.objects(objects, place.get("objects"))),
            content: raw.content.as_ref().map(|content| ContentConfig { directory: content.directory.clone() }),
            ..LedgerConfig::default()
        }
    }

    /// `None` is a reported problem.
    fn objects(&mut self, raw: &Objects, place: Place<'a>) -> Option<ObjectsConfig> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        if raw.bucket.is_empty() || !plain(&raw.bucket) {
            self.error(place.get("bucket"), format!("`{}` is not a bucket's name", raw.bucket), "letters, digits, `-` and `.`");
        }
        let prefix = raw.prefix.as_deref().unwrap_or_default().trim_matches('/');
        if !prefix.is_empty() && !prefix.split('/').all(|part| !part.is_empty() && !matches!(part, "." | "..") && plain(part)) {
            self.error(place.get("prefix"), format!("`{prefix}` is not a prefix of objects' names"), "write it like `tidegate/production`");
        }
        if let Some(endpoint) = &raw.endpoint {
            let address = endpoint.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some() && matches!(uri.path(), "" | "/"));
            let place = place.get("endpoint");
            match address.as_ref().and_then(http::Uri::scheme_str) {
                Some("https") => {}
                Some("http") if raw.allow_plain_http == Some(true) => {}
                Some("http") => self.error(place, "records would be sent in plain text", "use `https://`, or say `allow_plain_http: true`"),
                _ => {
                    self.error(place, format!("`{endpoint}` is not the address of a store"), "write it like `https://minio.internal:9000`")
                }
            }
        }
        if let Some(ca) = &raw.ca {
            self.file_exists(ca, place.get("ca"));
        }
        if raw.rotate_bytes.is_some_and(|size| size.0 == 0) || raw.rotate_every.is_some_and(|span| span.0.is_zero()) {
            self.error(place, "an object for each record would be made", "leave `rotate_bytes` and `rotate_every` out for the defaults");
        }
        let access_key_id = self.secret(&raw.access_key_id, place.get("access_key_id"));
        let secret_access_key = self.secret(&raw.secret_access_key, place.get("secret_access_key"));
        let session_token = raw.session_token.as_ref().and_then(|token| self.secret(token, place.get("session_token")));
        let (Some(access_key_id), Some(secret_access_key)) = (access_key_id, secret_access_key) else {
            self.error(place, "an object store needs `access_key_id` and `secret_access_key`", "write `env:NAME` or `file:/path`");
            return None;
        };
        Some(ObjectsConfig {
            bucket: raw.bucket.clone(),
            prefix: prefix.to_owned(),
            region: raw.region.clone().unwrap_or_else(|| DEFAULT_OBJECTS_REGION.to_owned()),
            endpoint: raw.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            extra_roots: raw.ca.clone(),
            access_key_id,
            secret_access_key,
            session_token,
            rotate_bytes: raw.rotate_bytes.map_or(EXPORT_BYTES, |size| size.0),
            rotate_every: raw.rotate_every.map_or(OBJECTS_EVERY, |span| span.0),
            waiting_bytes: raw.waiting_bytes.map_or(OBJECTS_WAITING, |size| size.0),
        })
    }
}

/// A file of records before compression: about 80 000 of them, 6 MiB on disk.
const EXPORT_BYTES: u64 = 64 << 20;
const EXPORT_EVERY: Duration = Duration::from_secs(3_600);
/// Fresher than files, as nobody moves objects on; some 300 a day.
const OBJECTS_EVERY: Duration = Duration::from_secs(300);
/// Days of a small edge and an hour of one with a thousand requests a second, compressed.
const OBJECTS_WAITING: u64 = 1 << 30;
/// What stores without regions expect.
const DEFAULT_OBJECTS_REGION: &str = "us-east-1";
