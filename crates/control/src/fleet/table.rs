//! Health for people: `GET /admin/v1/health`.

use serde::Serialize;
use tidegate_proto::region_verdict;
use tidegate_routing::{EndpointId, Log8, RegionVerdict};

use super::Fleet;
use crate::state::{Health, UptimeCounts, UptimeWindow};

/// Everything known about health on one node, for all regions.
#[derive(Debug, Clone, Serialize)]
pub struct HealthTable {
    /// The node's own region.
    pub region: String,
    /// Its edges that reported lately and trust themselves.
    pub active_edges: u32,
    /// Its edges that take themselves for sick.
    pub suspect_edges: u32,
    /// The newest leader's time in the log, Unix milliseconds.
    pub leader_time_ms: u64,
    /// By endpoint, then region.
    pub rows: Vec<HealthRow>,
}

/// One endpoint seen from one region.
#[derive(Debug, Clone, Serialize)]
pub struct HealthRow {
    /// Name, or the id in hexadecimal of one that is no longer declared.
    pub endpoint: String,
    /// Its provider.
    pub provider: Option<String>,
    /// The region that sees it so.
    pub region: String,
    /// healthy, degraded, probing or ejected.
    pub verdict: RegionVerdict,
    /// quorum, few edges, no evidence; `agreed` for another region's verdict.
    pub rule: &'static str,
    /// Share of successes in ten seconds, 0 to 1; absent without samples.
    pub success: Option<f64>,
    /// Samples behind it.
    pub samples: u32,
    /// Edges behind it.
    pub reporters: u32,
    /// 0 to 1.
    pub confidence: f64,
    /// Share of 429s, 0 to 1.
    pub rate_limited: f64,
    /// Milliseconds to the first token.
    pub first_token_p50_ms: Option<f64>,
    /// The same, 95th percentile.
    pub first_token_p95_ms: Option<f64>,
    /// Output tokens per second.
    pub tokens_per_second_p50: Option<f64>,
    /// Milliseconds since it was agreed; 0 for the own region's, which is now.
    pub age_ms: u64,
    /// Share of successes over five minutes; absent without enough attempts.
    pub uptime_5m: Option<f64>,
    /// Over half an hour.
    pub uptime_30m: Option<f64>,
    /// Over a day.
    pub uptime_1d: Option<f64>,
    /// The last 24 hours, oldest first; null for an hour without enough attempts.
    pub hours: Vec<Option<f64>>,
}

impl Fleet {
    /// The table. `name_of` tells an endpoint's name and provider.
    pub fn table(&self, agreed: &Health, name_of: impl Fn(EndpointId) -> Option<(String, String)>) -> HealthTable {
        let mut rows = Vec::new();
        for (id, state) in &self.endpoints {
            let told = state.told();
            let mut row = row(*id, &self.region, agreed, &name_of);
            row.verdict = state.verdict();
            row.rule = state.finding().rule.label();
            row.success = (told.samples > 0).then(|| f64::from(told.success_permille) / 1_000.0);
            row.samples = told.samples;
            row.reporters = told.reporters;
            row.confidence = state.finding().confidence;
            row.rate_limited = f64::from(told.rate_limited_permille) / 1_000.0;
            let [first_token, speed] = state.half_hour();
            row.first_token_p50_ms = first_token.map(|(all, _)| all.p50);
            row.first_token_p95_ms = first_token.map(|(_, p95)| p95);
            row.tokens_per_second_p50 = speed.map(|(all, _)| all.p50);
            rows.push(row);
        }
        for (region, cell, at) in agreed.cells().filter(|(region, _, _)| *region != self.region) {
            let mut row = row(EndpointId(cell.endpoint), region, agreed, &name_of);
            let value = |byte: u32| Log8(u8::try_from(byte).unwrap_or(0)).value();
            row.verdict = region_verdict(cell.verdict);
            row.rule = "agreed";
            row.success = (cell.samples > 0).then(|| f64::from(cell.success_permille) / 1_000.0);
            row.samples = cell.samples;
            row.reporters = cell.reporters;
            row.confidence = f64::from(cell.confidence) / 100.0;
            row.rate_limited = f64::from(cell.rate_limited_permille) / 1_000.0;
            row.first_token_p50_ms = value(cell.first_token_p50);
            row.first_token_p95_ms = value(cell.first_token_p95);
            row.tokens_per_second_p50 = value(cell.speed_p50);
            row.age_ms = agreed.leader_time_ms().saturating_sub(at);
            rows.push(row);
        }
        rows.sort_by(|a, b| (&a.provider, &a.endpoint, &a.region).cmp(&(&b.provider, &b.endpoint, &b.region)));
        HealthTable {
            region: self.region.clone(),
            active_edges: self.edges.active,
            suspect_edges: self.edges.suspects,
            leader_time_ms: agreed.leader_time_ms(),
            rows,
        }
    }
}

fn row(id: EndpointId, region: &str, agreed: &Health, name_of: &impl Fn(EndpointId) -> Option<(String, String)>) -> HealthRow {
    let (endpoint, provider) = match name_of(id) {
        Some((name, provider)) => (name, Some(provider)),
        None => (format!("{:016x}", id.0), None),
    };
    let now = agreed.leader_time_ms();
    let uptime = |window| agreed.uptime(id, region, window, now).ratio(LEAST_ATTEMPTS);
    let hour = now / 3_600_000;
    let known = agreed.hours(id, region, hour.saturating_sub(23));
    let hours = (hour.saturating_sub(23)..=hour).map(|hour| {
        let counts: Option<&UptimeCounts> = known.iter().find(|(of, _)| *of == hour).map(|(_, counts)| counts);
        counts?.ratio(LEAST_ATTEMPTS)
    });
    HealthRow {
        endpoint,
        provider,
        region: region.to_owned(),
        verdict: RegionVerdict::Healthy,
        rule: "no evidence",
        success: None,
        samples: 0,
        reporters: 0,
        confidence: 0.0,
        rate_limited: 0.0,
        first_token_p50_ms: None,
        first_token_p95_ms: None,
        tokens_per_second_p50: None,
        age_ms: 0,
        uptime_5m: uptime(UptimeWindow::FiveMinutes),
        uptime_30m: uptime(UptimeWindow::HalfHour),
        uptime_1d: uptime(UptimeWindow::Day),
        hours: hours.collect(),
    }
}

/// As in the reference: below about a hundred attempts a ratio is an anecdote.
const LEAST_ATTEMPTS: u64 = 100;
