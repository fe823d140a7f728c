//! Samples of a comparison, and the only statistics we make of them: medians with their range, and ratios within a round.

use std::collections::BTreeMap;

use serde::Serialize;

/// Everything one contender showed in one round of one scenario.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) scenario: String,
    pub(crate) round: u16,
    pub(crate) contender: String,
    /// Metric to value; units are part of the metric's name.
    pub(crate) metrics: BTreeMap<&'static str, f64>,
    /// First error, when something failed.
    pub(crate) error: Option<String>,
}

/// All samples in the order they were taken.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Results {
    samples: Vec<Sample>,
}

/// Median, least and greatest of some rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one finite value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, min, max })
    }
}

impl Results {
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Names of contenders that have samples whose scenario starts with `prefix`, in order of appearance.
    pub(crate) fn contenders(&self, prefix: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.scenario.starts_with(prefix)) {
            if !names.contains(&sample.contender.as_str()) {
                names.push(&sample.contender);
            }
        }
        names
    }

    /// A metric over the rounds.
    pub(crate) fn spread(&self, scenario: &str, contender: &str, metric: &str) -> Option<Spread> {
        Spread::of(self.rounds(scenario, contender, metric).into_values())
    }

    /// `contender / base` within each round.
    pub(crate) fn ratio(&self, scenario: &str, metric: &str, contender: &str, base: &str) -> Option<Spread> {
        self.paired((scenario, contender), (scenario, base), metric, |value, base| value / base)
    }

    /// `contender - base` within each round.
    pub(crate) fn difference(&self, scenario: &str, metric: &str, contender: &str, base: &str) -> Option<Spread> {
        self.paired((scenario, contender), (scenario, base), metric, |value, base| value - base)
    }

    /// A metric of two (scenario, contender) pairs, combined within each round that has both.
    pub(crate) fn paired(&self, one: (&str, &str), two: (&str, &str), metric: &str, combine: impl Fn(f64, f64) -> f64) -> Option<Spread> {
        let base = self.rounds(two.0, two.1, metric);
        let values = self.rounds(one.0, one.1, metric);
        Spread::of(values.into_iter().filter_map(|(round, value)| Some(combine(value, *base.get(&round)?))))
    }

    fn rounds(&self, scenario: &str, contender: &str, metric: &str) -> BTreeMap<u16, f64> {
        let samples = self.samples.iter().filter(|sample| sample.scenario == scenario && sample.contender == contender);
        samples.filter_map(|sample| Some((sample.round, *sample.metrics.get(metric)?))).collect()
    }

    /// First error of each contender and scenario that had failures, for the reader's notice.
    pub(crate) fn errors(&self) -> Vec<String> {
        let failed = self.samples.iter().filter_map(|sample| Some((sample, sample.error.as_ref()?)));
        failed
            .map(|(sample, error)| {
                let count = sample.metrics.get("failures").copied().unwrap_or(0.0);
                format!("{} · {} · round {}: {count} failures, first: {error}", sample.scenario, sample.contender, sample.round)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(values: &[(&str, u16, f64)]) -> Results {
        let mut results = Results::default();
        for (contender, round, value) in values {
            let metrics = [("cpu", *value)].into();
            results.push(Sample { scenario: "s".into(), round: *round, contender: (*contender).into(), metrics, error: None });
        }
        results
    }

    #[test]
    fn ratios_are_paired_within_the_round() {
        // The machine was twice as slow in round 2; the ratio does not notice.
        let results = results(&[("a", 1, 10.0), ("f", 1, 5.0), ("a", 2, 20.0), ("f", 2, 10.0), ("a", 3, 12.0)]);
        let ratio = results.ratio("s", "cpu", "a", "f").unwrap();
        assert_eq!(ratio, Spread { median: 2.0, min: 2.0, max: 2.0 });
        assert_eq!(results.spread("s", "a", "cpu").unwrap(), Spread { median: 12.0, min: 10.0, max: 20.0 });
        assert_eq!(results.ratio("s", "cpu", "a", "nobody"), None);
    }

    #[test]
    fn a_median_of_two_is_their_middle() {
        assert_eq!(Spread::of([4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }
}
