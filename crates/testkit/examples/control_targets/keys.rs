//! What many keys cost an edge: time until it is ready, memory per key, time per look-up.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tidegate_control::publisher::{Cursor, Step};
use tidegate_edge::config::KeyPolicy;
use tidegate_edge::control_link::Replica;
use tidegate_proto::v1::{ControlMessage, control_message};
use tidegate_testkit::Topology;

use crate::{resident, row};

/// As in the target.
const KEYS: u32 = 100_000;

pub(crate) async fn measure() {
    let keys = KEYS;
    let following = Topology::new().provider("a", |_| {}).under_control();
    let before = resident().0;
    let begun = Instant::now();
    for number in 0..keys {
        following.node.create_key(&id(number), &text(number));
    }
    let agreed = begun.elapsed().as_secs_f64();
    row("memory per 10,000 keys, control node", "–", format!("{:.1} MB ({keys} agreed on in {agreed:.1} s)", per_10k(before, keys)));

    // First, while the allocator has nothing to give again.
    let state = following.node.published().load();
    let before = resident().0;
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
    let (megabytes, millis) = (bytes as f64 / 1e6, begun.elapsed().as_millis());
    row(format!("a snapshot with {keys} keys, made and taken in"), "–", format!("{megabytes:.1} MB, {millis} ms"));
    row("memory per 10,000 keys, edge", "about 1.2 MB", format!("{:.1} MB", per_10k(before, keys)));

    let begun = Instant::now();
    let edge = following.edge("e").await;
    edge.until_ready().await;
    following.node.until_applied("e", following.node.index()).await;
    row(format!("a new edge ready with {keys} keys, over loopback"), "≤ 1 s", format!("{} ms", begun.elapsed().as_millis()));
    edge.edge.shutdown().await;
    following.node.kill().await;
    let begun = Instant::now();
    let edge = following.edge("e").await;
    edge.until_ready().await;
    row("the same edge restarted while no control node is there", "–", format!("{} ms", begun.elapsed().as_millis()));
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
    row("finding a key", "a hash map by digest", format!("{of_table:.0} ns; {of_plain:.0} ns"));
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

/// Megabytes more than before.
fn per_10k(before: u64, keys: u32) -> f64 {
    resident().0.saturating_sub(before) as f64 / f64::from(keys) / 100.0
}
