//! One cell of a report, read.

use tidegate_proto::v1::ReportCell;
use tidegate_routing::Probes;

use super::ring::{Counts, Sketches};

/// What one edge says happened at one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub(super) counts: Counts,
    pub(super) sketches: Sketches,
    pub(super) probes: Probes,
}

impl Reported {
    /// Reads a cell; nothing when its distributions cannot be read.
    pub(super) fn of(cell: &ReportCell) -> Option<Reported> {
        let increment = cell.increment().ok()?;
        let failed = increment.weighted_failures();
        Some(Reported {
            counts: Counts {
                ok: f64::from(increment.ok),
                failed,
                half: increment.failures() as f64 - failed,
                pointing_at_us: increment.pointing_at_us(),
                rate_limited: f64::from(increment.rate_limited),
            },
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
