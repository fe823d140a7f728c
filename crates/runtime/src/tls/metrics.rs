//! Metrics of the certificates in use: time to expiry, and how renewals went.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use crate::clock::Clock;
use crate::mesh::Identity;

use super::reload::{ReloadReport, Reloader};
use super::store::CertificateInfo;

/// Certificates whose end and renewals are measured.
#[derive(Debug, Clone)]
pub enum Watched {
    /// Those that callers see.
    Store(Reloader),
    /// The one that other members of the mesh see.
    Identity(Arc<Identity>),
}

impl From<Reloader> for Watched {
    fn from(reloader: Reloader) -> Self {
        Watched::Store(reloader)
    }
}

impl From<Arc<Identity>> for Watched {
    fn from(identity: Arc<Identity>) -> Self {
        Watched::Identity(identity)
    }
}

impl Watched {
    fn certificates(&self) -> Vec<CertificateInfo> {
        match self {
            Watched::Store(reloader) => reloader.store().certificates(),
            Watched::Identity(identity) => vec![identity.certificate()],
        }
    }

    fn counts(&self) -> &Counts {
        match self {
            Watched::Store(reloader) => &reloader.metrics().counts,
            Watched::Identity(identity) => &identity.metrics().counts,
        }
    }
}

/// Adds `tidegate_cert_expiry_seconds{certificate}` and `tidegate_cert_reloads_total{result}`. The label is the path of the file,
/// hence bounded by the configuration. To be called once, with everything that a process has.
pub fn register_certificate_metrics<W: Into<Watched>>(registry: &Registry, watched: Vec<W>, clock: Clock) -> prometheus::Result<()> {
    let watched = watched.into_iter().map(Into::into).collect();
    let expiry = GaugeVec::new(
        Opts::new("tidegate_cert_expiry_seconds", "Time until the certificate in use expires, seconds; negative when it has."),
        &["certificate"],
    )?;
    let reloads =
        IntCounterVec::new(Opts::new("tidegate_cert_reloads_total", "Certificates replaced or refused while running."), &["result"])?;
    registry.register(Box::new(CertificateCollector { watched, clock, expiry, reloads }))
}

/// Counts of one reloader, or one identity, and its clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReloadMetrics {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    replaced: AtomicU64,
    refused: AtomicU64,
}

impl ReloadMetrics {
    pub(crate) fn observe(&self, report: &ReloadReport) {
        let add = |count: &AtomicU64, by: usize| count.fetch_add(by as u64, Ordering::Relaxed);
        add(&self.counts.replaced, report.replaced.len());
        add(&self.counts.refused, report.errors.len());
    }
}

struct CertificateCollector {
    watched: Vec<Watched>,
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
        for watched in &self.watched {
            for certificate in watched.certificates() {
                let path = certificate.path.to_string_lossy();
                self.expiry.with_label_values(&[&*path]).set(certificate.not_after as f64 - now);
            }
            let counts = watched.counts();
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
