//! Which beginnings of prompts were seen before, and how long ago.

use std::collections::HashMap;
use std::time::Instant;

use crate::ask::Prefix;
use crate::spec::PromptCacheSpec;

/// Tokens that a request found in the cache, and that it left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cached {
    pub(crate) read: u32,
    pub(crate) written: u32,
}

/// The cache of one provider.
#[derive(Debug, Default)]
pub(crate) struct PromptCache {
    used: HashMap<u64, Instant>,
}

impl PromptCache {
    /// Looks the prompt up and leaves it in the cache.
    pub(crate) fn read(&mut self, prompt: &[Prefix], spec: PromptCacheSpec, now: Instant) -> Cached {
        let cacheable = || prompt.iter().rev().filter(|prefix| prefix.tokens >= spec.minimum);
        let fresh = |prefix: &&Prefix| {
            let used = self.used.get(&prefix.hash);
            used.is_some_and(|used| now.saturating_duration_since(*used) < spec.lifetime)
        };
        let read = cacheable().find(fresh).map_or(0, |prefix| prefix.tokens);
        let whole = cacheable().next().map_or(0, |prefix| prefix.tokens);
        if self.used.len() > MOST_PREFIXES {
            self.used.retain(|_, used| now.saturating_duration_since(*used) < spec.lifetime);
        }
        if self.used.len() > MOST_PREFIXES {
            self.used.clear();
        }
        self.used.extend(cacheable().map(|prefix| (prefix.hash, now)));
        Cached { read, written: whole - read }
    }
}

/// Bounds the memory; a cache that forgets everything is still a cache.
const MOST_PREFIXES: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_fresh_prefix_counts() {
        let prefix = |hash, tokens| Prefix { hash, tokens };
        let prompt = [prefix(1, 10), prefix(2, 100), prefix(3, 200)];
        let spec = PromptCacheSpec::default();
        let start = Instant::now();
        let mut cache = PromptCache::default();
        assert_eq!(cache.read(&prompt[..2], spec, start), Cached { read: 0, written: 100 });
        assert_eq!(cache.read(&prompt, spec, start), Cached { read: 100, written: 100 });
        assert_eq!(cache.read(&prompt, spec, start + spec.lifetime / 2), Cached { read: 200, written: 0 });
        assert_eq!(cache.read(&prompt, spec, start + spec.lifetime * 2).read, 0);
        assert_eq!(cache.read(&prompt[..1], spec, start), Cached::default());
    }
}
