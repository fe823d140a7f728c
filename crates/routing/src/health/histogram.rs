//! Distributions that can be added up: what an edge reports, what a region merges.
//!
//! A log-linear histogram in the manner of DDSketch (Masson, Rim, Lee, VLDB 2019) with one fixed geometry, so that two histograms are
//! merged by adding their counts: exact, in any order, in any grouping. A quantile is off by at most 2 %. Not the ninth-part
//! [`Sketch`](super::sketch) that a decision reads: this one is four times finer, sparse, and has a wire form.

use thiserror::Error;

use super::Percentiles;

/// Counts of positive values in buckets that grow by 4.08 %. One unit per use: milliseconds, tokens per second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bucket and count, by bucket; no count is 0.
    counts: Vec<(u16, u32)>,
}

impl Histogram {
    /// Adds a value. What lies outside of 0.1 to 600,000 counts as the nearest bound, and what is not a number as the lowest.
    pub fn record(&mut self, value: f64) {
        self.add(bucket_of(value), 1);
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Histogram) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for (bucket, count) in &other.counts {
            self.add(*bucket, *count);
        }
    }

    fn add(&mut self, bucket: u16, count: u32) {
        match self.counts.binary_search_by_key(&bucket, |(own, _)| *own) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Whether it holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The value below which the share `quantile` (0 to 1) lies, within 2 %.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = ((quantile * self.len() as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += u64::from(*count);
            seen >= rank
        });
        found.or(self.counts.last()).map(|(bucket, _)| value_of(*bucket))
    }

    /// The four percentiles people look at.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles { p50: self.quantile(0.5)?, p75: self.quantile(0.75)?, p90: self.quantile(0.9)?, p99: self.quantile(0.99)? })
    }

    /// The wire form: a version byte, then per bucket the distance to the one before and the count, as LEB128 numbers. Nothing at all
    /// when empty.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.counts.is_empty() {
            return out;
        }
        out.push(VERSION);
        let mut before = 0;
        for (bucket, count) in &self.counts {
            put_number(&mut out, u32::from(bucket - before));
            put_number(&mut out, *count);
            before = *bucket;
        }
        out
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// A version this build does not know, numbers cut short, buckets out of range or order.
    pub fn decode(bytes: &[u8]) -> Result<Histogram, HistogramError> {
        let Some((version, mut rest)) = bytes.split_first() else { return Ok(Histogram::default()) };
        if *version != VERSION {
            return Err(HistogramError::Version(*version));
        }
        let mut counts = Vec::new();
        let mut before = 0_u32;
        while !rest.is_empty() {
            let distance = take_number(&mut rest)?;
            let count = take_number(&mut rest)?;
            let bucket = before.saturating_add(distance);
            let in_order = distance > 0 || counts.is_empty();
            if !in_order || count == 0 || bucket >= u32::from(BUCKETS) {
                return Err(HistogramError::Malformed);
            }
            counts.push((bucket as u16, count));
            before = bucket;
        }
        Ok(Histogram { counts })
    }
}

/// Why bytes are not a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HistogramError {
    /// Written by a newer build with another geometry.
    #[error("histogram version {0} is not known to this build")]
    Version(u8),
    /// Cut short, out of range or out of order.
    #[error("malformed histogram")]
    Malformed,
}

/// Counts as they come in: dense, so that recording allocates nothing; emptied into a [`Histogram`] once per report.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    counts: Box<[u16; BUCKETS as usize]>,
    values: u32,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { counts: Box::new([0; BUCKETS as usize]), values: 0 }
    }
}

impl Recorder {
    pub(crate) fn record(&mut self, value: f64) {
        let count = &mut self.counts[usize::from(bucket_of(value))];
        // 65,535 in one bucket between two reports: what is beyond no longer moves a quantile.
        *count = count.saturating_add(1);
        self.values = self.values.saturating_add(1);
    }

    pub(crate) fn take(&mut self) -> Histogram {
        if self.values == 0 {
            return Histogram::default();
        }
        let counts = (0..).zip(self.counts.iter()).filter(|(_, count)| **count > 0).map(|(bucket, count)| (bucket, u32::from(*count)));
        let taken = Histogram { counts: counts.collect() };
        self.counts.fill(0);
        self.values = 0;
        taken
    }
}

fn bucket_of(value: f64) -> u16 {
    // `max` drops a NaN, `as` saturates, and the end takes what is beyond.
    let steps = ((value / LOWEST).max(1.0).ln() / LN_GAMMA).ceil();
    (steps as u16).min(BUCKETS - 1)
}

/// The value whose relative distance to both bounds of the bucket is the same.
fn value_of(bucket: u16) -> f64 {
    LOWEST * (f64::from(bucket) * LN_GAMMA).exp() * 2.0 / (1.0 + GAMMA)
}

fn put_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Result<u32, HistogramError> {
    let mut number = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, after) = rest.split_first().ok_or(HistogramError::Malformed)?;
        *rest = after;
        let bits = u32::from(byte & 0x7f);
        if shift == 28 && bits > 0xf {
            return Err(HistogramError::Malformed);
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(HistogramError::Malformed)
}

const VERSION: u8 = 1;
/// (1 + 0.02) / (1 − 0.02): relative accuracy 2 %.
const GAMMA: f64 = 1.02 / 0.98;
/// ln of [`GAMMA`].
const LN_GAMMA: f64 = 0.040_005_334_613_699_2;
/// A tenth of a millisecond, or a token in ten seconds.
const LOWEST: f64 = 0.1;
/// From 0.1 to 600,000: ln(6,000,000) / ln γ = 390.2, and one for the lowest bound itself.
const BUCKETS: u16 = 392;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    #[test]
    fn gamma_and_its_logarithm_agree() {
        assert!((GAMMA.ln() - LN_GAMMA).abs() < 1e-12);
        assert_eq!(bucket_of(LOWEST), 0);
        assert!(bucket_of(600_000.0) < BUCKETS);
    }

    #[test]
    fn what_is_no_sensible_number_lands_at_an_end() {
        let histogram = of(&[f64::NAN, -1.0, 0.0, f64::INFINITY]);
        assert_eq!(histogram.len(), 4);
        assert!(histogram.quantile(0.5).unwrap() < 0.11 && histogram.quantile(1.0).unwrap() > 590_000.0);
    }

    #[test]
    fn a_second_of_usual_traffic_fits_120_bytes() {
        let mut rng = fastrand::Rng::with_seed(1);
        // Times to first token around 600 ms, spread by a factor of two each way.
        let values: Vec<f64> = (0..50).map(|_| 600.0 * 2_f64.powf(rng.f64() * 2.0 - 1.0)).collect();
        let bytes = of(&values).encode();
        assert!(bytes.len() < 120, "{}", bytes.len());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(Histogram::decode(&[2, 1, 1]), Err(HistogramError::Version(2)));
        for bytes in [&[1, 1][..], &[1, 1, 0], &[1, 1, 1, 0, 1], &[1, 0xff, 0xff, 0xff, 0xff, 0x7f, 1], &[1, 0x90, 0x03, 1]] {
            assert_eq!(Histogram::decode(bytes), Err(HistogramError::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn a_recorder_empties_into_what_it_was_told() {
        let (mut recorder, values) = (Recorder::default(), [1.0, 1.0, 30.0, 7_000.0]);
        values.iter().for_each(|value| recorder.record(*value));
        assert_eq!(recorder.take(), of(&values));
        assert!(recorder.take().is_empty());
    }

    fn values() -> impl proptest::strategy::Strategy<Value = Vec<f64>> {
        prop::collection::vec(0.1_f64..600_000.0, 0..80)
    }

    proptest! {
        #[test]
        fn merging_is_exact_in_any_order_and_grouping(a in values(), b in values(), c in values()) {
            let all = of(&[a.clone(), b.clone(), c.clone()].concat());
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut right = c;
            right.merge(&b);
            let mut other = right.clone();
            other.merge(&a);
            prop_assert_eq!(&left, &all);
            prop_assert_eq!(&other, &all);
        }

        #[test]
        fn a_quantile_is_within_two_percent(values in prop::collection::vec(0.1_f64..600_000.0, 1..300), quantile in 0.0_f64..=1.0) {
            let answer = of(&values).quantile(quantile).unwrap();
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1];
            prop_assert!((answer / exact - 1.0).abs() < 0.020_001, "{} for {}", answer, exact);
        }

        #[test]
        fn the_wire_form_comes_back(values in values()) {
            let histogram = of(&values);
            prop_assert_eq!(Histogram::decode(&histogram.encode()), Ok(histogram));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(histogram) = Histogram::decode(&bytes) {
                prop_assert!(histogram.counts.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
        }
    }
}
