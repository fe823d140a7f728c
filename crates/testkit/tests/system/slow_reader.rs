//! An edge that stopped reading costs its control node 64 KiB, and nobody else anything.

use std::sync::Arc;

use tidegate_proto::Kind;
use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{Change, EdgeMessage, Hello, Resource, command, edge_message};
use tidegate_runtime::mesh::{ChannelOptions, Expect, PlainDialer, Role, channel};
use tidegate_testkit::Topology;
use tidegate_testkit::control::{ControlNode, id, until};
use tokio_stream::StreamExt;

/// Introduces itself, and then takes nothing: neither the messages, nor, once its window is full, the bytes.
async fn hangs(node: &ControlNode, name: &str, window: u32) -> impl Sized {
    let options = ChannelOptions { stream_window: window, connection_window: window, ..ChannelOptions::default() };
    let channel = channel(Arc::new(PlainDialer::default()), node.address(), Expect::role(Role::Control), options);
    let hello = Hello { edge_id: name.to_owned(), region: "test".to_owned(), schema_max: 1, ..Hello::default() };
    let first = tokio_stream::once(EdgeMessage { body: Some(edge_message::Body::Hello(hello)) });
    let stream = first.chain(tokio_stream::pending());
    SyncClient::new(channel).follow(stream).await.expect("it is let in").into_inner()
}

#[tokio::test]
async fn an_edge_that_hangs_costs_64_kib() {
    let following = Topology::new().provider("a", |_| {}).under_control();
    // Far more than the kernels of both sides take in.
    for part in 0..40 {
        let preset =
            |number| Resource { id: Some(id(Kind::Preset, &format!("p{part}-{number}"))), body: vec![b'x'; 12_000].into(), revision: 0 };
        let upserts = (0..50).map(preset).collect();
        following.node.agree(command::Body::Change(Change { upserts, immediate: true, ..Change::default() }));
    }
    let _hanging = hangs(&following.node, "hanging", 64 << 10).await;
    let edge = following.ready_edge("e").await;
    assert_eq!(edge.edge.readiness(), Ok(()));
    let waiting = |name: &str| {
        let all = following.node.followers().all();
        all.iter().find(|follower| follower.introduction.edge == name).map_or(0, |follower| follower.most_waiting())
    };
    until(|| (waiting("hanging") > 32 << 10).then_some(())).await;
    assert!(waiting("hanging") <= 64 << 10, "{} bytes wait for it", waiting("hanging"));
    assert_eq!(following.node.edge("hanging").map(|status| status.sent), Some(0), "it has not got everything");
    edge.edge.shutdown().await;
}
