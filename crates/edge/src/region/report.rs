//! What this edge tells its region: increments, each told until it is acknowledged, never twice.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tidegate_proto::v1::{HealthReport, ReportCell};
use tidegate_routing::{EndpointId, EndpointIndex, News, Timestamp};

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
    /// When the start of failures was last worth a report of its own.
    hurried: Option<Timestamp>,
    /// Endpoints whose breaker was last told to be open, and when. At most one per endpoint.
    told_open: HashMap<EndpointId, Timestamp>,
}

impl Reports {
    pub(super) fn new(incarnation: u64, now: Timestamp) -> Self {
        Self { incarnation, seq: 0, unacknowledged: VecDeque::new(), from: now, sent: None, hurried: None, told_open: HashMap::new() }
    }

    /// The next report. An empty one goes out once a second, to say that this edge is there.
    pub(super) fn next(&mut self, state: &RoutingState, confidence: u32, suspect: bool, now: Timestamp) -> Option<HealthReport> {
        if self.unacknowledged.len() >= MOST_UNACKNOWLEDGED {
            return None;
        }
        let count = u32::try_from(state.snapshot.endpoints().len()).unwrap_or(u32::MAX);
        let cells: Vec<ReportCell> = (0..count).map(EndpointIndex::new).filter_map(|index| self.cell_of(state, index, now)).collect();
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

    /// How long to wait with a report of this news; nothing when it can wait for its turn.
    pub(super) fn due(&mut self, news: News, now: Timestamp) -> Option<Duration> {
        let since = self.sent.map_or(Duration::MAX, |sent| now.since(sent));
        let is_soon = match news {
            News::BreakerOpened => true,
            // Some fail all the time, everywhere: that is not worth a message each.
            News::FailureBegan => self.hurried.is_none_or(|hurried| now.since(hurried) >= HURRY_AGAIN),
        };
        if news == News::FailureBegan && is_soon {
            self.hurried = Some(now);
        }
        is_soon.then(|| LEAST_INTERVAL.saturating_sub(since))
    }

    /// What happened at an endpoint, and that its breaker is open: when it opened, once a second while it stays so, and when it closed.
    fn cell_of(&mut self, state: &RoutingState, index: EndpointIndex, now: Timestamp) -> Option<ReportCell> {
        let (id, opening) = (state.endpoint(index).id(), state.health.opening(index, now));
        let told = self.told_open.get(&id);
        let is_due = match opening {
            Some(_) => told.is_none_or(|told| now.since(*told) >= REPEAT_OPEN),
            None => told.is_some(),
        };
        let increment = state.health.take_increment(index);
        if increment.is_none() && !is_due {
            return None;
        }
        match opening {
            Some(_) => self.told_open.insert(id, now),
            None => self.told_open.remove(&id),
        };
        let increment = increment.unwrap_or_default();
        Some(ReportCell::of(id, &increment, state.health.in_flight(index)).with_opening(opening, now))
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

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Two seconds of reports, and some that did not wait: more than any round trip to a control node, and the acknowledgement's wait for the
/// next view.
const MOST_UNACKNOWLEDGED: usize = 16;
/// A control node that began just now has to hear it, and one that hears nothing of it for three seconds takes it for closed.
const REPEAT_OPEN: Duration = Duration::from_secs(1);
/// Reports that do not wait for their turn are at least so far from the one before,
const LEAST_INTERVAL: Duration = Duration::from_millis(50);
/// and of single failures there is one a second.
const HURRY_AGAIN: Duration = Duration::from_secs(1);
/// The region counts an edge as active for ten seconds after its last report.
const HEARTBEAT: Duration = Duration::from_secs(1);
