//! Live edges of all control nodes: each node knows its own and asks the others.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{EdgeStatus, EdgesRequest, GoneEdge};
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
    /// Those that follow no node that answered, did until a day ago at most, and did not say that they stop: as they were then.
    pub lost: Vec<EdgeStatus>,
    /// Names of control nodes that did not answer: their edges are not among `edges`.
    pub unreachable: Vec<String>,
}

/// Who has confirmed a revocation, of all live edges: those that follow a node, and those that were lost (see [`Gathered::lost`]).
#[derive(Debug, Default)]
pub struct Confirmed {
    /// Edges that have.
    pub edges: usize,
    /// Edges that follow a node and have not.
    pub missing: Vec<EdgeStatus>,
    /// Edges that were lost before they had.
    pub lost: Vec<EdgeStatus>,
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
        let mut gone = self.followers.gone(self.clock.unix_millis());
        let mut gathered = Gathered { edges: self.here(), ..Gathered::default() };
        // All at once: one node that is away must not cost the patience of each.
        let mut asked = tokio::task::JoinSet::new();
        for member in others {
            let mut client = SyncClient::new(self.peers.channel(&member.address));
            asked.spawn(async move {
                let answer = timeout(ASK, client.edges(EdgesRequest::default())).await;
                (member.name, answer.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            });
        }
        while let Some(Ok((name, answer))) = asked.join_next().await {
            match answer {
                Some(answer) => {
                    gathered.edges.extend(answer.edges);
                    gone.extend(answer.gone);
                }
                None => gathered.unreachable.push(name),
            }
        }
        gathered.edges.sort_by(|a, b| (&a.edge, a.instance).cmp(&(&b.edge, b.instance)));
        gathered.lost = lost(gone, &gathered.edges);
        gathered.unreachable.sort_unstable();
        gathered
    }

    /// Waits until every live edge (see [`Confirmed`]) has what was revoked at an index, or says which have not.
    pub async fn confirmed(&self, index: u64, patience: Duration) -> Confirmed {
        let deadline = Instant::now() + patience;
        let mut news = self.followers.watch();
        loop {
            news.mark_unchanged();
            let gathered = self.everywhere().await;
            // Keys are not held back by a configuration that an edge refuses: what was received is in force.
            let has = |edge: &EdgeStatus| edge.revoked >= index || edge.received >= index;
            let (confirmed, missing): (Vec<_>, Vec<_>) = gathered.edges.into_iter().partition(has);
            let lost: Vec<_> = gathered.lost.into_iter().filter(|edge| !has(edge)).collect();
            if (missing.is_empty() && lost.is_empty() && gathered.unreachable.is_empty()) || Instant::now() >= deadline {
                return Confirmed { edges: confirmed.len(), missing, lost, unreachable: gathered.unreachable };
            }
            // Own edges are heard of at once, those of other nodes are asked after. Losing either branch is safe: all is looked at again.
            tokio::select! {
                _ = news.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Of those that went from some node: who follows none now, and did not say goodbye to the last one.
fn lost(mut gone: Vec<GoneEdge>, follow: &[EdgeStatus]) -> Vec<EdgeStatus> {
    let name = |gone: &GoneEdge| gone.edge.as_ref().map(|edge| edge.edge.clone()).unwrap_or_default();
    gone.sort_by_cached_key(|gone| (name(gone), gone.ago_ms));
    gone.dedup_by_key(|gone| name(gone));
    let lost = gone.into_iter().filter(|gone| !gone.goodbye).filter_map(|gone| gone.edge);
    lost.filter(|lost| follow.binary_search_by(|edge| edge.edge.cmp(&lost.edge)).is_err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_lost_is_not_who_moved_on_or_said_goodbye_later() {
        let edge = |name: &str| EdgeStatus { edge: name.to_owned(), ..EdgeStatus::default() };
        let gone = |name: &str, ago_ms, goodbye| GoneEdge { edge: Some(edge(name)), ago_ms, goodbye };
        let all = vec![
            gone("cut", 900, true),
            gone("cut", 100, false),
            gone("moved", 100, false),
            gone("stopped", 200, true),
            gone("stopped", 700, false),
        ];
        let names: Vec<String> = lost(all, &[edge("another"), edge("moved")]).into_iter().map(|edge| edge.edge).collect();
        assert_eq!(names, ["cut"]);
    }
}
