//! The same endpoint for the same conversation, for the sake of the provider's prompt cache.
//!
//! Two ways: an endpoint that served the conversation before goes first, whatever the strategy; and as a mode, conversations
//! are spread by rendezvous hashing, which needs no memory and moves only the conversations of an endpoint that is gone.

use super::{Pool, Table};
use crate::Settings;
use crate::explain::Considered;
use crate::id::mix;

/// Score of an endpoint for a conversation.
pub(crate) fn affinity(conversation: u64, endpoint: u64) -> u64 {
    mix(conversation ^ endpoint)
}

/// The highest score; another only if that one is too slow. Without conversations every score is equal and the first wins.
pub(super) fn pick(table: &Table<'_>, pool: &Pool) -> usize {
    let mut ranked = pool.clone();
    ranked.sort_by_key(|at| std::cmp::Reverse(table.considered[*at].affinity));
    let worth = ranked.iter().find(|at| is_worth_staying(table.settings, table.considered, pool, **at));
    *worth.unwrap_or(&ranked[0])
}

/// Whether a conversation should stay: the endpoint is fully back after trouble, and not far slower than the best.
pub(crate) fn is_worth_staying(settings: &Settings, considered: &[Considered], pool: &Pool, at: usize) -> bool {
    let best = pool.iter().map(|other| considered[*other].cost).fold(f64::INFINITY, f64::min);
    let one = &considered[at];
    // On a cold edge everything ramps; only an endpoint behind its peers is coming back from something.
    let ramped = pool.iter().all(|other| considered[*other].ramp <= one.ramp);
    (one.ramp >= 1.0 || ramped) && one.cost <= settings.sticky_cost_ratio * best
}
