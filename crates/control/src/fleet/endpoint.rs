//! Everything a region knows of one endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Elsewhere as ElsewhereMessage, HealthCell, Verdict, VerdictRule, ViewCell};
use tidegate_routing::{
    Course, Elsewhere, EndpointId, Finding, Log8, Opening, Percentiles, Probes, RegionVerdict, Reporter, Seen, Timestamp, judge_windows,
};

use super::probe::Held;
use super::report::Reported;
use super::ring::{CountRing, Counts, SHORTER, SketchRing, VERDICT_SECONDS};
use super::{Edges, Judges};

#[derive(Debug, Default)]
pub(super) struct EndpointState {
    reporters: BTreeMap<Arc<str>, Reports>,
    sketches: SketchRing,
    course: Course,
    finding: Finding,
    /// The share of failures that took it out: what is seen while hardly anybody sends there does not replace it.
    failed_when_out: f64,
    rate_limited: f64,
    /// Ends of probes since the last judgement.
    probes: Probes,
    pub(super) token: Option<Held>,
    /// A token of another node of the region: its id, and until when.
    pub(super) foreign_token: Option<(u64, Timestamp)>,
    /// Who had the last token.
    pub(super) last_holder: Option<Arc<str>>,
    pub(super) elsewhere: Option<Elsewhere>,
    /// When it was last taken back: what opened a breaker before proves nothing any more.
    taken_back: Timestamp,
    seen: Timestamp,
    told: ViewCell,
    version: u64,
    /// The last digest about it: what the log said then, and since when it has said so.
    pub(super) agreed_since: Option<(u64, Timestamp)>,
}

#[derive(Debug, Default)]
struct Reports {
    counts: CountRing,
    /// What its open breaker knows, and when it said so.
    opening: Option<(Opening, Timestamp)>,
    seen: Timestamp,
}

impl Reports {
    /// What an open breaker knows, while it is believed.
    fn opening(&self, now: Timestamp) -> Option<&Opening> {
        self.opening.as_ref().filter(|(_, told)| now.since(*told) <= OPENING_LIFETIME).map(|(opening, _)| opening)
    }
}

/// How much to make of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// About now.
    New,
    /// Counts of the last seconds.
    Recent,
    /// It says little about now: uptime only.
    Old,
}

impl EndpointState {
    /// Takes a report in. Whether it may change the verdict, so that it should be looked at soon.
    pub(super) fn add(&mut self, edge: &Arc<str>, reported: &Reported, age: Age, now: Timestamp) -> bool {
        self.seen = now;
        let out = self.course.verdict().is_out();
        let probed = reported.probes.ok + reported.probes.failed > 0;
        let failing = reported.counts.failed > 0.0 && reported.counts.failed * 2.0 >= reported.counts.samples();
        let mut stirs = if out { probed } else { failing };
        let own = self.reporters.entry(Arc::clone(edge)).or_default();
        own.seen = now;
        self.sketches.add(&reported.sketches, now);
        if age != Age::Old {
            own.counts.add(&reported.counts, now);
        }
        if age == Age::New {
            let before = own.opening.take();
            own.opening = reported.opening.filter(|opening| opening.at >= self.taken_back).map(|opening| (opening, now));
            stirs |= own.opening.is_some() && before.is_none();
        }
        self.probes.ok += reported.probes.ok;
        self.probes.failed += reported.probes.failed;
        stirs
    }

    #[cfg(feature = "known-bugs")]
    pub(super) fn forget_reporters(&mut self) {
        self.reporters.clear();
    }

    /// Edges that used it lately, and would use a token.
    pub(super) fn is_used_by(&self, edge: &str) -> bool {
        self.reporters.contains_key(edge)
    }

    /// Judges anew by what the edges said.
    pub(super) fn judge(&mut self, id: EndpointId, edges: &Edges, judges: &mut Judges, now: Timestamp) {
        self.look(edges, &mut judges.seen, now);
        self.finding = judge_windows(&judges.seen, edges.active as usize, &judges.rules);
        let probes = std::mem::take(&mut self.probes);
        if probes.ok + probes.failed > 0 {
            // Whoever used it may have the next one as well.
            self.token = self.token.take().filter(|_| probes.failed == 0);
        }
        let closings = self.course.closings();
        // All nodes of the region draw the same.
        let jitter = ((id.0 ^ u64::from(closings)) % 2_001) as f64 / 1_000.0 - 1.0;
        let was_out = self.verdict().is_out();
        self.course.step(&self.finding, probes, jitter, &judges.settings, now);
        if self.verdict().is_out() != was_out {
            self.failed_when_out = self.finding.failure_ratio;
        }
        if self.course.closings() != closings {
            // What took it out must not take it out again at once.
            self.taken_back = now;
            self.reporters.values_mut().for_each(|reports| {
                reports.counts.clear();
                reports.opening = None;
            });
        }
    }

    /// What each edge saw, by window; and notes how much of what all asked in the longest was refused with a 429.
    fn look(&mut self, edges: &Edges, seen: &mut [Seen; WINDOWS], now: Timestamp) {
        seen.iter_mut().for_each(|window| window.reporters.clear());
        let [shorter @ .., longest] = seen;
        let mut all = Counts::default();
        let mut any_failed = false;
        for (name, reports) in &self.reporters {
            let (whole, opening) = (reports.counts.whole(now), reports.opening(now));
            whole.iter().for_each(|whole| all.add(whole));
            let Some(edge) = edges.of(name) else { continue };
            let reporter = match (opening, whole) {
                (Some(opening), _) => of_opening(opening, edge.confidence),
                (None, Some(counts)) if counts.samples() > 0.0 => of_counts(&counts, edge.confidence),
                (None, Some(_) | None) => continue,
            };
            any_failed |= reporter.failed > 0.0;
            longest.reporters.push(reporter);
        }
        self.limited(&all);
        // Nearly always nothing fails, and then nothing more has to be added up.
        if !any_failed {
            return;
        }
        for (name, reports) in &self.reporters {
            let Some(edge) = edges.of(name) else { continue };
            let opening = reports.opening(now);
            for (window, counts) in shorter.iter_mut().zip(reports.counts.shorter(now)) {
                match opening.filter(|opening| now.since(opening.began) <= window.length) {
                    Some(opening) => window.reporters.push(of_opening(opening, edge.confidence)),
                    None if counts.samples() > 0.0 => window.reporters.push(of_counts(&counts, edge.confidence)),
                    None => {}
                }
            }
        }
    }

    fn limited(&mut self, all: &Counts) {
        let asked = all.samples() + all.rate_limited;
        self.rate_limited = if asked > 0.0 { f64::from(all.rate_limited / asked) } else { 0.0 };
    }

    pub(super) fn verdict(&self) -> RegionVerdict {
        self.course.verdict()
    }

    /// Share of successes, 0 to 1; 0 when nothing is known.
    fn success(&self) -> f64 {
        match self.verdict() {
            RegionVerdict::Ejected | RegionVerdict::Probing => 1.0 - self.finding.failure_ratio.max(self.failed_when_out),
            RegionVerdict::Healthy | RegionVerdict::Degraded if self.finding.samples > 0.0 => 1.0 - self.finding.failure_ratio,
            RegionVerdict::Healthy | RegionVerdict::Degraded => 0.0,
        }
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

    /// Tells edges anew under the next version, if there is news; whether there was.
    pub(super) fn republish(&mut self, id: EndpointId, version: &mut u64, changed: &mut BTreeMap<u64, EndpointId>) -> bool {
        let cell = self.cell(id);
        if !is_news(&cell, &self.told) {
            return false;
        }
        self.told = cell;
        *version += 1;
        changed.remove(&std::mem::replace(&mut self.version, *version));
        changed.insert(*version, id);
        true
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
        ViewCell {
            endpoint: id.0,
            verdict: Verdict::from(self.verdict()) as i32,
            rule: VerdictRule::from(self.finding.rule) as i32,
            success_permille: permille(self.success()),
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
            success_permille: permille(self.success()),
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

fn of_counts(counts: &Counts, confidence: f64) -> Reporter {
    Reporter {
        samples: counts.samples().into(),
        failed: counts.failed.into(),
        pointing_at_us: counts.pointing_at_us.into(),
        confidence,
        open: false,
    }
}

fn of_opening(opening: &Opening, confidence: f64) -> Reporter {
    let Opening { samples, failed, pointing_at_us, .. } = *opening;
    Reporter { samples, failed, pointing_at_us, confidence, open: true }
}

/// Room for what edges saw: the shorter windows, and the whole ten seconds.
pub(super) fn room() -> [Seen; WINDOWS] {
    std::array::from_fn(|at| {
        let length = SHORTER.get(at).map_or(Duration::from_secs(VERDICT_SECONDS), |span| span.length());
        Seen { length, reporters: Vec::new() }
    })
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

/// Windows that a verdict looks at.
pub(super) const WINDOWS: usize = SHORTER.len() + 1;
/// Edges say once a second that a breaker is open.
const OPENING_LIFETIME: Duration = Duration::from_secs(3);
/// An edge that did not use an endpoint for this long is not offered a token first.
const REPORTER_FORGOTTEN: Duration = Duration::from_secs(600);
