//! The request reader and the three encoders: what is accepted is JSON, every encoder writes JSON, and towards the same
//! dialect nothing of the caller's is lost.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use tidegate_wire::{ChatCall, Dialect, ReadLimits, Target, encode, providers};

fuzz_target!(|body: &[u8]| {
    let Ok(call) = ChatCall::read(Bytes::copy_from_slice(body), &ReadLimits::default()) else {
        return;
    };
    serde_json::from_slice::<IgnoredAny>(body).expect("a body that is accepted is JSON for everybody");
    read_everything(&call);
    for dialect in Dialect::ALL {
        for provider in providers().iter().filter(|provider| provider.dialect == dialect) {
            for supported in [true, false] {
                let target = Target {
                    dialect,
                    model: "upstream-model",
                    provider,
                    supports: &|_| supported,
                    max_output: Some(4096),
                    user: Some("a-hash"),
                    stream: call.stream(),
                };
                let Ok(request) = encode(&call, &target) else {
                    continue;
                };
                let sent = request.contiguous_body();
                assert_eq!(sent.len(), request.content_length());
                serde_json::from_slice::<IgnoredAny>(&sent).expect("what is sent is JSON");
                if dialect == Dialect::OpenaiChat {
                    nothing_of_the_callers_is_lost(body, &sent);
                }
            }
        }
    }
});

/// Fields that no version of any API knows are passed on with the value they had.
fn nothing_of_the_callers_is_lost(asked: &[u8], sent: &[u8]) {
    // serde_json refuses lone surrogates and huge exponents inside values; such bodies are only checked as JSON.
    let Ok(Value::Object(asked)) = serde_json::from_slice(asked) else {
        return;
    };
    let Ok(Value::Object(sent)) = serde_json::from_slice(sent) else { panic!("what is sent is an object") };
    for (name, value) in asked.iter().filter(|(name, value)| name.starts_with("x_") && !value.is_null()) {
        assert_eq!(sent.get(name), Some(value), "field {name}");
    }
    assert_eq!(sent.get("model").and_then(Value::as_str), Some("upstream-model"));
}

/// Every fact can be asked for without a panic, whatever the body.
fn read_everything(call: &ChatCall) {
    let _ = (call.model(), call.models(), call.provider(), call.preset(), call.session_id(), call.prompt_cache_key());
    let _ = (call.user(), call.metadata_user_id(), call.max_output(), call.expected_output(), call.inputs());
    let _ = (call.has_tools(), call.response_format(), call.conversation_hash(), call.service_tier(), call.plugins());
    let _ = (call.trace(), call.debug_echo(), call.route(), call.cache_marked(), call.message_count());
    let _ = (call.parameters().count(), call.fields().count(), call.wants_usage());
    assert!(call.prompt_tokens_estimate() as usize <= call.body().len() + 256 * (call.message_count() + 1) * 64 + 16);
}
