//! What a region concludes about an endpoint from what its edges report.
//!
//! Pure: counts in, a [`Finding`] out. No single edge decides: each one's weight is capped, a quorum of edges must see the failures
//! themselves, and the failures must still be there when the loudest third of the edges is left out. So `f` faulty reporters among
//! `n ≥ 3f + 1` eject nothing, whatever they claim and whatever noise the others meet. What follows from a finding over time (open,
//! probe, close) is [`Course`]'s; what other regions make of it is [`elsewhere`]'s.

mod course;
mod elsewhere;

pub use course::{Course, Probes};
pub use elsewhere::{Elsewhere, RegionSays, elsewhere};

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a region concluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegionVerdict {
    /// Nothing is wrong.
    #[default]
    Healthy,
    /// Weighs less, and its breakers open sooner.
    Degraded,
    /// Taken out; one edge of the region may try it.
    Probing,
    /// Taken out.
    Ejected,
}

impl RegionVerdict {
    /// Whether edges leave it alone.
    #[must_use]
    pub const fn is_out(self) -> bool {
        matches!(self, RegionVerdict::Probing | RegionVerdict::Ejected)
    }

    /// Closed label for tables and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            RegionVerdict::Healthy => "healthy",
            RegionVerdict::Degraded => "degraded",
            RegionVerdict::Probing => "probing",
            RegionVerdict::Ejected => "ejected",
        }
    }
}

/// Which rule a finding followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Too few samples to say anything.
    #[default]
    NoEvidence,
    /// A quorum of at least four active edges.
    Quorum,
    /// Fewer than four active edges: all of them that have enough samples, and only to degrade.
    FewEdges,
}

impl Rule {
    /// Closed label for tables and JSON.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Rule::NoEvidence => "no evidence",
            Rule::Quorum => "quorum",
            Rule::FewEdges => "few edges",
        }
    }
}

/// The numbers verdicts go by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerdictRules {
    /// Failure ratio from which an edge, and the region, count as failing.
    pub ratio: f64,
    /// Samples in ten seconds that a quorum needs in total.
    pub samples: f64,
    /// Most of the weight that one edge can have.
    pub reporter_cap: f64,
    /// Active edges below which no quorum is possible.
    pub few_edges: usize,
    /// Samples an edge needs to have a say when there are few.
    pub few_samples: f64,
    /// Samples it takes to contradict an edge whose breaker is open when there are few: as many as open one.
    pub few_contradict: f64,
    /// Shortest window that counts when there are few.
    pub few_window: Duration,
    /// One in so many edges may be faulty.
    pub faulty_in: usize,
    /// Fewest failing edges that make a quorum, however small the region.
    pub least_quorum: usize,
    /// Failures that must be left without the loudest edges: more than bad luck makes of an ordinary few percent. Of ten samples at 3 %,
    /// six fail once in seven million; five do so often enough to be met in an hour of lies.
    pub rest_failures: f64,
    /// Or an edge among them whose breaker is open after this many: those were in a row.
    pub rest_open: f64,
    /// The failure ratio that those who are left must amount to.
    pub rest_ratio: f64,
}

impl Default for VerdictRules {
    fn default() -> VerdictRules {
        VerdictRules {
            ratio: 0.5,
            samples: 20.0,
            reporter_cap: 0.2,
            few_edges: 4,
            few_samples: 10.0,
            few_contradict: 5.0,
            few_window: Duration::from_secs(2),
            faulty_in: 3,
            least_quorum: 2,
            rest_failures: 6.0,
            rest_open: 5.0,
            rest_ratio: 0.25,
        }
    }
}

impl VerdictRules {
    /// Edges that may be faulty without harm.
    #[must_use]
    pub fn faulty(&self, active_edges: usize) -> usize {
        active_edges.saturating_sub(1) / self.faulty_in
    }

    /// Failing edges, counted by their confidence, that it takes to eject: one more than may be faulty.
    #[must_use]
    pub fn quorum(&self, active_edges: usize) -> usize {
        self.least_quorum.max(self.faulty(active_edges) + 1)
    }
}

/// What one edge saw of one endpoint in a window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reporter {
    /// Attempts that say something about the endpoint.
    pub samples: f64,
    /// Failures among them, the soft ones half.
    pub failed: f64,
    /// Failures of classes that point at the edge itself.
    pub pointing_at_us: f64,
    /// How much the edge trusts itself, 0 to 1.
    pub confidence: f64,
    /// The counts are those of an open breaker. Nothing more will come from this edge, so they need not be many.
    pub open: bool,
}

/// What the edges saw in a window of time that ends now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// How far it reaches back.
    pub length: Duration,
    /// Those with samples.
    pub reporters: Vec<Reporter>,
}

impl Reporter {
    fn ratio(&self) -> f64 {
        self.failed / self.samples
    }

    fn counts(&self) -> bool {
        self.samples > 0.0 && self.confidence > 0.0
    }

    /// Sees the endpoint fail itself.
    fn fails(&self, rules: &VerdictRules) -> bool {
        self.ratio() >= rules.ratio
    }
}

/// What the reports amount to now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Finding {
    /// Healthy, degraded or ejected.
    pub verdict: RegionVerdict,
    /// The rule it followed.
    pub rule: Rule,
    /// Weighted share of failures, 0 to 1.
    pub failure_ratio: f64,
    /// Samples of all reporters.
    pub samples: f64,
    /// Edges with samples.
    pub reporters: usize,
    /// min(1, reporters / 3), each counted by its own confidence.
    pub confidence: f64,
    /// Most failures are of classes that point at the region's own egress.
    pub ours: bool,
}

/// Judges one endpoint over several windows of time that end now, shortest first, the whole ten seconds last.
///
/// After seconds of success a fault has to fill half of the whole window to be half of it. A shorter window sees it sooner; because it
/// holds fewer samples, it must show the failures beyond its own noise (one standard deviation). An open breaker belongs into every window
/// that holds all of the failures that opened it: there the other edges had as much time to see otherwise.
#[must_use]
pub fn judge_windows(windows: &[Seen], active_edges: usize, rules: &VerdictRules) -> Finding {
    let Some((whole, shorter)) = windows.split_last() else { return Finding::default() };
    let finding = judge(&whole.reporters, active_edges, rules);
    if finding.verdict != RegionVerdict::Healthy || whole.reporters.iter().all(|one| one.failed <= 0.0) {
        return finding;
    }
    let few = active_edges < rules.few_edges;
    for Seen { length, reporters } in shorter {
        // The cheap half of the rule first: nearly always it is the end of it.
        let hopeless = if few { *length < rules.few_window } else { failing(reporters, rules) < rules.quorum(active_edges) as f64 };
        if hopeless {
            continue;
        }
        let early = judge(reporters, active_edges, rules);
        let noise = (early.failure_ratio * (1.0 - early.failure_ratio) / early.samples.max(1.0)).sqrt();
        if early.verdict != RegionVerdict::Healthy && early.failure_ratio - noise >= rules.ratio {
            return Finding { samples: finding.samples, reporters: finding.reporters, confidence: finding.confidence, ..early };
        }
    }
    finding
}

/// Judges one endpoint over one window. `active_edges` are the edges of the region that report at all and do not take themselves for
/// sick.
#[must_use]
pub fn judge(reporters: &[Reporter], active_edges: usize, rules: &VerdictRules) -> Finding {
    let counting = || reporters.iter().filter(|reporter| reporter.counts());
    let samples: f64 = counting().map(|reporter| reporter.samples).sum();
    let failed: f64 = counting().map(|reporter| reporter.failed).sum();
    if samples <= 0.0 {
        return Finding::default();
    }
    let trust: f64 = counting().map(|reporter| reporter.confidence.min(1.0)).sum();
    let weighted = weigh(reporters, rules.reporter_cap);
    let failure_ratio = ratio_of(&weighted);
    let few = active_edges < rules.few_edges;
    let (verdict, enough) = if few {
        let least = if counting().any(|one| one.open && one.fails(rules)) { rules.few_contradict } else { rules.few_samples };
        let mut voters = counting().filter(|reporter| reporter.open || reporter.samples >= least).peekable();
        let enough = voters.peek().is_some();
        let fails = enough && voters.all(|voter| voter.fails(rules));
        (if fails { RegionVerdict::Degraded } else { RegionVerdict::Healthy }, enough)
    } else {
        let quorum = rules.quorum(active_edges) as f64;
        let open: f64 = counting().filter(|one| one.open && one.fails(rules)).map(|one| one.confidence.min(1.0)).sum();
        let enough = samples >= rules.samples || open >= quorum;
        let out = enough
            && failure_ratio >= rules.ratio
            && failing(reporters, rules) >= quorum
            && fails_without_the_loudest(weighted, rules.faulty(active_edges), rules);
        (if out { RegionVerdict::Ejected } else { RegionVerdict::Healthy }, enough)
    };
    Finding {
        verdict,
        rule: match (enough, few) {
            (false, _) => Rule::NoEvidence,
            (true, true) => Rule::FewEdges,
            (true, false) => Rule::Quorum,
        },
        failure_ratio,
        samples,
        reporters: counting().count(),
        confidence: (trust / TRUSTED_REPORTERS).min(1.0),
        ours: failed > 0.0 && counting().map(|reporter| reporter.pointing_at_us).sum::<f64>() * 2.0 >= failed,
    }
}

/// Edges that see the endpoint fail themselves, each by its confidence.
fn failing(reporters: &[Reporter], rules: &VerdictRules) -> f64 {
    let failing = reporters.iter().filter(|one| one.counts() && one.fails(rules));
    failing.map(|one| one.confidence.min(1.0)).sum()
}

/// One reporter as it counts.
#[derive(Clone, Copy, Debug)]
struct Weighted {
    /// Samples by confidence, capped.
    weight: f64,
    ratio: f64,
    samples: f64,
    open: bool,
}

/// Reporters weighed by samples and confidence, with no edge above `cap` of the whole weight; heaviest first.
fn weigh(reporters: &[Reporter], cap: f64) -> Vec<Weighted> {
    let counting = reporters.iter().filter(|reporter| reporter.counts());
    let mut weighted: Vec<Weighted> = counting
        .map(|reporter| Weighted {
            weight: reporter.samples * reporter.confidence.min(1.0),
            ratio: reporter.ratio(),
            samples: reporter.samples,
            open: reporter.open,
        })
        .collect();
    weighted.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    let limit = limit_of(&weighted, cap);
    weighted.iter_mut().for_each(|one| one.weight = one.weight.min(limit));
    weighted
}

fn ratio_of(weighted: &[Weighted]) -> f64 {
    let total: f64 = weighted.iter().map(|one| one.weight).sum();
    weighted.iter().map(|one| one.weight * one.ratio).sum::<f64>() / total
}

/// Whether those that are left without the `faulty` edges whose failures count most still see the endpoint fail. Liars among those who
/// are left count less than an honest edge with bad luck did.
fn fails_without_the_loudest(mut weighted: Vec<Weighted>, faulty: usize, rules: &VerdictRules) -> bool {
    weighted.sort_by(|a, b| (b.weight * b.ratio).total_cmp(&(a.weight * a.ratio)).then(b.samples.total_cmp(&a.samples)));
    let rest = weighted.get(faulty..).unwrap_or_default();
    let failures: f64 = rest.iter().map(|one| one.samples * one.ratio).sum();
    let open = rest.iter().any(|one| one.open && one.ratio >= rules.ratio && one.samples * one.ratio >= rules.rest_open);
    (failures >= rules.rest_failures || open) && ratio_of(rest) >= rules.rest_ratio
}

/// The largest weight such that nobody who is cut to it has more than `cap` of what remains. With so few reporters that this cannot be,
/// everybody weighs the same.
fn limit_of(descending: &[Weighted], cap: f64) -> f64 {
    let mut rest: f64 = descending.iter().map(|one| one.weight).sum();
    for (cut, Weighted { weight, .. }) in descending.iter().enumerate() {
        // With the `cut` largest at the limit: limit = cap · (cut · limit + rest).
        let share = 1.0 - cap * cut as f64;
        if share <= 0.0 {
            break;
        }
        let limit = cap * rest / share;
        if *weight <= limit {
            return limit.max(*weight);
        }
        rest -= weight;
    }
    descending.last().map_or(0.0, |one| one.weight)
}

/// Reporters beyond which more of them add no trust.
const TRUSTED_REPORTERS: f64 = 3.0;

#[cfg(test)]
mod tests;
