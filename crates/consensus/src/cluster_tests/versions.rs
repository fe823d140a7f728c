//! A node among newer ones.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_meets_a_newer_command_stops_and_goes_on_from_there_when_it_is_upgraded() {
    let mut hosts = cluster(&["a", "b", "c"], as_they_are).await;
    propose(&hosts, "known to all").await;
    let old = (leader(&hosts).unwrap() + 1) % hosts.len();
    hosts[old].kill().await;
    hosts[old].old = true;
    hosts[old].start().await;
    let newer = propose(&hosts, "newer than one of us").await;
    let why = tokio::time::timeout(LONG, hosts[old].up().failed()).await.expect("it stops");
    assert!(why.contains(&format!("entry {} was written by a newer version", newer.index)), "{why}");
    assert_eq!(hosts[old].up().status().role, Role::Stopped);
    assert!(!hosts[old].seen.has(b"newer than one of us") && hosts[old].seen.has(b"known to all"));
    let last = propose(&hosts, "the others go on").await;
    hosts[old].kill().await;
    hosts[old].old = false;
    hosts[old].start().await;
    let applied = hosts[old].up().applied();
    until("it has caught up", || *applied.borrow() >= last.index).await;
    assert!(hosts[old].seen.has(b"newer than one of us") && hosts[old].seen.has(b"the others go on"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_kind_that_is_yet_to_come_is_refused_with_a_reason() {
    let hosts = cluster(&["a"], as_they_are).await;
    propose(&hosts, "one").await;
    let before = hosts[0].up().status();
    let channel = tidegate_runtime::mesh::channel(
        Arc::new(PlainDialer::default()),
        hosts[0].address.to_string(),
        crate::network::expect(""),
        tidegate_runtime::mesh::ChannelOptions::default(),
    );
    let append = v1::RaftAppendRequest {
        hello: Some(v1::RaftHello { receiver: 1, ..crate::network::hello::identity("north", 9) }),
        vote: Some(v1::RaftVote { term: 99, node: 9, committed: true }),
        entries: vec![v1::RaftEntry { log_id: Some(v1::RaftLogId { term: 99, leader: 9, index: 0 }), payload: None }],
        ..Default::default()
    };
    let mut answers = crate::network::client(channel).stream_append(futures_util::stream::iter([append])).await.unwrap().into_inner();
    let refused = answers.message().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("of a kind this version does not know"), "{refused}");
    let after = hosts[0].up().status();
    assert_eq!((after.term, after.last_log, after.role), (before.term, before.last_log, Role::Leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_newer_format_keeps_the_node_from_starting_and_stays_as_it_is() {
    let mut hosts = cluster(&["a"], as_they_are).await;
    propose(&hosts, "one").await;
    hosts[0].up().snapshot_now().await.unwrap();
    hosts[0].kill().await;
    let shelf = hosts[0].directory.path().join("snapshots");
    let path = std::fs::read_dir(&shelf).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&path).unwrap();
    let mut newer = good.clone();
    newer[8] += 1;
    std::fs::write(&path, &newer).unwrap();
    let listener = tokio::net::TcpListener::bind(hosts[0].address).await.unwrap();
    let error = hosts[0].start_on(listener).unwrap_err();
    let StartError::Storage { what: "the snapshots", source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("has format 2; this version reads format 1"), "{source}");
    assert_eq!(std::fs::read(&path).unwrap(), newer, "nothing was lost");
    // The version that wrote it starts on it.
    std::fs::write(&path, &good).unwrap();
    hosts[0].start().await;
    assert!(hosts[0].seen.has(b"one"));
}
