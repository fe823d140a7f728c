//! How far the voters are from each other, and handing leadership to the one that is best placed.
//!
//! Every voter times a call to every other, the way heartbeats go, and gets the other's own measurements with the answer; so whoever leads
//! knows all distances without anybody reporting to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use tidegate_proto::v1;
use tidegate_runtime::Shutdown;
use tokio::time::Instant;

use crate::member::Member;
use crate::network::{Lane, Outcome};
use crate::node::{Node, Running};
use crate::placement::{Placement, PlacementRule, RoundTrips, Samples, View};

/// What a node has measured, and what the others have told.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    own: BTreeMap<u64, Samples>,
    told: RoundTrips,
}

impl Survey {
    /// This node's own measurements, for others.
    pub(crate) fn row(&self) -> BTreeMap<u64, Duration> {
        self.own.iter().filter_map(|(voter, samples)| Some((*voter, samples.shortest()?))).collect()
    }
}

/// Measures, and looks whether another voter is better placed, until the node is gone or stops.
pub(crate) async fn watch(node: Weak<Node>, rule: PlacementRule, shutdown: Shutdown) {
    let started = Instant::now();
    let mut placement = Placement::new(rule);
    let mut next_look = started + rule.look;
    // At once: it also makes the connections that the next election needs, and finds out those that broke with another's restart.
    let mut pause = Duration::ZERO;
    loop {
        // Nothing is lost with the sleep, nor with measurements that are given up.
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = rule.measure;
        let Some(running) = node.upgrade().map(|node| node.running()) else { return };
        let Some(running) = running else { continue };
        tokio::select! {
            () = shutdown.requested() => return,
            () = running.measure() => {}
        }
        if Instant::now() < next_look {
            continue;
        }
        next_look = Instant::now() + rule.look;
        let Some(view) = running.view() else {
            placement.follow();
            continue;
        };
        let Some(better) = placement.look(started.elapsed(), &view) else { continue };
        let millis = |voter| view.to_quorum(voter).map(|distance| distance.as_millis());
        tracing::info!(here_ms = millis(view.leader), there_ms = millis(better), node = better, "leadership goes where a quorum is nearer");
        if let Err(error) = running.transfer_leader(Some(better)).await {
            tracing::warn!(%error, node = better, "hand leadership to a voter that is better placed");
        }
    }
}

impl Running {
    /// Times a call to each other voter.
    async fn measure(&self) {
        let own = *self.raft.node_id();
        let voters: BTreeSet<u64> = self.membership().voter_ids().collect();
        if !voters.contains(&own) {
            return;
        }
        let others = voters.iter().filter(|voter| **voter != own).filter_map(|voter| self.member(*voter));
        let measured = join_all(others.map(|other| self.ping(other))).await;
        let mut survey = self.survey.lock();
        survey.own.retain(|voter, _| voters.contains(voter));
        survey.told.retain(|voter, _| voters.contains(voter));
        for (voter, answer) in measured {
            let (sample, row) = answer.unzip();
            survey.own.entry(voter).or_default().push(sample);
            // What a voter that does not answer has told before is as old as its silence, and soon not worth much.
            survey.told.insert(voter, row.unwrap_or_default());
        }
    }

    async fn ping(&self, other: Member) -> (u64, Option<(Duration, BTreeMap<u64, Duration>)>) {
        let mut client = self.links.client(other.id, &other.instance, Lane::Urgent);
        let request = v1::RaftPingRequest { hello: Some(self.links.hello(other.id)) };
        let started = Instant::now();
        match tokio::time::timeout(self.links.timing().election_min, client.ping(request)).await {
            Ok(Ok(answer)) => {
                self.links.report(other.id, Lane::Urgent, Outcome::Answered);
                let row = answer.into_inner().round_trips.into_iter();
                let row = row.map(|to| (to.node, Duration::from_micros(to.micros))).collect();
                (other.id, Some((started.elapsed(), row)))
            }
            // A node that is away is told of by those who need it.
            Ok(Err(_)) => (other.id, None),
            Err(_) => {
                self.links.report(other.id, Lane::Urgent, Outcome::TimedOut);
                (other.id, None)
            }
        }
    }

    /// What this node knows of the voters, when it leads them.
    fn view(&self) -> Option<View> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let replication = metrics.replication.as_ref().filter(|_| metrics.state.is_leader())?;
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let lag = |voter: u64| {
            let matched = replication.get(&voter).copied().flatten().map_or(0, |matched| matched.index);
            (voter, last.saturating_sub(matched))
        };
        let rank = |voter: u64| (voter, self.rank(membership.get_node(&voter).map_or("", |node| node.region.as_str())));
        let round_trips = {
            let survey = self.survey.lock();
            let mut known = survey.told.clone();
            known.insert(metrics.id, survey.row());
            known
        };
        Some(View {
            leader: metrics.id,
            lags: voters.iter().map(|voter| lag(*voter)).collect(),
            ranks: voters.iter().map(|voter| rank(*voter)).collect(),
            voters,
            round_trips,
        })
    }
}
