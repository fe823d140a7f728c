//! What many keys cost an edge: time until it is ready, memory per key, time per look-up.
//!
//! `cargo run --release -p tidegate-testkit --example keys [NUMBER]`

#![expect(clippy::print_stdout, reason = "it is a report")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tidegate_control::publisher::{Cursor, Step};
use tidegate_edge::config::KeyPolicy;
use tidegate_edge::control_link::Replica;
use tidegate_proto::v1::{ControlMessage, control_message};
use tidegate_testkit::Topology;

fn main() {
    let keys: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(measure(keys));
}

async fn measure(keys: u32) {
    let following = Topology::new().provider("a", |_| {}).under_control();
    let before = resident();
    let begun = Instant::now();
    for number in 0..keys {
        following.node.create_key(&id(number), &text(number));
    }
    println!("agree on {keys} keys: {:.2} s; control node {} bytes per key", begun.elapsed().as_secs_f64(), per_key(before, keys));

    // First, while the allocator has nothing to give again.
    let state = following.node.published().load();
    let before = resident();
    let mut replica = Replica::new(None, Arc::new(|_| Ok(KeyPolicy::default())));
    let mut cursor = Cursor::resume("e", None, &state);
    let (mut bytes, begun) = (0, Instant::now());
    loop {
        match cursor.next(&state, 0) {
            Step::Send(message) => bytes += take(&mut replica, *message),
            Step::NeedsSnapshot => cursor.begin_snapshot(&state),
            Step::Idle { .. } => break,
        }
    }
    println!(
        "snapshot: {bytes} bytes, {:.1} per key; making and taking it in: {} ms",
        bytes as f64 / f64::from(keys),
        begun.elapsed().as_millis()
    );
    println!("edge: {} bytes per key", per_key(before, keys));

    let begun = Instant::now();
    let edge = following.edge("e").await;
    edge.until_ready().await;
    following.node.until_applied("e", following.node.index()).await;
    println!("new edge, from its start to ready with every key, over loopback: {} ms", begun.elapsed().as_millis());
    edge.edge.shutdown().await;
    following.node.kill().await;
    let begun = Instant::now();
    let edge = following.edge("e").await;
    edge.until_ready().await;
    println!("restarted edge without a control node, from its start to ready: {} ms", begun.elapsed().as_millis());
    edge.edge.shutdown().await;

    let requests: Vec<http::HeaderMap> = (0..10_000_u32)
        .map(|number| {
            let mut headers = http::HeaderMap::new();
            let key = text(number.wrapping_mul(2_654_435_761) % keys);
            headers.insert("authorization", format!("Bearer {key}").parse().expect("plain text"));
            headers
        })
        .collect();
    let mut plain: HashMap<[u8; 32], Arc<u32>> = HashMap::new();
    for number in 0..keys {
        plain.insert(tidegate_edge::auth::digest(&text(number), None), Arc::new(number));
    }
    let of_table = time(&requests, |headers| replica.knows(headers, 0));
    let of_plain = time(&requests, |headers| {
        let key = headers["authorization"].to_str().ok().and_then(|value| value.split_once(' '));
        key.is_some_and(|(_, key)| plain.get(&tidegate_edge::auth::digest(key, None)).map(Arc::clone).is_some())
    });
    println!("find a key: {of_table:.0} ns; a plain hash map by digest: {of_plain:.0} ns");
}

/// Best of several rounds, nanoseconds per request.
fn time(requests: &[http::HeaderMap], check: impl Fn(&http::HeaderMap) -> bool) -> f64 {
    let round = || {
        let begun = Instant::now();
        for headers in requests {
            assert!(black_box(check(black_box(headers))));
        }
        begun.elapsed().as_nanos() as f64 / requests.len() as f64
    };
    (0..20).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn take(replica: &mut Replica, message: ControlMessage) -> usize {
    let length = prost::Message::encoded_len(&message);
    match message.body {
        Some(control_message::Body::Snapshot(part)) => drop(replica.snapshot(part).expect("what is sent fits")),
        Some(control_message::Body::Bookmark(bookmark)) => drop(replica.bookmark(&bookmark).expect("what is sent fits")),
        other => panic!("{other:?}"),
    }
    length
}

fn id(number: u32) -> String {
    format!("k{number:09}")
}

fn text(number: u32) -> String {
    format!("tg_live_{number:010}_a-secret-of-forty-three-characters-or-so-12345")
}

fn per_key(before: u64, keys: u32) -> u64 {
    resident().saturating_sub(before) / u64::from(keys)
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
