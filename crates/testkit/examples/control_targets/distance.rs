//! Three nodes in three regions, 80 ms of round trip between them: commits while everything flaps, and while a voter comes back.

use std::net::IpAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidegate_consensus::Timing;
use tidegate_control::Node;
use tidegate_proto::Kind;
use tidegate_proto::v1::{Change, Resource, command};
use tidegate_testkit::Wan;
use tidegate_testkit::control::id;
use tokio::sync::oneshot;

use crate::health::{WATCHED, reporter, watch};
use crate::plane::{Place, declare, found, node, propose};
use crate::row;

const REGIONS: [&str; 3] = ["a", "b", "c"];
const ROUND_TRIP: Duration = Duration::from_millis(80);
/// Long enough for a node without pre-vote to have begun many elections.
const AWAY: Duration = Duration::from_secs(15);

pub(crate) fn measure() {
    let wan = match Wan::open(&REGIONS, ROUND_TRIP / 2) {
        Ok(wan) => wan,
        Err(unavailable) => {
            row("commits over a distance", "–", unavailable);
            return;
        }
    };
    let directory = tempfile::tempdir().expect("a directory");
    let place = |region: &'static str, peers: Vec<String>| Place {
        name: region,
        region,
        address: IpAddr::V4(wan.address(region, 1)),
        timing: Timing::CONTINENTAL,
        peers,
    };
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::sync_channel::<String>(1);
        let (mut stops, mut joined) = (Vec::new(), Vec::new());
        let (leading, wan, directory) = (&place, &wan, directory.path());
        let leader = scope.spawn(move || {
            inside(wan, REGIONS[0], async {
                let (node, registry) = node(directory, leading(REGIONS[0], Vec::new())).await;
                found(&node).await;
                let _ = tell.send(node.consensus().instance().address);
                voters(&node, 3).await;
                measure_here(&node, &registry, wan).await;
                node.shutdown(Duration::from_secs(5)).await;
            });
        });
        let Ok(first) = told.recv() else { return };
        for region in &REGIONS[1..] {
            let (stop, stopping) = oneshot::channel::<()>();
            stops.push(stop);
            let (place, first) = (&place, first.clone());
            joined.push(scope.spawn(move || {
                inside(wan, region, async {
                    let (node, _) = node(directory, place(region, vec![first.clone()])).await;
                    while node.consensus().join_through(std::slice::from_ref(&first)).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    let _ = stopping.await;
                    node.shutdown(Duration::from_secs(5)).await;
                });
            }));
        }
        let _ = leader.join();
        drop(stops);
    });
}

fn inside(wan: &Wan, region: &str, work: impl Future<Output = ()> + Send) {
    // Threads of the runtime are born inside the region.
    let run = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map(|runtime| runtime.block_on(work));
    wan.inside(region, run).and_then(|ran| ran).expect("a region to work in");
}

async fn voters(node: &Node, wanted: usize) {
    while node.consensus().status().members.iter().filter(|member| member.voter).count() < wanted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn measure_here(node: &Node, registry: &prometheus::Registry, wan: &Wan) {
    declare(node, 50).await;
    for edges in [0, 200] {
        let mut reporters = tokio::task::JoinSet::new();
        for number in 0..edges {
            reporters.spawn(reporter(node.bound().sync.to_string(), number, 50));
            // A node takes fifty new streams a second.
            tokio::time::sleep(Duration::from_millis(22)).await;
        }
        let mut commits = Vec::new();
        let committing = async {
            let began = Instant::now();
            while began.elapsed() < WATCHED {
                commits.push(commit(node).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = watch(registry, committing).await;
        commits.sort_unstable();
        let at = |part: usize| commits[(commits.len() - 1) * part / 100];
        let trips = |time: Duration| time.as_secs_f64() / ROUND_TRIP.as_secs_f64();
        row(
            format!("a commit among three real nodes, {edges} edges x 50 endpoints flapping, 99th of 100"),
            "≤ 3 round trips",
            format!(
                "{:.2} round trips of {} ms (median {:.2}; {} commits, {:.2} health entries/s, {:.1} KiB at most)",
                trips(at(99)),
                ROUND_TRIP.as_millis(),
                trips(at(50)),
                commits.len(),
                seen.entries_per_second,
                seen.largest / 1024.0
            ),
        );
        reporters.abort_all();
    }
    // A voter is cut off, and comes back.
    let status = node.consensus().status();
    wan.isolate(REGIONS[2], true);
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    let mut healed = None;
    let mut last = Instant::now();
    while began.elapsed() < AWAY + WATCHED {
        commit(node).await;
        let now = Instant::now();
        if healed.is_some() {
            longest = longest.max(now - last);
        }
        last = now;
        if healed.is_none() && began.elapsed() >= AWAY {
            wan.isolate(REGIONS[2], false);
            healed = Some(now);
        }
    }
    let after = node.consensus().status();
    let lag = after.members.iter().map(|member| member.lag.unwrap_or(0)).max().unwrap_or(0);
    row(
        format!("commits stand still while a voter comes back that was cut off for {} s", AWAY.as_secs()),
        "< 1 s",
        format!("{:.2} s at most; term {} before, {} after, it lacks {lag} entries", longest.as_secs_f64(), status.term, after.term),
    );
}

/// Time that one change takes.
async fn commit(node: &Node) -> Duration {
    let asked = Instant::now();
    let upserts = vec![Resource { id: Some(id(Kind::Preset, "p")), body: "{}".into(), revision: 0 }];
    propose(node, command::Body::Change(Change { upserts, immediate: true, ..Change::default() })).await;
    asked.elapsed()
}
