//! Who may say that what it has is fresh.

use super::distance::Between;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hears_only_a_leader_without_a_quorum_does_not_count_as_fresh() {
    let between = Between::default();
    let hosts = cluster_over(&between, &["a", "b", "c", "d", "e"], as_they_are).await;
    propose(&hosts, "one").await;
    let first = leader(&hosts).unwrap();
    let follower = (first + 1) % hosts.len();
    let age = || Duration::from_millis(hosts[follower].up().status().millis_since_leader.unwrap_or(u64::MAX));
    until("the follower hears of a quorum", || age() < TIMING.heartbeat * 3).await;
    for lonely in [first, follower] {
        for other in (0..hosts.len()).filter(|other| ![first, follower].contains(other)) {
            between.cut(hosts[lonely].address, hosts[other].address);
        }
    }
    let cut = Instant::now();
    // The leader goes on speaking to its one follower for a while, and again and again later.
    while cut.elapsed() < TIMING.quorum_loss_probe * 3 {
        let fresh_after_cut = cut.elapsed().saturating_sub(age());
        assert!(fresh_after_cut < TIMING.election_max / 2, "counts as fresh {fresh_after_cut:?} after the cut");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    propose(&hosts, "the others go on").await;
}

/// While there are many writes there are no heartbeats.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_keep_a_follower_fresh_as_heartbeats_do() {
    let hosts = cluster(&["a", "b", "c"], as_they_are).await;
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < TIMING.election_max * 3 {
        number += 1;
        propose(&hosts, &format!("entry {number}")).await;
        for host in &hosts {
            let age = host.up().status().millis_since_leader;
            let fresh = age.is_some_and(|age| u128::from(age) < TIMING.election_max.as_millis());
            assert!(fresh || started.elapsed() < TIMING.election_max, "{}: {age:?} ms after {number} entries", host.name);
        }
    }
}
