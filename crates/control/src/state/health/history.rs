//! How often an endpoint worked, seen from one region: minutes of a day, hours of 90 days.
//!
//! Two bytes each, in chunks that exist only when there was traffic: an hour of minutes, a day of hours. Full, that is 7.2 KB, so 2,000
//! endpoints in 8 regions take 115 MB after 90 days of traffic everywhere. Chunks are shared between clones of the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_proto::v1::{UptimeChunk, UptimeHistory};

use super::minifloat::{decode, encode};

/// One endpoint in one region.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct History {
    /// By number of the hour.
    minutes: BTreeMap<u64, Arc<[Slot; 60]>>,
    /// By number of the day.
    hours: BTreeMap<u64, Arc<[Slot; 24]>>,
}

/// Successes and failures, each in one byte.
type Slot = [u8; 2];

/// Which stretch of time is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UptimeWindow {
    /// The present minute and the five before it: a minute is told when it is over.
    FiveMinutes,
    /// Thirty minutes likewise.
    HalfHour,
    /// The present hour and the 23 before it.
    Day,
}

/// Attempts that worked and that failed by the endpoint's fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UptimeCounts {
    /// Worked.
    pub ok: u64,
    /// Failed.
    pub failed: u64,
}

impl UptimeCounts {
    /// Share of successes, 0 to 1; `None` below `least` attempts.
    #[must_use]
    pub fn ratio(&self, least: u64) -> Option<f64> {
        let total = self.ok + self.failed;
        (total >= least.max(1)).then(|| self.ok as f64 / total as f64)
    }

    fn add(&mut self, slot: Slot) {
        self.ok += decode(slot[0]);
        self.failed += decode(slot[1]);
    }

    fn slot(self) -> Slot {
        [encode(self.ok), encode(self.failed)]
    }
}

impl History {
    /// Adds one node's counts of a minute (Unix time / 60), and brings the hour it belongs to up to date.
    pub(super) fn add(&mut self, minute: u64, ok: u64, failed: u64) {
        let (hour, at) = (minute / 60, (minute % 60) as usize);
        let minutes = Arc::make_mut(self.minutes.entry(hour).or_insert_with(|| Arc::new([[0; 2]; 60])));
        let mut counts = UptimeCounts { ok, failed };
        counts.add(minutes[at]);
        minutes[at] = counts.slot();
        // From its minutes and not by adding: a large sum in one byte would not notice a small number.
        let mut whole = UptimeCounts::default();
        minutes.iter().for_each(|slot| whole.add(*slot));
        let hours = Arc::make_mut(self.hours.entry(hour / 24).or_insert_with(|| Arc::new([[0; 2]; 24])));
        hours[(hour % 24) as usize] = whole.slot();
    }

    /// Drops what is older than a day of minutes and 90 days of hours. Whether nothing is left.
    pub(super) fn forget(&mut self, minute: u64) -> bool {
        let hour = minute / 60;
        self.minutes = self.minutes.split_off(&hour.saturating_sub(MINUTE_HOURS - 1));
        self.hours = self.hours.split_off(&(hour / 24).saturating_sub(HOUR_DAYS - 1));
        self.hours.is_empty()
    }

    pub(super) fn sum(&self, window: UptimeWindow, minute: u64) -> UptimeCounts {
        let mut counts = UptimeCounts::default();
        match window {
            UptimeWindow::FiveMinutes => (minute.saturating_sub(5)..=minute).for_each(|minute| counts.add(self.minute(minute))),
            UptimeWindow::HalfHour => (minute.saturating_sub(30)..=minute).for_each(|minute| counts.add(self.minute(minute))),
            UptimeWindow::Day => {
                let hour = minute / 60;
                (hour.saturating_sub(23)..=hour).for_each(|hour| counts.add(self.hour(hour)));
            }
        }
        counts
    }

    pub(super) fn hours(&self, from: u64) -> Vec<(u64, UptimeCounts)> {
        let slots = self.hours.range(from / 24..).flat_map(|(day, hours)| (day * 24..).zip(hours.iter()));
        let counted = slots.filter(|(hour, slot)| *hour >= from && **slot != [0; 2]).map(|(hour, slot)| {
            let mut counts = UptimeCounts::default();
            counts.add(*slot);
            (hour, counts)
        });
        counted.collect()
    }

    fn minute(&self, minute: u64) -> Slot {
        self.minutes.get(&(minute / 60)).map_or([0; 2], |minutes| minutes[(minute % 60) as usize])
    }

    fn hour(&self, hour: u64) -> Slot {
        self.hours.get(&(hour / 24)).map_or([0; 2], |hours| hours[(hour % 24) as usize])
    }

    pub(super) fn to_proto(&self, endpoint: u64, region: &str) -> UptimeHistory {
        fn chunk<const N: usize>((number, slots): (&u64, &Arc<[Slot; N]>)) -> UptimeChunk {
            UptimeChunk { number: *number, counts: Bytes::copy_from_slice(slots.as_flattened()) }
        }
        UptimeHistory {
            endpoint,
            region: region.to_owned(),
            minutes: self.minutes.iter().map(chunk).collect(),
            hours: self.hours.iter().map(chunk).collect(),
        }
    }

    pub(super) fn from_proto(proto: &UptimeHistory) -> Option<History> {
        fn chunk<const N: usize>(chunk: &UptimeChunk) -> Option<(u64, Arc<[Slot; N]>)> {
            let (slots, rest) = chunk.counts.as_chunks::<2>();
            let slots: [Slot; N] = slots.try_into().ok()?;
            rest.is_empty().then(|| (chunk.number, Arc::new(slots)))
        }
        Some(History {
            minutes: proto.minutes.iter().map(chunk).collect::<Option<_>>()?,
            hours: proto.hours.iter().map(chunk).collect::<Option<_>>()?,
        })
    }
}

/// Hours whose minutes are kept, the present one included.
const MINUTE_HOURS: u64 = 25;
/// Days whose hours are kept, today included.
const HOUR_DAYS: u64 = 91;
