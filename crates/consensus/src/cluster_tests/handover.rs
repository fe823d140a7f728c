//! A leader that stops on purpose, with 80 ms of round trip between the nodes.

#![expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]

use super::distance::Between;
use super::*;

/// Writes one after the other, at whoever leads, until told to stop. Gives the longest time between two.
async fn longest_gap(hosts: &Mutex<Vec<Consensus>>, done: &std::sync::atomic::AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for number in 0.. {
        if done.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        let leading = hosts.lock().iter().find(|host| host.leads()).cloned();
        let Some(leading) = leading else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        if leading.propose(Bytes::from(format!("entry {number}"))).await.is_ok() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    longest.max(last.elapsed())
}

/// Reads again and again. Gives how long the last read took, which the node has not answered because it stops.
async fn read_until_it_stops(node: Consensus) -> Duration {
    loop {
        let asked = Instant::now();
        if let Err(ReadError::Stopped(_)) = node.read_barrier().await {
            return asked.elapsed();
        }
    }
}

/// Restarts each of three nodes twice, in order, while there are writes. Each leader hands over within a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_leader_of_a_rolling_restart_hands_over_at_once() {
    let between = Between::usual(Duration::from_millis(40));
    let mut hosts = cluster_over(&between, &["a", "b", "c"], |config| config.timing = Timing::CONTINENTAL).await;
    let handles = Arc::new(Mutex::new(hosts.iter().map(|host| host.up().clone()).collect::<Vec<_>>()));
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writing = tokio::spawn({
        let (handles, done) = (Arc::clone(&handles), Arc::clone(&done));
        async move { longest_gap(&handles, &done).await }
    });
    let mut handed_over = 0;
    for round in 0..6 {
        let place = round % 3;
        let led = hosts[place].up().status().role == Role::Leader;
        let applied = *hosts[place].up().applied().borrow();
        let reading: Vec<_> = (0..4).map(|_| tokio::spawn(read_until_it_stops(hosts[place].up().clone()))).collect();
        let started = Instant::now();
        hosts[place].up().shutdown().await;
        let took = started.elapsed();
        for reader in reading {
            let last = reader.await.unwrap();
            assert!(last < Duration::from_secs(1), "a read of {} was answered {last:?} after it was asked", hosts[place].name);
        }
        println!("{} (leader: {led}) stopped in {took:?}", hosts[place].name);
        handles.lock().remove(0);
        hosts[place].consensus = None;
        assert!(took < Duration::from_secs(1), "{} took {took:?} to stop; leader: {led}", hosts[place].name);
        handed_over += u32::from(led);
        hosts[place].start().await;
        handles.lock().push(hosts[place].up().clone());
        let now = hosts[place].up().applied();
        until("the restarted node has caught up", || *now.borrow() >= applied).await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let gap = writing.await.unwrap();
    println!("{handed_over} hand-overs, longest pause of writes {gap:?}");
    assert!(handed_over > 0, "no leader was ever restarted");
    assert!(gap < Duration::from_secs(2), "{gap:?} without a write");
}
