//! How much room the upstream says is left, from the headers of an ordinary answer.

use std::time::Duration;

use http::HeaderMap;

use crate::time;

/// Which family of headers a provider sends. All time formats are understood in all of them, because vendors change those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateLimitScheme {
    /// None, or none that is documented.
    #[default]
    None,
    /// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`; also Azure (often without limits) and Groq (requests per day).
    Openai,
    /// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`.
    Anthropic,
    /// OpenAI's names with `-requests-day` and `-tokens-minute`.
    Cerebras,
    /// OpenAI's names with `-tokens-per-minute` and `-tokens-per-day`.
    Digitalocean,
    /// `x-ratelimit-{limit,remaining,reset}` and `x-tokenlimit-…`.
    Together,
}

/// What is left, as the tightest of all dimensions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimits {
    /// 0 = nothing left, 1 = all of it.
    pub remaining_ratio: f32,
    /// When the tightest dimension is full again.
    pub reset: Option<Duration>,
}

/// Reads the headers of one answer; `None` when they say nothing. `unix_now` is in seconds.
pub fn rate_limits(headers: &HeaderMap, scheme: RateLimitScheme, unix_now: u64) -> Option<RateLimits> {
    let mut tightest: Option<RateLimits> = None;
    for dimension in dimensions(scheme) {
        let Some(read) = dimension.read(headers, unix_now) else { continue };
        if tightest.is_none_or(|other| read.remaining_ratio < other.remaining_ratio) {
            tightest = Some(read);
        }
    }
    tightest
}

/// The three headers of one limit.
struct Dimension {
    limit: &'static str,
    remaining: &'static str,
    reset: &'static str,
}

impl Dimension {
    fn read(&self, headers: &HeaderMap, unix_now: u64) -> Option<RateLimits> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let number = |name| text(name)?.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        let remaining = number(self.remaining)?;
        let ratio = match number(self.limit) {
            Some(limit) if limit > 0.0 => (remaining / limit).min(1.0),
            // Without a limit, the only thing a remainder can say is that there is none.
            _ if remaining == 0.0 => 0.0,
            _ => return None,
        };
        let reset = text(self.reset).and_then(|reset| time::parse_wait(reset, unix_now));
        Some(RateLimits { remaining_ratio: ratio as f32, reset })
    }
}

macro_rules! dimensions {
    ($($prefix:literal $infix:literal $suffix:literal),*) => {
        &[$(Dimension {
            limit: concat!($prefix, "limit", $infix, $suffix),
            remaining: concat!($prefix, "remaining", $infix, $suffix),
            reset: concat!($prefix, "reset", $infix, $suffix),
        }),*]
    };
}

fn dimensions(scheme: RateLimitScheme) -> &'static [Dimension] {
    match scheme {
        RateLimitScheme::None => &[],
        RateLimitScheme::Openai => dimensions!("x-ratelimit-" "-" "requests", "x-ratelimit-" "-" "tokens"),
        RateLimitScheme::Anthropic => dimensions!(
            "anthropic-ratelimit-requests-" "" "",
            "anthropic-ratelimit-tokens-" "" "",
            "anthropic-ratelimit-input-tokens-" "" "",
            "anthropic-ratelimit-output-tokens-" "" ""
        ),
        RateLimitScheme::Cerebras => dimensions!("x-ratelimit-" "-" "requests-day", "x-ratelimit-" "-" "tokens-minute"),
        RateLimitScheme::Digitalocean => dimensions!(
            "x-ratelimit-" "-" "requests",
            "x-ratelimit-" "-" "tokens-per-minute",
            "x-ratelimit-" "-" "tokens-per-day"
        ),
        RateLimitScheme::Together => dimensions!("x-ratelimit-" "" "", "x-tokenlimit-" "" ""),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const NOW: u64 = 1_792_567_680;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_tightest_dimension_speaks() {
        let openai = headers(&[
            ("x-ratelimit-limit-requests", "100"),
            ("x-ratelimit-remaining-requests", "90"),
            ("x-ratelimit-reset-requests", "20ms"),
            ("x-ratelimit-limit-tokens", "1000"),
            ("x-ratelimit-remaining-tokens", "250"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let limits = rate_limits(&openai, RateLimitScheme::Openai, NOW).unwrap();
        assert_eq!(limits, RateLimits { remaining_ratio: 0.25, reset: Some(Duration::from_secs(360)) });
        assert_eq!(rate_limits(&openai, RateLimitScheme::None, NOW), None);
        assert_eq!(rate_limits(&openai, RateLimitScheme::Anthropic, NOW), None);
    }

    #[test]
    fn every_scheme_reads_its_own_names_and_times() {
        let anthropic = headers(&[
            ("anthropic-ratelimit-input-tokens-limit", "10"),
            ("anthropic-ratelimit-input-tokens-remaining", "5"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-10-21T07:29:30Z"),
        ]);
        let limits = rate_limits(&anthropic, RateLimitScheme::Anthropic, NOW).unwrap();
        assert_eq!(limits, RateLimits { remaining_ratio: 0.5, reset: Some(Duration::from_secs(90)) });
        let digitalocean = headers(&[
            ("x-ratelimit-limit-tokens-per-day", "10"),
            ("x-ratelimit-remaining-tokens-per-day", "1"),
            ("x-ratelimit-reset-tokens-per-day", "1792567770"),
        ]);
        let limits = rate_limits(&digitalocean, RateLimitScheme::Digitalocean, NOW).unwrap();
        assert_eq!(limits.reset, Some(Duration::from_secs(90)));
        let cerebras = headers(&[("x-ratelimit-limit-requests-day", "10"), ("x-ratelimit-remaining-requests-day", "10")]);
        assert_eq!(rate_limits(&cerebras, RateLimitScheme::Cerebras, NOW).unwrap().remaining_ratio, 1.0);
        let together = headers(&[("x-tokenlimit-limit", "4"), ("x-tokenlimit-remaining", "1")]);
        assert_eq!(rate_limits(&together, RateLimitScheme::Together, NOW).unwrap().remaining_ratio, 0.25);
    }

    #[test]
    fn a_remainder_without_a_limit_says_something_only_when_it_is_zero() {
        let some = headers(&[("x-ratelimit-remaining-tokens", "5")]);
        assert_eq!(rate_limits(&some, RateLimitScheme::Openai, NOW), None);
        let none = headers(&[("x-ratelimit-remaining-tokens", "0")]);
        assert_eq!(rate_limits(&none, RateLimitScheme::Openai, NOW).unwrap().remaining_ratio, 0.0);
    }
}
