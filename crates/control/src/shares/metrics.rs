//! What a node counts of shared limits.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Registered once per process.
#[derive(Clone)]
pub(super) struct ShareMetrics {
    reports: IntCounterVec,
    limits: IntGaugeVec,
    pub(super) entries: IntCounter,
    pub(super) grants: IntCounter,
}

/// What became of an edge's reports.
#[derive(Debug, Clone, Copy)]
pub(super) enum Passed {
    /// Home answered.
    Answered,
    /// Nobody leads, or the leader did not answer; the edge reports again.
    Unanswered,
    /// Too many were on their way.
    Dropped,
}

impl ShareMetrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            reports: IntCounterVec::new(
                Opts::new("tidegate_share_reports_total", "Messages of edges about limits that span regions, by what became of them."),
                &["result"],
            )?,
            limits: IntGaugeVec::new(
                Opts::new("tidegate_shared_limits", "Limits that span regions and are in use; 0 on a node that does not lead."),
                &["kind"],
            )?,
            entries: IntCounter::new("tidegate_grant_entries_total", "Entries about grants that this node brought into the log.")?,
            grants: IntCounter::new("tidegate_grants_total", "Grants in those entries.")?,
        };
        registry.register(Box::new(metrics.reports.clone()))?;
        registry.register(Box::new(metrics.limits.clone()))?;
        registry.register(Box::new(metrics.entries.clone()))?;
        registry.register(Box::new(metrics.grants.clone()))?;
        Ok(metrics)
    }

    pub(super) fn passed(&self, passed: Passed) {
        let result = match passed {
            Passed::Answered => "answered",
            Passed::Unanswered => "unanswered",
            Passed::Dropped => "dropped",
        };
        self.reports.with_label_values(&[result]).inc();
    }

    pub(super) fn in_use(&self, rates: usize, budgets: usize) {
        for (kind, count) in [("rate", rates), ("budget", budgets)] {
            self.limits.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
