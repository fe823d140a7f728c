//! Passing an edge's journal on to its region.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use redis::cmd;
use tidegate_ledger::{Facets, Generation, Period, Retention, Sums};
use tidegate_proto::v1::GenerationRecord;
use tidegate_quota::StoreError;
use tidegate_runtime::Shutdown;

use super::{RegionLedger, bytes_of, owner_of, row};
use crate::ledger::Progress;
use crate::ledger::metrics::LedgerMetrics;
use crate::ledger::segment::Position;
use crate::ledger::tail::{Tail, Tailed};

/// The task's state.
pub(crate) struct Export {
    pub(crate) region: Arc<RegionLedger>,
    /// Directory of the journal.
    pub(crate) directory: PathBuf,
    /// Id of the journal: the same after a restart.
    pub(crate) journal: String,
    pub(crate) progress: Arc<Progress>,
    pub(crate) metrics: LedgerMetrics,
    pub(crate) retention: Retention,
    /// How long single records are kept.
    pub(crate) keep: Duration,
}

/// What is passed on in one step.
#[derive(Default)]
struct Batch {
    records: Vec<(String, Vec<u8>)>,
    sums: BTreeMap<(String, Facets), (Period, Sums)>,
    until: Position,
}

impl Export {
    /// Until a stop is asked for and everything that is written was passed on, or the store is away.
    pub(crate) async fn run(self, stop: Shutdown) {
        let mut failing = false;
        let mut place: Option<(Tail, String)> = None;
        let mut looked = Instant::now();
        loop {
            let stopping = stop.is_requested();
            let step = match place.take() {
                // Also when there is nothing to pass on: others wait for what this journal holds of a ledger that was wiped.
                Some((tail, before)) if looked.elapsed() >= LOOK_AGAIN => {
                    looked = Instant::now();
                    match self.place().await {
                        Ok(now) if now == before => Ok((tail, before)),
                        Ok(now) => Ok(self.begin_after(&before, now)),
                        Err(error) => Err(error),
                    }
                }
                Some(step) => Ok(step),
                None => self.place().await.map(|place| self.begin(place)),
            };
            let result = match step {
                Ok((tail, before)) => self.step(tail, before).await,
                Err(error) => Err(error),
            };
            match result {
                Ok((next, passed)) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("records reach the region's ledger again");
                    }
                    place = Some(next);
                    if passed > 0 {
                        self.metrics.exported.with_label_values(&["region"]).inc_by(passed);
                    } else if stopping {
                        return;
                    } else {
                        pause(&stop, LOOK_EVERY).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "records do not reach the region's ledger; they stay in the journal");
                    }
                    if stopping {
                        return;
                    }
                    pause(&stop, RETRY_EVERY).await;
                }
            }
        }
    }

    /// Where the region's ledger says that this journal was read to; empty when it knows nothing of it.
    async fn place(&self) -> Result<String, StoreError> {
        let answer = self.region.link.run("place", cmd("HGET").arg(self.places_key()).arg(&self.journal)).await?;
        Ok(bytes_of(&answer).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default())
    }

    fn begin(&self, place: String) -> (Tail, String) {
        let from = position_of(&place).unwrap_or_default();
        (Tail::new(self.directory.clone(), READER, from, Arc::clone(&self.progress)), place)
    }

    /// The same when it should still be `before`.
    fn begin_after(&self, before: &str, place: String) -> (Tail, String) {
        if place.is_empty() && !before.is_empty() {
            tracing::warn!("the region's ledger has lost its records: it is filled again from the journal of this edge");
            self.region.lost.notify_one();
        }
        self.begin(place)
    }

    /// Reads and passes on one batch. An empty one is no step.
    async fn step(&self, tail: Tail, before: String) -> Result<((Tail, String), u64), StoreError> {
        let unreadable = |detail: String| StoreError::Unavailable { operation: "read the journal", detail };
        let read = tokio::task::spawn_blocking(move || read_batch(tail)).await.map_err(|error| unreadable(error.to_string()))?;
        let (tail, batch) = read.map_err(|error| unreadable(error.to_string()))?;
        if batch.records.is_empty() {
            return Ok(((tail, before), 0));
        }
        let after = shown(batch.until);
        let passed = batch.records.len() as u64;
        let answer = self.region.link.run("records", &self.command(&batch, &before, &after)).await?;
        if bytes_of(&answer) != Some(after.as_bytes()) {
            // Somebody else moved the place, or the store was wiped: begin where it says.
            return Ok((self.begin_after(&before, self.place().await?), 0));
        }
        tail.done_until(batch.until);
        Ok(((tail, after), passed))
    }

    fn command(&self, batch: &Batch, before: &str, after: &str) -> redis::Cmd {
        let mut keys = vec![self.places_key(), format!("{}:records", self.region.prefix), self.region.owners_key()];
        let mut arguments: Vec<Vec<u8>> = Vec::new();
        let mut push = |argument: &[u8]| arguments.push(argument.to_vec());
        for argument in [self.journal.as_str(), before, after] {
            push(argument.as_bytes());
        }
        push(STREAM.to_string().as_bytes());
        push(self.keep.as_secs().max(1).to_string().as_bytes());
        push(batch.records.len().to_string().as_bytes());
        let owner = |key: &str| key.split_once(' ').map_or("", |(_, owner)| owner).to_owned();
        let owners: BTreeSet<String> = batch.sums.keys().map(|(key, _)| owner(key)).collect();
        push(owners.len().to_string().as_bytes());
        for owner in &owners {
            push(owner.as_bytes());
        }
        for (id, record) in &batch.records {
            keys.push(self.region.record_key(id));
            push(keys.len().to_string().as_bytes());
            push(record);
        }
        for ((key, facets), (period, sums)) in &batch.sums {
            keys.push(self.region.sums_key(&owner(key), *period));
            let keep = match period {
                Period::Hour(_) => u64::from(self.retention.hours) * 3_600,
                Period::Day(_) => u64::from(self.retention.days) * 86_400,
                Period::Total => 0,
            };
            push(keys.len().to_string().as_bytes());
            push(keep.to_string().as_bytes());
            push(row::prefix(facets).as_bytes());
            push(&row::over(facets));
            let counters = row::counters(sums);
            push(counters.len().to_string().as_bytes());
            for (name, amount) in counters {
                push(name.as_bytes());
                push(amount.to_string().as_bytes());
            }
        }
        let mut command = cmd("EVAL");
        command.arg(SCRIPT).arg(keys.len()).arg(keys).arg(arguments);
        command
    }

    fn places_key(&self) -> String {
        format!("{}:places", self.region.prefix)
    }
}

fn read_batch(mut tail: Tail) -> std::io::Result<(Tail, Batch)> {
    let mut batch = Batch::default();
    while batch.records.len() < AT_ONCE {
        match tail.next()? {
            Tailed::Record(record, until) => batch.add(*record, until),
            Tailed::Nothing => break,
        }
    }
    Ok((tail, batch))
}

impl Batch {
    fn add(&mut self, mut record: GenerationRecord, until: Position) {
        self.until = until;
        // What settles a reservation is nobody's business but this edge's.
        record.reservation = Default::default();
        record.attempt_reservation = Default::default();
        let bytes = record.encode_to_vec();
        let Ok(generation) = Generation::try_from(record) else { return };
        let (facets, sums) = (Facets::of(&generation), Sums::of(&generation));
        let owner = owner_of(generation.organisation.as_ref(), &generation.key);
        for (period, facets) in [
            (Period::hour_of(generation.created_ms), facets.clone()),
            (Period::day_of(generation.created_ms), facets.clone()),
            (Period::Total, facets.owner()),
        ] {
            // The period stands before the owner, so that rows of one hash are neighbours.
            let key = format!("{}-{} {owner}", name_of(period), period.number());
            self.sums.entry((key, facets)).or_insert((period, Sums::default())).1 += sums;
        }
        self.records.push((generation.id.to_string(), bytes));
    }
}

fn name_of(period: Period) -> &'static str {
    match period {
        Period::Hour(_) => "h",
        Period::Day(_) => "d",
        Period::Total => "t",
    }
}

async fn pause(stop: &Shutdown, time: Duration) {
    // Losing either branch is safe: both only end the pause.
    tokio::select! {
        () = stop.requested() => tokio::time::sleep(STOPPING_PAUSE).await,
        () = tokio::time::sleep(time) => {}
    }
}

fn shown(position: Position) -> String {
    format!("{}-{}", position.segment, position.offset)
}

fn position_of(text: &str) -> Option<Position> {
    let (segment, offset) = text.split_once('-')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

const SCRIPT: &str = include_str!("../region.lua");
const READER: &str = "region";
/// Records in the stream, about: half a gigabyte of usual ones would be a million.
const STREAM: u64 = 100_000;
/// Records of one step: a few milliseconds of the server's time.
const AT_ONCE: usize = 200;
/// `GET /generation` answers on another edge within this and a round trip.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often an idle edge looks whether the region's ledger still has what was passed on.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const STOPPING_PAUSE: Duration = Duration::from_millis(10);
