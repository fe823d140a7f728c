//! The journal's newest segment, and the thread that makes it safe against power loss.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::super::metrics::LedgerMetrics;
use super::super::segment::{self, Directory, HEAD, Position};
use super::super::{Progress, sums};
use crate::config::LedgerConfig;

/// Where entries go.
pub(super) struct Disk {
    directory: Arc<Directory>,
    file: File,
    position: Position,
    progress: Arc<Progress>,
    metrics: LedgerMetrics,
    jobs: SyncSender<Job>,
    segment_bytes: u64,
    /// Written since the last sync was asked for, bytes.
    unsafe_bytes: u64,
    synced: Instant,
    failing_since: Option<Instant>,
}

/// What the syncing thread does, in order.
enum Job {
    Sync(File),
    /// First the journal that the sums refer to, then the sums.
    Sums(File, Vec<u8>),
}

impl Disk {
    /// Begins the segment after `last`. The thread ends when the disk is closed.
    pub(super) fn open(
        directory: Directory,
        last: u64,
        config: &LedgerConfig,
        metrics: LedgerMetrics,
        progress: Arc<Progress>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let last = segment::numbers(directory.path())?.last().copied().unwrap_or_default().max(last);
        let file = segment::create(directory.path(), last + 1)?;
        let position = Position { segment: last + 1, offset: HEAD };
        progress.advance(position);
        let directory = Arc::new(directory);
        // Bound: one at work and one behind it; a disk that is slower than that is asked again later.
        let (jobs, queue) = sync_channel(1);
        let thread = std::thread::Builder::new().name("ledger-sync".to_owned()).spawn({
            let (directory, metrics) = (Arc::clone(&directory), metrics.clone());
            move || work(&directory, &queue, &metrics)
        })?;
        let disk = Self {
            directory,
            file,
            position,
            progress,
            metrics,
            jobs,
            segment_bytes: config.segment_bytes,
            unsafe_bytes: 0,
            synced: Instant::now(),
            failing_since: None,
        };
        Ok((disk, thread))
    }

    /// Where the next entry goes.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Writes whole entries and empties the buffer. After an error the buffer is as it was; the next try writes over what half went.
    pub(super) fn write(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.file.write_all_at(buffer, self.position.offset)?;
        if self.failing_since.take().is_some() {
            tracing::info!("the journal can be written again");
        }
        let length = buffer.len() as u64;
        self.position.offset += length;
        self.unsafe_bytes += length;
        self.metrics.written_bytes.inc_by(length);
        buffer.clear();
        self.progress.advance(self.position);
        if self.position.offset >= self.segment_bytes {
            self.rotate();
        }
        Ok(())
    }

    /// Notes a failed write; said once until it works again.
    pub(super) fn failed(&mut self, error: &io::Error, waiting: usize) {
        self.metrics.write_errors.inc();
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::error!(%error, waiting, directory = %self.directory.path().display(), "cannot write the journal; entries wait in memory, then are lost and counted");
        }
    }

    /// How long nothing could be written.
    pub(super) fn failing_for(&self) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Asks for a sync when the interval or the size is reached.
    pub(super) fn sync_when_due(&mut self, config: &LedgerConfig) {
        let due = self.unsafe_bytes >= config.fsync_bytes || self.synced.elapsed() >= config.fsync_every;
        if self.unsafe_bytes == 0 || !due {
            return;
        }
        let Ok(file) = self.file.try_clone() else { return };
        if self.jobs.try_send(Job::Sync(file)).is_ok() {
            self.unsafe_bytes = 0;
            self.synced = Instant::now();
        }
    }

    /// Waits until everything that was written is safe.
    pub(super) fn sync_now(&mut self) -> io::Result<()> {
        self.unsafe_bytes = 0;
        self.file.sync_data()
    }

    /// Hands the sums over; false when the thread is busy with the last ones.
    pub(super) fn write_sums(&mut self, bytes: Vec<u8>) -> bool {
        let Ok(file) = self.file.try_clone() else { return false };
        self.jobs.try_send(Job::Sums(file, bytes)).is_ok()
    }

    fn rotate(&mut self) {
        let number = self.position.segment + 1;
        match segment::create(self.directory.path(), number) {
            Ok(file) => {
                let full = std::mem::replace(&mut self.file, file);
                if self.jobs.try_send(Job::Sync(full)).is_err() {
                    tracing::debug!("a full segment is left to the file system to be made safe");
                }
                self.position = Position { segment: number, offset: HEAD };
                self.progress.advance(self.position);
            }
            // The old one goes on for as long as there is no new one.
            Err(error) => tracing::warn!(%error, "cannot begin a new segment of the journal"),
        }
    }

    /// Removes segments that nobody needs any more, and those beyond the bound.
    pub(super) fn remove_old(&self, config: &LedgerConfig) {
        let Ok(numbers) = segment::numbers(self.directory.path()) else { return };
        let readers = self.progress.readers();
        let needed = readers.iter().map(|(_, segment)| *segment).min().unwrap_or(u64::MAX);
        let now = SystemTime::now();
        let facts = |number: u64| {
            let facts = std::fs::metadata(segment::path(self.directory.path(), number)).ok()?;
            let age = facts.modified().ok().and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
            Some((facts.len(), age))
        };
        let mut total: u64 = numbers.iter().filter_map(|number| facts(*number)).map(|(bytes, _)| bytes).sum();
        for number in numbers.into_iter().filter(|number| *number < self.position.segment) {
            let Some((bytes, age)) = facts(number) else { continue };
            let beyond = total > config.keep_bytes;
            if !beyond && (age < config.keep || number >= needed) {
                break;
            }
            for (reader, _) in readers.iter().filter(|(_, at)| *at <= number) {
                tracing::error!(
                    reader,
                    segment = number,
                    "a segment of the journal was removed before it was passed on: raise `ledger.keep_bytes`"
                );
                self.metrics.lost(reader);
            }
            match std::fs::remove_file(segment::path(self.directory.path(), number)) {
                Ok(()) => total -= bytes,
                Err(error) => tracing::warn!(%error, segment = number, "cannot remove an old segment of the journal"),
            }
        }
    }

    /// Makes everything safe and ends the thread.
    pub(super) fn close(self) {
        if let Err(error) = self.file.sync_data() {
            tracing::error!(%error, "the end of the journal could not be made safe against power loss");
        }
    }
}

fn work(directory: &Directory, jobs: &Receiver<Job>, metrics: &LedgerMetrics) {
    while let Ok(job) = jobs.recv() {
        let timer = metrics.fsync.start_timer();
        let done = match job {
            Job::Sync(file) => file.sync_data(),
            Job::Sums(file, bytes) => file.sync_data().and_then(|()| sums::replace(directory.path(), &bytes)),
        };
        timer.observe_duration();
        if let Err(error) = done {
            metrics.write_errors.inc();
            tracing::error!(%error, "the ledger's files could not be made safe against power loss");
        }
    }
}
