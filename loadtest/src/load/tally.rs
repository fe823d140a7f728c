//! What the generator counts.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Measurement, Sample};
use crate::histogram::Latencies;

/// Failed requests by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Failures {
    /// No connection, or no TLS handshake.
    pub(crate) connect: u64,
    /// A status other than 200.
    pub(crate) status: u64,
    /// The connection ended inside an answer, or the answer was not HTTP.
    pub(crate) broken: u64,
    /// A stream that ended with too few or too many chunks.
    pub(crate) short_streams: u64,
    /// A stream without a chunk for five seconds.
    pub(crate) stalled_streams: u64,
    /// Not answered when the drain ended.
    pub(crate) unanswered: u64,
}

impl Failures {
    /// All kinds together.
    pub(crate) fn total(&self) -> u64 {
        self.connect + self.status + self.broken + self.short_streams + self.stalled_streams + self.unanswered
    }

    fn merge(&mut self, other: &Self) {
        self.connect += other.connect;
        self.status += other.status;
        self.broken += other.broken;
        self.short_streams += other.short_streams;
        self.stalled_streams += other.stalled_streams;
        self.unanswered += other.unanswered;
    }
}

/// Counters and distributions of one generator thread.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(super) completed: u64,
    pub(super) chunks: u64,
    pub(super) open_streams: u64,
    pub(super) failures: Failures,
    pub(super) first_error: Option<String>,
    pub(super) latency: Latencies,
    pub(super) first_chunk: Latencies,
    pub(super) chunk_delay: Latencies,
    pub(super) send_lag: Latencies,
}

impl Tally {
    pub(super) fn merge(&mut self, other: &Self) {
        self.completed += other.completed;
        self.chunks += other.chunks;
        self.open_streams += other.open_streams;
        self.failures.merge(&other.failures);
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.latency.merge(&other.latency);
        self.first_chunk.merge(&other.first_chunk);
        self.chunk_delay.merge(&other.chunk_delay);
        self.send_lag.merge(&other.send_lag);
    }

    /// Keeps the first error only; later ones are mostly its consequence.
    pub(super) fn note(&mut self, error: impl FnOnce() -> String) {
        self.first_error.get_or_insert_with(error);
    }

    pub(super) fn measurement(&self, before: Sample, after: Sample) -> Measurement {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        Measurement {
            seconds,
            completed: self.completed,
            rate: self.completed as f64 / seconds,
            failures: self.failures,
            first_error: self.first_error.clone(),
            latency: self.latency.summary(),
            first_chunk: self.first_chunk.summary(),
            chunk_delay: self.chunk_delay.summary(),
            send_lag: self.send_lag.summary(),
            slower_than_10ms: self.latency.above(Duration::from_millis(10)),
            chunks: self.chunks,
            open_streams: self.open_streams,
            cpu_seconds: after.process.zip(before.process).map(|(after, before)| after.cpu_since(&before).as_secs_f64()),
            rss_bytes: after.process.map(|usage| usage.rss),
            generator_cpu_seconds: after.own.cpu_since(&before.own).as_secs_f64(),
        }
    }
}

/// The part of the run that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Window {
    pub(super) fn contains(&self, moment: Instant) -> bool {
        self.start <= moment && moment < self.end
    }
}
