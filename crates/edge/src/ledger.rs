//! What was used and charged: one record per generation, kept against crashes and summed up.
//!
//! A request only pushes a note on a bounded queue; one thread makes the record, adds it to the sums and, where there is a directory,
//! appends it to the journal. Notes are written in groups, a few milliseconds apart. What a request has reserved is settled with the
//! counting store after its record was written, so that a crash in between is settled by the next start and not forgotten.
//!
//! When the disk takes nothing, up to 16 MiB of entries wait in memory and are tried again; then the queue fills (65 536 notes), then notes
//! are lost and counted in `tidegate_ledger_dropped_total`. No request waits and none is refused for it; its reservation is settled all
//! the same, so that quotas stay right while records are lost.

mod files;
mod frame;
mod live;
mod metrics;
mod objects;
mod recover;
pub(crate) mod region;
mod segment;
mod sums;
mod tail;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_ledger::{Generation, Rollups};
use tidegate_proto::v1::GenerationRecord;
use tidegate_quota::{Gate, Reservation, Settlement};
use tidegate_runtime::Clock;

use crate::auth::Caller;
use crate::config::LedgerConfig;
use crate::context::RequestContext;
use crate::generations::past::Past;
use crate::quota::{Owed, micro_dollars, was_free};
use crate::state::RoutingState;
use files::Purpose;
pub(crate) use live::Live;
use metrics::Dropped;
pub(crate) use metrics::LedgerMetrics;
use region::{Export, RegionLedger};
use segment::{Directory, Position};
use writer::Writer;

/// Where requests leave their notes.
pub(crate) struct Ledger {
    notes: SyncSender<Note>,
    rollups: Arc<Mutex<Rollups>>,
    metrics: LedgerMetrics,
    progress: Arc<Progress>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a request has to say.
pub(crate) enum Note {
    Begun(Box<Opening>),
    Holding(Box<Holding>),
    Ended(Box<Closing>),
    /// Write what there is and end.
    Stop,
}

/// A request that is about to be sent to a provider.
pub(crate) struct Opening {
    pub(crate) state: Arc<RoutingState>,
    pub(crate) context: Arc<RequestContext>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) live: Arc<Live>,
    pub(crate) prompt_tokens: u32,
    /// What a later start has to settle.
    pub(crate) reservation: Option<Reservation>,
}

/// An attempt of an open request reserved something of limits that name its provider.
pub(crate) struct Holding {
    pub(crate) context: Arc<RequestContext>,
    /// As records call it.
    pub(crate) provider_name: Arc<str>,
    pub(crate) reservation: Reservation,
}

/// A request that has ended.
pub(crate) struct Closing {
    pub(crate) past: Arc<Past>,
    /// Settled once the record is written.
    pub(crate) owed: Option<Owed>,
    /// The same for what the attempt that served held of limits that name its provider.
    pub(crate) owed_by_attempt: Option<Owed>,
}

/// What an earlier process left to be done.
#[derive(Debug, Default)]
pub(crate) struct Unfinished {
    /// Of requests that it had open, which are records in the journal now.
    pub(crate) open: Vec<Settlement>,
    /// Records whose reservation may not have been settled.
    pub(crate) unsettled: Vec<GenerationRecord>,
}

impl Unfinished {
    /// What a store that knows of the reservations has to be told.
    pub(crate) fn settlements(self) -> impl Iterator<Item = Settlement> {
        let unsettled = self.unsettled.into_iter().flat_map(|record| {
            let held = [&record.reservation, &record.attempt_reservation].map(|bytes| writer::reservation_of(bytes));
            let generation = Generation::try_from(record).ok();
            held.into_iter().flatten().filter_map(move |reservation| Some(settlement(generation.as_ref()?, reservation)))
        });
        self.open.into_iter().chain(unsettled)
    }
}

fn settlement(generation: &Generation, reservation: Reservation) -> Settlement {
    let used = tidegate_quota::Usage {
        requests: 1,
        input_tokens: generation.usage.prompt_tokens,
        output_tokens: generation.usage.completion_tokens,
        micro_dollars: micro_dollars(generation.charged),
        free: was_free(&reservation),
    };
    Settlement::new(reservation, &used)
}

/// How far the journal is written, and where its readers are.
#[derive(Default)]
pub(crate) struct Progress {
    written: Mutex<Position>,
    readers: Mutex<Vec<(String, u64)>>,
    /// The writer has ended: what is written is all there will be.
    ended: AtomicBool,
}

impl Ledger {
    /// Reads what an earlier process left, and starts the threads, which end with [`Ledger::close`]. Blocks while it reads.
    ///
    /// # Errors
    /// The directory cannot be used, or another process uses it.
    pub(crate) fn start(config: &LedgerConfig, clock: Clock, metrics: LedgerMetrics, gate: Arc<Gate>) -> io::Result<(Self, Unfinished)> {
        let (notes, queue) = sync_channel(config.waiting_notes);
        let progress = Arc::new(Progress::default());
        let directory = config.directory.as_deref().map(Directory::lock).transpose()?;
        let mut recovered = match &directory {
            Some(directory) => recover::recover(directory.path())?,
            None => recover::Recovered::default(),
        };
        report(&recovered, directory.as_ref().map(Directory::path));
        let rollups = Arc::new(Mutex::new(std::mem::take(&mut recovered.rollups)));
        let mut threads = Vec::new();
        let mut writer = Writer::new(config, clock, queue, Arc::clone(&rollups), metrics.clone(), gate, Arc::clone(&progress));
        let mut unfinished = Unfinished { open: Vec::new(), unsettled: std::mem::take(&mut recovered.unsettled) };
        if let Some(directory) = directory {
            let end = recovered.end;
            unfinished.open = writer.open_files(directory, end, &recovered, &mut threads)?;
            if let Some(export) = &config.export {
                let path = config.directory.clone().unwrap_or_default();
                threads.push(files::start(path, export.clone(), Purpose::files(), clock, Arc::clone(&progress), metrics.clone())?);
            }
            if let Some(objects) = &config.objects {
                let path = config.directory.clone().unwrap_or_default();
                objects::start(path, objects, clock, &progress, &metrics, &mut threads)?;
            }
        }
        threads.push(std::thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run())?);
        Ok((Self { notes, rollups, metrics, progress, threads: Mutex::new(threads) }, unfinished))
    }

    /// Leaves a note; never waits. Gives the note back when there is no room.
    pub(crate) fn note(&self, note: Note) -> Result<(), Note> {
        self.notes.try_send(note).map_err(|error| {
            self.metrics.dropped(Dropped::QueueFull, 1);
            match error {
                TrySendError::Full(note) | TrySendError::Disconnected(note) => note,
            }
        })
    }

    /// The sums of this edge.
    pub(crate) fn rollups(&self) -> parking_lot::MutexGuard<'_, Rollups> {
        self.rollups.lock()
    }

    /// The sums of this edge, to be shared.
    pub(crate) fn rollups_shared(&self) -> Arc<Mutex<Rollups>> {
        Arc::clone(&self.rollups)
    }

    /// What passes the journal on to the region; `None` without a journal.
    pub(crate) fn region_export(&self, region: Arc<RegionLedger>, config: &LedgerConfig, keep: Duration) -> io::Result<Option<Export>> {
        let Some(directory) = config.directory.clone() else { return Ok(None) };
        Ok(Some(Export {
            region,
            journal: segment::journal_id(&directory)?,
            directory,
            progress: Arc::clone(&self.progress),
            metrics: self.metrics.clone(),
            retention: config.retention,
            keep,
        }))
    }

    /// Writes what is left and ends the threads; blocks for that long.
    pub(crate) fn close(&self) {
        // The queue may be full of what the writer is about to write.
        let _ = self.notes.send(Note::Stop);
        for thread in self.threads.lock().drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the ledger panicked");
            }
        }
    }
}

impl Progress {
    /// How far whole entries are there.
    pub(crate) fn written(&self) -> Position {
        *self.written.lock()
    }

    /// The writer has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn advance(&self, to: Position) {
        *self.written.lock() = to;
    }

    /// A reader needs this segment and what follows.
    pub(crate) fn reader_at(&self, name: &str, segment: u64) {
        let mut readers = self.readers.lock();
        match readers.iter_mut().find(|(reader, _)| reader == name) {
            Some((_, at)) => *at = segment,
            None => readers.push((name.to_owned(), segment)),
        }
    }

    /// Every reader and the first segment that it needs.
    fn readers(&self) -> Vec<(String, u64)> {
        self.readers.lock().clone()
    }
}

fn report(recovered: &recover::Recovered, directory: Option<&Path>) {
    let Some(directory) = directory.map(Path::display) else { return };
    if recovered.torn_bytes > 0 {
        tracing::warn!(%directory, bytes = recovered.torn_bytes, "the journal ended in the middle of an entry, as after a crash: it was cut off");
    }
    for segment in &recovered.damaged {
        tracing::error!(%directory, segment, "a segment of the journal is damaged: records after the damage are not counted");
    }
    if recovered.foreign > 0 {
        tracing::warn!(%directory, entries = recovered.foreign, "the journal holds entries of a newer version, which are not counted");
    }
    if !recovered.open.is_empty() {
        tracing::warn!(%directory, requests = recovered.open.len(), "an earlier process left requests open: they are settled now");
    }
}
