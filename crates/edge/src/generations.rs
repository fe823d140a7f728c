//! Finished generations that can still be looked up: the record for `GET /generation`, and why it went where it went.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tidegate_ledger::Generation;
use tidegate_routing::Decision;

use crate::state::RoutingState;

/// One finished generation.
pub(crate) struct Finished {
    pub(crate) record: Generation,
    pub(crate) decision: Decision,
    /// Names in the decision are indices into this state; it lives as long as a generation refers to it.
    pub(crate) state: Arc<RoutingState>,
}

/// The latest generations, bounded in number and age.
pub(crate) struct Generations(Cache<Arc<str>, Arc<Finished>>);

impl Generations {
    pub(crate) fn new(kept: u64, ttl: Duration) -> Self {
        Self(Cache::builder().max_capacity(kept).time_to_live(ttl).build())
    }

    pub(crate) fn insert(&self, id: Arc<str>, finished: Finished) {
        self.0.insert(id, Arc::new(finished));
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Finished>> {
        self.0.get(id)
    }
}
