//! Limits that name a provider.
//!
//! Who serves is known only once an attempt is planned, so each attempt is reserved by itself before anything is sent. A refusal closes
//! the provider to this request and to no other; routing goes on elsewhere, and the caller hears of the limit when nobody is left.

use std::sync::Arc;
use std::time::Duration;

use tidegate_quota::{LimitSet, ReserveRequest};
use ulid::Ulid;

use super::{Answer, Demand, Estimate, Held, Quotas, RESERVATION_GRACE, request_id};
use crate::auth::Caller;
use crate::error::EdgeError;

/// What an attempt has to be asked about, for a request whose caller has such limits.
pub(crate) struct ByProvider {
    limits: Arc<LimitSet>,
    estimate: Estimate,
    id: Ulid,
    lifetime: Duration,
}

impl ByProvider {
    pub(super) fn boxed(limits: &Arc<LimitSet>, estimate: Estimate, demand: &Demand<'_>) -> Box<Self> {
        let lifetime = demand.patience + RESERVATION_GRACE;
        Box::new(Self { limits: Arc::clone(limits), estimate, id: request_id(demand.id), lifetime })
    }
}

impl Quotas {
    /// Holds the estimate of attempt `number`, which is planned for `model` at `provider`; `None` when no limit names the two.
    pub(crate) async fn reserve_attempt(
        self: &Arc<Self>,
        of: &ByProvider,
        caller: &Caller,
        (model, provider): (&str, &str),
        number: u8,
    ) -> Result<Option<Box<Held>>, EdgeError> {
        let selection = of.limits.select_provider(model, provider);
        if selection.is_empty() {
            return Ok(None);
        }
        let (limits, lifetime) = (&of.limits, of.lifetime);
        let usual = of.estimate.usage(Answer::Usual);
        let request = ReserveRequest { id: id_of(of.id, number, false), limits, selection, estimate: usual, lifetime };
        let mut held = self.decide(&request, caller).await?;
        let longest = of.estimate.usage(Answer::Longest);
        if held.runs_low() && longest != usual {
            // As for the request itself: near its end, a budget holds the most that the answer can cost.
            held.give_back();
            let request = ReserveRequest { id: id_of(of.id, number, true), estimate: longest, ..request };
            held = self.decide(&request, caller).await?;
        }
        Ok(Some(Box::new(held)))
    }
}

/// An id of the request's moment for one of its attempts: apart from the request's own, and from that of its other attempts.
fn id_of(request: Ulid, attempt: u8, again: bool) -> Ulid {
    let mark = (u128::from(attempt) + 1) << 70 | u128::from(again) << 78;
    Ulid::from_parts(request.timestamp_ms(), request.random() ^ mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_has_an_id_of_its_own_and_the_moment_of_its_request() {
        let request = Ulid::from_parts(1_760_000_000_000, 0x1234_5678_9abc);
        let mut seen = std::collections::HashSet::from([request, super::super::another_id(request)]);
        for attempt in 0..100 {
            for again in [false, true] {
                let id = id_of(request, attempt, again);
                assert!(seen.insert(id), "attempt {attempt}, {again}");
                assert_eq!(id.timestamp_ms(), request.timestamp_ms());
            }
        }
    }
}
