//! One JSON line per request, written behind the requests' backs.
//!
//! A line is appended to a buffer of the worker's own; one thread swaps the buffers out and writes them. A request never waits for a
//! disk: when a buffer is full the line is dropped and counted.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::config::AccessLogConfig;

/// Where finished requests are noted.
pub(crate) struct AccessLog {
    inner: Option<Arc<Inner>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    shards: [Mutex<Vec<u8>>; SHARDS],
    dropped: IntCounter,
    stop: AtomicBool,
    reopen: AtomicBool,
}

impl AccessLog {
    /// Opens the log and starts its writer thread, which ends with [`AccessLog::close`].
    pub(crate) fn open(config: &AccessLogConfig, dropped: IntCounter) -> io::Result<Self> {
        let path = match config {
            AccessLogConfig::Off => return Ok(Self { inner: None, writer: Mutex::default() }),
            AccessLogConfig::Stdout => None,
            AccessLogConfig::File(path) => Some(path.clone()),
        };
        let sink = Sink::open(path.as_ref())?;
        let inner = Arc::new(Inner {
            shards: std::array::from_fn(|_| Mutex::default()),
            dropped,
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn({
            let inner = Arc::clone(&inner);
            move || inner.write_until_stopped(sink, path)
        })?;
        Ok(Self { inner: Some(inner), writer: Mutex::new(Some(thread)) })
    }

    /// True when lines are wanted; a caller that asks first saves making one.
    pub(crate) fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Appends what `write` puts into the buffer, and a line end.
    pub(crate) fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(inner) = &self.inner else { return };
        let mut buffer = inner.shards[shard()].lock();
        if buffer.len() > FULL {
            inner.dropped.inc();
            return;
        }
        write(&mut buffer);
        buffer.push(b'\n');
    }

    /// Opens the file anew, after something moved it away.
    pub(crate) fn reopen(&self) {
        if let Some(inner) = &self.inner {
            inner.reopen.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what is buffered and ends the writer; blocks for that long.
    pub(crate) fn close(&self) {
        let Some(inner) = &self.inner else { return };
        inner.stop.store(true, Ordering::Release);
        if let Some(writer) = self.writer.lock().take() {
            writer.thread().unpark();
            if writer.join().is_err() {
                tracing::error!("the access log's writer panicked");
            }
        }
    }
}

impl Inner {
    fn write_until_stopped(&self, mut sink: Sink, path: Option<PathBuf>) {
        let mut spare = Vec::new();
        let mut failing = false;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            if self.reopen.swap(false, Ordering::Relaxed) {
                match Sink::open(path.as_ref()) {
                    Ok(opened) => sink = opened,
                    Err(error) => tracing::warn!(%error, "cannot reopen the access log; the old file stays in use"),
                }
            }
            for shard in &self.shards {
                std::mem::swap(&mut *shard.lock(), &mut spare);
                if let Err(error) = sink.write(&spare) {
                    if !failing {
                        tracing::warn!(%error, "cannot write the access log; lines are lost until it works again");
                    }
                    failing = true;
                    self.dropped.inc_by(spare.iter().filter(|byte| **byte == b'\n').count() as u64);
                } else if !spare.is_empty() {
                    failing = false;
                }
                spare.clear();
            }
            if stopping {
                return;
            }
            std::thread::park_timeout(FLUSH_EVERY);
        }
    }
}

enum Sink {
    Stdout,
    File(File),
}

impl Sink {
    fn open(path: Option<&PathBuf>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display()));
        OpenOptions::new().create(true).append(true).open(path).map(Self::File).map_err(named)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}

/// The buffer of this thread: threads are numbered as they come, so that a few workers never meet in one buffer.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// More than the workers of a usual machine.
const SHARDS: usize = 16;
/// Bytes per buffer: about 4,000 lines, a second of one busy core.
const FULL: usize = 2 * 1024 * 1024;
/// A line is on disk this much after its request at the latest, while the disk keeps up.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_the_file_and_a_reopened_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("access.log");
        let dropped = IntCounter::new("dropped", "test").expect("a valid name");
        let log = AccessLog::open(&AccessLogConfig::File(path.clone()), dropped.clone()).expect("the file can be made");
        log.line(|buffer| buffer.extend_from_slice(b"{\"n\":1}"));
        log.close();
        assert_eq!(std::fs::read_to_string(&path).expect("the log"), "{\"n\":1}\n");
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn an_unwritable_path_is_named() {
        let config = AccessLogConfig::File("/nonexistent/directory/access.log".into());
        let dropped = IntCounter::new("dropped", "test").expect("a valid name");
        let error = AccessLog::open(&config, dropped).err().expect("no such directory");
        assert!(error.to_string().contains("/nonexistent/directory/access.log"), "{error}");
    }
}
