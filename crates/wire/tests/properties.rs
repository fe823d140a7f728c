//! What must hold for any answer of the OpenAI dialect, however it is cut.

#![expect(clippy::unwrap_used, reason = "what cannot be parsed has failed the property")]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_wire::{Closing, Dialect, Stamp, StreamReader, read_completion};

fn stamp() -> Stamp {
    Stamp { generation_id: "gen-1".into(), model: "a/b".into(), provider: "P \"q\"".into(), created: 7 }
}

/// One chunk's delta, as vendors write them; most are of the same form, as in real streams.
fn delta() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => any::<String>().prop_map(|text| json!({"content": text})),
        2 => "[a\"\\\\\n\u{1F600}é]{0,6}".prop_map(|text| json!({"content": text})),
        3 => any::<String>().prop_map(|text| json!({"content": null, "reasoning_content": text})),
        1 => any::<String>().prop_map(|text| json!({"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text}]})),
        1 => any::<String>().prop_map(|text| json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}], "vendor": {"x": null}})),
        1 => Just(json!({})),
    ]
}

fn chunk() -> impl Strategy<Value = Value> {
    (
        delta(),
        prop_oneof![5 => Just(None), 1 => any::<u8>().prop_map(Some)],
        prop_oneof![8 => Just(Value::Null), 1 => Just(json!("length"))],
    )
        .prop_map(|(delta, extra, finish)| {
            let mut chunk = json!({
                "id": "up", "object": "chat.completion.chunk", "created": 5, "model": "up",
                "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]
            });
            if let Some(extra) = extra {
                chunk["extra"] = extra.into();
            }
            chunk
        })
}

/// What the caller should read for `chunk`.
fn expected(mut chunk: Value) -> Value {
    chunk["id"] = "gen-1".into();
    chunk["model"] = "a/b".into();
    chunk["provider"] = "P \"q\"".into();
    let choice = &mut chunk["choices"][0];
    if choice["finish_reason"] == "length" {
        choice["native_finish_reason"] = "length".into();
    }
    let thought = choice["delta"]["reasoning_content"].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(thought) = thought {
        choice["delta"]["reasoning_details"] = json!([{"type": "reasoning.text", "text": thought, "format": "unknown", "index": 0}]);
        choice["delta"]["reasoning"] = thought.into();
    }
    chunk
}

fn events(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    text.split_terminator("\n\n").map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

proptest! {
    #[test]
    fn every_chunk_arrives_once_and_changed_only_where_named(
        chunks in prop::collection::vec(chunk(), 1..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        pretty in prop::collection::vec(any::<bool>(), 20),
    ) {
        let mut stream = Vec::new();
        for (chunk, pretty) in chunks.iter().zip(pretty) {
            // A space more or less makes another form of the same chunk.
            let text = if pretty { chunk.to_string() } else { chunk.to_string().replacen(":null", ": null", 1) };
            stream.extend(format!("data: {text}\n\n").into_bytes());
        }
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let mut reader = StreamReader::new(Dialect::OpenaiChat, stamp(), false);
        let mut out = BytesMut::new();
        for pair in at.windows(2) {
            reader.push(Bytes::copy_from_slice(&stream[pair[0]..pair[1]]), &mut out).unwrap();
        }
        let wanted: Vec<Value> = chunks.into_iter().map(expected).collect();
        prop_assert_eq!(events(&out), wanted);
    }

    #[test]
    fn hidden_thoughts_are_nowhere(thoughts in prop::collection::vec("[a-z]{12}", 1..5), details: bool) {
        let mut reader = StreamReader::new(Dialect::OpenaiChat, stamp(), false);
        reader.hide_reasoning();
        let mut out = BytesMut::new();
        for thought in &thoughts {
            let delta = if details {
                json!({"reasoning": thought, "reasoning_details": [{"text": thought}]})
            } else {
                json!({"reasoning_content": thought})
            };
            let chunk = json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
            reader.push(format!("data: {chunk}\n\n").into(), &mut out).unwrap();
        }
        let text = String::from_utf8(out.to_vec()).unwrap();
        for thought in &thoughts {
            prop_assert!(!text.contains(thought.as_str()));
        }
        prop_assert_eq!(events(text.as_bytes()).len(), thoughts.len());
        prop_assert!(reader.facts().content_seen);
    }

    #[test]
    fn whole_answers_keep_their_unknown_members(content: String, extra: String, position in 0..3_usize) {
        let mut answer = serde_json::Map::new();
        let choice = json!([{"index": 0, "message": {"role": "assistant", "content": content, "odd": extra}, "finish_reason": "stop"}]);
        for (index, name) in ["x_vendor", "choices", "created"].iter().cycle().skip(position).take(3).enumerate() {
            let value = match *name { "choices" => choice.clone(), "created" => json!(index), _ => json!({"v": extra}) };
            answer.insert((*name).to_owned(), value);
        }
        let body = Value::Object(answer.clone()).to_string();
        let read = read_completion(Dialect::OpenaiChat, body.into(), None, stamp()).unwrap();
        let written: Value = serde_json::from_slice(&read.write(&Closing::default())).unwrap();
        prop_assert_eq!(&written["x_vendor"], &answer["x_vendor"]);
        prop_assert_eq!(&written["created"], &answer["created"]);
        prop_assert_eq!(&written["choices"][0]["message"], &answer["choices"][0]["message"]);
        prop_assert_eq!(&written["choices"][0]["native_finish_reason"], "stop");
        prop_assert_eq!(&written["id"], "gen-1");
    }

    #[test]
    fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        for dialect in Dialect::ALL {
            let mut reader = StreamReader::new(dialect, stamp(), true);
            let mut out = BytesMut::new();
            for chunk in &chunks {
                if reader.push(chunk.clone().into(), &mut out).is_err() { break; }
            }
            let _ = reader.end_into(&mut out);
            let _ = read_completion(dialect, chunks.concat().into(), None, stamp());
        }
    }
}
