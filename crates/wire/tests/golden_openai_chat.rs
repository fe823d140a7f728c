//! Walks `testdata/openai_chat`: what vendors of the OpenAI chat dialect say, and what callers must read.
//!
//! `<case>.request.json` (a target and a body) is encoded and compared with `<case>.sent.json`; `<case>.response.json` is read and
//! compared with `<case>.answer.json`; `<case>.sse` is fed in three ways and compared with `<case>.expected.sse`, whose last line
//! says what was learnt. A missing expectation is written, and the test fails so that somebody reads it.

#![expect(clippy::disallowed_methods, reason = "golden files are read, and once written")]
#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tidegate_wire::{
    ChatCall, Closing, Cost, Dialect, Facts, Failure, ProviderCatalog, ReadLimits, Stamp, StreamReader, Target, encode, read_completion,
    sse::MAX_EVENT,
};

#[test]
fn requests_are_sent_as_expected() {
    for path in cases("request.json") {
        let case: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let body = Bytes::from(case["body"].to_string());
        let call = ChatCall::read(body, &ReadLimits::default()).unwrap();
        let unsupported: Vec<&str> = case["unsupported"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let target = Target {
            dialect: Dialect::OpenaiChat,
            model: case["model"].as_str().unwrap(),
            provider: ProviderCatalog::shipped().get(case["provider"].as_str().unwrap()).unwrap(),
            supports: &|name| !unsupported.contains(&name),
            max_output: None,
            user: case["user"].as_str(),
            stream: call.stream(),
        };
        let sent = encode(&call, &target).unwrap();
        let body: Value = serde_json::from_slice(&sent.contiguous_body()).unwrap();
        let actual = serde_json::json!({"path": sent.path, "dropped": sent.dropped.as_slice(), "body": body});
        compare_json(&path, "sent.json", &actual);
    }
}

#[test]
fn answers_are_read_as_expected() {
    for path in cases("response.json") {
        let body = Bytes::from(fs::read(&path).unwrap());
        let actual = match read_completion(Dialect::OpenaiChat, body, None, stamp()) {
            Ok(completion) => {
                let facts = learnt(completion.facts());
                let answer: Value = serde_json::from_slice(&completion.write(&closing())).unwrap();
                serde_json::json!({"facts": facts, "answer": answer})
            }
            Err(failure) => serde_json::json!({"failure": failed(&failure)}),
        };
        compare_json(&path, "answer.json", &actual);
    }
}

#[test]
fn streams_are_rewritten_as_expected() {
    for path in cases("sse") {
        let stream = fs::read(&path).unwrap();
        assert!(stream.len() < MAX_EVENT);
        let whole = run(&[&stream]);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(run(&bytes), whole, "{} byte by byte", path.display());
        let pieces: Vec<&[u8]> = stream.chunks(37).collect();
        assert_eq!(run(&pieces), whole, "{} in pieces", path.display());
        compare(&path, "expected.sse", &whole);
    }
}

fn run(chunks: &[&[u8]]) -> String {
    let mut reader = StreamReader::new(Dialect::OpenaiChat, stamp(), true);
    let mut out = BytesMut::new();
    let mut ended = Ok(());
    for chunk in chunks {
        ended = reader.push(Bytes::copy_from_slice(chunk), &mut out).map(drop);
        if ended.is_err() {
            break;
        }
    }
    let ended = ended.and_then(|()| reader.end_into(&mut out));
    let verdict = match ended {
        Ok(()) => {
            reader.close(&closing(), &mut out);
            learnt(reader.facts())
        }
        Err(failure) => failed(&failure),
    };
    format!("{}== {verdict}\n", String::from_utf8(out.to_vec()).unwrap())
}

fn learnt(facts: &Facts) -> String {
    format!(
        "{} ({}) content={} tool_calls={} id={:?} tier={:?} bytes={} cost={:?} usage={:?}",
        facts.finish_reason.map_or("-", |reason| reason.as_str()),
        facts.native_finish_reason.as_deref().unwrap_or("-"),
        facts.content_seen,
        facts.tool_calls,
        facts.upstream_id,
        facts.service_tier,
        facts.output_bytes,
        facts.upstream_cost,
        facts.usage,
    )
}

fn failed(failure: &Failure) -> String {
    format!(
        "{} {:?} {} code={:?} {}",
        failure.kind.as_str(),
        failure.status,
        failure.error_type.as_str(),
        failure.provider_code,
        failure.message
    )
}

fn stamp() -> Stamp {
    Stamp { generation_id: "gen-1".into(), model: "author/model".into(), provider: "Vendor".into(), created: 1_700_000_000 }
}

fn closing() -> Closing<'static> {
    let cost = Cost { total: "0.000135", upstream: "0.000135", upstream_prompt: "0.0001", upstream_completion: "0.000035", is_byok: false };
    Closing { cost: Some(cost), metadata: Some("{\"attempt\":1}"), metadata_field: "openrouter_metadata" }
}

/// Every file of the directory with this ending, expectations excluded.
fn cases(ending: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/openai_chat");
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.split_once('.').is_some_and(|(_, rest)| rest == ending)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no *.{ending}");
    found
}

fn compare_json(case: &Path, ending: &str, actual: &Value) {
    compare(case, ending, &format!("{actual:#}\n"));
}

fn compare(case: &Path, ending: &str, actual: &str) {
    let name = case.file_name().unwrap().to_str().unwrap().split_once('.').unwrap().0;
    let expected = case.with_file_name(format!("{name}.{ending}"));
    if !expected.exists() {
        fs::write(&expected, actual).unwrap();
        panic!("{} was missing and is now written; read it", expected.display());
    }
    assert_eq!(actual, fs::read_to_string(&expected).unwrap(), "{}", expected.display());
}
