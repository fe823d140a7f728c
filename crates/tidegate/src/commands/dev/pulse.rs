//! One look at the running edge, from its own metrics.

use std::fmt::Write as _;

use prometheus::Registry;
use prometheus::proto::MetricFamily;

use super::fleet::VENDORS;

/// What the live line says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pulse {
    requests: u64,
    failed: u64,
    failovers: u64,
    streams: u64,
    /// Per vendor: share of answered attempts, and the worst breaker (0 closed, 1 half-open, 2 open).
    vendors: Vec<(&'static str, u64, u8)>,
}

impl Pulse {
    /// Reads the counters.
    pub(super) fn of(registry: &Registry) -> Self {
        let families = registry.gather();
        let find = |name: &str| families.iter().find(|family| family.name() == name);
        let sum = |name: &str, wanted: &Wanted<'_>| find(name).map_or(0, |family| total(family, wanted));
        let vendors = VENDORS
            .iter()
            .map(|vendor| {
                let answered =
                    sum("tidegate_edge_attempts_total", &|label| label("provider") == vendor.slug && label("outcome") == "success");
                let breaker = find("tidegate_edge_breaker_state").map_or(0, |family| worst(family, vendor.slug));
                (vendor.slug, answered, breaker)
            })
            .collect();
        Self {
            requests: sum("tidegate_edge_requests_total", &|_| true),
            failed: sum("tidegate_edge_requests_total", &|label| label("status").starts_with('5')),
            failovers: sum("tidegate_edge_failovers_total", &|_| true),
            streams: sum("tidegate_edge_streams_active", &|_| true),
            vendors,
        }
    }

    /// The whole line.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{} requests, {} failed over, {} failed", self.requests, self.failovers, self.failed);
        if self.streams > 0 {
            // Writing to a String cannot fail.
            let _ = write!(line, ", {} streaming", self.streams);
        }
        line.push_str(" |");
        let all: u64 = self.vendors.iter().map(|(_, answered, _)| answered).sum();
        for (slug, answered, breaker) in &self.vendors {
            let share = (answered * 100).checked_div(all).unwrap_or(0);
            let state = match breaker {
                0 => "",
                1 => " (probing)",
                _ => " DOWN",
            };
            let _ = write!(line, " {slug} {share}%{state}");
        }
        line
    }

    /// What makes a new line worth printing.
    pub(super) fn news(&self) -> String {
        self.vendors.iter().map(|(slug, _, breaker)| format!("{slug}{breaker}")).collect()
    }
}

/// Says by a series' labels whether it counts.
type Wanted<'a> = dyn Fn(&dyn Fn(&str) -> String) -> bool + 'a;

fn total(family: &MetricFamily, wanted: &Wanted<'_>) -> u64 {
    let mut sum = 0.0;
    for metric in family.get_metric() {
        let label =
            |name: &str| metric.get_label().iter().find(|pair| pair.name() == name).map(|pair| pair.value().to_owned()).unwrap_or_default();
        if wanted(&label) {
            sum += metric.get_counter().get_value() + metric.get_gauge().get_value();
        }
    }
    sum as u64
}

fn worst(family: &MetricFamily, provider: &str) -> u8 {
    family
        .get_metric()
        .iter()
        .filter(|metric| metric.get_label().iter().any(|pair| pair.name() == "provider" && pair.value() == provider))
        .map(|metric| metric.get_gauge().get_value() as u8)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_who_is_down() {
        let pulse = Pulse { requests: 10, failovers: 2, vendors: vec![("a", 3, 0), ("b", 1, 2)], ..Pulse::default() };
        assert_eq!(pulse.line(), "10 requests, 2 failed over, 0 failed | a 75% b 25% DOWN");
    }
}
