//! Live edges of all control nodes: each node knows its own and asks the others.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{EdgeStatus, EdgesRequest};
use tidegate_runtime::Clock;
use tokio::time::{Instant, timeout};

use crate::agreement::Agreement;
use crate::publisher::Followers;
use crate::relay::Peers;

/// Longest time for one node's answer.
const ASK: Duration = Duration::from_secs(2);
/// Time between two looks at edges of other nodes.
const LOOK: Duration = Duration::from_millis(100);

/// Clones share everything.
#[derive(Clone)]
pub struct Edges {
    followers: Followers,
    peers: Arc<Peers>,
    agreement: Agreement,
    clock: Clock,
}

/// Edges of all nodes that answered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By name.
    pub edges: Vec<EdgeStatus>,
    /// Names of control nodes that did not answer: their edges are not among `edges`.
    pub unreachable: Vec<String>,
}

/// Who has confirmed a revocation.
#[derive(Debug, Default)]
pub struct Confirmed {
    /// Edges that have.
    pub edges: usize,
    /// Edges that have not.
    pub missing: Vec<EdgeStatus>,
    /// Names of control nodes that did not answer.
    pub unreachable: Vec<String>,
}

impl Edges {
    /// Edges of this node and of those it shares a cluster with.
    pub fn new(followers: Followers, peers: Arc<Peers>, agreement: Agreement, clock: Clock) -> Edges {
        Edges { followers, peers, agreement, clock }
    }

    /// Edges of this node.
    pub fn here(&self) -> Vec<EdgeStatus> {
        self.followers.statuses(self.clock.unix_millis())
    }

    /// Edges of all nodes.
    pub async fn everywhere(&self) -> Gathered {
        let status = self.agreement.status();
        let others: Vec<_> = status.members.into_iter().filter(|member| member.id != status.node_id).collect();
        let mut gathered = Gathered { edges: self.here(), unreachable: Vec::new() };
        // All at once: one node that is away must not cost the patience of each.
        let mut asked = tokio::task::JoinSet::new();
        for member in others {
            let mut client = SyncClient::new(self.peers.channel(&member.address));
            asked.spawn(async move {
                let answer = timeout(ASK, client.edges(EdgesRequest::default())).await;
                (member.name, answer.ok().and_then(Result::ok).map(|answer| answer.into_inner().edges))
            });
        }
        while let Some(Ok((name, answer))) = asked.join_next().await {
            match answer {
                Some(edges) => gathered.edges.extend(edges),
                None => gathered.unreachable.push(name),
            }
        }
        gathered.edges.sort_by(|a, b| (&a.edge, a.instance).cmp(&(&b.edge, b.instance)));
        gathered.unreachable.sort_unstable();
        gathered
    }

    /// Waits until every live edge has what was revoked at an index, or says which have not.
    pub async fn confirmed(&self, index: u64, patience: Duration) -> Confirmed {
        let deadline = Instant::now() + patience;
        let mut news = self.followers.watch();
        loop {
            news.mark_unchanged();
            let gathered = self.everywhere().await;
            // Keys are not held back by a configuration that an edge refuses: what was received is in force.
            let (has, missing): (Vec<_>, Vec<_>) =
                gathered.edges.into_iter().partition(|edge| edge.revoked >= index || edge.received >= index);
            if (missing.is_empty() && gathered.unreachable.is_empty()) || Instant::now() >= deadline {
                return Confirmed { edges: has.len(), missing, unreachable: gathered.unreachable };
            }
            // Own edges are heard of at once, those of other nodes are asked after. Losing either branch is safe: all is looked at again.
            tokio::select! {
                _ = news.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}
