//! What the public lists show of every endpoint and region: uptime from the agreed history, percentiles from the region's own half hour.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::v1::{EndpointSummary, Quantiles, UptimeCount};
use tidegate_routing::{EndpointId, Log8, Percentiles, Timestamp};

use super::endpoint::EndpointState;
use crate::state::{Health, UptimeCounts, UptimeWindow};

/// Summaries by endpoint and region, each with the version of its last change.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    known: BTreeMap<(u64, String), (u64, EndpointSummary)>,
    version: u64,
    refreshed: Option<Timestamp>,
}

impl Summaries {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn since(&self, version: u64) -> Vec<EndpointSummary> {
        if version == self.version {
            return Vec::new();
        }
        self.known.values().filter(|(changed, _)| *changed > version).map(|(_, summary)| summary.clone()).collect()
    }

    /// Looks again when it is time to.
    pub(super) fn refresh(&mut self, region: &str, own: &BTreeMap<EndpointId, EndpointState>, agreed: &Health, now: Timestamp) {
        if self.refreshed.is_some_and(|last| now.since(last) < REFRESH) {
            return;
        }
        self.refreshed = Some(now);
        let mut fresh = BTreeMap::new();
        for (endpoint, of) in agreed.with_history() {
            let summary = fresh.entry((endpoint.0, of.to_owned())).or_insert_with(|| named(endpoint, of));
            let counts = |window| Some(message(agreed.uptime(endpoint, of, window, agreed.leader_time_ms())));
            summary.five_minutes = counts(UptimeWindow::FiveMinutes);
            summary.half_hour = counts(UptimeWindow::HalfHour);
            summary.day = counts(UptimeWindow::Day);
        }
        for (of, cell, _) in agreed.cells().filter(|(of, _, _)| *of != region) {
            let endpoint = EndpointId(cell.endpoint);
            let summary = fresh.entry((endpoint.0, of.to_owned())).or_insert_with(|| named(endpoint, of));
            summary.verdict = cell.verdict;
            let value = |byte: u32| Log8(u8::try_from(byte).unwrap_or(0)).value();
            summary.first_token_ms = value(cell.first_token_p50).zip(value(cell.first_token_p95)).map(|(p50, p95)| coarse(p50, p95));
            summary.tokens_per_second = value(cell.speed_p50).map(|p50| coarse(p50, 0.0));
        }
        for (endpoint, state) in own {
            let summary = fresh.entry((endpoint.0, region.to_owned())).or_insert_with(|| named(*endpoint, region));
            summary.verdict = state.told().verdict;
            let [first_token, speed] = state.half_hour();
            summary.first_token_ms = first_token.map(quantiles);
            summary.tokens_per_second = speed.map(quantiles);
        }
        self.known.retain(|key, _| fresh.contains_key(key));
        let version = self.version + 1;
        let mut changed = false;
        for (key, summary) in fresh {
            match self.known.get_mut(&key) {
                Some((_, known)) if *known == summary => {}
                _ => {
                    self.known.insert(key, (version, summary));
                    changed = true;
                }
            }
        }
        if changed {
            self.version = version;
        }
    }
}

fn named(endpoint: EndpointId, region: &str) -> EndpointSummary {
    EndpointSummary { endpoint: endpoint.0, region: region.to_owned(), ..EndpointSummary::default() }
}

fn message(counts: UptimeCounts) -> UptimeCount {
    UptimeCount { endpoint: 0, ok: counts.ok, failed: counts.failed }
}

fn quantiles((all, p95): (Percentiles, f64)) -> Quantiles {
    Quantiles { p50: all.p50, p75: all.p75, p90: all.p90, p95, p99: all.p99 }
}

/// What another region's digest says.
fn coarse(p50: f64, p95: f64) -> Quantiles {
    Quantiles { p50, p95, ..Quantiles::default() }
}

/// People look at these; edges do not decide by them.
const REFRESH: Duration = Duration::from_secs(10);
