//! Everything a region knows of one endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Elsewhere as ElsewhereMessage, HealthCell, Verdict, VerdictRule, ViewCell};
use tidegate_routing::{
    Course, Elsewhere, EndpointId, Finding, Log8, Percentiles, Probes, RegionVerdict, Reporter, Settings, Timestamp, VerdictRules,
    judge_windows,
};

use super::probe::Held;
use super::report::Reported;
use super::ring::{CountRing, Counts, SketchRing};

#[derive(Debug, Default)]
pub(super) struct EndpointState {
    reporters: BTreeMap<Arc<str>, Reports>,
    sketches: SketchRing,
    course: Course,
    finding: Finding,
    rate_limited: f64,
    /// Ends of probes since the last judgement.
    probes: Probes,
    pub(super) token: Option<Held>,
    /// A token of another node of the region: its id, and until when.
    pub(super) foreign_token: Option<(u64, Timestamp)>,
    /// Who had the last token.
    pub(super) last_holder: Option<Arc<str>>,
    pub(super) elsewhere: Option<Elsewhere>,
    seen: Timestamp,
    told: ViewCell,
    version: u64,
    /// The last digest about it: what the log said then, and since when it has said so.
    pub(super) agreed_since: Option<(u64, Timestamp)>,
}

#[derive(Debug, Default)]
struct Reports {
    counts: CountRing,
    seen: Timestamp,
}

impl EndpointState {
    pub(super) fn add(&mut self, edge: &Arc<str>, reported: &Reported, fresh: bool, now: Timestamp) {
        self.seen = now;
        let own = self.reporters.entry(Arc::clone(edge)).or_default();
        own.seen = now;
        self.sketches.add(&reported.sketches, now);
        if fresh {
            own.counts.add(&reported.counts, now);
        }
        self.probes.ok += reported.probes.ok;
        self.probes.failed += reported.probes.failed;
    }

    #[cfg(feature = "known-bugs")]
    pub(super) fn forget_reporters(&mut self) {
        self.reporters.clear();
    }

    /// What each edge saw in the last seconds, for several lengths of time; without those that saw nothing.
    pub(super) fn reporters<const N: usize>(&self, seconds: [u64; N], now: Timestamp) -> impl Iterator<Item = (&Arc<str>, [Counts; N])> {
        self.reporters.iter().filter_map(move |(name, reports)| Some((name, reports.counts.sums(seconds, now)?)))
    }

    /// Edges that used it lately, and would use a token.
    pub(super) fn is_used_by(&self, edge: &str) -> bool {
        self.reporters.contains_key(edge)
    }

    pub(super) fn judge(
        &mut self,
        id: EndpointId,
        windows: &[Vec<Reporter>],
        active: usize,
        rules: &VerdictRules,
        settings: &Settings,
        now: Timestamp,
    ) {
        self.finding = judge_windows(windows, active, rules);
        let probes = std::mem::take(&mut self.probes);
        if probes.ok + probes.failed > 0 {
            // Whoever used it may have the next one as well.
            self.token = self.token.take().filter(|_| probes.failed == 0);
        }
        // All nodes of the region draw the same.
        let jitter = ((id.0 ^ u64::from(self.course.closings())) % 2_001) as f64 / 1_000.0 - 1.0;
        self.course.step(&self.finding, probes, jitter, settings, now);
    }

    /// Notes how much of what all edges asked in ten seconds was refused with a 429.
    pub(super) fn limited(&mut self, all: &Counts) {
        let asked = all.samples() + all.rate_limited;
        self.rate_limited = if asked > 0.0 { all.rate_limited / asked } else { 0.0 };
    }

    pub(super) fn verdict(&self) -> RegionVerdict {
        self.course.verdict()
    }

    pub(super) fn finding(&self) -> &Finding {
        &self.finding
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn told(&self) -> &ViewCell {
        &self.told
    }

    /// Tells edges anew under this version, if there is news; the version they were told before.
    pub(super) fn republish(&mut self, id: EndpointId, version: u64) -> Option<u64> {
        let cell = self.cell(id);
        if !is_news(&cell, &self.told) {
            return None;
        }
        self.told = cell;
        Some(std::mem::replace(&mut self.version, version))
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        self.sketches.expire(now);
        self.reporters.retain(|_, reports| now.since(reports.seen) <= REPORTER_FORGOTTEN);
    }

    /// Whether dropping it loses nothing, and edges were told the last of it.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        self.reporters.is_empty()
            && self.sketches.is_empty()
            && self.verdict() == RegionVerdict::Healthy
            && self.elsewhere.is_none()
            && now.since(self.seen) > REPORTER_FORGOTTEN
    }

    fn cell(&self, id: EndpointId) -> ViewCell {
        let known = self.finding.samples > 0.0;
        ViewCell {
            endpoint: id.0,
            verdict: Verdict::from(self.verdict()) as i32,
            rule: VerdictRule::from(self.finding.rule) as i32,
            success_permille: if known { permille(1.0 - self.finding.failure_ratio) } else { 0 },
            samples: self.finding.samples as u32,
            reporters: self.finding.reporters as u32,
            confidence: (self.finding.confidence * 100.0).round() as u32,
            rate_limited_permille: permille(self.rate_limited),
            closings: self.course.closings(),
            elsewhere: self.elsewhere.map(|others| ElsewhereMessage {
                verdict: if others.degraded { Verdict::Degraded } else { Verdict::Healthy } as i32,
                success_permille: permille(others.success),
                confidence: (others.confidence * 100.0).round() as u32,
                regions: others.regions as u32,
                ejected: others.against as u32,
            }),
        }
    }

    /// The cell for the log.
    pub(super) fn digest(&mut self, id: EndpointId, now: Timestamp) -> HealthCell {
        let recent = self.sketches.recent(now);
        let byte = |value| u32::from(Log8::of(value).0);
        HealthCell {
            endpoint: id.0,
            samples: self.finding.samples as u32,
            success_permille: if self.finding.samples > 0.0 { permille(1.0 - self.finding.failure_ratio) } else { 0 },
            rate_limited_permille: permille(self.rate_limited),
            first_token_p50: byte(recent.first_token_p50),
            first_token_p95: byte(recent.first_token_p95),
            speed_p50: byte(recent.speed_p50),
            verdict: Verdict::from(self.verdict()) as i32,
            reporters: self.finding.reporters as u32,
            confidence: (self.finding.confidence * 100.0).round() as u32,
            ours: self.finding.ours,
        }
    }

    /// Milliseconds to the first token and tokens per second over half an hour; with the 95th percentile of each.
    pub(super) fn half_hour(&self) -> [Option<(Percentiles, f64)>; 2] {
        let all = self.sketches.half_hour();
        [&all.first_token, &all.speed].map(|histogram| Some((histogram.percentiles()?, histogram.quantile(0.95)?)))
    }
}

/// Whether edges should hear it: anything that changes a choice, and numbers when they moved noticeably.
fn is_news(cell: &ViewCell, told: &ViewCell) -> bool {
    let moved = |new: u32, old: u32, least: u32| new.abs_diff(old) >= least || (new == 0) != (old == 0);
    cell.verdict != told.verdict
        || cell.rule != told.rule
        || cell.closings != told.closings
        || moved(cell.success_permille, told.success_permille, 10)
        || moved(cell.confidence, told.confidence, 10)
        || moved(cell.rate_limited_permille, told.rate_limited_permille, 20)
        || moved(cell.samples, told.samples, told.samples / 2 + 1)
        || match (&cell.elsewhere, &told.elsewhere) {
            (None, None) => false,
            (Some(new), Some(old)) => {
                new.verdict != old.verdict
                    || moved(new.success_permille, old.success_permille, 20)
                    || moved(new.confidence, old.confidence, 10)
            }
            (Some(_), None) | (None, Some(_)) => true,
        }
}

pub(super) fn permille(ratio: f64) -> u32 {
    (ratio.clamp(0.0, 1.0) * 1_000.0).round() as u32
}

/// An edge that did not use an endpoint for this long is not offered a token first.
const REPORTER_FORGOTTEN: Duration = Duration::from_secs(600);
