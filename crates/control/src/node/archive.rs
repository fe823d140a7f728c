//! The audit log on and on: the state keeps the newest lines, each node's archive keeps all that it has seen.
//!
//! One JSON object per line, the protobuf message in hexadecimal beside what people read, so that the chain can be checked from the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};
use tidegate_proto::v1::AuditEntry;
use tidegate_runtime::Shutdown;

use crate::published::Published;
use crate::state::State;

/// Pause after a failed write, and between two writes: lines are kept in the state meanwhile, ten thousand of them.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until the stop is requested.
pub(super) async fn run(directory: PathBuf, published: Published, shutdown: Shutdown) {
    let mut states = published.watch();
    let path = directory.join("audit.jsonl");
    let found = path.clone();
    // `None` until the file has been read: it tells where to go on.
    let mut last = None;
    loop {
        let state = states.borrow_and_update().clone();
        let (from, path, found) = (last, path.clone(), found.clone());
        let written = tokio::task::spawn_blocking(move || {
            let from = match from {
                Some(from) => from,
                None => newest(&found)?,
            };
            append(&path, &state, from)
        })
        .await;
        match written {
            Ok(Ok(index)) => last = Some(index),
            Ok(Err(error)) => tracing::warn!(%error, directory = %directory.display(), "the audit log is not archived"),
            Err(error) => tracing::error!(%error, "archive the audit log"),
        }
        // Dropping a branch is safe: what was not written is written with the next state.
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = shutdown.requested() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

/// Index of the newest line of a file; 0 when there is none.
fn newest(path: &Path) -> io::Result<u64> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut newest = 0;
    for line in BufReader::new(file).lines() {
        // A line that a crash cut short is passed over; its entry is written again.
        if let Ok(line) = serde_json::from_str::<Value>(&line?) {
            newest = line["index"].as_u64().unwrap_or(newest);
        }
    }
    Ok(newest)
}

/// Appends what is newer than `from`; the index of the newest line then.
fn append(path: &Path, state: &State, from: u64) -> io::Result<u64> {
    let entries: Vec<&Arc<AuditEntry>> = state.audit().entries().filter(|entry| entry.index > from).collect();
    let Some(newest) = entries.last().map(|entry| entry.index) else { return Ok(from) };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut text = String::new();
    for entry in entries {
        text.push_str(&line(entry).to_string());
        text.push('\n');
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    Ok(newest)
}

fn line(entry: &AuditEntry) -> Value {
    let message: String = entry.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "index": entry.index,
        "time_ms": entry.time_ms,
        "actor": entry.actor,
        "reason": entry.reason,
        "action": entry.action,
        "message": message,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Command, Note, command};

    use super::*;
    use crate::state::verify_audit;

    fn noted(state: &mut State, index: u64) {
        let body = command::Body::Note(Note { action: format!("did {index}") });
        state.apply(index, 1, &Command { actor: "ann".into(), body: Some(body), ..Command::default() });
    }

    #[test]
    fn the_archive_goes_on_where_it_ended_and_holds_the_chain() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit").join("audit.jsonl");
        let mut state = State::default();
        (1..=3).for_each(|index| noted(&mut state, index));
        assert_eq!(append(&path, &state, newest(&path).unwrap()).unwrap(), 3);
        // A crash in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"index\":4,\"ti\n").unwrap();
        (4..=5).for_each(|index| noted(&mut state, index));
        assert_eq!(append(&path, &state, newest(&path).unwrap()).unwrap(), 5);
        let text = fs::read_to_string(&path).unwrap();
        let entries: Vec<AuditEntry> = text
            .lines()
            .filter_map(|line| {
                let message = serde_json::from_str::<Value>(line).ok()?["message"].as_str()?.to_owned();
                let bytes: Vec<u8> =
                    (0..message.len()).step_by(2).map(|at| u8::from_str_radix(&message[at..at + 2], 16).unwrap()).collect();
                AuditEntry::decode(bytes.as_slice()).ok()
            })
            .collect();
        assert_eq!(entries.len(), 5);
        assert_eq!(verify_audit(&[], &entries), Ok(()));
    }
}
