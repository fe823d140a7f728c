//! Leadership goes where a quorum is near.

#![expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]

use super::distance::Between;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_far_from_the_others_hands_over_to_one_that_is_near_and_leadership_stays_there() {
    let between = Between::usual(Duration::from_millis(1));
    let hosts = cluster_over(&between, &["a", "b", "c"], |config| {
        config.placement = Some(PlacementRule {
            measure: Duration::from_millis(100),
            look: Duration::from_millis(200),
            patience: Duration::from_millis(600),
            rest: Duration::from_millis(1_500),
            gain: Duration::from_millis(20),
            ..PlacementRule::default()
        });
    })
    .await;
    for near in 0..2 {
        between.distance(hosts[near].address, hosts[2].address, Duration::from_millis(60));
    }
    propose(&hosts, "one").await;
    let far = hosts[2].id();
    until("the far node leads", || {
        hosts.iter().any(|host| host.up().status().leader == Some(far)) || {
            if let Some(leading) = leader(&hosts) {
                let leading = hosts[leading].up().clone();
                drop(tokio::spawn(async move { leading.transfer_leader(Some(far)).await }));
            }
            false
        }
    })
    .await;
    until("a near node leads", || leader(&hosts).is_some_and(|leading| leading != 2)).await;
    let settled = leader(&hosts).unwrap();
    // Longer than it took to leave the far node.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        assert_ne!(leader(&hosts), Some(2), "the far node leads again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(leader(&hosts), Some(settled), "leadership wanders between places that are as good");
}
