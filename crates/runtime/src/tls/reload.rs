//! Looking for renewed certificates.
//!
//! By polling, not by file notifications: Kubernetes renews a mounted secret by swapping a symbolic link several directories up, which
//! watchers of the file itself miss. Reading a few small files every half minute costs nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::tasks::Tasks;

use super::store::{CertificateInfo, CertificateStore};
use super::{TlsError, metrics::ReloadMetrics};

/// What a reload did.
#[derive(Debug, Default)]
pub struct ReloadReport {
    /// Certificates that were taken over.
    pub replaced: Vec<CertificateInfo>,
    /// Pairs that could not be; their predecessors stay in use.
    pub errors: Vec<TlsError>,
}

/// Renews the certificates of a store. Clones renew the same store.
#[derive(Debug, Clone)]
pub struct Reloader {
    store: Arc<CertificateStore>,
    clock: Clock,
    metrics: ReloadMetrics,
}

impl Reloader {
    /// How often the files are looked at unless told otherwise: a new certificate is in use well before the old one ends.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);

    /// A reloader that acts only when told to.
    pub fn new(store: Arc<CertificateStore>, clock: Clock) -> Self {
        Self { store, clock, metrics: ReloadMetrics::default() }
    }

    /// Polls until the stop of `tasks` is requested.
    pub fn start(&self, every: Duration, tasks: &Tasks) {
        let reloader = self.clone();
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("certificate-reload", async move {
            loop {
                // Dropping the sleep is safe: there is nothing in it.
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(every) => {}
                }
                let looking = reloader.clone();
                // Files may lie on a slow mount; the runtime must not wait for it.
                let looked = tokio::task::spawn_blocking(move || looking.reload_now()).await;
                if let Err(error) = looked {
                    tracing::error!(%error, "the certificate reload did not finish");
                }
            }
        });
    }

    /// Looks at the files now, logs what happened and counts it.
    pub fn reload_now(&self) -> ReloadReport {
        let report = self.store.reload_now(self.clock.unix_seconds());
        for certificate in &report.replaced {
            tracing::info!(
                path = %certificate.path.display(),
                not_after = certificate.not_after,
                "a renewed certificate is in use"
            );
        }
        for error in &report.errors {
            tracing::error!(%error, "a certificate cannot be renewed; the previous one stays in use");
        }
        self.metrics.observe(&report);
        report
    }

    /// The store that is renewed.
    pub fn store(&self) -> &Arc<CertificateStore> {
        &self.store
    }

    pub(super) fn metrics(&self) -> &ReloadMetrics {
        &self.metrics
    }
}
