//! Per provider: what this edge saw in the last half minute, beside what the region saw.

use std::collections::{HashMap, VecDeque};

use tidegate_proto::v1::{HealthReport, ReportCell};
use tidegate_routing::{EndpointId, ProviderIndex, SelfTest, SelfVerdict, Sight, Timestamp};

use super::view::RegionHealth;
use crate::state::RoutingState;

/// Samples and failures by second and provider.
pub(super) struct SelfCheck {
    seconds: VecDeque<(u64, Weights)>,
    /// Indices mean something only within one snapshot.
    revision: u64,
    test: SelfTest,
    verdict: SelfVerdict,
}

/// Samples and failures of each provider.
type Weights = HashMap<ProviderIndex, (f64, f64)>;

impl Default for SelfCheck {
    fn default() -> Self {
        Self { seconds: VecDeque::new(), revision: 0, test: SelfTest::default(), verdict: SelfVerdict { suspect: false, leave: false } }
    }
}

impl SelfCheck {
    pub(super) fn verdict(&self) -> SelfVerdict {
        self.verdict
    }

    /// Counts what is reported. A failure to connect counts double: it speaks of this edge's network more than any other.
    pub(super) fn count(&mut self, report: &HealthReport, state: &RoutingState, now: Timestamp) {
        if self.revision != state.snapshot.revision() {
            self.revision = state.snapshot.revision();
            self.seconds.clear();
        }
        let second = now.micros() / 1_000_000;
        while self.seconds.front().is_some_and(|(of, _)| of + WINDOW_SECONDS <= second) {
            self.seconds.pop_front();
        }
        if self.seconds.back().is_none_or(|(of, _)| *of != second) {
            self.seconds.push_back((second, HashMap::new()));
        }
        let Some((_, sums)) = self.seconds.back_mut() else { return };
        for cell in &report.cells {
            let Some(index) = state.endpoint_in_mesh(EndpointId(cell.endpoint)) else { continue };
            let (samples, failed) = weighed(cell);
            let sum = sums.entry(state.endpoint(index).provider()).or_default();
            sum.0 += samples;
            sum.1 += failed;
        }
    }

    /// Looks again.
    pub(super) fn step(&mut self, region: &RegionHealth, state: &RoutingState, now: Timestamp) -> SelfVerdict {
        let second = now.micros() / 1_000_000;
        let mut own: HashMap<ProviderIndex, Sight> = HashMap::new();
        for (_, sums) in self.seconds.iter().filter(|(of, _)| of + WINDOW_SECONDS > second) {
            for (provider, (samples, failed)) in sums {
                let sight = own.entry(*provider).or_default();
                sight.samples += samples;
                sight.failed += failed;
            }
        }
        let (active, suspects) = region.look_at_providers(state, &mut own, now);
        self.verdict = self.test.step(own, active, suspects, now);
        self.verdict
    }
}

fn weighed(cell: &ReportCell) -> (f64, f64) {
    let hard = f64::from(cell.connect) * 2.0 + f64::from(cell.first_token_timeout) + f64::from(cell.server_error) + f64::from(cell.cut);
    let soft = f64::from(cell.overloaded) + f64::from(cell.malformed);
    (f64::from(cell.ok) + hard + soft, hard + soft / 2.0)
}

const WINDOW_SECONDS: u64 = 30;
