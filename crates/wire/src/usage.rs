//! Token counts: reading every vendor's spelling, and writing ours.

/// What one generation used. Counts are tokens unless named otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached and cache-written ones included.
    pub prompt_tokens: u64,
    /// Prompt tokens read from a cache.
    pub cached_tokens: u64,
    /// Prompt tokens written to a cache, all lifetimes.
    pub cache_write_tokens: u64,
    /// Of those, with the one-hour lifetime.
    pub cache_write_1h_tokens: u64,
    /// Generated tokens, reasoning included.
    pub completion_tokens: u64,
    /// Of those, reasoning.
    pub reasoning_tokens: u64,
    /// Images generated.
    pub image_count: u64,
    /// Audio tokens, both directions.
    pub audio_tokens: u64,
}

/// Writes `,"usage":{…}` and the router metadata member, after at least one other member.
pub(crate) fn write_closing(
    out: &mut Vec<u8>,
    usage: Option<&Usage>,
    upstream: Option<&[u8]>,
    closing: &crate::facts::Closing<'_>,
) {
    let _ = (out, usage, upstream, closing);
}
