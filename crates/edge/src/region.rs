//! This edge's part in shared health: what it reports, and what it makes of what the region says.
//!
//! The control link owns the connection and calls in here: [`HealthLink::report`] every [`HealthLink::interval`], [`HealthLink::resend`]
//! first thing on a new connection, [`HealthLink::heard`] for each view. No sockets here, and nothing on the road of a request: choices
//! read what was put into routing's cells.

mod report;
mod self_test;
mod view;

use std::time::Duration;

use tidegate_proto::v1::{HealthReport, HealthView};
use tidegate_routing::Timestamp;
use tidegate_runtime::ops::Condition;

pub(crate) use view::{RegionHealth, RegionSummary, Spread, in_seconds, percent, up, uptime};

use crate::shared::Shared;
use report::Reports;
use self_test::SelfCheck;

/// The state of one edge's reporting; lives as long as the process, over all connections.
pub(crate) struct HealthLink {
    reports: Reports,
    check: SelfCheck,
    /// Holds while this edge does not take itself for sick.
    condition: Condition,
    started: Timestamp,
    /// The build was seen to work here before.
    known_build: bool,
    rng: fastrand::Rng,
}

impl HealthLink {
    /// Begins to report. `incarnation` is the start of the process in Unix milliseconds; `condition` is met at once and then follows the
    /// self-test. A build trusts itself half for its first ten minutes, unless it was [seen to work](Self::seen_to_work).
    pub(crate) fn new(incarnation: u64, condition: Condition, now: Timestamp) -> Self {
        condition.met();
        Self {
            reports: Reports::new(incarnation, now),
            check: SelfCheck::default(),
            condition,
            started: now,
            known_build: false,
            rng: fastrand::Rng::new(),
        }
    }

    /// This build kept a good state here before.
    pub(crate) fn seen_to_work(&mut self) {
        self.known_build = true;
    }

    /// How long to wait before the next report: 250 ms, ± 20 % so that edges do not report in step.
    pub(crate) fn interval(&mut self) -> Duration {
        REPORT_EVERY.mul_f64(0.8 + 0.4 * self.rng.f64())
    }

    /// How long the next report may still wait, given what happened: the rest of its turn, unless a breaker has opened or a failure is the
    /// first after a success.
    pub(crate) fn due(&mut self, shared: &Shared) -> Option<Duration> {
        let now = Timestamp(shared.clock.micros());
        self.reports.due(shared.state.load().health.take_news()?, now)
    }

    /// Looks at this edge, and takes what happened since the last report. Nothing is taken while it could not be sent
    /// (`has_room`), or too many reports are unacknowledged: what happens then stays in the counts of the next one.
    pub(crate) fn report(&mut self, shared: &Shared, has_room: bool) -> Option<HealthReport> {
        let (state, now) = (shared.state.load(), Timestamp(shared.clock.micros()));
        let suspect = self.examine(shared, &state, now);
        if !has_room {
            return None;
        }
        let report = self.reports.next(&state, self.confidence(suspect, now), suspect, now)?;
        self.check.count(&report, &state, now);
        Some(report)
    }

    /// What was sent and never acknowledged, as it was: the new connection may lead to a node that never saw it.
    pub(crate) fn resend(&mut self, shared: &Shared) -> Vec<HealthReport> {
        self.reports.unacknowledged(Timestamp(shared.clock.micros()))
    }

    /// Takes in what the region says.
    pub(crate) fn heard(&mut self, view: HealthView, shared: &Shared) {
        let now = Timestamp(shared.clock.micros());
        self.reports.acknowledged(view.acknowledged);
        shared.region_health.hear(view, &shared.state.load(), &mut self.rng, now);
    }

    fn examine(&mut self, shared: &Shared, state: &crate::state::RoutingState, now: Timestamp) -> bool {
        let before = self.check.verdict();
        let verdict = self.check.step(&shared.region_health, state, now);
        if verdict != before {
            match (verdict.suspect, verdict.leave) {
                (_, true) => {
                    let reason = "this edge fails at providers that work for the rest of its region: look at its network";
                    self.condition.unmet(reason);
                    tracing::warn!(reason, "edge leaves");
                }
                (true, false) => {
                    self.condition.met();
                    tracing::warn!("this edge fails at providers that work for the rest of its region; its reports carry no weight");
                }
                (false, false) => {
                    self.condition.met();
                    tracing::info!("this edge agrees with its region again");
                }
            }
        }
        verdict.suspect
    }

    /// Percent.
    fn confidence(&self, suspect: bool, now: Timestamp) -> u32 {
        match suspect {
            true => 0,
            false if !self.known_build && now.since(self.started) < NEW_BUILD => 50,
            false => 100,
        }
    }
}

const REPORT_EVERY: Duration = Duration::from_millis(250);
/// How long a build that was not seen before is on probation.
const NEW_BUILD: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
