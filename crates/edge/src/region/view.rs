//! What the region says, as last heard.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_proto::region_verdict;
use tidegate_proto::v1::{EndpointSummary, HealthView, UptimeCount, ViewCell};
use tidegate_routing::{
    EndpointId, EndpointView, Percentiles, ProviderIndex, RegionVerdict, RemoteEvidence, RemoteVerdict, Sight, Timestamp,
};

use crate::state::RoutingState;

/// The region's view on this edge. Its lock is taken by the control link and by people who look, never by a request.
#[derive(Default)]
pub(crate) struct RegionHealth {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    epoch: u64,
    cells: HashMap<EndpointId, ViewCell>,
    summaries: HashMap<EndpointId, Vec<EndpointSummary>>,
    /// Endpoints whose token this edge holds.
    tokens: Vec<EndpointId>,
    active: u32,
    suspects: u32,
    heard: Option<Timestamp>,
}

/// What the mesh agreed on about one endpoint in one region.
#[derive(Clone, Debug)]
pub(crate) struct RegionSummary {
    pub(crate) region: String,
    pub(crate) verdict: RegionVerdict,
    /// Successes and failures over five minutes, half an hour, a day.
    pub(crate) uptime: [(u64, u64); 3],
    /// Milliseconds.
    pub(crate) first_token: Option<Spread>,
    /// Tokens per second.
    pub(crate) speed: Option<Spread>,
}

/// Percentiles; other regions tell two of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p95: Option<f64>,
    pub(crate) whole: Option<Percentiles>,
}

impl RegionHealth {
    /// Takes a view in, and tells routing.
    pub(crate) fn hear(&self, view: HealthView, state: &RoutingState, rng: &mut fastrand::Rng, now: Timestamp) {
        let mut known = self.known.lock();
        let same_source = known.epoch == view.epoch;
        if view.full || !same_source {
            known.cells.clear();
            known.summaries.clear();
            known.epoch = view.epoch;
        }
        known.active = view.active_edges;
        known.suspects = view.suspect_edges;
        known.heard = Some(now);
        for cell in view.cells {
            let id = EndpointId(cell.endpoint);
            let before = known.cells.insert(id, cell);
            // Counters of another aggregator began elsewhere and mean nothing here.
            let taken_back = before.is_some_and(|before| before.closings != cell.closings);
            if let (true, Some(index)) = (taken_back, state.endpoint_in_mesh(id)) {
                state.health.taken_back(index, now + RAMP_SPREAD.mul_f64(rng.f64()), now);
            }
        }
        for summary in view.summaries {
            let of = known.summaries.entry(EndpointId(summary.endpoint)).or_default();
            match of.iter_mut().find(|known| known.region == summary.region) {
                Some(known) => *known = summary,
                None => of.push(summary),
            }
        }
        let held: Vec<EndpointId> = view.probes.iter().map(|probe| EndpointId(probe.endpoint)).collect();
        for lost in known.tokens.iter().filter(|token| !held.contains(token)) {
            if let Some(index) = state.endpoint_in_mesh(*lost) {
                state.health.grant_probe(index, Timestamp(0));
            }
        }
        // One that is held already has its end, and may have been used up.
        for probe in view.probes.iter().filter(|probe| !known.tokens.contains(&EndpointId(probe.endpoint))) {
            if let Some(index) = state.endpoint_in_mesh(EndpointId(probe.endpoint)) {
                let left = Duration::from_millis(probe.expires_in_ms.into()).min(LONGEST_TOKEN);
                state.health.grant_probe(index, now + left);
            }
        }
        known.tokens = held;
        // A view says that everything it does not mention still holds, so all of it is as fresh as the view.
        for (id, cell) in &known.cells {
            if let Some(index) = state.endpoint_in_mesh(*id) {
                state.health.set_remote(index, cell.evidence(now));
            }
        }
    }

    /// Time since the last view; nothing before the first.
    pub(crate) fn age(&self, now: Timestamp) -> Option<Duration> {
        self.known.lock().heard.map(|heard| now.since(heard))
    }

    /// What the mesh agreed on about an endpoint, by region.
    pub(crate) fn summaries(&self, endpoint: EndpointId) -> Vec<RegionSummary> {
        let known = self.known.lock();
        let mut summaries: Vec<RegionSummary> = known.summaries.get(&endpoint).into_iter().flatten().map(RegionSummary::of).collect();
        summaries.sort_by(|a, b| a.region.cmp(&b.region));
        summaries
    }

    /// Adds the region's side to what this edge saw of its providers; edges that trust themselves, this one included, and suspects.
    pub(super) fn look_at_providers(&self, state: &RoutingState, own: &mut HashMap<ProviderIndex, Sight>, now: Timestamp) -> (u32, u32) {
        let known = self.known.lock();
        if known.heard.is_none_or(|heard| now.since(heard) > BELIEVED) {
            return (0, 0);
        }
        let mut sums: HashMap<ProviderIndex, (f64, f64)> = HashMap::new();
        for (id, cell) in &known.cells {
            let Some(index) = state.endpoint_in_mesh(*id) else { continue };
            let provider = state.endpoint(index).provider();
            let Some(sight) = own.get_mut(&provider) else { continue };
            sight.region_reporters = sight.region_reporters.max(cell.reporters);
            let sum = sums.entry(provider).or_default();
            if region_verdict(cell.verdict).is_out() {
                // Nobody sends there any more, but a quorum saw it fail.
                sight.region_reporters = sight.region_reporters.max(QUORUM);
                sum.0 += 1.0;
                sum.1 += 1.0;
            } else {
                let samples = f64::from(cell.samples);
                sum.0 += samples;
                sum.1 += samples * (1.0 - f64::from(cell.success_permille.min(1_000)) / 1_000.0);
            }
        }
        for (provider, (samples, failed)) in sums {
            if let (true, Some(sight)) = (samples > 0.0, own.get_mut(&provider)) {
                sight.region_failed = failed / samples;
            }
        }
        (known.active + known.suspects, known.suspects)
    }
}

/// The agreed verdict as a gauge from 0 to 1; nothing when no verdict holds.
pub(crate) fn up(remote: Option<RemoteEvidence>) -> Option<f64> {
    Some(match remote?.verdict {
        RemoteVerdict::Healthy => 1.0,
        RemoteVerdict::Degraded => 0.5,
        RemoteVerdict::Ejected => 0.0,
    })
}

/// Percent of successes over five minutes, half an hour and a day: the mesh's where it counted enough
/// attempts, else this edge's own. Absent below `least` attempts.
pub(crate) fn uptime(own: &EndpointView, agreed: &[RegionSummary], least: u32) -> [Option<f64>; 3] {
    let mesh = |window: usize| {
        let (ok, failed) = agreed.iter().fold((0, 0), |sum, one| (sum.0 + one.uptime[window].0, sum.1 + one.uptime[window].1));
        percent(ok, failed, least)
    };
    let local = [own.uptime_5m, own.uptime_30m, own.uptime_1d];
    std::array::from_fn(|window| mesh(window).or(local[window]))
}

/// Percent of successes; absent below `least` attempts.
pub(crate) fn percent(ok: u64, failed: u64, least: u32) -> Option<f64> {
    let total = ok + failed;
    (total >= u64::from(least.max(1))).then(|| ok as f64 / total as f64 * 100.0)
}

/// Milliseconds as seconds.
pub(crate) fn in_seconds(all: &Percentiles) -> Percentiles {
    Percentiles { p50: all.p50 / 1e3, p75: all.p75 / 1e3, p90: all.p90 / 1e3, p99: all.p99 / 1e3 }
}

impl RegionSummary {
    fn of(summary: &EndpointSummary) -> Self {
        let counts = |counts: Option<UptimeCount>| counts.map_or((0, 0), |counts| (counts.ok, counts.failed));
        let spread = |quantiles: Option<tidegate_proto::v1::Quantiles>| {
            let all = quantiles?;
            // A digest tells the median and the 95th percentile only.
            let whole = (all.p99 > 0.0).then_some(Percentiles { p50: all.p50, p75: all.p75, p90: all.p90, p99: all.p99 });
            Some(Spread { p50: all.p50, p95: (all.p95 > 0.0).then_some(all.p95), whole })
        };
        Self {
            region: summary.region.clone(),
            verdict: region_verdict(summary.verdict),
            uptime: [counts(summary.five_minutes), counts(summary.half_hour), counts(summary.day)],
            first_token: spread(summary.first_token_ms),
            speed: spread(summary.tokens_per_second),
        }
    }
}

/// Edges start their ramps spread over this long after an endpoint was taken back.
const RAMP_SPREAD: Duration = Duration::from_secs(5);
/// No control node gives out a longer one.
const LONGEST_TOKEN: Duration = Duration::from_secs(10);
/// As long as a verdict holds without a word.
const BELIEVED: Duration = Duration::from_secs(15);
/// Fewest edges that can have ejected an endpoint.
const QUORUM: u32 = 2;
