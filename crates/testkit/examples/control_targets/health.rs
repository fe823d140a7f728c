//! What health brings into the log, however many edges there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{EdgeMessage, HealthReport, Hello, ReportCell, control_message, edge_message};
use tidegate_routing::EndpointId;
use tidegate_runtime::mesh::{ChannelOptions, Expect, PlainDialer, Role, channel};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::plane::{alone, declare, endpoint_name};
use crate::row;

/// How long each measurement watches.
pub(crate) const WATCHED: Duration = Duration::from_secs(20);

/// An edge that only reports: each endpoint fails for a second, and works for a second.
pub(crate) async fn reporter(address: String, number: usize, endpoints: u32) {
    let channel = channel(Arc::new(PlainDialer::default()), address, Expect::role(Role::Control), ChannelOptions::default());
    let (say, queue) = mpsc::channel(4);
    let hello = Hello {
        edge_id: format!("edge-{number}"),
        region: "eu".into(),
        build: "m".into(),
        schema_max: 1,
        instance: number as u64,
        ..Hello::default()
    };
    let _ = say.send(EdgeMessage { body: Some(edge_message::Body::Hello(hello)) }).await;
    let Ok(answer) = SyncClient::new(channel).follow(ReceiverStream::new(queue)).await else { return };
    let mut incoming = answer.into_inner();
    let begun = Instant::now();
    let (mut seq, mut tick) = (0, tokio::time::interval(Duration::from_millis(250)));
    loop {
        tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => if let Some(control_message::Body::GoAway(_)) = message.body { return },
                _ => return,
            },
            _ = tick.tick() => {
                seq += 1;
                let fails = begun.elapsed().as_secs().is_multiple_of(2);
                let cell = |endpoint| {
                    let endpoint = EndpointId::of(&endpoint_name(endpoint)).0;
                    let (ok, server_error) = if fails { (2, 10) } else { (12, 0) };
                    ReportCell { endpoint, ok, server_error, ..ReportCell::default() }
                };
                let report = HealthReport {
                    incarnation: 1, seq, window_ms: 250, confidence: 100, cells: (0..endpoints).map(cell).collect(), ..HealthReport::default()
                };
                if say.send(EdgeMessage { body: Some(edge_message::Body::HealthReport(report)) }).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn counter(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    families
        .iter()
        .filter(|family| family.name() == name)
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

pub(crate) struct Health {
    pub(crate) entries_per_second: f64,
    pub(crate) largest: f64,
}

pub(crate) async fn watch(registry: &prometheus::Registry, meanwhile: impl Future<Output = ()>) -> Health {
    // Until edges count as active and verdicts have begun.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let read = || (counter(registry, "tidegate_health_entries_total"), counter(registry, "tidegate_health_entry_bytes_total"));
    let (began, from) = (Instant::now(), read());
    let mut largest: f64 = 0.0;
    let watching = async {
        let mut last = from;
        while began.elapsed() < WATCHED {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = read();
            // At most one entry comes in this time.
            largest = largest.max(now.1 - last.1);
            last = now;
        }
    };
    tokio::join!(watching, meanwhile);
    Health { entries_per_second: (read().0 - from.0) / began.elapsed().as_secs_f64(), largest }
}

pub(crate) async fn measure() {
    for edges in [10, 100, 1_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let (node, registry) = alone(directory.path()).await;
        declare(&node, 50).await;
        let mut reporters = tokio::task::JoinSet::new();
        for number in 0..edges {
            reporters.spawn(reporter(node.bound().sync.to_string(), number, 10));
            // A node takes fifty new streams a second.
            tokio::time::sleep(Duration::from_millis(22)).await;
        }
        let seen = watch(&registry, async {}).await;
        row(
            format!("health entries in the log, {edges} edges, each with 10 flapping endpoints"),
            "≤ 2/s, ≤ 64 KiB each",
            format!("{:.2}/s, {:.1} KiB at most", seen.entries_per_second, seen.largest / 1024.0),
        );
        reporters.abort_all();
        node.shutdown(Duration::from_secs(5)).await;
    }
}
