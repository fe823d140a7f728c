//! Memory of a control node that holds a large mesh.

use std::sync::Arc;
use std::time::Instant;

use tidegate_proto::v1::{CreateKey, HealthBatch, HealthCell, Key, KeySecret, RegionCells, command};
use tidegate_routing::EndpointId;

use crate::plane::{alone, declare, endpoint_name, propose};
use crate::{resident, row};

/// As in the target.
const KEYS: u32 = 100_000;
const ENDPOINTS: u32 = 2_000;
const REGIONS: u32 = 8;

pub(crate) async fn measure() {
    let directory = tempfile::tempdir().expect("a directory");
    let (node, _) = alone(directory.path()).await;
    let began = Instant::now();
    declare(&node, ENDPOINTS).await;
    let mut creating = tokio::task::JoinSet::new();
    let node = Arc::new(node);
    for part in 0..8 {
        let node = Arc::clone(&node);
        creating.spawn(async move {
            for number in (part..KEYS).step_by(8) {
                let digest = tidegate_edge::auth::digest(&format!("secret {number}"), None);
                let key = Key {
                    public_id: format!("k{number:09}"),
                    name: format!("key number {number}"),
                    organisation: format!("org-{}", number % 500),
                    secrets: vec![KeySecret { digest: digest.to_vec().into(), label: "tg_live_k…".to_owned(), ..KeySecret::default() }],
                    ..Key::default()
                };
                propose(&node, command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() })).await;
            }
        });
    }
    while creating.join_next().await.is_some() {}
    for region in 0..REGIONS {
        let cell = |number| HealthCell { endpoint: EndpointId::of(&endpoint_name(number)).0, samples: 900, ..HealthCell::default() };
        let regions = vec![RegionCells { region: format!("region-{region}"), cells: (0..ENDPOINTS).map(cell).collect() }];
        propose(&node, command::Body::HealthBatch(HealthBatch { regions, ..HealthBatch::default() })).await;
    }
    node.consensus().snapshot_now().await.expect("a snapshot");
    let (now, most) = resident();
    let what = format!("a control node with {KEYS} keys, {ENDPOINTS} endpoints, {REGIONS} regions, after a snapshot of them");
    let seconds = began.elapsed().as_secs_f64();
    row(what, "≤ 300 MB", format!("{} MB, {} MB at most; written in {seconds:.0} s", now / 1_000_000, most / 1_000_000));
}
