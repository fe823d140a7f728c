//! Shared limits in metrics: sums over all of them, because a series for each would be one for each key.

use std::sync::{Arc, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use tidegate_quota::{Shared as Kind, Shares};

/// Reads the shares when metrics are gathered.
pub(crate) struct ShareGauges {
    shares: Weak<Shares>,
    limits: IntGaugeVec,
    oldest: GaugeVec,
    home: GaugeVec,
}

impl ShareGauges {
    pub(crate) fn new(shares: &Arc<Shares>) -> prometheus::Result<Self> {
        Ok(Self {
            shares: Arc::downgrade(shares),
            limits: IntGaugeVec::new(
                Opts::new("tidegate_quota_shared_limits", "Limits that span regions and were used here, by kind and what counts now."),
                &["kind", "state"],
            )?,
            oldest: GaugeVec::new(
                Opts::new("tidegate_quota_share_age_seconds", "Age of the oldest assignment whose lease lasts, by kind."),
                &["kind"],
            )?,
            home: GaugeVec::new(
                Opts::new(
                    "tidegate_quota_home_age_seconds",
                    "Seconds since the control plane answered about shared limits; no value before.",
                ),
                &[],
            )?,
        })
    }
}

impl Collector for ShareGauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.limits.desc(), self.oldest.desc(), self.home.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(shares) = self.shares.upgrade() else { return Vec::new() };
        let views = shares.views();
        if views.is_empty() {
            return Vec::new();
        }
        for (word, kind) in [("rate", Kind::Rate), ("budget", Kind::Budget)] {
            let of_kind = || views.iter().filter(move |view| view.name.shared() == kind);
            let leased = of_kind().filter(|view| view.lease_left > 0).count();
            let oldest = of_kind().filter(|view| view.lease_left > 0).filter_map(|view| view.age).max().unwrap_or(0);
            let floor = of_kind().count() - leased;
            for (state, count) in [("leased", leased), ("floor", floor)] {
                self.limits.with_label_values(&[word, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            self.oldest.with_label_values(&[word]).set(oldest as f64 / 1e6);
        }
        let mut families = [self.limits.collect(), self.oldest.collect()].concat();
        if let Some(age) = shares.home().age(tidegate_quota::monotonic()) {
            self.home.with_label_values::<&str>(&[]).set(age as f64 / 1e6);
            families.extend(self.home.collect());
        }
        families
    }
}
