//! What this edge tells its region: increments, each told until it is acknowledged, never twice.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_proto::v1::{HealthReport, ReportCell};
use tidegate_routing::{EndpointIndex, Timestamp};

use crate::state::RoutingState;

/// Reports on their way.
pub(super) struct Reports {
    incarnation: u64,
    seq: u64,
    /// Sent and not acknowledged, oldest first, with the start of what they cover. Bounded: beyond [`MOST_UNACKNOWLEDGED`] nothing is taken
    /// from the cells, where counts add up without growing.
    unacknowledged: VecDeque<(Timestamp, HealthReport)>,
    /// Where the next increment begins.
    from: Timestamp,
    /// When something was last sent.
    sent: Option<Timestamp>,
}

impl Reports {
    pub(super) fn new(incarnation: u64, now: Timestamp) -> Self {
        Self { incarnation, seq: 0, unacknowledged: VecDeque::new(), from: now, sent: None }
    }

    /// The next report. An empty one goes out once a second, to say that this edge is there.
    pub(super) fn next(&mut self, state: &RoutingState, confidence: u32, suspect: bool, now: Timestamp) -> Option<HealthReport> {
        if self.unacknowledged.len() >= MOST_UNACKNOWLEDGED {
            return None;
        }
        let count = u32::try_from(state.snapshot.endpoints().len()).unwrap_or(u32::MAX);
        let cells: Vec<ReportCell> = (0..count).map(EndpointIndex::new).filter_map(|index| cell_of(state, index)).collect();
        if cells.is_empty() && self.sent.is_some_and(|sent| now.since(sent) < HEARTBEAT) {
            return None;
        }
        self.seq += 1;
        let report = HealthReport {
            // Whoever receives it knows who sent it.
            edge: String::new(),
            incarnation: self.incarnation,
            seq: self.seq,
            window_ms: millis(now.since(self.from)),
            confidence,
            suspect,
            cells,
        };
        self.unacknowledged.push_back((self.from, report.clone()));
        self.from = now;
        self.sent = Some(now);
        Some(report)
    }

    /// Everything up to this number has arrived.
    pub(super) fn acknowledged(&mut self, seq: u64) {
        while self.unacknowledged.front().is_some_and(|(_, report)| report.seq <= seq) {
            self.unacknowledged.pop_front();
        }
    }

    /// What has to be told again. Its window says how old it is by now.
    pub(super) fn unacknowledged(&mut self, now: Timestamp) -> Vec<HealthReport> {
        let again = self.unacknowledged.iter_mut().map(|(from, report)| {
            report.window_ms = millis(now.since(*from));
            report.clone()
        });
        again.collect()
    }
}

fn cell_of(state: &RoutingState, index: EndpointIndex) -> Option<ReportCell> {
    let increment = state.health.take_increment(index)?;
    Some(ReportCell::of(state.endpoint(index).id(), &increment, state.health.in_flight(index)))
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Two seconds of reports: more than any round trip to a control node, and the acknowledgement's wait for the next view.
const MOST_UNACKNOWLEDGED: usize = 8;
/// The region counts an edge as active for ten seconds after its last report.
const HEARTBEAT: Duration = Duration::from_secs(1);
