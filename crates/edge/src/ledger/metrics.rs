//! What the ledger counts about itself.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// One per edge.
#[derive(Clone)]
pub(crate) struct LedgerMetrics {
    /// Records that were made, by how their generation ended.
    pub(crate) records: IntCounterVec,
    /// Entries that were lost, by why.
    dropped: IntCounterVec,
    pub(crate) write_errors: IntCounter,
    pub(crate) written_bytes: IntCounter,
    pub(crate) fsync: Histogram,
    pub(crate) open: IntGauge,
    /// What a crash now would find delivered.
    pub(crate) noted: IntGauge,
    pub(crate) recovered: IntCounter,
    /// Records that a receiver did not get before the journal had to forget them.
    lost: IntCounterVec,
    pub(crate) exported: IntCounterVec,
    /// Objects that were put into the store, by whether it took them.
    pub(crate) objects: IntCounterVec,
    /// Finished objects that the store has not taken, bytes.
    pub(crate) objects_waiting: IntGauge,
}

/// Why an entry was lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dropped {
    /// The queue to the writer was full: the disk has been slow or full for a while.
    QueueFull,
    /// The edge was stopped with a disk that does not take anything.
    Shutdown,
}

impl Dropped {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Shutdown => "shutdown",
        }
    }
}

impl LedgerMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let fsync = Histogram::with_opts(
            HistogramOpts::new("tidegate_ledger_fsync_seconds", "Time to make the journal safe against power loss.")
                .buckets(FSYNC.to_vec()),
        )?;
        registry.register(Box::new(fsync.clone()))?;
        let open = IntGauge::new("tidegate_ledger_open", "Requests that the journal knows to have begun and not ended.")?;
        registry.register(Box::new(open.clone()))?;
        let help = "Bytes of answer that the journal has noted as delivered by requests that are still open.";
        let noted = IntGauge::new("tidegate_ledger_noted_bytes", help)?;
        registry.register(Box::new(noted.clone()))?;
        let objects_waiting =
            IntGauge::new("tidegate_ledger_objects_waiting_bytes", "Finished objects of records that the object store has not taken.")?;
        registry.register(Box::new(objects_waiting.clone()))?;
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let labelled = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let metrics = Self {
            records: labelled("tidegate_ledger_records_total", "Generation records, by how the generation ended.", "ending")?,
            dropped: labelled("tidegate_ledger_dropped_total", "Journal entries that were lost, by why.", "reason")?,
            write_errors: counter("tidegate_ledger_write_errors_total", "Writes to the journal that failed; they are tried again.")?,
            written_bytes: counter("tidegate_ledger_written_bytes_total", "Bytes written to the journal.")?,
            fsync,
            open,
            noted,
            recovered: counter("tidegate_ledger_recovered_total", "Requests that a crash had left open and a later start settled.")?,
            lost: labelled(
                "tidegate_ledger_lost_total",
                "Journal segments that were removed before a receiver had read them.",
                "receiver",
            )?,
            exported: labelled(
                "tidegate_ledger_exported_total",
                "Records that were passed on; for `objects`, that stand in a finished object.",
                "receiver",
            )?,
            objects: labelled("tidegate_ledger_objects_total", "Objects of records that were sent to the object store.", "result")?,
            objects_waiting,
        };
        for reason in [Dropped::QueueFull, Dropped::Shutdown] {
            metrics.dropped.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    pub(crate) fn dropped(&self, why: Dropped, entries: u64) {
        self.dropped.with_label_values(&[why.as_str()]).inc_by(entries);
    }

    pub(crate) fn lost(&self, receiver: &str) {
        self.lost.with_label_values(&[receiver]).inc();
    }
}

/// Seconds: a good disk takes a millisecond, a busy one a tenth of a second.
const FSYNC: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
