//! A place among an endpoint's requests in flight.

use std::sync::Arc;

use super::EndpointCell;

/// Held from the choice of an endpoint to the end of the attempt. Dropping it gives the place back, and the probe token with
/// it, so a request that vanishes in between blocks nobody.
#[derive(Debug)]
pub(crate) struct Slot {
    cell: Arc<EndpointCell>,
    probe: bool,
}

impl Slot {
    /// A place, unless `most` are taken.
    pub(crate) fn take(cell: &Arc<EndpointCell>, most: u32) -> Option<Slot> {
        cell.enter(most).then(|| Slot { cell: Arc::clone(cell), probe: false })
    }

    /// Makes the slot hold the probe token that was taken.
    pub(crate) fn mark_probe(&mut self) {
        self.probe = true;
    }

    /// Says that the probe's end was observed, so that the token is no longer this slot's to return.
    pub(crate) fn probe_observed(&mut self) {
        self.probe = false;
    }

    /// Requests in flight, this one included.
    pub(crate) fn in_flight(&self) -> u32 {
        self.cell.in_flight()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.cell.leave();
        if self.probe {
            self.cell.with(|state| state.abandon_probe());
        }
    }
}
