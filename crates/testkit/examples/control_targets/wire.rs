//! Bytes between a control node and an edge, over a network in memory: HTTP/2 and all.

use std::time::Duration;

use tidegate_proto::Kind;
use tidegate_proto::v1::{Change, Command, Resource, command};
use tidegate_testkit::control::id;
use tidegate_testkit::network::Network;
use tidegate_testkit::simulated::{BEGIN, Place, SimulatedNode, edge, foundation};

use crate::row;

pub(crate) fn measure() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let clock = tidegate_runtime::Clock::of_runtime(BEGIN);
        let network = Network::new(Duration::from_millis(20));
        let node = SimulatedNode::start("c0", &network, clock, tidegate_control::api::sync::SyncLimits::default());
        let mut log: Vec<Command> = Vec::new();
        let agree = |log: &mut Vec<Command>, body| {
            log.push(Command { leader_time_ms: clock.unix_millis(), actor: "m".to_owned(), body: Some(body), ..Command::default() });
            node.apply(log, log.len() as u64, true);
        };
        for body in foundation() {
            agree(&mut log, body);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { name: "e0", nodes: vec!["c0".to_owned()], state_dir: directory.path(), key_grace: None };
        let mut edge = edge(&network, clock, &place);
        let sums = || (network.carried("c0", "e0"), network.carried("e0", "c0"));
        for (what, target, changes) in
            [("connecting", "–", 0_u32), ("an idle hour", "–", 0), ("an hour with 1,000 changed prices", "–", 1_000)]
        {
            let before = sums();
            let until =
                tokio::time::Instant::now() + if what == "connecting" { Duration::from_secs(10) } else { Duration::from_secs(3600) };
            let mut left = changes;
            while tokio::time::Instant::now() < until {
                let next = tokio::time::Instant::now() + Duration::from_millis(3500);
                while tokio::time::timeout_at(next.min(until), edge.turn()).await.is_ok() {}
                if left > 0 {
                    left -= 1;
                    let body = format!(r#"{{"price":"{}"}}"#, 1 + left % 7);
                    let upserts = vec![Resource { id: Some(id(Kind::Endpoint, "a/m")), body: body.into(), revision: 0 }];
                    agree(&mut log, command::Body::Change(Change { upserts, immediate: true, ..Change::default() }));
                }
            }
            let now = sums();
            let (to, from) = (now.0 - before.0, now.1 - before.1);
            row(format!("an edge with 4 resources, {what}"), target, format!("{to} bytes to the edge, {from} from it"));
        }
        edge.stop().await;
    });
}
