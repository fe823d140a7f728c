//! Gauges that are computed when they are scraped: what health says of each endpoint now.

use std::sync::{Arc, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts};
use tidegate_routing::{BreakerState, EndpointIndex, Timestamp};

use crate::shared::Shared;
use crate::worker::Workers;

/// Fills the endpoint gauges from the state in use.
pub(crate) struct EndpointGauges {
    shared: Weak<Shared>,
    workers: Weak<Workers>,
    breaker: IntGaugeVec,
    up: GaugeVec,
    uptime: GaugeVec,
    first_token: GaugeVec,
    in_flight: IntGaugeVec,
    limit: IntGaugeVec,
    blocked: IntGaugeVec,
    state_age: GaugeVec,
}

impl EndpointGauges {
    pub(crate) fn new(shared: &Arc<Shared>, workers: &Arc<Workers>) -> prometheus::Result<Self> {
        let ints = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let floats = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        let endpoint = &["provider", "endpoint"];
        Ok(Self {
            shared: Arc::downgrade(shared),
            workers: Arc::downgrade(workers),
            breaker: ints("tidegate_edge_breaker_state", "Breaker of an endpoint on this edge: 0 closed, 1 half-open, 2 open.", endpoint)?,
            up: floats(
                "tidegate_provider_up",
                "1 when the endpoint gets traffic, 0 when its breaker is open; as this edge sees it.",
                &["provider", "endpoint", "region"],
            )?,
            uptime: floats(
                "tidegate_provider_uptime_ratio",
                "Successes divided by successes and endpoint faults over the window; absent below a minimum count.",
                &["provider", "endpoint", "region", "window"],
            )?,
            first_token: floats(
                "tidegate_provider_first_token_seconds",
                "Time to first token over the last 30 minutes.",
                &["provider", "endpoint", "region", "quantile"],
            )?,
            in_flight: ints("tidegate_edge_endpoint_in_flight", "Requests of this edge at the endpoint.", endpoint)?,
            limit: ints("tidegate_edge_endpoint_limit", "Adaptive limit of parallel requests of this edge at the endpoint.", endpoint)?,
            state_age: floats(
                "tidegate_state_age_seconds",
                "Time since the state in use was last known to be current; 0 where a file is the authority, absent where nothing is known.",
                &["kind"],
            )?,
            blocked: ints("tidegate_edge_endpoint_blocked", "1 while the endpoint asked this edge to wait (429).", endpoint)?,
        })
    }

    fn fill(&self, shared: &Shared) {
        let state = shared.state.load();
        let now = Timestamp(shared.clock.micros());
        let region = shared.region.as_ref();
        self.state_age.reset();
        for (kind, contact) in [("keys", &shared.contact), ("snapshot", &shared.routed)] {
            if let Some(age) = contact.age(now.0) {
                self.state_age.with_label_values(&[kind]).set(age.as_secs_f64());
            }
        }
        // Endpoints that a reload removed must not linger.
        self.uptime.reset();
        self.first_token.reset();
        self.up.reset();
        for gauge in [&self.breaker, &self.in_flight, &self.limit, &self.blocked] {
            gauge.reset();
        }
        let count = u32::try_from(state.snapshot.endpoints().len()).unwrap_or(u32::MAX);
        for index in (0..count).map(EndpointIndex::new) {
            let view = state.health.endpoint_view(index, now);
            let target = state.target(index);
            let (provider, endpoint) = (target.provider.info.slug.as_str(), target.name.as_ref());
            let breaker = match view.breaker {
                BreakerState::Closed => 0,
                BreakerState::HalfOpen => 1,
                BreakerState::Open { .. } => 2,
            };
            self.breaker.with_label_values(&[provider, endpoint]).set(breaker);
            self.up.with_label_values(&[provider, endpoint, region]).set(if breaker == 2 { 0.0 } else { 1.0 });
            self.in_flight.with_label_values(&[provider, endpoint]).set(i64::from(view.in_flight));
            self.limit.with_label_values(&[provider, endpoint]).set(i64::from(view.limit));
            self.blocked.with_label_values(&[provider, endpoint]).set(i64::from(view.blocked_until.is_some_and(|until| until > now)));
            for (window, uptime) in [("5m", view.uptime_5m), ("30m", view.uptime_30m), ("1d", view.uptime_1d)] {
                if let Some(percent) = uptime {
                    self.uptime.with_label_values(&[provider, endpoint, region, window]).set(percent / 100.0);
                }
            }
            if let Some(latency) = view.latency_30m {
                for (quantile, seconds) in [("0.5", latency.p50), ("0.9", latency.p90), ("0.99", latency.p99)] {
                    self.first_token.with_label_values(&[provider, endpoint, region, quantile]).set(seconds);
                }
            }
        }
    }

    fn parts(&self) -> [&dyn Collector; 8] {
        [&self.breaker, &self.up, &self.uptime, &self.first_token, &self.in_flight, &self.limit, &self.blocked, &self.state_age]
    }
}

impl Collector for EndpointGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let saturating = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        shared.metrics.connections.set(saturating(shared.connections.open()));
        shared.metrics.requests_active.set(saturating(shared.in_flight.load(std::sync::atomic::Ordering::Relaxed)));
        if let Some(workers) = self.workers.upgrade() {
            shared.metrics.idle_upstreams.set(saturating(workers.idle_upstreams()));
        }
        self.fill(&shared);
        self.parts().into_iter().flat_map(Collector::collect).filter(|family| !family.get_metric().is_empty()).collect()
    }
}
