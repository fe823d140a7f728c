//! What a simulated provider is told to be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::fault::FaultRule;

/// A simulated provider. The default answers any model for anyone, at once, without a fault.
#[derive(Debug, Clone)]
pub struct SimSpec {
    /// Where to listen; port 0 picks a free one.
    pub address: SocketAddr,
    /// Name in answers that tell who served.
    pub name: String,
    /// Decides texts, times and chances.
    pub seed: u64,
    /// Models that exist; empty means all do.
    pub models: Vec<String>,
    /// Keys that are let in; empty means everyone is.
    pub keys: Vec<String>,
    /// How answers come about.
    pub answering: Answering,
    /// How fast they come.
    pub timing: Timing,
    /// Faults in force from the start.
    pub faults: Vec<FaultRule>,
    /// Longest prompt, tokens; longer ones are refused as the dialect does.
    pub context_length: Option<u32>,
    /// Prompt cache; `None` reports no cached tokens.
    pub prompt_cache: Option<PromptCacheSpec>,
    /// Rate limits; `None` sends no such headers and never refuses.
    pub rate_limit: Option<RateLimitSpec>,
    /// How many of the last requests can be looked at; 0 keeps none, for load tests.
    pub keep_requests: usize,
}

impl Default for SimSpec {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: "sim".to_owned(),
            seed: 0,
            models: Vec::new(),
            keys: Vec::new(),
            answering: Answering::Written,
            timing: Timing::instant(),
            faults: Vec::new(),
            context_length: None,
            prompt_cache: Some(PromptCacheSpec::default()),
            rate_limit: None,
            keep_requests: 256,
        }
    }
}

/// How answers come about.
#[derive(Debug, Clone)]
pub enum Answering {
    /// A few sentences, tool calls or JSON that fit the request.
    Written,
    /// The request as it arrived (method, path, headers, body), as a JSON text.
    Echo,
    /// Always the same bytes, whatever was asked; nothing of the request is parsed.
    Fixed(Arc<FixedAnswer>),
}

/// The bytes of an answer that is always the same.
#[derive(Debug, Clone)]
pub struct FixedAnswer {
    /// Body of an answer that is not streamed.
    pub json: Bytes,
    /// Events of a streamed answer, each with its blank line; the last one is the dialect's end.
    pub events: Vec<Bytes>,
    /// Time between two events; zero sends them as fast as they are taken.
    pub pace: Duration,
}

/// How fast answers come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Median time to the first token.
    pub first_token: Duration,
    /// Spread of the time to the first token: standard deviation of its logarithm. 0 is none, 0.5 gives a 95th percentile of 2.3
    /// times the median.
    pub spread: f64,
    /// Speed after the first token; infinite sends everything at once.
    pub tokens_per_second: f64,
    /// Tokens in one event of a stream, at least 1.
    pub tokens_per_chunk: u32,
}

impl Timing {
    /// Everything at once, one token per event.
    pub const fn instant() -> Self {
        Self { first_token: Duration::ZERO, spread: 0.0, tokens_per_second: f64::INFINITY, tokens_per_chunk: 1 }
    }

    /// About what a mid-sized hosted model does.
    pub const fn typical() -> Self {
        Self { first_token: Duration::from_millis(350), spread: 0.35, tokens_per_second: 80.0, tokens_per_chunk: 2 }
    }

    /// A time to the first token, drawn from a log-normal distribution.
    pub(crate) fn draw_first_token(&self, random: &mut fastrand::Rng) -> Duration {
        if self.spread <= 0.0 {
            return self.first_token;
        }
        // Box and Muller's transform; one minus the draw keeps the logarithm away from zero.
        let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
        let factor = (self.spread * normal).exp().min(LARGEST_FACTOR);
        self.first_token.mul_f64(factor)
    }

    /// How long this many tokens take after the first one.
    pub(crate) fn span(&self, tokens: u32) -> Duration {
        if !(self.tokens_per_second.is_finite() && self.tokens_per_second > 0.0) {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(f64::from(tokens) / self.tokens_per_second)
    }

    /// The same, slower by a factor of at least 1.
    pub(crate) fn slowed(self, factor: f64) -> Self {
        let factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        Self { first_token: self.first_token.mul_f64(factor), tokens_per_second: self.tokens_per_second / factor, ..self }
    }
}

/// A prompt cache: what was asked before need not be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptCacheSpec {
    /// How long a prefix stays cached after its last use.
    pub lifetime: Duration,
    /// Shorter prefixes are not cached, tokens.
    pub minimum: u32,
}

impl Default for PromptCacheSpec {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(5 * 60),
            // Real providers begin at about a thousand; tests should not have to write that much.
            minimum: 32,
        }
    }
}

/// Limits per minute, over all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitSpec {
    /// Requests per minute.
    pub requests: u32,
    /// Prompt and completion tokens per minute.
    pub tokens: u32,
}

/// Keeps the tail of the log-normal distribution from becoming a hang.
const LARGEST_FACTOR: f64 = 50.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread_are_kept() {
        let timing = Timing { spread: 0.5, ..Timing::typical() };
        let mut random = fastrand::Rng::with_seed(1);
        let mut draws: Vec<f64> = (0..4_001).map(|_| timing.draw_first_token(&mut random).as_secs_f64()).collect();
        draws.sort_by(f64::total_cmp);
        assert!((draws[2_000] / 0.350 - 1.0).abs() < 0.06, "median {}", draws[2_000]);
        assert!((draws[3_800] / 0.350 / 2.28 - 1.0).abs() < 0.12, "95th percentile {}", draws[3_800]);
    }

    #[test]
    fn slowness_stretches_every_time() {
        let slow = Timing::typical().slowed(10.0);
        assert_eq!(slow.first_token, Duration::from_millis(3_500));
        assert_eq!(slow.span(8), Duration::from_secs(1));
        assert_eq!(Timing::instant().slowed(10.0).span(1_000), Duration::ZERO);
    }
}
