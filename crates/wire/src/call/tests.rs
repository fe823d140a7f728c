use proptest::prelude::*;

use super::*;

fn read(json: &str) -> Result<ChatCall, RequestError> {
    ChatCall::read(Bytes::copy_from_slice(json.as_bytes()), &ReadLimits::default())
}

/// A valid request with more members.
fn with(members: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],{members}}}"#)
}

fn refused(json: &str) -> (String, u16) {
    let error = read(json).expect_err(json);
    (error.param.unwrap_or_default(), error.status)
}

#[test]
fn facts_are_found() {
    let call = read(
        r#"{
        "model":"a/b:floor", "models":["c/d","e\/f"], "stream":true, "stream_options":{"include_usage":true},
        "messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"look"},
            {"type":"image_url","image_url":{"url":"data:image\/png;base64,AAAA"},"cache_control":{"type":"ephemeral"}}]}],
        "provider":{"only":["x"]}, "session_id":"s\u0031", "prompt_cache_key":"k", "user":"u",
        "metadata":{"user_id":"m"}, "max_tokens":100, "max_completion_tokens":50, "tools":[{"type":"function"}],
        "response_format":{"type":"json_schema"}, "reasoning_effort":"low", "temperature":null, "seed":7,
        "service_tier":"flex", "plugins":[], "trace":{"trace_id":"t"}, "debug":{"echo_upstream_body":true}, "route":"sort",
        "vendor_extra":[1]
    }"#,
    )
    .unwrap();
    assert_eq!(call.model(), Some("a/b:floor"));
    assert_eq!(call.models(), ["c/d", "e/f"]);
    assert!(call.stream() && call.wants_usage() && call.has_tools() && call.debug_echo() && call.cache_marked());
    assert_eq!(call.provider(), Some(r#"{"only":["x"]}"#));
    assert_eq!(call.session_id(), Some("s1"));
    assert_eq!((call.prompt_cache_key(), call.user(), call.metadata_user_id()), (Some("k"), Some("u"), Some("m")));
    assert_eq!((call.max_output(), call.expected_output()), (Some(50), 50));
    assert_eq!(call.response_format(), Some(ResponseFormat::JsonSchema));
    assert_eq!(call.inputs(), Inputs { image: true, ..Inputs::default() });
    assert_eq!((call.service_tier(), call.route(), call.plugins()), (Some("flex"), Some("sort"), Some("[]")));
    assert_eq!(call.trace(), Some(r#"{"trace_id":"t"}"#));
    assert_eq!(call.field("vendor_extra"), Some("[1]"));
    assert_eq!(call.field("temperature"), None);
    let parameters: Vec<_> = call.parameters().collect();
    assert_eq!(parameters, ["max_tokens", "max_tokens", "tools", "response_format", "reasoning", "seed", "structured_outputs"]);
}

#[test]
fn ranges_are_those_of_the_api() {
    for (member, param) in [
        (r#""temperature":2.1"#, "temperature"),
        (r#""temperature":"1""#, "temperature"),
        (r#""top_p":-0.1"#, "top_p"),
        (r#""min_p":1.5"#, "min_p"),
        (r#""top_k":-1"#, "top_k"),
        (r#""frequency_penalty":-2.5"#, "frequency_penalty"),
        (r#""repetition_penalty":3"#, "repetition_penalty"),
        (r#""top_logprobs":21"#, "top_logprobs"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""stop":["a","b","c","d","e"]"#, "stop"),
        (r#""stop":[1]"#, "stop"),
        (r#""model":1"#, "model"),
        (r#""models":["a",1]"#, "models[1]"),
        (r#""models":"a""#, "models"),
        (r#""route":"best""#, "route"),
        (r#""stream":1"#, "stream"),
        (r#""tools":[1]"#, "tools[0]"),
        (r#""tools":{}"#, "tools"),
        (r#""metadata":{"a":1}"#, "metadata"),
        (r#""reasoning_effort":"huge""#, "reasoning_effort"),
        (r#""verbosity":"loud""#, "verbosity"),
        (r#""response_format":{}"#, "response_format.type"),
        (r#""provider":[]"#, "provider"),
        (r#""seed":1.5"#, "seed"),
        (r#""debug":{"echo_upstream_body":"yes"}"#, "debug"),
        (r#""model":"a","model":"b""#, "model"),
        (r#""mod\u0065l":"a","model":"b""#, "model"),
        (r#""x":1,"\u0078":2"#, "x"),
    ] {
        assert_eq!(refused(&with(member)), (param.to_owned(), 400), "{member}");
    }
    for member in [
        r#""temperature":2"#,
        r#""temperature":0.0"#,
        r#""top_p":1"#,
        r#""max_tokens":1e3"#,
        r#""stop":"x""#,
        r#""stop":["a","b","c","d"]"#,
        r#""max_tokens":99999999999"#,
        r#""seed":-3"#,
        r#""temperature":null,"model":null,"tools":null"#,
        r#""unknown":{"a":[]}"#,
    ] {
        assert!(read(&with(member)).is_ok(), "{member}");
    }
}

#[test]
fn bounds_count_characters() {
    let session = |length: usize| with(&format!(r#""session_id":"{}""#, "é".repeat(length)));
    assert!(read(&session(256)).is_ok());
    let error = read(&session(257)).unwrap_err();
    assert_eq!((error.error_type, error.param.as_deref()), (ErrorType::StringTooLong, Some("session_id")));
    let metadata = |pairs: usize, key: usize, value: usize| {
        let pairs: Vec<_> = (0..pairs).map(|n| format!("\"{:k$}\":\"{}\"", n, "x".repeat(value), k = key)).collect();
        with(&format!(r#""metadata":{{{}}}"#, pairs.join(",")))
    };
    assert!(read(&metadata(16, 64, 512)).is_ok());
    for bad in [metadata(17, 1, 1), metadata(1, 65, 1), metadata(1, 1, 513)] {
        assert_eq!(refused(&bad).0, "metadata");
    }
}

#[test]
fn messages_must_be_messages() {
    for (json, param) in [
        (r#"{"model":"a"}"#, "messages"),
        (r#"{"messages":null}"#, "messages"),
        (r#"{"messages":[]}"#, "messages"),
        (r#"{"messages":"hi"}"#, "messages"),
        (r#"{"messages":[1]}"#, "messages[0]"),
        (r#"{"messages":[{"content":"x"}]}"#, "messages[0].role"),
        (r#"{"messages":[{"role":"user","content":"x"},{"role":"robot"}]}"#, "messages[1].role"),
        (r#"{"messages":[{"role":1}]}"#, "messages[0].role"),
        (r#"{"messages":[{"role":"user","content":5}]}"#, "messages[0].content"),
        (r#"{"messages":[{"role":"user","content":["x"]}]}"#, "messages[0].content[0]"),
        (r#"{"messages":[{"role":"user","content":"x"}"#, ""),
        ("[]", ""),
        ("", ""),
        (r#"{"messages":[{"role":"user"}]} x"#, ""),
    ] {
        assert_eq!(refused(json), (param.to_owned(), 400), "{json}");
    }
    let limits = ReadLimits { max_body: 10, ..ReadLimits::default() };
    assert_eq!(ChatCall::read(Bytes::from(with("\"a\":1")), &limits).unwrap_err().status, 413);
}

#[test]
fn estimates_leave_base64_out() {
    let text = read(&format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(3500))).unwrap();
    assert!((1100..1110).contains(&text.prompt_tokens_estimate()), "{}", text.prompt_tokens_estimate());
    let image = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]}}]}}"#,
        "A".repeat(100_000)
    );
    assert!(read(&image).unwrap().prompt_tokens_estimate() < 300);
    let bare = image.replace(r#"{"url":"#, "").replace("\"}}]", "\"}]");
    assert!(read(&bare).unwrap().prompt_tokens_estimate() < 300);
}

#[test]
fn a_conversation_keeps_its_hash_while_it_grows() {
    let first = r#"{"role":"system","content":"s"},{"role":"user","content":"one"}"#;
    let hash = |messages: &str| read(&format!(r#"{{"messages":[{messages}]}}"#)).unwrap().conversation_hash();
    let start = hash(first);
    assert_eq!(hash(&format!(r#"{first},{{"role":"assistant","content":"two"}},{{"role":"user","content":"three"}}"#)), start);
    assert_eq!(hash(r#"{"content":"s", "role":"developer"}, {"content":"one","role":"user"}"#), start);
    assert_ne!(hash(r#"{"role":"system","content":"s"},{"role":"user","content":"two"}"#), start);
    assert_ne!(hash(r#"{"role":"user","content":"one"}"#), start);
    // Edges of different builds must agree, so the value itself is part of the contract.
    assert_eq!(hash(r#"{"role":"user","content":"hi"}"#), 8_178_895_997_578_541_085);
}

#[test]
fn a_preset_lies_under_the_request() {
    let request = with(r#""model":"@preset/mine","temperature":1,"top_p":null,"tools":[{"function":{"name":"a"}}],"preset":"mine""#);
    let preset = r#"{"model":"p/q","temperature":0.5,"top_p":0.9,"system_prompt":"be brief","seed":3,
        "tools":[{"function":{"name":"a","description":"theirs"}},{"function":{"name":"b"}}]}"#;
    let merged = read(&request).unwrap().with_preset(preset).unwrap();
    let value: serde_json::Value = serde_json::from_slice(merged.body()).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
            "model": "p/q", "temperature": 1, "top_p": 0.9, "seed": 3,
            "tools": [{"function": {"name": "a"}}, {"function": {"name": "b"}}]
        })
    );
    assert_eq!(merged.model(), Some("p/q"));
    let own = r#"{"messages":[{"role":"system","content":"mine"},{"role":"user"}]}"#;
    let merged = read(own).unwrap().with_preset(r#"{"system_prompt":"theirs"}"#).unwrap();
    assert_eq!(merged.message_count(), 2);
    assert_eq!(read(own).unwrap().with_preset("[").unwrap_err().param.as_deref(), Some("preset"));
    assert_eq!(read(own).unwrap().with_preset(r#"{"temperature":9}"#).unwrap_err().param.as_deref(), Some("temperature"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ChatCall::read(bytes.into(), &ReadLimits::default());
    }

    #[test]
    fn damaged_requests_never_panic(at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = with(r#""model":"a","stop":["x"],"metadata":{"user_id":"m"},"stream_options":{"include_usage":true}"#).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(call) = ChatCall::read(body.into(), &ReadLimits::default()) {
            let _ = (call.model(), call.prompt_tokens_estimate(), call.conversation_hash(), call.metadata_user_id());
            prop_assert!(serde_json::from_slice::<serde_json::Value>(call.body()).is_ok());
        }
    }
}
