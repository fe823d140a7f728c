//! Metrics of the certificates in use: time to expiry, and how renewals went.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use crate::clock::Clock;

use super::reload::{ReloadReport, Reloader};

/// Adds `tidegate_cert_expiry_seconds{certificate}` and `tidegate_cert_reloads_total{result}` for a listener's certificates. The label
/// is the path of the file, hence bounded by the configuration. To be called with all reloaders of a process at once.
pub fn register_certificate_metrics(registry: &Registry, reloaders: Vec<Reloader>, clock: Clock) -> prometheus::Result<()> {
    let expiry = GaugeVec::new(
        Opts::new("tidegate_cert_expiry_seconds", "Time until the certificate in use expires, seconds; negative when it has."),
        &["certificate"],
    )?;
    let reloads =
        IntCounterVec::new(Opts::new("tidegate_cert_reloads_total", "Certificates replaced or refused while running."), &["result"])?;
    registry.register(Box::new(CertificateCollector { reloaders, clock, expiry, reloads }))
}

/// Counts of one reloader and its clones.
#[derive(Debug, Clone, Default)]
pub(super) struct ReloadMetrics {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    replaced: AtomicU64,
    refused: AtomicU64,
}

impl ReloadMetrics {
    pub(super) fn observe(&self, report: &ReloadReport) {
        let add = |count: &AtomicU64, by: usize| count.fetch_add(by as u64, Ordering::Relaxed);
        add(&self.counts.replaced, report.replaced.len());
        add(&self.counts.refused, report.errors.len());
    }
}

struct CertificateCollector {
    reloaders: Vec<Reloader>,
    clock: Clock,
    expiry: GaugeVec,
    reloads: IntCounterVec,
}

impl Collector for CertificateCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.expiry.desc();
        all.extend(self.reloads.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = self.clock.unix_seconds() as f64;
        let (mut replaced, mut refused) = (0, 0);
        for reloader in &self.reloaders {
            for certificate in reloader.store().certificates() {
                let path = certificate.path.to_string_lossy();
                self.expiry.with_label_values(&[&*path]).set(certificate.not_after as f64 - now);
            }
            let counts = &reloader.metrics().counts;
            replaced += counts.replaced.load(Ordering::Relaxed);
            refused += counts.refused.load(Ordering::Relaxed);
        }
        for (result, total) in [("replaced", replaced), ("refused", refused)] {
            let counter = self.reloads.with_label_values(&[result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        let mut all = self.expiry.collect();
        all.extend(self.reloads.collect());
        all
    }
}
