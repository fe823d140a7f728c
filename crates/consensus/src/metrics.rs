//! The numbers of consensus for Prometheus.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::member::{Role, Status};
use crate::types::Applied;

/// The numbers of consensus. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    term: IntGauge,
    leader: IntGauge,
    is_leader: IntGauge,
    last_log: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    snapshot: IntGauge,
    voters: IntGauge,
    refusing: IntGauge,
    lag: IntGaugeVec,
    flush: Histogram,
    applied_entries: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let lag = IntGaugeVec::new(
            Opts::new("tidegate_raft_lag_entries", "On the leader: entries that a member does not have yet, by node id."),
            &["node"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        let flush = Histogram::with_opts(
            HistogramOpts::new("tidegate_raft_flush_seconds", "Time to make one batch of changes of the log durable.")
                .buckets(prometheus::exponential_buckets(0.000_5, 2.0, 12)?),
        )?;
        registry.register(Box::new(flush.clone()))?;
        let applied_entries =
            IntCounterVec::new(Opts::new("tidegate_raft_entries_total", "Entries applied on this node, by kind."), &["kind"])?;
        registry.register(Box::new(applied_entries.clone()))?;
        for kind in ["application", "node_id", "other"] {
            applied_entries.with_label_values(&[kind]);
        }
        Ok(Self {
            term: gauge("tidegate_raft_term", "Current term.")?,
            leader: gauge("tidegate_raft_leader_id", "Node id of the leader, 0 when none is known.")?,
            is_leader: gauge("tidegate_raft_is_leader", "1 while this node leads.")?,
            last_log: gauge("tidegate_raft_last_log_index", "Index of the last entry of this node's log.")?,
            committed: gauge("tidegate_raft_commit_index", "Index up to which the log is known to be committed.")?,
            applied: gauge("tidegate_raft_applied_index", "Index up to which the log has been applied.")?,
            snapshot: gauge("tidegate_raft_snapshot_index", "Index that the newest snapshot covers.")?,
            voters: gauge("tidegate_raft_voters", "Members that count in the quorum.")?,
            refusing: gauge("tidegate_raft_refusing", "1 while proposals are refused because the disk is nearly full.")?,
            lag,
            flush,
            applied_entries,
        })
    }

    /// One transaction of the log took this long.
    pub(crate) fn flushed(&self, time: Duration) {
        self.flush.observe(time.as_secs_f64());
    }

    /// An entry was applied.
    pub(crate) fn applied(&self, what: &Applied) {
        let kind = match what {
            Applied::Application(_) => "application",
            Applied::NodeId(_) => "node_id",
            Applied::Nothing => "other",
        };
        self.applied_entries.with_label_values(&[kind]).inc();
    }

    /// Takes the numbers of a status.
    pub(crate) fn observe(&self, status: &Status) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.term, status.term);
        set(&self.leader, status.leader.unwrap_or(0));
        set(&self.is_leader, u64::from(status.role == Role::Leader));
        set(&self.last_log, status.last_log);
        set(&self.committed, status.committed);
        set(&self.applied, status.applied);
        set(&self.snapshot, status.snapshot);
        set(&self.voters, status.members.iter().filter(|member| member.voter).count() as u64);
        set(&self.refusing, u64::from(status.refusing.is_some()));
        // Members come and go; those that are gone must not stay as labels.
        self.lag.reset();
        for member in &status.members {
            if let Some(lag) = member.lag {
                set(&self.lag.with_label_values(&[&member.id.to_string()]), lag);
            }
        }
    }
}
