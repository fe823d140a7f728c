//! A second attempt elsewhere while the first one keeps the caller waiting, for keys that opted in.
//!
//! Whoever has a token first serves; the other is dropped, which closes its connection and tells the provider to stop. Whether, when and
//! where is decided by the plan.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tidegate_routing::{AttemptEnd, AttemptPlan};
use tokio::time::Instant;

use crate::attempt::{Answer, Ask, AttemptFailure, Failed, Found, exchange, hold, note, prepare, settle, timed_out};
use crate::deadline::{Before, before};
use crate::error::FailedAttempts;
use crate::generation::{AttemptDetails, Generation};
use crate::upstream::Pool;

/// Waits for the `first` attempt, alone for `after`, then beside a second one.
pub(crate) async fn race<F>(
    generation: &mut Generation,
    pool: &Arc<Pool>,
    ask: &Ask,
    first: AttemptPlan,
    mut waiting: Before<F>,
    after: Duration,
    failures: &mut FailedAttempts,
) -> Result<Answer, Failed>
where
    F: Future<Output = Result<Found, Box<AttemptFailure>>> + Unpin,
{
    if let Some(outcome) = before(Instant::now() + after, &mut waiting).await {
        return settle(generation, first, outcome.unwrap_or_else(|| Err(timed_out(&first))));
    }
    let Some(second) = generation.hedge() else {
        let outcome = waiting.await.unwrap_or_else(|| Err(timed_out(&first)));
        return settle(generation, first, outcome);
    };
    let held = match generation.has_provider_limits() {
        true => hold(generation).await,
        false => Ok(()),
    };
    let prepared = match held.and_then(|()| prepare(generation, ask, second)) {
        Ok(prepared) => prepared,
        Err(failed) => {
            note(generation, failures, (second, failed));
            let outcome = waiting.await.unwrap_or_else(|| Err(timed_out(&first)));
            return settle(generation, first, outcome);
        }
    };
    let shared = Arc::clone(&generation.shared);
    let exchange = pin!(exchange(&shared, pool, ask, &prepared));
    let mut hedge = before(Instant::now() + second.first_token_timeout, exchange);
    // Neither branch is dropped here: both are polled by reference, and the one that loses goes with this future.
    let (outcome, ended, other) = tokio::select! {
        biased;
        outcome = &mut waiting => (outcome, first, second),
        outcome = &mut hedge => (outcome, second, first),
    };
    match outcome.unwrap_or_else(|| Err(timed_out(&ended))) {
        Ok(found) => {
            generation.take_up(other.number);
            generation.end_attempt(AttemptEnd::Cancelled, AttemptDetails::default());
            settle(generation, ended, Ok(found))
        }
        Err(failed) => {
            generation.take_up(ended.number);
            note(generation, failures, (ended, failed));
            let outcome = if ended.number == first.number { hedge.await } else { waiting.await };
            settle(generation, other, outcome.unwrap_or_else(|| Err(timed_out(&other))))
        }
    }
}
