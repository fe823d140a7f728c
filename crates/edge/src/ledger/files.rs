//! Records as compressed JSON lines in a directory: for the user's own warehouse, or on their way to an object store.
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
use tokio::sync::mpsc::Sender;

use super::Progress;
use super::metrics::LedgerMetrics;
use super::segment::{self, Position};
use super::tail::{Tail, Tailed};
use crate::config::ExportConfig;

/// What sets the exports of one journal apart.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    /// Among the journal's readers, and in metrics.
    reader: &'static str,
    /// The file beside the journal that remembers how far it was read.
    saved: &'static str,
    /// No new file is begun while the finished ones take this many bytes.
    most_waiting: u64,
    /// Hears of each finished file; gone when there will be no more.
    finished: Option<Sender<()>>,
}

impl Purpose {
    /// Files for whoever configured the directory, who moves them away.
    pub(super) fn files() -> Self {
        Self { reader: "files", saved: "export.position", most_waiting: u64::MAX, finished: None }
    }

    /// Files that are removed once an object store has them.
    pub(super) fn objects(most_waiting: u64, finished: Sender<()>) -> Self {
        Self { reader: "objects", saved: "objects.position", most_waiting, finished: Some(finished) }
    }
}

/// Starts the thread, which ends after the writer has and everything is passed on.
pub(super) fn start(
    journal: PathBuf,
    config: ExportConfig,
    purpose: Purpose,
    clock: Clock,
    progress: Arc<Progress>,
    metrics: LedgerMetrics,
) -> io::Result<JoinHandle<()>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("ledger export directory {}: {error}", config.directory.display()));
    std::fs::create_dir_all(&config.directory).map_err(named)?;
    let id = segment::journal_id(&journal)?;
    let from = begin(&journal.join(purpose.saved), &config.directory, &id).map_err(named)?;
    let tail = Tail::new(journal.clone(), purpose.reader, from, Arc::clone(&progress));
    let name = format!("ledger-{}", purpose.reader);
    let export = Export { journal, id, config, purpose, clock, progress, metrics, tail, from, part: None, failing: false };
    std::thread::Builder::new().name(name).spawn(move || export.run())
}

struct Export {
    journal: PathBuf,
    /// Of the journal.
    id: String,
    config: ExportConfig,
    purpose: Purpose,
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
                    self.tail = Tail::new(self.journal.clone(), self.purpose.reader, self.from, Arc::clone(&self.progress));
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
            if self.part.is_none() && self.is_full()? {
                return Ok(false);
            }
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

    /// Finished files wait for somebody who does not take them.
    fn is_full(&self) -> io::Result<bool> {
        Ok(self.purpose.most_waiting < u64::MAX && waiting(&self.config.directory)?.1 >= self.purpose.most_waiting)
    }

    fn take(&mut self, record: GenerationRecord, until: Position) -> io::Result<()> {
        let Ok(generation) = Generation::try_from(record) else { return Ok(()) };
        if self.part.is_none() {
            let path = self.config.directory.join(format!("{}.part", name(self.clock.unix_millis(), &self.id, self.from, self.from)));
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
        let finished = self.config.directory.join(name(part.begun_ms, &self.id, self.from, part.until));
        std::fs::rename(&part.path, &finished)?;
        File::open(&self.config.directory)?.sync_all()?;
        save(&self.journal, self.purpose.saved, part.until)?;
        self.metrics.exported.with_label_values(&[self.purpose.reader]).inc_by(part.records);
        tracing::debug!(file = %finished.display(), records = part.records, "records were exported");
        self.from = part.until;
        self.tail.done_until(self.from);
        if let Some(finished) = &self.purpose.finished {
            // A word that is not heard of yet is enough, and whoever has ended finds the file at the next start.
            let _ = finished.try_send(());
        }
        Ok(())
    }
}

/// Removes files that were never finished, and finds where the finished ones end: what the journal remembers, or the newest name, whichever
/// is further. Files of other journals are nobody's business: several edges may have one directory.
fn begin(saved: &Path, directory: &Path, journal: &str) -> io::Result<Position> {
    let mut end = match std::fs::read_to_string(saved) {
        Ok(text) => position_of(text.trim()).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Position::default(),
        Err(error) => return Err(error),
    };
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str().filter(|name| name.contains(journal)) else { continue };
        if file_name.starts_with(PREFIX) && file_name.ends_with(".part") {
            std::fs::remove_file(entry.path())?;
        } else if let Some(rest) = file_name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) {
            let until = rest.rsplit_once("_to_").and_then(|(_, until)| position_of(until));
            end = end.max(until.unwrap_or_default());
        }
    }
    Ok(end)
}

/// Finished files, oldest first, and how many bytes they take.
pub(super) fn waiting(directory: &Path) -> io::Result<(Vec<PathBuf>, u64)> {
    let mut files = Vec::new();
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            bytes += entry.metadata()?.len();
            files.push(entry.path());
        }
    }
    // Their names begin with the time.
    files.sort();
    Ok((files, bytes))
}

/// When a file with this name was begun, milliseconds of Unix time.
pub(super) fn begun_ms(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.split('_').next()?.parse().ok()
}

fn save(journal: &Path, saved: &str, position: Position) -> io::Result<()> {
    let new = journal.join(format!("{saved}.new"));
    std::fs::write(&new, format!("{}\n", shown(position)))?;
    std::fs::rename(new, journal.join(saved))
}

fn name(begun_ms: u64, journal: &str, from: Position, until: Position) -> String {
    format!("{PREFIX}{begun_ms}_{journal}_from_{}_to_{}{SUFFIX}", shown(from), shown(until))
}

fn shown(position: Position) -> String {
    format!("{}-{}", position.segment, position.offset)
}

fn position_of(text: &str) -> Option<Position> {
    let (segment, offset) = text.split_once('-')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

const PREFIX: &str = "generations_";
const SUFFIX: &str = ".jsonl.zst";
/// Level 3 is zstd's own default: about a tenth of the size at several hundred megabytes a second.
const LEVEL: i32 = 3;
const AT_ONCE: usize = 4_096;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const RETRY_EVERY: Duration = Duration::from_secs(2);
