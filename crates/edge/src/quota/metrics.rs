//! What the edge counts about quotas besides the quota crate. Per-key numbers are the ledger's, not Prometheus's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};

/// One per edge.
pub(crate) struct QuotaMetrics {
    notices: IntCounterVec,
    said: Mutex<HashMap<Arc<str>, Instant>>,
}

impl QuotaMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let help =
            "Requests that a shadow limit would have refused (`shadow`), or that came over a warning threshold (`warning`), by limit.";
        let notices = IntCounterVec::new(Opts::new("tidegate_quota_notices_total", help), &["notice", "kind"])?;
        registry.register(Box::new(notices.clone()))?;
        Ok(Self { notices, said: Mutex::default() })
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
        if said.len() >= MOST_REMEMBERED {
            return false;
        }
        said.insert(Arc::clone(key), now);
        true
    }
}

const SAY_EVERY: Duration = Duration::from_secs(60);
/// Limits whose last notice is remembered.
const MOST_REMEMBERED: usize = 10_000;
