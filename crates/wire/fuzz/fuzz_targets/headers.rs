//! What upstreams say in headers and error bodies: any bytes give a bounded answer.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tidegate_wire::{Dialect, classify, providers, rate_limits, retry_after};

/// Words of an upstream that are shown or kept may be no longer than this, in bytes.
const MOST_WORDS: usize = 64 << 10;

fuzz_target!(|input: (u32, u16, &[u8])| {
    let (unix_now, status, bytes) = input;
    let unix_now = u64::from(unix_now);
    let (headers, body) = headers_and_body(bytes);

    let hint = retry_after(&headers, unix_now);
    for provider in providers() {
        if let Some(limits) = rate_limits(&headers, provider.rate_limits, unix_now) {
            assert!((0.0..=1.0).contains(&limits.remaining_ratio), "{}", limits.remaining_ratio);
        }
    }
    for dialect in Dialect::ALL {
        let failure = classify(dialect, status, &headers, body, unix_now);
        assert_eq!(failure.status, Some(status));
        assert!(failure.message.len() <= MOST_WORDS);
        assert!(failure.raw.is_none_or(|raw| raw.len() <= MOST_WORDS));
        assert!(hint.is_none() || failure.retry_after.is_some(), "a hint in the headers is kept");
    }
});

/// `name: value` lines up to an empty one, then the body. Lines that are no header are left out.
fn headers_and_body(bytes: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}
