//! Which endpoint has a conversation's prompt in its cache.
//!
//! An entry is armed by an answer that showed cache use (or by any success of a request with a session id), lives as long as the
//! endpoint's cache does after its last use, and is dropped when that endpoint fails. Memory is bounded; losing an entry costs a cache
//! miss at the provider, nothing else.

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

/// Conversation to endpoint.
pub(crate) struct AffinityTable(Cache<u64, Entry>);

#[derive(Clone, Copy)]
struct Entry {
    /// Stable id of an endpoint, see [`crate::state::Target::id`].
    endpoint: u64,
    lifetime: Duration,
}

impl AffinityTable {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(CONVERSATIONS).expire_after(CacheLifetime).build())
    }

    /// The endpoint that this conversation was last on.
    pub(crate) fn get(&self, conversation: u64) -> Option<u64> {
        self.0.get(&conversation).map(|entry| entry.endpoint)
    }

    /// Notes a success; the lifetime starts anew.
    pub(crate) fn arm(&self, conversation: u64, endpoint: u64, lifetime: Duration) {
        self.0.insert(conversation, Entry { endpoint, lifetime });
    }

    /// Forgets a conversation whose endpoint failed.
    pub(crate) fn forget(&self, conversation: u64) {
        self.0.invalidate(&conversation);
    }
}

struct CacheLifetime;

impl Expiry<u64, Entry> for CacheLifetime {
    fn expire_after_create(&self, _: &u64, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(&self, _: &u64, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

/// At about 100 bytes each, 10 MB at most.
const CONVERSATIONS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_conversation_is_found_until_it_is_forgotten() {
        let table = AffinityTable::new();
        assert_eq!(table.get(7), None);
        table.arm(7, 42, Duration::from_secs(3600));
        assert_eq!(table.get(7), Some(42));
        table.forget(7);
        assert_eq!(table.get(7), None);
    }
}
