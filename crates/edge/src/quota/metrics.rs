//! What quotas count about themselves. Per-key numbers are the ledger's, not Prometheus's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tidegate_quota::Decision;

/// One per edge.
pub(crate) struct QuotaMetrics {
    decisions: IntCounterVec,
    notices: IntCounterVec,
    settled: IntCounterVec,
    store_failures: IntCounter,
    settlements_dropped: IntCounter,
    /// Allowed, by mode, as most decisions are: resolved once.
    allowed: [IntCounter; 4],
    said: Mutex<HashMap<Arc<str>, Instant>>,
}

impl QuotaMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let decisions = counters(
            "tidegate_quota_decisions_total",
            "Requests of keys with limits: `kind` is the limit that refused, or `all`; `mode` how it was counted.",
            &["kind", "decision", "mode"],
        )?;
        Ok(Self {
            allowed: MODES.map(|mode| decisions.with_label_values(&["all", "allowed", mode])),
            decisions,
            notices: counters(
                "tidegate_quota_notices_total",
                "Requests that a shadow limit would have refused (`shadow`), or that came over a warning threshold (`warning`).",
                &["notice", "kind"],
            )?,
            settled: counters("tidegate_quota_settlements_total", "Settlements by what they did to the counters.", &["result"])?,
            store_failures: counter("tidegate_quota_store_failures_total", "Questions that the store of counters did not answer.")?,
            settlements_dropped: counter(
                "tidegate_quota_settlements_dropped_total",
                "Settlements that found no room to wait: their reservations expire as consumed.",
            )?,
            said: Mutex::default(),
        })
    }

    pub(super) fn decided(&self, decision: &Decision) {
        match decision {
            Decision::Allowed(reservation) => {
                let mode = reservation.mode.as_str();
                match MODES.iter().position(|known| *known == mode) {
                    Some(at) => self.allowed[at].inc(),
                    None => self.decisions.with_label_values(&["all", "allowed", mode]).inc(),
                }
            }
            Decision::Refused(refusal) => {
                let kind = refusal.bucket.as_ref().map_or("store", |bucket| bucket.limit.dimension.as_str());
                self.decisions.with_label_values(&[kind, refusal.kind.as_str(), refusal.mode.as_str()]).inc();
            }
        }
    }

    pub(super) fn noticed(&self, notice: &str, kind: &str) {
        self.notices.with_label_values(&[notice, kind]).inc();
    }

    /// Whether a notice about this limit may be logged: once a minute each.
    pub(super) fn may_say(&self, key: &Arc<str>) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock();
        if said.get(key).is_some_and(|last| now - *last < SAY_EVERY) {
            return false;
        }
        if said.len() >= MOST_REMEMBERED {
            said.retain(|_, last| now - *last < SAY_EVERY);
        }
        said.len() < MOST_REMEMBERED && said.insert(Arc::clone(key), now).is_none_or(|last| now - last >= SAY_EVERY)
    }

    pub(super) fn settled(&self, result: &str, count: u64) {
        self.settled.with_label_values(&[result]).inc_by(count);
    }

    pub(super) fn store_failed(&self) {
        self.store_failures.inc();
    }

    pub(super) fn settlement_dropped(&self) {
        self.settlements_dropped.inc();
    }
}

const MODES: [&str; 4] = ["exact", "slice", "local", "open"];
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Limits whose last notice is remembered.
const MOST_REMEMBERED: usize = 10_000;
