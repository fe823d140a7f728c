//! The one thread that makes records and writes them down.

mod disk;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidegate_ledger::{Ending, Generation, Rollups};
use tidegate_proto::encode_ended;
use tidegate_proto::v1::journal_entry::Entry;
use tidegate_proto::v1::{Begun, Delivered as DeliveredEntry, GenerationRecord, Holding as HoldingEntry, JournalEntry};
use tidegate_quota::{Gate, Reservation, Settlement};
use tidegate_runtime::Clock;

use super::live::Seen;
use super::metrics::{Dropped, LedgerMetrics};
use super::recover::{self, Recovered};
use super::segment::{Directory, Position};
use super::sums::{self, Requests};
use super::{Closing, Note, Opening, Progress, frame, settlement};
use crate::bill::{Bill, Delivered};
use crate::config::LedgerConfig;
use crate::quota::Owed;
use disk::Disk;

/// The thread's state.
pub(super) struct Writer {
    config: LedgerConfig,
    clock: Clock,
    queue: Receiver<Note>,
    rollups: Arc<Mutex<Rollups>>,
    metrics: LedgerMetrics,
    gate: Arc<Gate>,
    progress: Arc<Progress>,
    disk: Option<Disk>,
    /// Begun and not ended.
    open: HashMap<Arc<str>, Open, foldhash::fast::RandomState>,
    /// Begun since the last round: those that end within it never need an entry of their own.
    fresh: Vec<Arc<str>>,
    /// Ended a moment ago, with a reservation that the store may not have heard the end of.
    unsettled: VecDeque<(Instant, GenerationRecord)>,
    /// Entries that are not written yet, and how many.
    buffer: Vec<u8>,
    buffered: u64,
    /// Records of this round, for the sums.
    records: Vec<Generation>,
    /// To be settled once the buffer is written.
    after: Vec<Owed>,
    checked: Instant,
    summed: Instant,
    /// Something was counted since the file of sums was written.
    changed: bool,
    stopping: bool,
}

struct Open {
    opening: Box<Opening>,
    seen: Option<Seen>,
    /// What its attempts have reserved.
    holding: Vec<HoldingEntry>,
    /// Its beginning is in the journal.
    noted: bool,
}

impl Writer {
    pub(super) fn new(
        config: &LedgerConfig,
        clock: Clock,
        queue: Receiver<Note>,
        rollups: Arc<Mutex<Rollups>>,
        metrics: LedgerMetrics,
        gate: Arc<Gate>,
        progress: Arc<Progress>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config: config.clone(),
            clock,
            queue,
            rollups,
            metrics,
            gate,
            progress,
            disk: None,
            open: HashMap::default(),
            fresh: Vec::new(),
            unsettled: VecDeque::new(),
            buffer: Vec::new(),
            buffered: 0,
            records: Vec::new(),
            after: Vec::new(),
            checked: now,
            summed: now,
            changed: false,
            stopping: false,
        }
    }

    /// Begins a new segment after what was found, and ends what was left open: the records are in the journal before this returns.
    pub(super) fn open_files(
        &mut self,
        directory: Directory,
        end: Position,
        found: &Recovered,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> io::Result<Vec<Settlement>> {
        let (disk, thread) = Disk::open(directory, end.segment, &self.config, self.metrics.clone(), Arc::clone(&self.progress))?;
        threads.push(thread);
        self.disk = Some(disk);
        self.unsettled = found.unsettled.iter().map(|record| (Instant::now(), record.clone())).collect();
        let mut ended = Vec::with_capacity(found.open.len());
        for (begun, delivered) in &found.open {
            let generation = recover::record_of(begun, delivered.as_ref());
            self.metrics.recovered.inc();
            let held = found.holding.get(&begun.id).map(Vec::as_slice).unwrap_or_default();
            let served = held.iter().rposition(|held| *held.provider_name == *generation.provider_name);
            let by_attempt = served.map(|at| held[at].reservation.to_vec()).unwrap_or_default();
            self.ended(&generation, begun.reservation.to_vec(), by_attempt);
            ended.extend(reservation_of(&begun.reservation).map(|reservation| settlement(&generation, reservation)));
            for (at, held) in held.iter().enumerate() {
                // An attempt that did not serve has used nothing; of most of them the store has heard that already.
                let told = |reservation| match Some(at) == served {
                    true => settlement(&generation, reservation),
                    false => Settlement::nothing(reservation),
                };
                ended.extend(reservation_of(&held.reservation).map(told));
            }
            self.records.push(generation);
        }
        self.add_up();
        if !self.buffer.is_empty()
            && let Some(disk) = &mut self.disk
        {
            disk.write(&mut self.buffer)?;
            disk.sync_now()?;
            self.buffered = 0;
        }
        self.changed = true;
        self.write_sums();
        Ok(ended)
    }

    /// Until a stop is asked for. A round takes what is queued, writes it, and naps, so that a busy edge wakes nobody and writes in groups.
    pub(super) fn run(mut self) {
        let mut idle = 0;
        while !self.stopping {
            let took = if idle < IDLE_ROUNDS { self.drain() } else { self.wait() };
            idle = if took { 0 } else { idle + 1 };
            self.round();
            if !self.stopping && idle < IDLE_ROUNDS {
                std::thread::sleep(NAP);
            }
        }
        self.finish();
    }

    /// Everything that is queued, up to a bound. False when there was nothing.
    fn drain(&mut self) -> bool {
        if self.buffer.len() > self.config.waiting_bytes {
            return true;
        }
        let mut took = false;
        for _ in 0..GROUP {
            match self.queue.try_recv() {
                Ok(note) => self.take(note),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    break;
                }
            }
            took = true;
        }
        took
    }

    /// Waits for a note, or for the time to look at open streams.
    fn wait(&mut self) -> bool {
        let patience = if self.open.is_empty() && self.buffer.is_empty() { IDLE } else { self.config.checkpoint.min(IDLE) };
        match self.queue.recv_timeout(patience) {
            Ok(note) => {
                self.take(note);
                self.drain();
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                self.stopping = true;
                false
            }
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Begun(opening) => {
                let id = Arc::clone(&opening.context.id);
                self.fresh.push(Arc::clone(&id));
                self.open.insert(id, Open { opening, seen: None, holding: Vec::new(), noted: false });
            }
            Note::Holding(held) => {
                let Some(open) = self.open.get_mut(&held.context.id) else { return };
                let entry = HoldingEntry {
                    id: held.context.id.to_string(),
                    provider_name: held.provider_name.to_string(),
                    reservation: reservation_bytes(&held.reservation).into(),
                };
                open.holding.push(entry.clone());
                if open.noted {
                    self.entry(Entry::Holding(entry));
                }
            }
            Note::Ended(closing) => {
                let Closing { past, owed, owed_by_attempt } = *closing;
                self.open.remove(&past.context.id);
                let generation = past.record();
                self.metrics.records.with_label_values(&[generation.ending.as_str()]).inc();
                let bytes = |owed: &Option<Owed>| owed.as_ref().map(|owed| reservation_bytes(&owed.reservation)).unwrap_or_default();
                self.ended(&generation, bytes(&owed), bytes(&owed_by_attempt));
                self.after.extend(owed.into_iter().chain(owed_by_attempt));
                self.records.push(generation);
            }
            Note::Stop => self.stopping = true,
        }
    }

    /// Notes a record, if there is a journal.
    fn ended(&mut self, generation: &Generation, reservation: Vec<u8>, by_attempt: Vec<u8>) {
        if self.disk.is_none() {
            return;
        }
        frame::append_with(&mut self.buffer, |out| encode_ended(generation, &reservation, &by_attempt, out));
        self.buffered += 1;
        if !(reservation.is_empty() && by_attempt.is_empty()) {
            let record = GenerationRecord { reservation: reservation.into(), attempt_reservation: by_attempt.into(), ..generation.into() };
            self.unsettled.push_back((Instant::now(), record));
        }
    }

    fn entry(&mut self, entry: Entry) {
        if self.disk.is_some() {
            frame::append(&mut self.buffer, &JournalEntry { entry: Some(entry) });
            self.buffered += 1;
        }
    }

    fn round(&mut self) {
        self.note_beginnings();
        if self.checked.elapsed() >= self.config.checkpoint {
            self.checked = Instant::now();
            self.note_deliveries();
        }
        while self.unsettled.front().is_some_and(|(ended, _)| ended.elapsed() > TOLD_WITHIN) {
            self.unsettled.pop_front();
        }
        self.add_up();
        self.metrics.open.set(i64::try_from(self.open.len()).unwrap_or(i64::MAX));
        self.write();
        if self.buffer.is_empty() {
            let noted: u64 = self.open.values().filter_map(|open| open.seen.as_ref()).map(|seen| seen.output_bytes).sum();
            self.metrics.noted.set(i64::try_from(noted).unwrap_or(i64::MAX));
        }
        if self.changed && self.summed.elapsed() >= SUMS_EVERY {
            self.write_sums();
        }
    }

    fn note_beginnings(&mut self) {
        for id in std::mem::take(&mut self.fresh) {
            let Some(open) = self.open.get_mut(&id) else { continue };
            open.noted = true;
            if self.disk.is_some() {
                let held = open.holding.iter().cloned().map(Entry::Holding);
                for entry in std::iter::once(Entry::Begun(begun(&open.opening))).chain(held) {
                    frame::append(&mut self.buffer, &JournalEntry { entry: Some(entry) });
                    self.buffered += 1;
                }
            }
        }
    }

    /// What open streams have delivered since the last look.
    fn note_deliveries(&mut self) {
        if self.disk.is_none() || self.buffer.len() > self.config.waiting_bytes {
            return;
        }
        let hhmm = self.clock.utc_hhmm();
        for open in self.open.values_mut() {
            let seen = open.opening.live.see();
            if seen.is_none() || seen == open.seen {
                continue;
            }
            open.seen = seen;
            if let Some(entry) = delivered(open, hhmm) {
                frame::append(&mut self.buffer, &JournalEntry { entry: Some(Entry::Delivered(entry)) });
                self.buffered += 1;
            }
        }
    }

    fn add_up(&mut self) {
        if self.records.is_empty() {
            return;
        }
        self.changed = true;
        self.rollups.lock().add_all(&self.records);
        self.records.clear();
    }

    fn write(&mut self) {
        let Some(disk) = &mut self.disk else { return self.settle_all() };
        if !self.buffer.is_empty() {
            match disk.write(&mut self.buffer) {
                Ok(()) => self.buffered = 0,
                Err(error) => {
                    disk.failed(&error, self.buffer.len());
                    // Quotas do not wait for a disk: the record is in memory, and what a crash would lose of it is settled here.
                    if disk.failing_for() < SETTLE_ANYWAY {
                        return;
                    }
                }
            }
        }
        self.settle_all();
        if let Some(disk) = &mut self.disk {
            disk.sync_when_due(&self.config);
        }
    }

    fn settle_all(&mut self) {
        for owed in self.after.drain(..) {
            owed.pay(&self.gate);
        }
    }

    /// Hands the sums over to be written, when everything that they count is written.
    fn write_sums(&mut self) {
        self.summed = Instant::now();
        let now_ms = self.clock.unix_millis();
        let Some(disk) = &mut self.disk else {
            self.rollups.lock().expire(self.config.retention, now_ms);
            self.changed = false;
            return;
        };
        if !self.buffer.is_empty() {
            return;
        }
        let hhmm = self.clock.utc_hhmm();
        let noted = || self.open.values().filter(|open| open.noted);
        let requests = Requests {
            open: noted().map(|open| begun(&open.opening)).collect(),
            delivered: noted().filter_map(|open| delivered(open, hhmm)).collect(),
            holding: noted().flat_map(|open| open.holding.iter().cloned()).collect(),
            unsettled: self.unsettled.iter().map(|(_, record)| record.clone()).collect(),
        };
        let bytes = {
            let mut rollups = self.rollups.lock();
            rollups.expire(self.config.retention, now_ms);
            sums::encode(&rollups, requests, disk.position(), now_ms)
        };
        if disk.write_sums(bytes) {
            self.changed = false;
        }
        disk.remove_old(&self.config);
    }

    /// The last round: what is queued is written, or counted as lost.
    fn finish(mut self) {
        while self.drain() && self.buffer.len() <= self.config.waiting_bytes {}
        self.round();
        if !self.buffer.is_empty() {
            tracing::error!(bytes = self.buffer.len(), entries = self.buffered, "the journal could not be written to its end");
            self.metrics.dropped(Dropped::Shutdown, self.buffered);
        }
        self.settle_all();
        self.write_sums();
        if let Some(disk) = self.disk {
            disk.close();
        }
        self.progress.ended.store(true, std::sync::atomic::Ordering::Release);
    }
}

fn begun(opening: &Opening) -> Begun {
    let (context, account) = (&opening.context, opening.caller.account());
    let owned = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    Begun {
        id: context.id.to_string(),
        created_ms: context.created_ms,
        key: opening.caller.counted_as().to_string(),
        organisation: owned(&account.organisation),
        workspace: owned(&account.workspace),
        model: opening.state.model(context.model).slug.to_string(),
        region: context.region.to_string(),
        streamed: context.streamed,
        reservation: opening.reservation.as_ref().map(reservation_bytes).unwrap_or_default().into(),
        app_title: context.title.clone().unwrap_or_default(),
        http_referer: context.referer.clone().unwrap_or_default(),
    }
}

/// The bill so far, as if the answer broke off now.
fn delivered(open: &Open, utc_hhmm: u16) -> Option<DeliveredEntry> {
    let (opening, seen) = (&open.opening, open.seen.as_ref()?);
    let target = opening.state.target(seen.endpoint);
    let so_far = Delivered {
        reported: seen.reported,
        output_bytes: seen.output_bytes,
        content_seen: true,
        finish_reason: seen.finished.then_some("stop"),
        upstream_cost: None,
        prompt_tokens: opening.prompt_tokens,
    };
    let own_key = opening.state.is_own_key(seen.credential);
    let bill = Bill::of(Ending::Cut, &so_far, Some(target), own_key, opening.caller.account().fee, utc_hhmm);
    Some(DeliveredEntry {
        id: opening.context.id.to_string(),
        model: target.model.to_string(),
        provider_name: target.provider.name.to_string(),
        endpoint: target.name.to_string(),
        usage: Some((&bill.usage).into()),
        charge: Some((&bill.charge).into()),
        fee: Some(bill.toll.fee.into()),
        charged: Some(bill.toll.charged.into()),
        upstream_cost: Some(bill.upstream.into()),
        own_key,
    })
}

/// A reservation as the journal keeps it.
fn reservation_bytes(reservation: &Reservation) -> Vec<u8> {
    // Its form is the quota crate's own; JSON keeps it readable for whoever looks into a journal.
    serde_json::to_vec(reservation).unwrap_or_default()
}

/// A reservation from the journal; `None` when there was none, or of a newer version.
pub(super) fn reservation_of(bytes: &[u8]) -> Option<Reservation> {
    if bytes.is_empty() { None } else { serde_json::from_slice(bytes).ok() }
}

/// Between two rounds of a busy writer: requests lose no time by it, and a group has a few dozen entries under load. Waking five hundred
/// times for a thousand requests would cost as much as their records; a crash loses what came since the last round.
const NAP: Duration = Duration::from_millis(5);
/// Rounds without a note before the writer waits to be woken.
const IDLE_ROUNDS: u32 = 20;
/// Longest wait of an idle writer.
const IDLE: Duration = Duration::from_secs(1);
/// Notes of one round.
const GROUP: usize = 8_192;
/// A disk that takes nothing for this long does not hold up settlements any more.
const SETTLE_ANYWAY: Duration = Duration::from_secs(1);
/// After its record was written the store is told within this, or is away for longer than the journal remembers: then the reservation
/// expires as consumed.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// How often the sums are written: the most of the journal that a start reads again.
const SUMS_EVERY: Duration = Duration::from_secs(10);
