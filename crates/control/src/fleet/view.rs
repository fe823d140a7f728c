//! What an edge is told: what changed since it was last told.
//!
//! No queue: the sender keeps a cursor per edge, and a slow edge simply gets a larger difference later.

use std::time::Duration;

use tidegate_proto::v1::{HealthView, ProbeToken};
use tidegate_routing::Timestamp;

use super::Fleet;

/// How far an edge was told. One per stream, from [`ViewCursor::default`].
#[derive(Debug, Default)]
pub struct ViewCursor {
    epoch: u64,
    version: u64,
    summaries: u64,
    acknowledged: u64,
    edges: (u32, u32),
    probes: Vec<u64>,
    sent: Option<Timestamp>,
}

impl Fleet {
    /// What an edge does not know yet, and moves its cursor. Nothing when there is nothing new and it heard something in the last
    /// second: silence for longer would look like a view that has stopped.
    pub fn view_for(&self, edge: &str, cursor: &mut ViewCursor, now: Timestamp) -> Option<HealthView> {
        let full = cursor.epoch != self.epoch;
        if full {
            *cursor = ViewCursor { epoch: self.epoch, ..ViewCursor::default() };
        }
        let acknowledged = self.edges.of(edge).map_or(0, |known| known.seq);
        let probes = self.tokens_of(edge, now);
        let held: Vec<u64> = probes.iter().map(|probe: &ProbeToken| probe.endpoint).collect();
        let news = full
            || cursor.version != self.version
            || cursor.summaries != self.summaries.version()
            || cursor.acknowledged != acknowledged
            || cursor.edges != self.edges()
            || cursor.probes != held;
        if !news && cursor.sent.is_some_and(|sent| now.since(sent) < HEARTBEAT) {
            return None;
        }
        let changed = self.changed.range(cursor.version + 1..).filter_map(|(_, id)| self.endpoints.get(id));
        let view = HealthView {
            region: self.region.clone(),
            epoch: self.epoch,
            version: self.version,
            full,
            acknowledged,
            active_edges: self.edges.active,
            suspect_edges: self.edges.suspects,
            cells: changed.map(|state| *state.told()).collect(),
            probes,
            summaries: self.summaries.since(cursor.summaries),
        };
        *cursor = ViewCursor {
            epoch: self.epoch,
            version: self.version,
            summaries: self.summaries.version(),
            acknowledged,
            edges: self.edges(),
            probes: held,
            sent: Some(now),
        };
        Some(view)
    }
}

/// An empty view now and then says that what was told still holds.
const HEARTBEAT: Duration = Duration::from_secs(1);
