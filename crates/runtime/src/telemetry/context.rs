//! The W3C trace context (`traceparent`, Recommendation of November 2021), parsed and written without the SDK.
//!
//! `tracestate` and `baggage` are deliberately absent: they are the caller's and do not leave for providers.

use std::fmt;

use http::HeaderValue;

/// Place of a span in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    trace_id: u128,
    /// Never zero.
    span_id: u64,
    sampled: bool,
}

impl TraceContext {
    /// The first span of a new trace, not sampled.
    pub fn root(random: &mut fastrand::Rng) -> Self {
        Self { trace_id: random.u128(1..), span_id: random.u64(1..), sampled: false }
    }

    /// A span below this one.
    #[must_use]
    pub fn child(&self, random: &mut fastrand::Rng) -> Self {
        Self { span_id: random.u64(1..), ..*self }
    }

    /// The same place, sampled by chance: every process comes to the same result for the same trace, because it looks only at the
    /// trace id. The rule is that of the OpenTelemetry SDK's ratio sampler.
    #[must_use]
    pub fn sampled_at(&self, ratio: f64) -> Self {
        let bound = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        let low = (self.trace_id & u128::from(u64::MAX)) as u64;
        Self { sampled: low >> 1 < bound, ..*self }
    }

    /// Whether the trace is exported.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The trace, 16 bytes.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The span, 8 bytes.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// The trace as 32 hexadecimal digits, as logs show it.
    pub fn trace_id_hex(&self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_hex(&mut digits, self.trace_id);
        digits
    }

    /// The value of `traceparent` for whoever is called from this span.
    pub fn to_header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace_id);
        write_hex(&mut text[36..52], u128::from(self.span_id));
        text[54] = HEX[usize::from(self.sampled)];
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens are valid in a header")
    }
}

impl fmt::Display for TraceContext {
    /// The header value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Reads the value of a `traceparent` header. Anything that the Recommendation calls invalid is `None`, and the request then starts a
/// trace of its own. Later versions are read as far as they agree with version 00.
pub fn parse_traceparent(value: &str) -> Option<TraceContext> {
    let bytes = value.as_bytes();
    let version = hex(bytes.get(0..2)?)?;
    let end_is_right = match version {
        0 => bytes.len() == LENGTH,
        0xff => false,
        _ => bytes.get(LENGTH).is_none_or(|&next| next == b'-'),
    };
    let hyphens = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
    if !end_is_right || !hyphens {
        return None;
    }
    let trace_id = hex(bytes.get(3..35)?)?;
    let span_id = u64::try_from(hex(bytes.get(36..52)?)?).ok()?;
    let flags = hex(bytes.get(53..55)?)?;
    (trace_id != 0 && span_id != 0).then_some(TraceContext { trace_id, span_id, sampled: flags & 1 == 1 })
}

/// Lower-case digits only, as the Recommendation demands; at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

fn write_hex(digits: &mut [u8], mut value: u128) {
    for digit in digits.iter_mut().rev() {
        *digit = HEX[(value & 0xf) as usize];
        value >>= 4;
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Of version 00.
const LENGTH: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_header_is_read_and_written_back() {
        let context = parse_traceparent(VALID).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.trace_id_hex(), *b"4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.to_header(), VALID);
        assert_eq!(context.to_string(), VALID);
    }

    #[test]
    fn later_versions_may_carry_more() {
        let rest = &VALID[2..];
        assert!(parse_traceparent(&format!("01{rest}")).is_some());
        assert!(parse_traceparent(&format!("01{rest}-more")).is_some());
        assert!(parse_traceparent(&format!("01{rest}more")).is_none());
        assert!(parse_traceparent(&format!("00{rest}-more")).is_none());
        assert!(parse_traceparent(&format!("ff{rest}")).is_none());
    }

    #[test]
    fn invalid_headers_are_refused() {
        let wrong = [
            "",
            "00",
            &VALID[..54],
            &VALID.to_uppercase(),
            &VALID.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ];
        for value in wrong {
            assert_eq!(parse_traceparent(value), None, "{value}");
        }
    }

    #[test]
    fn every_cut_of_a_valid_header_is_refused() {
        for end in 0..VALID.len() {
            assert_eq!(parse_traceparent(&VALID[..end]), None);
        }
    }

    #[test]
    fn a_child_stays_in_the_trace_and_keeps_the_decision() {
        let mut random = fastrand::Rng::with_seed(1);
        let parent = parse_traceparent(VALID).unwrap();
        let child = parent.child(&mut random);
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child.span_id(), parent.span_id());
        assert!(child.is_sampled());
    }

    #[test]
    fn the_ratio_is_kept_and_depends_on_the_trace_alone() {
        let mut random = fastrand::Rng::with_seed(2);
        let sampled = |ratio: f64, random: &mut fastrand::Rng| {
            (0..10_000).filter(|_| TraceContext::root(random).sampled_at(ratio).is_sampled()).count()
        };
        assert_eq!(sampled(0.0, &mut random), 0);
        assert_eq!(sampled(1.0, &mut random), 10_000);
        let quarter = sampled(0.25, &mut random);
        assert!((2_200..2_800).contains(&quarter), "{quarter}");
        let root = TraceContext::root(&mut random);
        assert_eq!(root.sampled_at(0.5).is_sampled(), root.child(&mut random).sampled_at(0.5).is_sampled());
    }
}
