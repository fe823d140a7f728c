//! Prompts and answers of keys that opted in, in files of their own.
//!
//! Off for everybody unless a directory is configured *and* the key says `store_content`. Nothing of it enters logs, metrics, traces,
//! records or the journal. Lines are written by one thread from a bounded queue; what finds no room is dropped and counted.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntCounter;
use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_ledger::UnixMillis;

use crate::config::ContentConfig;
use crate::generations::past::Past;

/// Where they go.
pub(crate) struct ContentSink {
    queue: Mutex<Option<SyncSender<Stored>>>,
    on: bool,
    writer: Mutex<Option<JoinHandle<()>>>,
    dropped: IntCounter,
}

/// A request and as much of its answer as has come.
pub(crate) struct Captured {
    request: Bytes,
    answer: Vec<u8>,
    truncated: bool,
}

struct Stored {
    captured: Captured,
    id: std::sync::Arc<str>,
    key: std::sync::Arc<str>,
    model: std::sync::Arc<str>,
    created_ms: u64,
    ending: &'static str,
    streamed: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    created_at: String,
    key: &'a str,
    model: &'a str,
    ending: &'static str,
    /// The answer was longer than what is kept.
    truncated: bool,
    request: Body<'a>,
    response: Body<'a>,
}

/// JSON as it was, or events as text.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(&'a RawValue),
    Text(std::borrow::Cow<'a, str>),
}

impl Captured {
    /// The request, as it came.
    pub(crate) fn of(request: Bytes) -> Self {
        Self { request, answer: Vec::new(), truncated: false }
    }

    /// A piece of the answer, as the caller gets it.
    pub(crate) fn answer(&mut self, piece: &[u8]) {
        let room = MOST_ANSWER - self.answer.len().min(MOST_ANSWER);
        self.truncated |= piece.len() > room;
        self.answer.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

impl ContentSink {
    /// Opens the directory, for this process's user only, and starts the writer, which ends with [`ContentSink::close`].
    pub(crate) fn open(config: Option<&ContentConfig>, dropped: IntCounter) -> io::Result<Self> {
        let Some(config) = config else {
            return Ok(Self { queue: Mutex::default(), on: false, writer: Mutex::default(), dropped });
        };
        let directory = config.directory.clone();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("content directory {}: {error}", directory.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(named)?;
        // Bound: with answers of the largest size a gigabyte, with usual ones a few megabytes.
        let (queue, stored) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("content".to_owned()).spawn({
            let (directory, dropped) = (directory.clone(), dropped.clone());
            move || write_all(&directory, &stored, &dropped)
        })?;
        Ok(Self { queue: Mutex::new(Some(queue)), on: true, writer: Mutex::new(Some(writer)), dropped })
    }

    /// Whether anything is stored for anybody.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Queues a finished request.
    pub(crate) fn store(&self, captured: Captured, past: &Past) {
        let stored = Stored {
            captured,
            id: past.context.id.clone(),
            key: past.caller.counted_as().clone(),
            model: past.state.model(past.context.model).slug.clone(),
            created_ms: past.context.created_ms,
            ending: past.end.ending.as_str(),
            streamed: past.context.streamed,
        };
        let sent = self.queue.lock().as_ref().is_some_and(|queue| queue.try_send(stored).is_ok());
        if !sent {
            self.dropped.inc();
        }
    }

    /// Writes what is queued and ends the writer; blocks for that long.
    pub(crate) fn close(&self) {
        drop(self.queue.lock().take());
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the content writer panicked");
        }
    }
}

fn write_all(directory: &Path, stored: &Receiver<Stored>, dropped: &IntCounter) {
    let mut failing = false;
    while let Ok(stored) = stored.recv() {
        match write(directory, &stored) {
            Ok(()) => failing = false,
            Err(error) => {
                dropped.inc();
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "prompts and answers cannot be stored; they are lost until it works again");
                }
            }
        }
    }
}

fn write(directory: &Path, stored: &Stored) -> io::Result<()> {
    let captured = &stored.captured;
    let line = Line {
        id: &stored.id,
        created_at: UnixMillis(stored.created_ms).to_string(),
        key: &stored.key,
        model: &stored.model,
        ending: stored.ending,
        truncated: captured.truncated,
        request: body(&captured.request, true),
        response: body(&captured.answer, !stored.streamed),
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    let day = &UnixMillis(stored.created_ms).to_string()[..10];
    open(directory.join(format!("{}_{day}.jsonl", file_name(&stored.key))))?.write_all(&bytes)
}

fn open(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn body(bytes: &[u8], json: bool) -> Body<'_> {
    let raw = if json { serde_json::from_slice::<&RawValue>(bytes).ok() } else { None };
    // A line end within JSON is white space only, but it would break the line.
    match raw.filter(|raw| !raw.get().contains(['\n', '\r'])) {
        Some(raw) => Body::Json(raw),
        None => Body::Text(String::from_utf8_lossy(bytes)),
    }
}

/// A key's name as part of a file name: what a path could make of it is taken out, and a hash keeps names apart.
fn file_name(key: &str) -> String {
    let plain: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(40).collect();
    format!("{plain}-{}", &blake3::hash(key.as_bytes()).to_hex()[..8])
}

/// Bytes kept of one answer.
const MOST_ANSWER: usize = 1 << 20;
const QUEUE: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_never_lead_out_of_the_directory() {
        for key in ["../../etc/passwd", "a/b", "..", "ключ", ""] {
            let name = file_name(key);
            assert!(!name.contains(['/', '.']), "{name}");
        }
        assert_ne!(file_name("a/b"), file_name("a_b"));
    }

    #[test]
    fn long_answers_are_cut_and_say_so() {
        let mut captured = Captured::of(Bytes::new());
        captured.answer(&vec![b'x'; MOST_ANSWER - 1]);
        assert!(!captured.truncated);
        captured.answer(b"yz");
        assert_eq!((captured.answer.len(), captured.truncated), (MOST_ANSWER, true));
    }
}
