//! The metrics of quotas. Labels are words of this crate, never a key or a model.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::decision::{Decision, Mode};
use crate::settlement::Settled;

/// Everything this crate counts.
#[derive(Clone)]
pub(crate) struct Metrics {
    decisions: IntCounterVec,
    /// By mode: what most requests add to.
    allowed: [IntCounter; MODES.len()],
    durations: HistogramVec,
    pub(crate) up: IntGauge,
    /// By what they did.
    settlements: [IntCounter; RESULTS.len()],
    pub(crate) lost: IntCounter,
    /// Requests that waited for a larger share.
    pub(crate) waited: IntCounter,
}

/// What a decision was about, for the `kind` label.
const ALL: &str = "all";
const MODES: [Mode; 4] = [Mode::Exact, Mode::Slice, Mode::Local, Mode::Open];
const RESULTS: [Settled; 4] = [Settled::Applied, Settled::Repeated, Settled::Restored, Settled::Expired];

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let decisions = IntCounterVec::new(
            Opts::new("tidegate_quota_decisions_total", "Requests for quota, by the dimension that refused, the decision and who made it."),
            &["kind", "decision", "mode"],
        )?;
        let settlements =
            IntCounterVec::new(Opts::new("tidegate_quota_settlements_total", "Settlements, by what they did in the store."), &["result"])?;
        let metrics = Self {
            allowed: MODES.map(|mode| decisions.with_label_values(&[ALL, "allowed", mode.as_str()])),
            decisions,
            durations: HistogramVec::new(
                HistogramOpts::new("tidegate_quota_store_duration_seconds", "Time of one call to the quota store, failures included.")
                    .buckets(vec![0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25]),
                &["operation"],
            )?,
            up: IntGauge::new("tidegate_quota_store_up", "1 while the quota store answers.")?,
            settlements: RESULTS.map(|result| settlements.with_label_values(&[result.as_str()])),
            lost: IntCounter::new(
                "tidegate_quota_settlements_dropped_total",
                "Settlements that did not fit into the queue while the store was away; the usage journal has them.",
            )?,
            waited: IntCounter::new(
                "tidegate_quota_share_waits_total",
                "Requests that waited for a larger share of a limit that spans regions.",
            )?,
        };
        registry.register(Box::new(metrics.decisions.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.up.clone()))?;
        registry.register(Box::new(settlements))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        registry.register(Box::new(metrics.waited.clone()))?;
        metrics.up.set(1);
        Ok(metrics)
    }

    pub(crate) fn decided(&self, decision: &Decision) {
        let (kind, word, mode) = match decision {
            Decision::Allowed(reservation) if reservation.shadowed != 0 => (ALL, "shadowed", reservation.mode),
            Decision::Allowed(reservation) => {
                if let Some(index) = MODES.iter().position(|mode| *mode == reservation.mode) {
                    self.allowed[index].inc();
                }
                return;
            }
            Decision::Refused(refusal) => {
                (refusal.bucket.as_ref().map_or("store", |bucket| bucket.limit.dimension.as_str()), "refused", refusal.mode)
            }
        };
        self.decisions.with_label_values(&[kind, word, mode.as_str()]).inc();
    }

    pub(crate) fn settled(&self, settled: Settled) {
        if let Some(index) = RESULTS.iter().position(|result| *result == settled) {
            self.settlements[index].inc();
        }
    }

    pub(crate) fn called(&self, operation: &'static str, took: Duration) {
        self.durations.with_label_values(&[operation]).observe(took.as_secs_f64());
    }
}
