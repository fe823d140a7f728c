//! Records as compressed JSON lines in a directory, for the user's own warehouse.
//!
//! A thread of its own reads the journal behind the writer, so that no request and no record waits for it. A file is written under the
//! name `.part` and gets its real name when it is whole; the name tells which part of the journal it holds, so that after a crash every
//! record is in exactly one finished file. Finished files are never touched again: moving them away is up to whoever reads them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_ledger::{Generation, Line};
use tidegate_proto::v1::GenerationRecord;
use tidegate_runtime::Clock;

use super::Progress;
use super::metrics::LedgerMetrics;
use super::segment::Position;
use super::tail::{Tail, Tailed};
use crate::config::ExportConfig;

/// Starts the thread, which ends after the writer has and everything is passed on.
pub(super) fn start(
    journal: PathBuf,
    config: ExportConfig,
    clock: Clock,
    progress: Arc<Progress>,
    metrics: LedgerMetrics,
) -> io::Result<JoinHandle<()>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("ledger export directory {}: {error}", config.directory.display()));
    std::fs::create_dir_all(&config.directory).map_err(named)?;
    let from = begin(&journal, &config.directory).map_err(named)?;
    let tail = Tail::new(journal.clone(), READER, from, Arc::clone(&progress));
    let export = Export { journal, config, clock, progress, metrics, tail, from, part: None, failing: false };
    std::thread::Builder::new().name("ledger-export".to_owned()).spawn(move || export.run())
}

struct Export {
    journal: PathBuf,
    config: ExportConfig,
    clock: Clock,
    progress: Arc<Progress>,
    metrics: LedgerMetrics,
    tail: Tail,
    /// Where the file in work begins.
    from: Position,
    part: Option<Part>,
    failing: bool,
}

/// The file in work.
struct Part {
    encoder: zstd::stream::write::Encoder<'static, File>,
    path: PathBuf,
    begun_ms: u64,
    since: Instant,
    bytes: u64,
    records: u64,
    until: Position,
}

impl Export {
    fn run(mut self) {
        loop {
            let ended = self.progress.has_ended();
            match self.look() {
                Ok(found) => {
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("records can be exported again");
                    }
                    if ended {
                        if let Err(error) = self.finish() {
                            tracing::error!(%error, "the last records were not exported; the next start does it");
                        }
                        return;
                    }
                    if !found {
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, directory = %self.config.directory.display(), "records cannot be exported; they stay in the journal");
                    }
                    // What is half written is written again from where the file began.
                    self.part = None;
                    self.tail = Tail::new(self.journal.clone(), READER, self.from, Arc::clone(&self.progress));
                    if ended {
                        return;
                    }
                    std::thread::sleep(RETRY_EVERY);
                }
            }
        }
    }

    /// Takes what is there, up to a bound; false when there was nothing.
    fn look(&mut self) -> io::Result<bool> {
        for _ in 0..AT_ONCE {
            match self.tail.next()? {
                Tailed::Record(record, until) => self.take(*record, until)?,
                Tailed::Nothing => {
                    if self.part.as_ref().is_some_and(|part| part.since.elapsed() >= self.config.rotate_every) {
                        self.finish()?;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn take(&mut self, record: GenerationRecord, until: Position) -> io::Result<()> {
        let Ok(generation) = Generation::try_from(record) else { return Ok(()) };
        if self.part.is_none() {
            let path = self.config.directory.join(format!("{}.part", name(self.clock.unix_millis(), self.from, self.from)));
            let encoder = zstd::stream::write::Encoder::new(File::create(&path)?, LEVEL)?;
            self.part =
                Some(Part { encoder, path, begun_ms: self.clock.unix_millis(), since: Instant::now(), bytes: 0, records: 0, until });
        }
        let Some(part) = &mut self.part else { return Ok(()) };
        let mut line = serde_json::to_vec(&Line::from(&generation))?;
        line.push(b'\n');
        part.encoder.write_all(&line)?;
        part.bytes += line.len() as u64;
        part.records += 1;
        part.until = until;
        if part.bytes >= self.config.rotate_bytes || part.since.elapsed() >= self.config.rotate_every {
            self.finish()?;
        }
        Ok(())
    }

    /// Gives the file its name, and remembers how far the journal is passed on.
    fn finish(&mut self) -> io::Result<()> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let file = part.encoder.finish()?;
        file.sync_data()?;
        let finished = self.config.directory.join(name(part.begun_ms, self.from, part.until));
        std::fs::rename(&part.path, &finished)?;
        File::open(&self.config.directory)?.sync_all()?;
        save(&self.journal, part.until)?;
        self.metrics.exported.with_label_values(&["files"]).inc_by(part.records);
        tracing::debug!(file = %finished.display(), records = part.records, "records were exported");
        self.from = part.until;
        self.tail.done_until(self.from);
        Ok(())
    }
}

/// Removes files that were never finished, and finds where the finished ones end: what the journal remembers, or the newest name, whichever
/// is further.
fn begin(journal: &Path, directory: &Path) -> io::Result<Position> {
    let mut end = match std::fs::read_to_string(journal.join(SAVED)) {
        Ok(text) => position_of(text.trim()).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Position::default(),
        Err(error) => return Err(error),
    };
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else { continue };
        if file_name.starts_with(PREFIX) && file_name.ends_with(".part") {
            std::fs::remove_file(entry.path())?;
        } else if let Some(rest) = file_name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) {
            let until = rest.rsplit_once("_to_").and_then(|(_, until)| position_of(until));
            end = end.max(until.unwrap_or_default());
        }
    }
    Ok(end)
}

fn save(journal: &Path, position: Position) -> io::Result<()> {
    let new = journal.join(format!("{SAVED}.new"));
    std::fs::write(&new, format!("{}\n", shown(position)))?;
    std::fs::rename(new, journal.join(SAVED))
}

fn name(begun_ms: u64, from: Position, until: Position) -> String {
    format!("{PREFIX}{begun_ms}_from_{}_to_{}{SUFFIX}", shown(from), shown(until))
}

fn shown(position: Position) -> String {
    format!("{}-{}", position.segment, position.offset)
}

fn position_of(text: &str) -> Option<Position> {
    let (segment, offset) = text.split_once('-')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

const READER: &str = "files";
const SAVED: &str = "export.position";
const PREFIX: &str = "generations_";
const SUFFIX: &str = ".jsonl.zst";
/// Level 3 is zstd's own default: about a tenth of the size at several hundred megabytes a second.
const LEVEL: i32 = 3;
const AT_ONCE: usize = 4_096;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const RETRY_EVERY: Duration = Duration::from_secs(2);
