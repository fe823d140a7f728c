//! Whole nodes over real sockets and real files.

mod distance;
mod freshness;
mod handover;
mod placement;
mod versions;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_proto::v1;
use tidegate_runtime::mesh::{PlainDialer, PlainListener};

use self::distance::Between;
use crate::state_store::tests::Kept;
use crate::*;

/// An application whose state the test can see.
#[derive(Clone, Default)]
struct Seen {
    kept: Arc<Mutex<Kept>>,
    /// Does not know commands that begin with `newer`.
    old: bool,
}

impl Application for Seen {
    fn apply(&mut self, index: u64, term: u64, payload: Bytes) -> Bytes {
        self.kept.lock().apply(index, term, payload)
    }

    fn understands(&self, payload: &[u8]) -> Result<(), String> {
        if self.old && payload.starts_with(b"newer") { Err("a newer command".to_owned()) } else { Ok(()) }
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        self.kept.lock().freeze()
    }

    fn restore(&mut self, sections: Vec<(String, Bytes)>) -> Result<(), RestoreError> {
        self.kept.lock().restore(sections)
    }
}

impl Seen {
    fn has(&self, payload: &[u8]) -> bool {
        self.kept.lock().commands.values().any(|command| command == payload)
    }
}

/// One node on a volume of its own.
struct Host {
    name: String,
    region: String,
    directory: Arc<tempfile::TempDir>,
    address: SocketAddr,
    peers: Vec<String>,
    tune: fn(&mut ConsensusConfig),
    between: Between,
    /// Runs a version that does not know all commands.
    old: bool,
    seen: Seen,
    consensus: Option<Consensus>,
}

impl Host {
    /// A node with an empty volume.
    async fn empty(name: &str, tune: fn(&mut ConsensusConfig)) -> Self {
        Self::at_the_end_of(&Between::default(), name, tune).await
    }

    /// The same, with something between it and the others.
    async fn at_the_end_of(between: &Between, name: &str, tune: fn(&mut ConsensusConfig)) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut this = Self {
            name: name.to_owned(),
            region: "here".to_owned(),
            directory: Arc::new(tempfile::tempdir().unwrap()),
            address: listener.local_addr().unwrap(),
            peers: Vec::new(),
            tune,
            between: between.clone(),
            old: false,
            seen: Seen::default(),
            consensus: None,
        };
        this.start_on(listener).unwrap();
        this
    }

    fn start_on(&mut self, listener: tokio::net::TcpListener) -> Result<(), StartError> {
        let mut config = ConsensusConfig::new(self.directory.path(), &self.name, self.address.to_string());
        config.region = self.region.clone();
        config.peers = self.peers.clone();
        config.ballast = 1 << 20;
        config.timing = TIMING;
        (self.tune)(&mut config);
        self.seen = Seen { old: self.old, ..Seen::default() };
        let consensus =
            Consensus::start(config, Box::new(self.seen.clone()), self.between.dialer(self.address), &prometheus::Registry::new())?;
        consensus.serve(Arc::new(PlainListener::new(listener)));
        self.consensus = Some(consensus);
        Ok(())
    }

    /// Starts the node again on its volume and address.
    async fn start(&mut self) {
        let listener = tokio::net::TcpListener::bind(self.address).await.unwrap();
        self.start_on(listener).unwrap();
    }

    /// Ends the node without a word to the others.
    async fn kill(&mut self) {
        let consensus = self.consensus.take().unwrap();
        consensus.stop("killed by the test").await;
    }

    fn up(&self) -> &Consensus {
        self.consensus.as_ref().unwrap()
    }

    fn id(&self) -> u64 {
        self.up().status().node_id
    }
}

const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(100),
    election_min: Duration::from_millis(400),
    election_max: Duration::from_millis(800),
    quorum_loss_probe: Duration::from_millis(1_800),
};
const LONG: Duration = Duration::from_secs(45);

/// Waits for something to become true.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn as_they_are(_: &mut ConsensusConfig) {}

/// A cluster of so many voters.
async fn cluster(names: &[&str], tune: fn(&mut ConsensusConfig)) -> Vec<Host> {
    cluster_over(&Between::default(), names, tune).await
}

/// The same, with something between them.
async fn cluster_over(between: &Between, names: &[&str], tune: fn(&mut ConsensusConfig)) -> Vec<Host> {
    let mut hosts = vec![Host::at_the_end_of(between, names[0], tune).await];
    hosts[0].up().init("north").await.unwrap();
    for name in &names[1..] {
        let host = Host::at_the_end_of(between, name, tune).await;
        host.up().join_through(&[hosts[0].address.to_string()]).await.unwrap();
        hosts.push(host);
    }
    let count = hosts.len();
    until("everyone votes", || hosts.iter().all(|host| voters(host).len() == count)).await;
    // The last change of the voters counts two majorities until it is through: those that a test leaves may be only one of them.
    until("nothing is under way", || {
        let indices: Vec<_> = hosts.iter().map(|host| host.up().status()).map(|status| (status.last_log, status.committed)).collect();
        indices.iter().all(|(last, committed)| last == committed && *last == indices[0].0)
    })
    .await;
    hosts
}

fn voters(host: &Host) -> Vec<u64> {
    host.up().status().members.iter().filter(|member| member.voter).map(|member| member.id).collect()
}

/// The place of the host that leads.
fn leader(hosts: &[Host]) -> Option<usize> {
    hosts.iter().position(|host| host.consensus.as_ref().is_some_and(Consensus::leads))
}

/// Proposes at whoever leads, until it is committed.
async fn propose(hosts: &[Host], payload: &str) -> Committed {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(leader) = leader(hosts) {
            let proposal = hosts[leader].up().propose(Bytes::copy_from_slice(payload.as_bytes()));
            if let Ok(Ok(committed)) = tokio::time::timeout(Duration::from_secs(2), proposal).await {
                return committed;
            }
        }
        assert!(Instant::now() < deadline, "nothing was committed within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_agree_and_any_of_them_reads_what_was_written() {
    let hosts = cluster(&["a", "b", "c"], as_they_are).await;
    let committed = propose(&hosts, "one").await;
    assert_eq!(committed.response, "one");
    let lead = leader(&hosts).unwrap();
    for (place, host) in hosts.iter().enumerate() {
        let barrier = host.up().read_barrier().await.unwrap();
        assert!(barrier >= committed.index && host.seen.has(b"one"), "node {}", host.id());
        let status = host.up().status();
        assert_eq!((status.cluster_id.as_str(), status.leader), ("north", Some(hosts[lead].id())));
        if place != lead {
            let refused = host.up().propose(Bytes::from_static(b"two")).await.unwrap_err();
            assert!(matches!(&refused, ProposeError::NotLeader { leader: Some(member) } if member.id == hosts[lead].id()), "{refused}");
        }
    }
    let ids: Vec<u64> = hosts.iter().map(Host::id).collect();
    assert!(ids[0] == 1 && ids[1] >= 2 && ids[2] > ids[1], "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back_from_its_disk() {
    let mut hosts = cluster(&["a", "b", "c"], as_they_are).await;
    propose(&hosts, "before").await;
    let killed = leader(&hosts).unwrap();
    let id = hosts[killed].id();
    hosts[killed].kill().await;
    let committed = propose(&hosts, "while it was away").await;
    hosts[killed].start().await;
    assert_eq!(hosts[killed].id(), id);
    let applied = hosts[killed].up().applied();
    until("it has caught up", || *applied.borrow() >= committed.index).await;
    assert!(hosts[killed].seen.has(b"before") && hosts[killed].seen.has(b"while it was away"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_comes_back_from_its_disks() {
    let mut hosts = cluster(&["a", "b", "c"], |config| (config.snapshot_every, config.keep_entries) = (20, 5)).await;
    for number in 0..50 {
        propose(&hosts, &format!("entry {number}")).await;
    }
    let before = hosts[leader(&hosts).unwrap()].seen.kept.lock().clone();
    for host in &mut hosts {
        host.kill().await;
    }
    for host in &mut hosts {
        host.start().await;
    }
    propose(&hosts, "after").await;
    let lead = leader(&hosts).unwrap();
    let after = hosts[lead].seen.kept.lock().clone();
    assert!(before.commands.iter().all(|(index, command)| after.commands.get(index) == Some(command)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_gets_the_state_as_a_snapshot() {
    let mut hosts = cluster(&["a"], |config| (config.snapshot_every, config.keep_entries) = (40, 5)).await;
    // More than a purge takes at once.
    for hundred in 0..4 {
        let proposals = (0..100).map(|number| hosts[0].up().propose(Bytes::from(format!("entry {hundred} {number}"))));
        futures_util::future::try_join_all(proposals).await.unwrap();
    }
    hosts[0].up().snapshot_now().await.unwrap();
    let joining = Host::empty("b", as_they_are).await;
    joining.up().join_through(&[hosts[0].address.to_string()]).await.unwrap();
    let last = propose(&hosts, "last").await;
    let applied = joining.up().applied();
    until("the new node has caught up", || *applied.borrow() >= last.index).await;
    assert_eq!(*joining.seen.kept.lock(), *hosts[0].seen.kept.lock());
    assert!(joining.up().status().snapshot > 0, "it could not have come by entries: they were purged");
    hosts.push(joining);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_an_empty_volume_takes_the_place_of_its_predecessor() {
    let mut hosts = cluster(&["a", "b", "c"], as_they_are).await;
    propose(&hosts, "one").await;
    let lost = (leader(&hosts).unwrap() + 1) % 3;
    let (old, name) = (hosts[lost].id(), hosts[lost].name.clone());
    hosts[lost].kill().await;
    let reborn = Host::empty(&name, as_they_are).await;
    let peers: Vec<String> = hosts.iter().map(|host| host.address.to_string()).collect();
    let id = reborn.up().join_through(&peers).await.unwrap();
    assert!(id > old, "a new volume is a new node");
    hosts[lost] = reborn;
    until("it votes instead of the old one", || {
        leader(&hosts).is_some_and(|leader| {
            let voters = voters(&hosts[leader]);
            voters.len() == 3 && voters.contains(&id) && !voters.contains(&old)
        })
    })
    .await;
    propose(&hosts, "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn learners_stay_learners_until_they_are_promoted_and_voters_can_be_taken_out() {
    let mut hosts = cluster(&["a", "b", "c"], as_they_are).await;
    let learner = Host::empty("d", |config| config.voter = false).await;
    let peers: Vec<String> = hosts.iter().map(|host| host.address.to_string()).collect();
    let id = learner.up().join_through(&peers).await.unwrap();
    hosts.push(learner);
    assert_eq!(hosts[3].up().join_through(&peers).await.unwrap(), id, "asked twice, joined once");
    let committed = propose(&hosts, "one").await;
    let applied = hosts[3].up().applied();
    until("the learner follows", || *applied.borrow() >= committed.index).await;
    let lead = leader(&hosts).unwrap();
    assert!(!voters(&hosts[lead]).contains(&id));
    let out = (0..3).find(|place| *place != lead).map(|place| hosts[place].id()).unwrap();
    hosts[lead].up().replace(out, id).await.unwrap();
    let now = voters(&hosts[lead]);
    assert!(now.len() == 3 && now.contains(&id) && !now.contains(&out), "{now:?}");
    // A leader that is to go hands over first, and its successor takes it out.
    let leaving = hosts[lead].id();
    let Err(ChangeError::NotLeader { leader: Some(successor) }) = hosts[lead].up().remove(leaving).await else {
        panic!("the leader took itself out");
    };
    let next = hosts.iter().position(|host| host.id() == successor.id).unwrap();
    hosts[next].up().remove(leaving).await.unwrap();
    assert_eq!(voters(&hosts[next]).len(), 2);
    hosts[next].up().replace(leaving, successor.id).await.unwrap();
    let refused = hosts[next].up().promote(999).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_without_waiting_for_an_election_timeout() {
    let hosts = cluster(&["a", "b", "c"], as_they_are).await;
    propose(&hosts, "one").await;
    let first = leader(&hosts).unwrap();
    let started = Instant::now();
    let successor = hosts[first].up().transfer_leader(None).await.unwrap();
    assert_ne!(successor, hosts[first].id());
    propose(&hosts, "two").await;
    println!("a planned change of the leader took {:?} of writes", started.elapsed());
    let next = hosts.iter().position(|host| host.id() == successor).unwrap();
    assert_eq!(hosts[next].up().transfer_leader(Some(hosts[first].id())).await.unwrap(), hosts[first].id());
    let refused = hosts[next].up().transfer_leader(None).await.unwrap_err();
    assert!(matches!(refused, ChangeError::NotLeader { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_shut_down_hands_over_first() {
    let mut hosts = cluster(&["a", "b", "c"], as_they_are).await;
    propose(&hosts, "one").await;
    let first = leader(&hosts).unwrap();
    let term = hosts[first].up().status().term;
    hosts[first].up().shutdown().await;
    let refused = hosts[first].up().propose(Bytes::new()).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Stopped(_)), "{refused}");
    assert_eq!(hosts[first].up().status().role, Role::Stopped);
    hosts[first].consensus = None;
    let others: Vec<&Host> = hosts.iter().filter(|host| host.consensus.is_some()).collect();
    assert!(others.iter().any(|host| host.up().status().term > term), "there was no election before the leader was gone");
    propose(&hosts, "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_is_idempotent_and_never_makes_a_second_cluster() {
    let first = Host::empty("a", as_they_are).await;
    first.up().init("north").await.unwrap();
    first.up().init("north").await.unwrap();
    let refused = first.up().init("south").await.unwrap_err();
    assert!(matches!(refused, InitError::OtherCluster { .. }), "{refused}");
    let mut second = Host::empty("b", as_they_are).await;
    second.kill().await;
    second.peers = vec![first.address.to_string(), "127.0.0.1:1".to_owned()];
    second.start().await;
    for id in ["north", "south"] {
        let refused = second.up().init(id).await.unwrap_err();
        assert!(matches!(refused, InitError::PeerInitialised { .. }), "{refused}");
    }
    assert_eq!(second.up().status().role, Role::Unassigned);
    let refused = second.up().propose(Bytes::new()).await.unwrap_err();
    assert!(refused.to_string().contains("belongs to no cluster"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_calls_by_mistake_is_refused_with_the_reason() {
    let hosts = cluster(&["a"], as_they_are).await;
    let channel = tidegate_runtime::mesh::channel(
        Arc::new(PlainDialer::default()),
        hosts[0].address.to_string(),
        crate::network::expect(""),
        tidegate_runtime::mesh::ChannelOptions::default(),
    );
    let mut client = crate::network::client(channel);
    let vote = v1::RaftVote { term: 99, node: 9, committed: false };
    let strangers = [
        ("south", 1, 1, "is of cluster `south`"),
        ("north", 7, 1, "wants node 7"),
        ("north", 1, 2, "speaks format 2 of the protocol, this node format 1"),
    ];
    for (cluster_id, receiver, format, reason) in strangers {
        let hello = v1::RaftHello { receiver, format, ..crate::network::hello::identity(cluster_id, 9) };
        let request = v1::RaftVoteRequest { hello: Some(hello), vote: Some(vote), ..Default::default() };
        let status = client.vote(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains(reason), "{status}");
    }
    assert!(hosts[0].up().status().term < 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_new_cluster_that_the_old_members_cannot_join() {
    let mut old = cluster(&["a", "b"], as_they_are).await;
    for number in 0..20 {
        propose(&old, &format!("entry {number}")).await;
    }
    let backup = old[1].up().backup().await.unwrap();
    let state = old[1].seen.kept.lock().clone();
    let refused = old[0].up().restore_from("south", backup.clone()).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    let new = vec![Host::empty("x", as_they_are).await];
    let mut damaged = backup.to_vec();
    damaged[40] ^= 1;
    let refused = new[0].up().restore_from("south", damaged.into()).await.unwrap_err();
    assert!(matches!(refused, BackupError::Damaged(_)), "{refused}");
    let refused = new[0].up().restore_from("north", backup.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("another id"), "{refused}");
    new[0].up().restore_from("south", backup).await.unwrap();
    assert_eq!(*new[0].seen.kept.lock(), state);
    let committed = propose(&new, "in the new one").await;
    assert!(committed.index > *state.commands.keys().last().unwrap(), "revisions go on");
    let joining = Host::empty("y", as_they_are).await;
    let id = joining.up().join_through(&[new[0].address.to_string()]).await.unwrap();
    assert!(id > committed.index);
    let applied = joining.up().applied();
    until("the second node has the state", || *applied.borrow() >= committed.index).await;
    assert!(joining.seen.has(b"entry 7"));
    // And it all is there after a restart.
    let mut new = new;
    new[0].kill().await;
    new[0].start().await;
    assert!(new[0].seen.has(b"entry 7"));
    old.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_keeps_the_node_from_starting() {
    let mut hosts = cluster(&["a"], as_they_are).await;
    propose(&hosts, "a command that is long enough to be found in the file").await;
    hosts[0].kill().await;
    let path: PathBuf = hosts[0].directory.path().join("log.redb");
    let mut file = std::fs::read(&path).unwrap();
    let places: Vec<usize> = file.windows(12).enumerate().filter(|(_, bytes)| bytes == b"long enough ").map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        file[at] ^= 1;
    }
    std::fs::write(&path, file).unwrap();
    let listener = tokio::net::TcpListener::bind(hosts[0].address).await.unwrap();
    let error = hosts[0].start_on(listener).unwrap_err();
    assert!(matches!(error, StartError::Storage { what: "the log", .. }), "{error}");
}
