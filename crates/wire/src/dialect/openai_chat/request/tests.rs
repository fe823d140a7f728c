use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    call::ReadLimits,
    dialect::Dialect,
    provider::{ProviderCatalog, ProviderInfo},
};

fn provider(quirks: &str) -> ProviderInfo {
    let text = format!("[[provider]]\nslug='p'\nname='P'\nbase_url='https://p.example'\n[provider.quirks]\n{quirks}\n");
    ProviderCatalog::parse(&text).unwrap().get("p").unwrap().clone()
}

fn call(body: &Value) -> ChatCall {
    ChatCall::read(Bytes::from(body.to_string()), &ReadLimits::default()).unwrap()
}

struct Sent {
    body: Value,
    dropped: Vec<&'static str>,
}

fn send(body: &Value, quirks: &str, stream: bool, unsupported: &[&str]) -> Sent {
    let provider = provider(quirks);
    let supports = |name: &str| !unsupported.contains(&name);
    let target = Target {
        dialect: Dialect::OpenaiChat,
        model: "up/stream",
        provider: &provider,
        supports: &supports,
        max_output: None,
        user: None,
        stream,
    };
    let request = encode(&call(body), &target).unwrap();
    assert_eq!(request.path, "/chat/completions");
    Sent { body: serde_json::from_slice(&request.contiguous_body()).unwrap(), dropped: request.dropped.to_vec() }
}

fn messages() -> Value {
    json!([{"role": "user", "content": "hi"}])
}

#[test]
fn an_ordinary_request_changes_only_its_model() {
    let body = json!({"model": "a/b", "messages": messages(), "temperature": 0.5, "vendor": {"x": [1, null]}});
    let sent = send(&body, "", false, &[]);
    assert_eq!(sent.body, json!({"model": "up/stream", "messages": messages(), "temperature": 0.5, "vendor": {"x": [1, null]}}));
    assert!(sent.dropped.is_empty());
}

#[test]
fn what_is_addressed_to_the_gateway_stays_here() {
    let body = json!({
        "models": ["x"], "route": "fallback", "provider": {"only": ["p"], "zdr": true}, "plugins": [], "preset": "x", "session_id": "s",
        "trace": {}, "debug": {}, "usage": {"include": true}, "transforms": [], "stop_server_tools_when": [], "max_tool_calls": 3,
        "prompt_cache_options": {}, "cache_control": {"type": "ephemeral"}, "messages": messages(), "top_k": null, "x": null
    });
    assert_eq!(send(&body, "", false, &[]).body, json!({"messages": messages(), "model": "up/stream"}));
    let aggregator = send(&body, "aggregator=true", false, &[]).body;
    assert_eq!(aggregator["provider"], json!({"zdr": true}));
    assert_eq!(aggregator["session_id"], "s");
    assert_eq!(aggregator.get("models"), None);
}

#[test]
fn streams_ask_for_usage_where_that_is_understood() {
    let body = json!({"messages": messages(), "model": "m", "stream": true});
    assert_eq!(send(&body, "", true, &[]).body["stream_options"], json!({"include_usage": true}));
    assert_eq!(send(&body, "stream_options=false", true, &[]).body.get("stream_options"), None);
    let own = json!({"messages": messages(), "stream": true, "stream_options": {"include_usage": false, "include_obfuscation": false}});
    let sent = send(&own, "", true, &[]).body;
    assert_eq!(sent["stream_options"], json!({"include_usage": true, "include_obfuscation": false}));
    assert_eq!(send(&own, "", false, &[]).body, json!({"messages": messages(), "stream": false, "model": "up/stream"}));
}

#[test]
fn unsupported_parameters_are_dropped_and_named() {
    let body = json!({"messages": messages(), "seed": 1, "tools": [], "tool_choice": "auto", "top_k": 3, "logit_bias": {}, "odd": 1});
    let sent = send(&body, "rejects=['logit_bias','odd']", false, &["seed", "tools"]);
    assert_eq!(sent.body, json!({"messages": messages(), "top_k": 3, "model": "up/stream"}));
    assert_eq!(sent.dropped, ["seed", "tools", "tool_choice", "logit_bias"]);
}

#[test]
fn the_output_limit_has_the_name_the_vendor_knows() {
    let limit = |body: Value, quirks: &str| {
        let mut body = body;
        body["messages"] = messages();
        let mut sent = send(&body, quirks, false, &[]).body;
        for known in ["messages", "model"] {
            sent.as_object_mut().unwrap().remove(known);
        }
        sent
    };
    assert_eq!(limit(json!({"max_tokens": 5}), ""), json!({"max_tokens": 5}));
    assert_eq!(limit(json!({"max_tokens": 5}), "max_tokens_field='max-completion-tokens'"), json!({"max_completion_tokens": 5}));
    assert_eq!(limit(json!({"max_completion_tokens": 5}), "max_tokens_field='max-tokens'"), json!({"max_tokens": 5}));
    for quirks in ["", "max_tokens_field='max-completion-tokens'"] {
        assert_eq!(limit(json!({"max_tokens": 5, "max_completion_tokens": 9}), quirks), json!({"max_completion_tokens": 5}));
    }
}

#[test]
fn reasoning_is_asked_for_in_the_vendors_words() {
    let asked = |reasoning: Value, quirks: &str| {
        let mut body = reasoning;
        body["messages"] = messages();
        let mut sent = send(&body, quirks, false, &[]).body;
        for known in ["messages", "model"] {
            sent.as_object_mut().unwrap().remove(known);
        }
        sent
    };
    let high = json!({"reasoning": {"effort": "high", "exclude": true}});
    assert_eq!(asked(high.clone(), ""), json!({"reasoning_effort": "high"}));
    assert_eq!(asked(high.clone(), "reasoning='object'"), high);
    assert_eq!(asked(high.clone(), "reasoning='thinking'"), json!({"thinking": {"type": "enabled"}}));
    assert_eq!(asked(high.clone(), "reasoning='enable-thinking'"), json!({"enable_thinking": true}));
    assert_eq!(asked(high, "reasoning='none'"), json!({}));
    assert_eq!(asked(json!({"reasoning_effort": "xhigh"}), ""), json!({"reasoning_effort": "xhigh"}));
    assert_eq!(asked(json!({"reasoning_effort": "xhigh"}), "efforts=['low','high']"), json!({"reasoning_effort": "high"}));
    assert_eq!(asked(json!({"reasoning": {"enabled": true}}), ""), json!({"reasoning_effort": "medium"}));
    let budget = json!({"reasoning": {"max_tokens": 2000}, "reasoning_effort": "low"});
    assert_eq!(asked(budget, "reasoning='enable-thinking'"), json!({"enable_thinking": true}));
    let budget = json!({"reasoning": {"max_tokens": 2000}});
    assert_eq!(asked(budget, "reasoning='enable-thinking'"), json!({"enable_thinking": true, "thinking_budget": 2000}));
    let off = json!({"reasoning": {"enabled": false}, "include_reasoning": true});
    assert_eq!(asked(off, "reasoning='template-kwargs'"), json!({"chat_template_kwargs": {"enable_thinking": false}}));
}

#[test]
fn developer_becomes_system_where_it_is_unknown() {
    let body = json!({"messages": [{"role": "developer", "content": "developer"}, {"role": "user", "content": "x"}]});
    assert_eq!(send(&body, "", false, &[]).body["messages"][0], json!({"role": "system", "content": "developer"}));
    assert_eq!(send(&body, "developer_role=true", false, &[]).body["messages"][0]["role"], "developer");
}

#[test]
fn the_user_is_sent_only_as_the_hash() {
    let provider = provider("");
    let mut target = Target {
        dialect: Dialect::OpenaiChat,
        model: "m",
        provider: &provider,
        supports: &|_| true,
        max_output: None,
        user: Some("hashed"),
        stream: false,
    };
    let call = call(&json!({"user": "jane@example.org", "messages": messages()}));
    let sent = encode(&call, &target).unwrap().contiguous_body();
    assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap()["user"], "hashed");
    target.user = None;
    assert!(!String::from_utf8_lossy(&encode(&call, &target).unwrap().contiguous_body()).contains("jane"));
}

#[test]
fn a_long_body_is_not_copied() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(200_000)}], "seed": null});
    let call = call(&body);
    let provider = provider("");
    let target = Target {
        dialect: Dialect::OpenaiChat,
        model: "up",
        provider: &provider,
        supports: &|_| true,
        max_output: None,
        user: None,
        stream: true,
    };
    let sent = encode(&call, &target).unwrap();
    let range = call.body().as_ptr_range();
    let own: usize = sent.body.iter().filter(|segment| !range.contains(&segment.as_ptr())).map(Bytes::len).sum();
    assert!(own < 5000, "{own}");
    assert_eq!(sent.content_length(), sent.contiguous_body().len());
}

const NAMES: [&str; 14] = [
    "model",
    "stream",
    "temperature",
    "seed",
    "tools",
    "tool_choice",
    "provider",
    "models",
    "max_tokens",
    "vendor_a",
    "vendor_b",
    "user",
    "stream_options",
    "session_id",
];

fn value_of(name: &str) -> Value {
    match name {
        "stream" => json!(true),
        "temperature" | "seed" | "max_tokens" => json!(1),
        "tools" => json!([{"type": "function", "function": {"name": "f"}}]),
        "provider" => json!({"zdr": true}),
        "models" => json!(["x/y"]),
        "stream_options" => json!({"include_usage": false}),
        _ => json!("text \" \\ é"),
    }
}

proptest! {
    #[test]
    fn whatever_the_order_only_the_named_members_differ(
        names in prop::sample::subsequence(NAMES.to_vec(), 0..NAMES.len()).prop_shuffle(),
        nulls in prop::collection::vec(any::<bool>(), NAMES.len()),
        position in any::<prop::sample::Index>(),
        pretty: bool,
        large: bool,
        unsupported in prop::sample::subsequence(vec!["temperature", "seed", "tools"], 0..3),
        aggregator: bool,
    ) {
        let mut body = serde_json::Map::new();
        let at = position.index(names.len() + 1);
        let content = if large { "y".repeat(40_000) } else { "hi".to_owned() };
        let messages = json!([{"role": "developer", "content": content}]);
        for (index, name) in names.iter().enumerate() {
            if index == at { body.insert("messages".into(), messages.clone()); }
            body.insert((*name).into(), if nulls[index] { Value::Null } else { value_of(name) });
        }
        body.entry("messages").or_insert(messages);
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let call = ChatCall::read(text.into(), &ReadLimits::default()).unwrap();
        let provider = provider(if aggregator { "aggregator=true\ndeveloper_role=true" } else { "developer_role=true" });
        let supports = |name: &str| !unsupported.contains(&name);
        let target = Target {
            dialect: Dialect::OpenaiChat, model: "up", provider: &provider, supports: &supports, max_output: None, user: None, stream: true,
        };
        let sent = encode(&call, &target).unwrap();
        let sent: serde_json::Map<String, Value> = serde_json::from_slice(&sent.contiguous_body()).unwrap();

        let mut expected = body.clone();
        expected.retain(|name, value| {
            let dropped = unsupported.contains(&name.as_str()) || (name == "tool_choice" && unsupported.contains(&"tools"));
            let gateway = name == "models" || (!aggregator && (name == "provider" || name == "session_id"));
            !value.is_null() && !dropped && !gateway && name != "user"
        });
        expected.insert("model".into(), "up".into());
        expected.insert("stream".into(), true.into());
        expected.insert("stream_options".into(), json!({"include_usage": true}));
        prop_assert_eq!(sent, expected);
    }
}
