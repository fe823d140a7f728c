//! One cell of a report, read.

use tidegate_proto::v1::ReportCell;
use tidegate_routing::{Opening, Probes, Timestamp};

use super::ring::{Counts, Sketches};

/// What one edge says happened at one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub(super) counts: Counts,
    pub(super) sketches: Sketches,
    pub(super) probes: Probes,
    /// What its own breaker knows, if that is open.
    pub(super) opening: Option<Opening>,
}

impl Reported {
    /// Reads a cell; nothing when its distributions cannot be read.
    pub(super) fn of(cell: &ReportCell, now: Timestamp) -> Option<Reported> {
        let increment = cell.increment().ok()?;
        let failed = increment.weighted_failures();
        Some(Reported {
            counts: Counts {
                ok: increment.ok as f32,
                failed: failed as f32,
                half: (increment.failures() as f64 - failed) as f32,
                pointing_at_us: increment.pointing_at_us() as f32,
                rate_limited: increment.rate_limited as f32,
            },
            opening: cell.open.and_then(|open| open.opening(now)),
            probes: Probes { ok: increment.probe_ok, failed: increment.probe_failed },
            sketches: Sketches { first_token: increment.first_token, speed: increment.speed },
        })
    }
}

/// Successes and failures of a cell, each failure once: what uptime is made of.
pub(super) fn uptime_of(cell: &ReportCell) -> (u64, u64) {
    let failed = [cell.connect, cell.first_token_timeout, cell.server_error, cell.overloaded, cell.cut, cell.malformed];
    (u64::from(cell.ok), failed.into_iter().map(u64::from).sum())
}
