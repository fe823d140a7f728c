//! Records as objects in a bucket of an S3-compatible store.
//!
//! An object is first a finished file beside the journal, in the form and by the rules of the files export, and then sent under the name
//! that the file has: which records it holds is settled before the first try, so that a try whose answer was lost, a restart or a crash
//! repeats the same object and never makes another one. Two threads of their own do the work; no request and no record waits for a store.
//! While the store takes nothing, finished files wait up to a bound, then records wait in the journal up to that one's.
//!
//! The library signs and speaks S3; it is given our own connections ([`connection`]), so that there is one TLS stack and one HTTP client in
//! the process. Nothing is ever read, listed or removed in the bucket: the right to put objects is all that the credentials need.

mod connection;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload, RetryConfig};
use secrecy::ExposeSecret;
use tidegate_ledger::UnixMillis;
use tidegate_runtime::Clock;
use tokio::sync::mpsc::{Receiver, channel};

use self::connection::Connector;
use super::Progress;
use super::files::{self, Purpose};
use super::metrics::LedgerMetrics;
use crate::config::{ExportConfig, ObjectsConfig};

/// Starts a thread that makes the files and one that sends them. They end after the writer has: what is finished by then is sent within a
/// few seconds, or by the next start.
pub(super) fn start(
    journal: PathBuf,
    config: &ObjectsConfig,
    clock: Clock,
    progress: &Arc<Progress>,
    metrics: &LedgerMetrics,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<()> {
    let spool = journal.join(SPOOL);
    // Bound: one word says that there is something, however much it is.
    let (finished, news) = channel(1);
    let store = open(config)?;
    let prefix = config.prefix.clone();
    let export = ExportConfig { directory: spool.clone(), rotate_bytes: config.rotate_bytes, rotate_every: config.rotate_every };
    let purpose = Purpose::objects(config.waiting_bytes, finished);
    threads.push(files::start(journal, export, purpose, clock, Arc::clone(progress), metrics.clone())?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sender = Sender { store, spool, prefix, news, metrics: metrics.clone(), bucket: config.bucket.clone() };
    threads.push(std::thread::Builder::new().name("ledger-store".to_owned()).spawn(move || runtime.block_on(sender.run()))?);
    Ok(())
}

/// The client of a bucket. Connects with the first object.
fn open(config: &ObjectsConfig) -> io::Result<AmazonS3> {
    let bad = |error: String| io::Error::new(io::ErrorKind::InvalidInput, format!("object store of the ledger: {error}"));
    let plain = config.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let connector = match plain {
        true => Connector::plain(),
        false => Connector::trusting(config.extra_roots.as_deref()).map_err(|error| bad(error.to_string()))?,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_access_key_id(config.access_key_id.expose_secret())
        .with_secret_access_key(config.secret_access_key.expose_secret())
        // The sender has its own pauses, and keeps trying.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(connector);
    if let Some(token) = &config.session_token {
        builder = builder.with_token(token.expose_secret());
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    builder.build().map_err(|error| bad(error.to_string()))
}

/// What the object of a finished file is called: by day, then as the file, whose name tells the journal and the part of it that it holds.
fn object_name(prefix: &str, file: &str) -> ObjectPath {
    let day = UnixMillis(files::begun_ms(file).unwrap_or_default()).to_string();
    ObjectPath::from(format!("{prefix}/{}/{file}", day.get(..10).unwrap_or_default()))
}

/// The thread that sends.
struct Sender {
    store: AmazonS3,
    spool: PathBuf,
    prefix: String,
    /// A word per finished file; closed when there will be no more.
    news: Receiver<()>,
    metrics: LedgerMetrics,
    bucket: String,
}

impl Sender {
    async fn run(mut self) {
        let mut pause = Duration::ZERO;
        let mut failing = false;
        loop {
            let (sent, ended) = {
                let (sending, news) = (send_all(&self.store, &self.spool, &self.prefix, &self.metrics), &mut self.news);
                // A word of news that is lost here is of a file that the sending finds, as it ends when there is none left; a sending
                // that is left repeats the same object when it is begun again.
                tokio::select! {
                    biased;
                    sent = sending => (Some(sent), false),
                    () = closed(news) => (None, true),
                }
            };
            match sent {
                Some(Ok(())) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!(bucket = self.bucket, "records reach the object store again");
                    }
                    pause = LOOK_EVERY;
                }
                Some(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, bucket = self.bucket, "records do not reach the object store; they wait on the disk");
                    }
                    pause = if pause >= FIRST_PAUSE && pause < LONGEST_PAUSE { pause * 2 } else { FIRST_PAUSE };
                }
                None => {}
            }
            // As above: all files are looked for again. News of one do not shorten the pause of a store that fails.
            let more = !ended && tokio::time::timeout(pause, self.heard_of_more(failing)).await.unwrap_or(true);
            if !more {
                return self.finish().await;
            }
        }
    }

    /// Waits for the next file, or for the end, at which it is false; `only_end` waits for that alone.
    async fn heard_of_more(&mut self, only_end: bool) -> bool {
        if only_end {
            closed(&mut self.news).await;
            return false;
        }
        self.news.recv().await.is_some()
    }

    /// The last tries.
    async fn finish(self) {
        let sending = send_all(&self.store, &self.spool, &self.prefix, &self.metrics);
        let left = match tokio::time::timeout(LAST_TRIES, sending).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(error = left, bucket = self.bucket, "the last records did not reach the object store; the next start sends them");
    }
}

/// Until there will be no more.
async fn closed(news: &mut Receiver<()>) {
    while news.recv().await.is_some() {}
}

/// Sends the finished files, oldest first, and removes each that the store has.
async fn send_all(store: &AmazonS3, spool: &Path, prefix: &str, metrics: &LedgerMetrics) -> Result<(), SendError> {
    loop {
        let (waiting, bytes) = files::waiting(spool)?;
        metrics.objects_waiting.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        if waiting.is_empty() {
            return Ok(());
        }
        for path in waiting {
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = object_name(prefix, file);
            let sent = store.put(&name, PutPayload::from(std::fs::read(&path)?)).await;
            metrics.objects.with_label_values(&[if sent.is_ok() { "stored" } else { "failed" }]).inc();
            sent.map_err(Box::new)?;
            tracing::debug!(object = %name, "records are in the object store");
            std::fs::remove_file(&path)?;
        }
    }
}

/// Why an object is not in the store.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{0}")]
    Store(#[from] Box<object_store::Error>),
    #[error("read a finished file: {0}")]
    Disk(#[from] io::Error),
}

/// Beside the journal.
const SPOOL: &str = "objects";
/// News come by themselves; this is for a file that was missed.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What the end of the process may take longer for it.
const LAST_TRIES: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_day_journal_and_part() {
        let file = "generations_1764547200000_4f_from_1-8_to_2-99.jsonl.zst";
        assert_eq!(object_name("", file).as_ref(), format!("2025-12-01/{file}"));
        assert_eq!(object_name("a/b", file).as_ref(), format!("a/b/2025-12-01/{file}"));
    }
}
