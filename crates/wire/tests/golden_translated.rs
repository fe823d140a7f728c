//! Translation to and from the dialects that are not the caller's, case by case.
//!
//! A case is a set of files `testdata/<dialect>/<case>.*`:
//!
//! | file | what |
//! |---|---|
//! | `request.json` | what the caller sent |
//! | `target.json` | the endpoint, where it differs from the dialect's default one: `model`, `provider`, `lacks` (parameters), `max_output`, `user`, `stream` |
//! | `upstream.json` | expected: path, headers, dropped parameters and body of the upstream request, or the refusal |
//! | `response.json` | an upstream's whole answer |
//! | `expected.json` | expected: the caller's answer and the facts, or the failure |
//! | `sse` | an upstream's stream |
//! | `expected.sse` | expected: the caller's stream, then the facts or the failure as a comment |
//!
//! Property order matters and is compared. After a deliberate change run `bless`, an ignored test, and read the difference.

#![expect(clippy::disallowed_methods, reason = "golden files are read, and by `bless` written")]
#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_wire::{
    ChatCall, Closing, Cost, Dialect, Facts, Failure, ProviderCatalog, ReadLimits, RequestError, Stamp, StreamReader, Target, encode,
    read_completion,
};

#[test]
fn anthropic_messages_cases() {
    walk(Dialect::AnthropicMessages, Expectation::Compare);
}

#[test]
fn gemini_cases() {
    walk(Dialect::Gemini, Expectation::Compare);
}

#[test]
#[ignore = "overwrites the expectations"]
fn bless() {
    walk(Dialect::AnthropicMessages, Expectation::Overwrite);
    walk(Dialect::Gemini, Expectation::Overwrite);
}

#[derive(Clone, Copy)]
enum Expectation {
    Compare,
    Overwrite,
}

impl Expectation {
    fn meet(self, path: &Path, actual: &str) -> Result<(), String> {
        match self {
            Expectation::Overwrite => fs::write(path, actual).map_err(|error| error.to_string()),
            Expectation::Compare => {
                let expected = fs::read_to_string(path).unwrap_or_default();
                if expected == actual {
                    return Ok(());
                }
                Err(format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", path.display()))
            }
        }
    }
}

fn walk(dialect: Dialect, expectation: Expectation) {
    let cases = Case::all(dialect);
    assert!(cases.len() >= 12, "only {} cases", cases.len());
    let failures: Vec<String> = cases.iter().filter_map(|case| case.check(expectation).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

struct Case {
    dialect: Dialect,
    /// Path without the kind of file.
    stem: PathBuf,
}

impl Case {
    fn all(dialect: Dialect) -> Vec<Case> {
        let folder = match dialect {
            Dialect::OpenaiChat => "openai_chat",
            Dialect::AnthropicMessages => "anthropic_messages",
            Dialect::Gemini => "gemini",
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
        let names: BTreeSet<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| Some(name.split_once('.')?.0.to_owned()))
            .collect();
        names.into_iter().map(|name| Case { dialect, stem: folder.join(name) }).collect()
    }

    fn path(&self, kind: &str) -> PathBuf {
        let mut path = self.stem.clone().into_os_string();
        path.push(".");
        path.push(kind);
        path.into()
    }

    fn read(&self, kind: &str) -> Option<String> {
        fs::read_to_string(self.path(kind)).ok()
    }

    fn check(&self, expectation: Expectation) -> Result<(), String> {
        if let Some(request) = self.read("request.json") {
            expectation.meet(&self.path("upstream.json"), &pretty(&self.encoded(request)))?;
        }
        if let Some(response) = self.read("response.json") {
            expectation.meet(&self.path("expected.json"), &pretty(&self.completed(response)))?;
        }
        if let Some(stream) = self.read("sse") {
            let whole = streamed(self.dialect, std::iter::once(stream.as_bytes()));
            expectation.meet(&self.path("expected.sse"), &whole)?;
        }
        Ok(())
    }

    fn encoded(&self, request: String) -> Value {
        let target: Value = self.read("target.json").map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        match encode_for(self.dialect, Bytes::from(request), &target) {
            Ok(upstream) => upstream,
            Err(refusal) => json!({"refused": {
                "status": refusal.status,
                "error_type": refusal.error_type.as_str(),
                "param": refusal.param,
                "message": refusal.message,
            }}),
        }
    }

    fn completed(&self, response: String) -> Value {
        let completion = match read_completion(self.dialect, Bytes::from(response), None, stamp()) {
            Ok(completion) => completion,
            Err(failure) => return failed(&failure),
        };
        let facts = told(completion.facts());
        let answer = completion.write(&closing());
        json!({"answer": serde_json::from_slice::<Value>(&answer).unwrap(), "facts": facts})
    }
}

fn encode_for(dialect: Dialect, request: Bytes, target: &Value) -> Result<Value, RequestError> {
    let call = ChatCall::read(request, &ReadLimits::default())?;
    let model = match dialect {
        Dialect::AnthropicMessages => "claude-sonnet-4-5",
        Dialect::Gemini => "gemini-2.5-flash",
        Dialect::OpenaiChat => "gpt-5",
    };
    let providers = ProviderCatalog::parse(PROVIDERS).unwrap();
    let provider = target["provider"].as_str().unwrap_or("plain");
    let lacks = |name: &str| target["lacks"].as_array().is_some_and(|lacks| lacks.iter().any(|lack| lack == name));
    let upstream = encode(
        &call,
        &Target {
            dialect,
            model: target["model"].as_str().unwrap_or(model),
            provider: providers.get(provider).expect("the case names one of PROVIDERS"),
            supports: &|name| !lacks(name),
            max_output: target["max_output"].as_u64().map(|limit| u32::try_from(limit).unwrap()),
            user: target["user"].as_str(),
            stream: target["stream"].as_bool().unwrap_or(false),
        },
    )?;
    let headers: Vec<String> = upstream.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    let body = upstream.contiguous_body();
    Ok(json!({
        "path": upstream.path,
        "headers": headers,
        "dropped": upstream.dropped.as_slice(),
        "body": serde_json::from_slice::<Value>(&body).unwrap(),
    }))
}

/// The vendors of the cases; not the shipped ones, whose facts may change.
const PROVIDERS: &str = r#"
[[provider]]
slug = "plain"
name = "Plain"
base_url = "https://plain.example"

[[provider]]
slug = "modern"
name = "Modern"
base_url = "https://modern.example"
chat_path = "/anthropic/v1/messages"
extra_headers = { anthropic-version = "2026-10-21" }

[[provider]]
slug = "picky"
name = "Picky"
base_url = "https://picky.example"
quirks = { rejects = ["top_p"], reasoning = "none" }
"#;

/// The caller's stream for `chunks`, with what became of it as a last comment.
fn streamed<'a>(dialect: Dialect, chunks: impl Iterator<Item = &'a [u8]>) -> String {
    let mut reader = StreamReader::new(dialect, stamp(), true);
    let mut out = BytesMut::new();
    let mut end = Ok(());
    for chunk in chunks {
        match reader.push(Bytes::copy_from_slice(chunk), &mut out) {
            Ok(_) => {}
            Err(failure) => {
                end = Err(failure);
                break;
            }
        }
    }
    let end = end.and_then(|()| reader.end_into(&mut out));
    match end {
        Ok(()) => reader.close(&closing(), &mut out),
        Err(failure) => out.extend_from_slice(format!(": {}\n\n", failed(&failure)).as_bytes()),
    }
    let mut text = String::from_utf8(out.to_vec()).unwrap();
    writeln!(text, ": {}", told(reader.facts())).unwrap();
    text
}

fn told(facts: &Facts) -> Value {
    json!({
        "usage": facts.usage.as_ref().map(|usage| format!("{usage:?}")),
        "finish_reason": facts.finish_reason.map(|reason| reason.as_str()),
        "native_finish_reason": facts.native_finish_reason,
        "content_seen": facts.content_seen,
        "tool_calls": facts.tool_calls,
        "upstream_id": facts.upstream_id,
        "service_tier": facts.service_tier,
        "output_bytes": facts.output_bytes,
    })
}

fn failed(failure: &Failure) -> Value {
    json!({"failed": {
        "kind": format!("{:?}", failure.kind),
        "status": failure.status,
        "error_type": failure.error_type.as_str(),
        "provider_code": failure.provider_code,
        "message": failure.message,
    }})
}

fn stamp() -> Stamp {
    Stamp { generation_id: "gen-1".into(), model: "author/model".into(), provider: "Provider".into(), created: 1_700_000_000 }
}

fn closing() -> Closing<'static> {
    let cost = Cost { total: "0.01", upstream: "0.01", upstream_prompt: "0.004", upstream_completion: "0.006", is_byok: false };
    Closing { cost: Some(cost), metadata: None, metadata_field: "" }
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap();
    text.push('\n');
    text
}

const TRANSLATED: [Dialect; 2] = [Dialect::AnthropicMessages, Dialect::Gemini];

fn streams() -> Vec<(Dialect, String)> {
    let cases = TRANSLATED.into_iter().flat_map(Case::all);
    cases.filter_map(|case| Some((case.dialect, case.read("sse")?))).collect()
}

#[test]
fn every_single_split_of_a_stream_gives_the_same_answer() {
    for (dialect, stream) in streams() {
        let bytes = stream.as_bytes();
        let whole = streamed(dialect, std::iter::once(bytes));
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(streamed(dialect, [head, tail].into_iter()), whole, "{dialect:?} split at {at}");
        }
    }
}

#[test]
fn every_written_chunk_is_json_with_a_delta() {
    for (dialect, stream) in streams() {
        let text = streamed(dialect, std::iter::once(stream.as_bytes()));
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|line| *line != "[DONE]") {
            let chunk: Value = serde_json::from_str(line).unwrap();
            assert_eq!(chunk["object"], "chat.completion.chunk");
            for choice in chunk["choices"].as_array().unwrap() {
                assert!(choice["delta"].is_object(), "{line}");
            }
        }
    }
}

/// JSON of any kind and shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_part() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<String>().prop_map(|text| json!({"type": "text", "text": text})),
        any::<String>().prop_map(|text| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": "1h"}})),
        Just(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}})),
        Just(json!({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}})),
        Just(json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}})),
        Just(json!({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}})),
    ]
}

fn any_content() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), any::<String>().prop_map(Value::from), prop::collection::vec(any_part(), 0..4).prop_map(Value::from),]
}

fn any_message() -> impl Strategy<Value = Value> {
    prop_oneof![
        (prop_oneof![Just("system"), Just("developer")], any::<String>()).prop_map(|(role, text)| json!({"role": role, "content": text})),
        (any_content(), any::<Option<String>>()).prop_map(|(content, name)| json!({"role": "user", "content": content, "name": name})),
        (any_content(), any::<String>(), any::<String>()).prop_map(|(content, arguments, text)| json!({
            "role": "assistant",
            "content": content,
            "tool_calls": [{"id": "call 1", "type": "function", "function": {"name": "f", "arguments": arguments}}],
            "reasoning_details": [
                {"type": "reasoning.text", "text": text, "signature": "s", "index": 0},
                {"type": "reasoning.encrypted", "data": "d", "id": "call 1"},
            ],
        })),
        any_content().prop_map(|content| json!({"role": "tool", "tool_call_id": "call 1", "content": content})),
    ]
}

fn any_request() -> impl Strategy<Value = Value> {
    let settings = (
        prop::option::of(0.0..2.0_f64),
        prop::option::of(1..200_000_u32),
        prop::option::of(prop::sample::select(vec!["none", "minimal", "low", "medium", "high", "xhigh", "max"])),
        prop::option::of(any_json()),
        prop::option::of(prop::sample::select(vec!["auto", "none", "required"])),
        prop::option::of(prop::collection::vec(any::<String>(), 0..4)),
        prop::option::of(prop::sample::select(vec!["text", "json_object", "json_schema"])),
    );
    (prop::collection::vec(any_message(), 1..6), settings).prop_map(
        |(messages, (temperature, max_tokens, effort, schema, choice, stop, format))| {
            let tools = schema.clone().map(|schema| json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]));
            json!({
                "messages": messages,
                "temperature": temperature,
                "max_tokens": max_tokens,
                "reasoning": effort.map(|effort| json!({"effort": effort})),
                "tools": tools,
                "tool_choice": choice,
                "stop": stop,
                "response_format": format.map(|kind| json!({"type": kind, "json_schema": {"name": "n", "schema": schema}})),
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// `encode_for` parses what was written and would panic on anything that is not JSON.
    #[test]
    fn any_request_is_refused_or_becomes_json(request in any_request(), model in "(claude-(sonnet|opus)-[3-5]-[0-9]|gemini-[1-3](\\.5)?-(pro|flash)|other)") {
        for dialect in TRANSLATED {
            let target = json!({"model": model, "stream": true});
            let written = encode_for(dialect, Bytes::from(request.to_string()), &target);
            if let Err(refusal) = &written {
                prop_assert!((400..500).contains(&refusal.status), "{refusal:?}");
            }
        }
    }

    #[test]
    fn any_split_of_a_stream_gives_the_same_answer(which in any::<prop::sample::Index>(), mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let streams = streams();
        let (dialect, stream) = which.get(&streams);
        let bytes = stream.as_bytes();
        let mut places: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let ends = places.iter().copied().chain([bytes.len()]);
        let starts = [0].into_iter().chain(places.iter().copied());
        let pieces = starts.zip(ends).map(|(start, end)| &bytes[start..end]);
        prop_assert_eq!(streamed(*dialect, pieces), streamed(*dialect, std::iter::once(bytes)));
    }

    #[test]
    fn a_garbled_upstream_never_panics(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let cases: Vec<(Dialect, String)> = TRANSLATED
            .into_iter()
            .flat_map(Case::all)
            .flat_map(|case| {
                let dialect = case.dialect;
                [case.read("sse"), case.read("response.json")].into_iter().flatten().map(move |text| (dialect, text))
            })
            .collect();
        let (dialect, text) = which.get(&cases);
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1).max(at));
        let mut out = BytesMut::new();
        let mut reader = StreamReader::new(*dialect, stamp(), false);
        let _ = reader.push(Bytes::from(bytes.clone()), &mut out).map(|_| reader.end_into(&mut out));
        if let Ok(completion) = read_completion(*dialect, Bytes::from(bytes), None, stamp()) {
            let answer = completion.write(&closing());
            prop_assert!(serde_json::from_slice::<Value>(&answer).is_ok());
        }
    }

    #[test]
    fn any_json_from_upstream_never_panics(value in any_json()) {
        for dialect in TRANSLATED {
            let text = value.to_string();
            let _ = read_completion(dialect, Bytes::from(text.clone()), None, stamp());
            let mut reader = StreamReader::new(dialect, stamp(), false);
            let _ = reader.push(Bytes::from(format!("data: {text}\n\n")), &mut BytesMut::new());
        }
    }
}
