//! How a node comes to belong to a cluster: by founding one, by joining one, or by being given the state of an old one.
//!
//! None of it happens by itself. A cluster that founds itself when nobody answers is two clusters after a partition.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::storage::RaftLogStorage as _;
use openraft::vote::RaftLeaderId as _;
use tidegate_proto::v1;
use tidegate_proto::v1::raft_join_response::Outcome;
use tidegate_runtime::backoff::{Backoff, BackoffBounds};
use tidegate_runtime::mesh::{ChannelOptions, channel};
use tokio::time::Instant;

use crate::consensus::Consensus;
use crate::error::{BackupError, InitError, StartError};
use crate::message::Message as _;
use crate::network::{client, expect, hello};
use crate::node::{Life, Running, error_text};
use crate::snapshot::Snapshot;
use crate::types::{LeaderId, LogId, Membership, StoredMembership, Vote};

impl Consensus {
    /// Founds a cluster with this node as its only voter. Does nothing when this node belongs to that cluster.
    ///
    /// # Errors
    /// When this node or a peer belongs to a cluster already.
    pub async fn init(&self, cluster_id: &str) -> Result<(), InitError> {
        if cluster_id.is_empty() {
            return Err(InitError::Refused("a cluster needs an id".to_owned()));
        }
        let life = self.node.life.lock().await;
        self.alive(*life)?;
        if let Some(running) = self.node.running() {
            if running.own.cluster_id != cluster_id {
                return Err(InitError::OtherCluster { asked: cluster_id.to_owned(), own: running.own.cluster_id.clone() });
            }
            return self.found(&running).await;
        }
        for peer in self.node.config.peers.iter().filter(|peer| **peer != self.node.config.address) {
            match self.identify(peer).await {
                Ok(answer) if !answer.cluster_id.is_empty() => {
                    return Err(InitError::PeerInitialised { asked: cluster_id.to_owned(), peer: peer.clone(), theirs: answer.cluster_id });
                }
                Ok(_) => {}
                Err(reason) => tracing::info!(peer, reason, "the peer does not answer, so it has no say in the founding"),
            }
        }
        let running = self.become_member(hello::identity(cluster_id, FOUNDER)).await?;
        self.found(&running).await
    }

    /// Asks the peers for a place in their cluster and starts to take part as a learner. Does nothing when this node belongs to a cluster.
    /// Returns the node id.
    ///
    /// # Errors
    /// When no peer could take the node in within half a minute.
    pub async fn join_through(&self, peers: &[String]) -> Result<u64, InitError> {
        let life = self.node.life.lock().await;
        self.alive(*life)?;
        if let Some(running) = self.node.running() {
            return Ok(running.own.sender);
        }
        if peers.is_empty() {
            return Err(InitError::Join("no peers were given".to_owned()));
        }
        let deadline = Instant::now() + JOIN;
        let mut backoff = Backoff::new(JOIN_BACKOFF, fastrand::u64(..));
        let mut ask: Vec<String> = peers.to_vec();
        loop {
            let mut reasons = Vec::new();
            let mut hints = Vec::new();
            for peer in &ask {
                match self.ask_to_join(peer).await {
                    Ok(Outcome::Joined(v1::RaftJoined { cluster_id, node_id })) => {
                        self.become_member(hello::identity(&cluster_id, node_id)).await?;
                        return Ok(node_id);
                    }
                    Ok(Outcome::NotLeader(hint)) => {
                        let address = hint.leader.and_then(|leader| leader.node).map(|node| node.address);
                        reasons.push(format!("{peer} does not lead"));
                        hints.extend(address.filter(|address| !hints.contains(address)));
                    }
                    Ok(Outcome::Refused(reason)) => return Err(InitError::Join(format!("{peer} refuses: {reason}"))),
                    Err(reason) => reasons.push(format!("{peer}: {reason}")),
                }
            }
            if Instant::now() >= deadline {
                return Err(InitError::Join(reasons.join("; ")));
            }
            let hinted = !hints.is_empty() && hints.iter().any(|hint| !ask.contains(hint));
            if !hinted {
                tokio::time::sleep(backoff.next_wait()).await;
            }
            ask = hints.into_iter().chain(peers.iter().cloned()).collect();
            ask.dedup();
        }
    }

    /// Founds the new cluster `cluster_id` with the state of a backup, on an empty node. The members of the old cluster are not members of
    /// the new one, and cannot be.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn restore_from(&self, cluster_id: &str, backup: Bytes) -> Result<(), BackupError> {
        let life = self.node.life.lock().await;
        if *life == Life::Over {
            return Err(BackupError::Stopped(self.node.why_not()));
        }
        if let Some(running) = self.node.running() {
            let text = format!("this node belongs to cluster `{}`; a backup is restored on an empty one", running.own.cluster_id);
            return Err(BackupError::NotEmpty(text));
        }
        let old = tokio::task::spawn_blocking(move || Snapshot::decode(&backup)).await;
        let old = old.map_err(|error| BackupError::Damaged(error.to_string()))?;
        let old = old.map_err(|error| BackupError::Damaged(error_text(&error)))?;
        if cluster_id.is_empty() || cluster_id == old.cluster_id {
            let text = format!("the new cluster must have another id than the old one (`{}`)", old.cluster_id);
            return Err(BackupError::Damaged(text));
        }
        let last = old.last_log_id.ok_or_else(|| BackupError::Damaged("the backup is empty".to_owned()))?;
        let instance = self.node.instance.clone();
        let members = std::collections::BTreeMap::from([(FOUNDER, instance.clone())]);
        let membership = Membership::new(vec![[FOUNDER].into()], members).map_err(|error| BackupError::Damaged(error.to_string()))?;
        // As if the only voter had written everything: in the last term, at the last index.
        let last = LogId::new(LeaderId::new(last.leader_id.term, FOUNDER.max(last.leader_id.node_id)), last.index);
        let seed = Snapshot {
            cluster_id: cluster_id.to_owned(),
            last_log_id: Some(last),
            membership: StoredMembership::new(Some(last), membership),
            allocated: vec![v1::RaftMember { id: FOUNDER, node: Some(instance.to_proto()) }],
            sections: old.sections,
        };
        let storage = |what| {
            let directory = self.node.config.directory.display().to_string();
            move |source| BackupError::Start(StartError::Storage { what, directory, source })
        };
        let (node, term) = (Arc::clone(&self.node), last.leader_id.term);
        let own = hello::identity(cluster_id, FOUNDER);
        self.node.state.set_cluster_id(cluster_id);
        let seeding = async move {
            let state = node.state.clone();
            tokio::task::spawn_blocking(move || state.seed(seed)).await.map_err(std::io::Error::other)??;
            let mut log = node.log.clone();
            log.save_vote(&Vote { leader_id: LeaderId::new(term + 1, FOUNDER), committed: false }).await?;
            log.purge(last).await
        };
        seeding.await.map_err(storage("the restored state"))?;
        let running = self.become_member(own).await.map_err(|error| match error {
            InitError::Start(error) => BackupError::Start(error),
            other => BackupError::NotEmpty(other.to_string()),
        })?;
        wait_for_leader(&running).await;
        Ok(())
    }

    /// Writes down who this node is and starts to take part.
    async fn become_member(&self, own: v1::RaftHello) -> Result<Arc<Running>, InitError> {
        let directory = self.node.config.directory.display().to_string();
        self.node.log.save_identity(own.clone()).await.map_err(|source| StartError::Storage { what: "the log", directory, source })?;
        let node = Arc::clone(&self.node);
        let (done, outcome) = tokio::sync::oneshot::channel();
        // On the runtime of consensus: openraft starts its tasks where it is started.
        self.node.tasks.spawn_on(&self.node.handle, "raft-start", async move {
            let _ = done.send(node.take_part(own).await);
        });
        Ok(outcome.await.map_err(|_| StartError::Core("the start has panicked".to_owned()))??)
    }

    /// Writes the first membership, unless there is one.
    async fn found(&self, running: &Running) -> Result<(), InitError> {
        let stopped = |error: String| InitError::Start(StartError::Core(error));
        if running.own.sender == FOUNDER && !running.raft.is_initialized().await.map_err(|error| stopped(error.to_string()))? {
            let members = std::collections::BTreeMap::from([(FOUNDER, self.node.instance.clone())]);
            running.raft.initialize(members).await.map_err(|error| stopped(error.to_string()))?;
        }
        wait_for_leader(running).await;
        Ok(())
    }

    fn alive(&self, life: Life) -> Result<(), InitError> {
        if life == Life::On { Ok(()) } else { Err(InitError::Refused(self.node.why_not())) }
    }

    async fn identify(&self, peer: &str) -> Result<v1::RaftIdentifyResponse, String> {
        let request = v1::RaftIdentifyRequest { uuid: Bytes::copy_from_slice(&self.node.instance.uuid.0) };
        let mut client = self.peer(peer);
        answer(client.identify(request)).await
    }

    async fn ask_to_join(&self, peer: &str) -> Result<Outcome, String> {
        let request = v1::RaftJoinRequest { node: Some(self.node.instance.to_proto()), cluster_id: String::new() };
        let mut client = self.peer(peer);
        let response = answer(client.join(request)).await?;
        response.outcome.ok_or_else(|| "an answer without content".to_owned())
    }

    /// A client for one question to an address.
    fn peer(&self, address: &str) -> v1::raft_client::RaftClient<tonic::transport::Channel> {
        client(channel(Arc::clone(&self.node.dial), address, expect(""), ChannelOptions::default()))
    }
}

async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// Waits a while for somebody to lead; an only voter needs an election timeout for it.
async fn wait_for_leader(running: &Running) {
    let patience = running.links.timing().election_max * 4;
    let mut watch = running.raft.metrics();
    let led = async { while watch.borrow_watched().current_leader.is_none() && watch.changed().await.is_ok() {} };
    // Whether there is one is told by the status; here it is only for the convenience of whoever proposes next.
    let _ = tokio::time::timeout(patience, led).await;
}

/// The founder's node id. Index 1 is the first leader's blank entry, so no entry that gives a number can have it.
const FOUNDER: u64 = 1;
const JOIN: Duration = Duration::from_secs(30);
const JOIN_BACKOFF: BackoffBounds = BackoffBounds { base: Duration::from_millis(100), cap: Duration::from_secs(2) };
const ANSWER: Duration = Duration::from_secs(5);
