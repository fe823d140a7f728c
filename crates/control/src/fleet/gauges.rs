//! How providers are, as metrics: every endpoint of every region that this node knows of, so that one scrape of any node shows all.

use std::collections::HashMap;
use std::sync::Weak;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts, Registry};
use tidegate_proto::Kind;
use tidegate_routing::{EndpointId, RegionVerdict};

use super::service::Inner;
use crate::state::State;

/// Filled when they are read.
pub(super) struct HealthGauges {
    inner: Weak<Inner>,
    up: GaugeVec,
    uptime: GaugeVec,
}

impl HealthGauges {
    /// Registers them; they end with what they show.
    pub(super) fn register(inner: Weak<Inner>, registry: &Registry) -> prometheus::Result<()> {
        let up = Opts::new("tidegate_provider_up", "The region's agreed verdict: 1 healthy, 0.5 degraded, 0 taken out.");
        let uptime = Opts::new(
            "tidegate_provider_uptime_ratio",
            "Successes divided by successes and endpoint faults over the window; absent below a minimum count.",
        );
        registry.register(Box::new(HealthGauges {
            inner,
            up: GaugeVec::new(up, &["provider", "endpoint", "region"])?,
            uptime: GaugeVec::new(uptime, &["provider", "endpoint", "region", "window"])?,
        }))
    }
}

impl Collector for HealthGauges {
    fn desc(&self) -> Vec<&Desc> {
        [&self.up, &self.uptime].into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(inner) = self.inner.upgrade() else { return Vec::new() };
        self.up.reset();
        self.uptime.reset();
        for row in inner.table().rows {
            // One that is no longer declared is nobody's alarm.
            let Some(provider) = row.provider.as_deref() else { continue };
            let labels = [provider, row.endpoint.as_str(), row.region.as_str()];
            self.up.with_label_values(&labels).set(up(row.verdict));
            for (window, ratio) in [("5m", row.uptime_5m), ("30m", row.uptime_30m), ("1d", row.uptime_1d)] {
                if let Some(ratio) = ratio {
                    self.uptime.with_label_values(&[labels[0], labels[1], labels[2], window]).set(ratio);
                }
            }
        }
        [&self.up, &self.uptime].into_iter().flat_map(Collector::collect).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn up(verdict: RegionVerdict) -> f64 {
    match verdict {
        RegionVerdict::Healthy => 1.0,
        RegionVerdict::Degraded => 0.5,
        RegionVerdict::Probing | RegionVerdict::Ejected => 0.0,
    }
}

/// Name and provider of every declared endpoint.
#[must_use]
pub fn endpoint_names(state: &State) -> HashMap<EndpointId, (String, String)> {
    let declared = state.newest().of_kind(Kind::Endpoint).map(|(id, resource)| {
        let spec = serde_json::from_slice::<serde_json::Value>(&resource.body).ok();
        let provider = spec.and_then(|spec| spec["provider"].as_str().map(str::to_owned));
        (EndpointId::of(id.name()), (id.name().to_owned(), provider.unwrap_or_default()))
    });
    declared.collect()
}
