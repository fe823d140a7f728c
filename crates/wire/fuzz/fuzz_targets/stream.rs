//! The stream decoders: however an upstream's bytes are split, the caller gets the same frames and the router the same
//! facts, and every frame is one that an SDK can read.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidegate_wire::{Closing, Cost, Dialect, Facts, FailureKind, Stamp, StreamReader};

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (dialect, split, body) = input;
    let dialect = Dialect::ALL[usize::from(dialect) % Dialect::ALL.len()];
    let whole = relay(dialect, [body].into_iter());
    let pieces = relay(dialect, body.chunks(usize::from(split).max(1)));
    assert_eq!(whole, pieces);
    for frame in whole.frames.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if frame.starts_with(b":") {
            continue;
        }
        let data = frame.strip_prefix(b"data: ").expect("a frame is data or a comment");
        if data != b"[DONE]" {
            serde_json::from_slice::<IgnoredAny>(data).expect("data is JSON");
        }
    }
});

#[derive(Debug, PartialEq)]
struct Relayed {
    frames: Vec<u8>,
    facts: Facts,
    failure: Option<FailureKind>,
}

fn relay<'a>(dialect: Dialect, chunks: impl Iterator<Item = &'a [u8]>) -> Relayed {
    let stamp = Stamp { generation_id: "gen-1".into(), model: "author/model".into(), provider: "Fuzz".into(), created: 1 };
    let mut reader = StreamReader::new(dialect, stamp, true);
    let mut out = BytesMut::new();
    let mut failure = None;
    for chunk in chunks {
        if let Err(error) = reader.push(Bytes::copy_from_slice(chunk), &mut out) {
            failure = Some(error.kind);
            break;
        }
    }
    if failure.is_none() {
        failure = reader.end_into(&mut out).err().map(|error| error.kind);
    }
    let facts = reader.facts().clone();
    if failure.is_none() {
        let cost = Cost { total: "0.1", upstream: "0.1", upstream_prompt: "0.05", upstream_completion: "0.05", is_byok: false };
        reader.close(&Closing { cost: Some(cost), metadata: None, metadata_field: "openrouter_metadata" }, &mut out);
    }
    Relayed { frames: out.to_vec(), facts, failure }
}
