//! How far an answer has come, as the journal's thread may see it at any time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tidegate_ledger::Usage;
use tidegate_routing::{CredentialIndex, EndpointIndex};

/// Written by the request's own thread, read by the journal's. Each value is by itself: a reader may see one that is a piece newer than
/// another, which is within what a crash may lose anyway.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Endpoint and credential that serve, each plus one; 0 while nobody does.
    serving: AtomicU64,
    output_bytes: AtomicU64,
    /// Reported so far; all 0 until the provider says anything.
    prompt: AtomicU64,
    cached: AtomicU64,
    cache_write: AtomicU64,
    completion: AtomicU64,
    /// The provider gave its reason to stop: 1, else 0.
    finished: AtomicU32,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) endpoint: EndpointIndex,
    pub(crate) credential: CredentialIndex,
    pub(crate) output_bytes: u64,
    pub(crate) reported: Option<Usage>,
    pub(crate) finished: bool,
}

impl Live {
    /// This endpoint serves.
    pub(crate) fn serving(&self, endpoint: EndpointIndex, credential: CredentialIndex) {
        let both = (endpoint.get() as u64 + 1) << 32 | (credential.get() as u64 + 1);
        self.serving.store(both, Ordering::Relaxed);
    }

    /// So much was delivered.
    pub(crate) fn delivered(&self, facts: &tidegate_wire::Facts) {
        self.output_bytes.store(facts.output_bytes, Ordering::Relaxed);
        if let Some(usage) = &facts.usage {
            self.prompt.store(usage.prompt_tokens, Ordering::Relaxed);
            self.cached.store(usage.cached_tokens, Ordering::Relaxed);
            self.cache_write.store(usage.cache_write_tokens, Ordering::Relaxed);
            self.completion.store(usage.completion_tokens, Ordering::Relaxed);
        }
        if facts.finish_reason.is_some() {
            self.finished.store(1, Ordering::Relaxed);
        }
    }

    /// How far it has come; `None` while nothing was delivered.
    pub(crate) fn see(&self) -> Option<Seen> {
        let serving = self.serving.load(Ordering::Relaxed);
        let output_bytes = self.output_bytes.load(Ordering::Relaxed);
        if serving == 0 || output_bytes == 0 {
            return None;
        }
        let index = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX) - 1;
        let usage = Usage {
            prompt_tokens: self.prompt.load(Ordering::Relaxed),
            cached_tokens: self.cached.load(Ordering::Relaxed),
            cache_write_tokens: self.cache_write.load(Ordering::Relaxed),
            completion_tokens: self.completion.load(Ordering::Relaxed),
            ..Usage::default()
        };
        Some(Seen {
            endpoint: EndpointIndex::new(index(serving >> 32)),
            credential: CredentialIndex::new(index(serving)),
            output_bytes,
            reported: (usage != Usage::default()).then_some(usage),
            finished: self.finished.load(Ordering::Relaxed) != 0,
        })
    }
}
