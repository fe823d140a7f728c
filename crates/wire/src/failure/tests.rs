use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_792_567_680;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn openai(status: u16, body: &str) -> Failure {
    classify(Dialect::OpenaiChat, status, &HeaderMap::new(), body.as_bytes(), NOW)
}

#[test]
fn meaning_comes_from_status_type_and_code() {
    use FailureKind::*;
    for (status, body, kind) in [
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            CreditExhausted,
        ),
        (429, r#"{"error":{"message":"Rate limit reached for gpt","type":"requests","code":"rate_limit_exceeded"}}"#, RateLimited),
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            ContextLength,
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens","type":"BadRequestError","code":400}"#,
            ContextLength,
        ),
        (
            400,
            r#"{"error":{"message":"The response was filtered","code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ContentPolicy,
        ),
        (400, r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}"#, ContentPolicy),
        (401, r#"{"error":{"message":"Incorrect API key provided: sk-abcdefgh","code":"invalid_api_key"}}"#, Unauthorized),
        (402, r#"{"error":{"message":"Insufficient Balance"}}"#, CreditExhausted),
        (403, r#"{"error":{"message":"no","type":"permission_error"}}"#, Forbidden),
        (404, r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#, ModelNotFound),
        (400, r#"{"object":"error","message":"Invalid model: x","type":"invalid_model","code":"1500"}"#, ModelNotFound),
        (422, r#"{"detail":[{"loc":["body","temperature"],"msg":"must be at most 1","type":"value_error"}]}"#, Unprocessable),
        (413, "", PayloadTooLarge),
        (400, r#"{"message":"invalid request: bad role"}"#, InvalidRequest),
        (500, r#"{"error":"something broke","error_type":"generation"}"#, Server),
        (500, "prompt is too long, said the stack trace", Server),
        (503, r#"{"error":{"message":"The engine is currently overloaded"}}"#, Overloaded),
        (429, r#"{"error":{"message":"The engine is currently overloaded","type":"engine_overloaded_error"}}"#, Overloaded),
        (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, Overloaded),
        (504, "<html>gateway timeout</html>", Timeout),
        (502, "<html>bad gateway</html>", Server),
    ] {
        assert_eq!(openai(status, body).kind, kind, "{status} {body}");
    }
}

#[test]
fn anthropic_bedrock_and_gemini_speak_their_own_way() {
    let low = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"},"request_id":"r"}"#;
    let failure = classify(Dialect::AnthropicMessages, 400, &HeaderMap::new(), low.as_bytes(), NOW);
    assert_eq!(failure.kind, FailureKind::CreditExhausted);
    assert_eq!(failure.error_type, ErrorType::ProviderUnavailable);

    let throttled = headers(&[("x-amzn-errortype", "ThrottlingException:http://internal")]);
    let failure = classify(Dialect::OpenaiChat, 400, &throttled, br#"{"message":"slow down"}"#, NOW);
    assert_eq!((failure.kind, failure.provider_code.as_deref()), (FailureKind::RateLimited, Some("ThrottlingException")));

    let gemini = r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details","status":"RESOURCE_EXHAUSTED",
        "details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}]}}]"#;
    let failure = classify(Dialect::Gemini, 429, &HeaderMap::new(), gemini.as_bytes(), NOW);
    assert_eq!(failure.kind, FailureKind::RateLimited);
    assert_eq!(failure.retry_after, Some(Duration::from_millis(34_500)));
    let key = r#"{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT","details":[{"@type":"t/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#;
    assert_eq!(classify(Dialect::Gemini, 400, &HeaderMap::new(), key.as_bytes(), NOW).kind, FailureKind::Unauthorized);
}

#[test]
fn retry_after_is_read_in_every_form() {
    for (name, value, millis) in [
        ("retry-after", "30", 30_000),
        ("retry-after", "Wed, 21 Oct 2026 07:29:30 GMT", 90_000),
        ("retry-after", "2026-10-21T07:29:30Z", 90_000),
        ("retry-after", "1m2s", 62_000),
        ("retry-after-ms", "150", 150),
    ] {
        assert_eq!(retry_after(&headers(&[(name, value)]), NOW), Some(Duration::from_millis(millis)), "{value}");
    }
    let both = headers(&[("retry-after-ms", "150"), ("retry-after", "1")]);
    assert_eq!(retry_after(&both, NOW), Some(Duration::from_millis(150)));
    assert_eq!(retry_after(&headers(&[("retry-after", "later")]), NOW), None);
}

#[test]
fn credentials_do_not_get_out() {
    let failure = openai(401, r#"{"error":{"message":"Incorrect API key provided: sk-proj-abc123. Bad.","code":"invalid_api_key"}}"#);
    assert!(!failure.message.contains("abc123") && !failure.raw.as_ref().unwrap().contains("abc123"), "{failure:?}");
    assert!(!failure.public_message().contains("key provided"));
}

#[test]
fn errors_inside_successes_are_read_too() {
    let failure = reported_in_body(br#"{"code":429,"message":"slow down","metadata":{"error_type":"rate_limit_exceeded"}}"#);
    assert_eq!((failure.kind, failure.status), (FailureKind::RateLimited, Some(429)));
    assert_eq!(reported_in_body(br#""out of memory""#).message, "out of memory");
    assert_eq!(without_choices(b"{}").kind, FailureKind::Empty);
    assert_eq!(without_choices(br#"{"message":"boom"}"#).kind, FailureKind::Server);
}

proptest! {
    #[test]
    fn any_body_is_classified_within_bounds(status in 100..600_u16, body in prop::collection::vec(any::<u8>(), 0..4000)) {
        let failure = classify(Dialect::OpenaiChat, status, &HeaderMap::new(), &body, NOW);
        prop_assert!(failure.message.len() <= MAX_MESSAGE.max(64));
        prop_assert!(failure.raw.is_none_or(|raw| raw.len() <= MAX_RAW));
    }
}
