//! How much a request will use, before it is sent.
//!
//! Pure arithmetic, and one small table of how long answers were. A reservation that is too large refuses others for nothing; one that is
//! too small lets a budget be outrun. So it is the usual length while there is room, and the longest possible one when little is left.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;

/// Tokens of a prompt of which only the size is known: bytes / 3.5, and a tenth more. English text has about 4 bytes per token, code and
/// JSON about 3; other scripts have fewer tokens per byte.
pub const fn prompt_tokens(bytes: u64) -> u64 {
    bytes.saturating_mul(22).div_ceil(70)
}

/// What is assumed for answers when neither the request nor the past says anything.
pub const USUAL_OUTPUT: u64 = 4_096;

/// Tokens of the answer: the smallest of what the request allows, what the key's answers usually reach, and 4,096. With `tight` (less than
/// a tenth of a budget is left) what the request allows, so that overshoot tends to zero.
pub fn output_tokens(max_tokens: Option<u64>, usual: Option<u64>, tight: bool) -> u64 {
    match max_tokens {
        Some(max) if tight => max,
        _ => max_tokens.unwrap_or(u64::MAX).min(usual.unwrap_or(u64::MAX)).min(USUAL_OUTPUT),
    }
}

/// The 95th percentile of the answers of each key and model, as seen by this process.
pub struct OutputLengths {
    shards: Vec<Shard>,
    hasher: std::collections::hash_map::RandomState,
}

/// A key and a model.
type Pair = (Arc<str>, Arc<str>);
type Shard = Mutex<HashMap<Pair, Lengths>>;

/// Counts by length: four buckets per doubling, so an estimate is at most a fifth too long.
struct Lengths {
    counts: [u16; BUCKETS],
    sum: u16,
}

const SHARDS: usize = 16;
/// Up to a million tokens.
const BUCKETS: usize = 80;
/// Beyond so many all counts are halved: the last few hundred answers weigh most.
const MOST: u16 = 512;
/// Fewer say nothing.
const LEAST: u16 = 20;
/// Keys and models per shard; a full one starts anew, which costs a few cautious estimates.
const MOST_PAIRS: usize = 4_096;

impl OutputLengths {
    /// Knows nothing.
    pub fn new() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), hasher: Default::default() }
    }

    /// An answer ended regularly with so many tokens.
    pub fn note(&self, key: &Arc<str>, model: &Arc<str>, tokens: u64) {
        let pair = (key.clone(), model.clone());
        let mut shard = self.shard(&pair).lock();
        if shard.len() >= MOST_PAIRS && !shard.contains_key(&pair) {
            shard.clear();
        }
        shard.entry(pair).or_insert(Lengths { counts: [0; BUCKETS], sum: 0 }).note(tokens);
    }

    /// The length that 95 % of the answers do not exceed; `None` before twenty of them.
    pub fn usual(&self, key: &Arc<str>, model: &Arc<str>) -> Option<u64> {
        let pair = (key.clone(), model.clone());
        self.shard(&pair).lock().get(&pair)?.usual()
    }

    fn shard(&self, pair: &Pair) -> &Shard {
        &self.shards[usize::try_from(self.hasher.hash_one(pair) % SHARDS as u64).unwrap_or(0)]
    }
}

impl Default for OutputLengths {
    fn default() -> Self {
        Self::new()
    }
}

impl Lengths {
    fn note(&mut self, tokens: u64) {
        if self.sum >= MOST {
            self.sum = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.sum += *count;
            }
        }
        self.counts[bucket(tokens)] += 1;
        self.sum += 1;
    }

    fn usual(&self) -> Option<u64> {
        if self.sum < LEAST {
            return None;
        }
        let wanted = u32::from(self.sum) * 95;
        let mut seen = 0_u32;
        let index = self.counts.iter().position(|count| {
            seen += u32::from(*count) * 100;
            seen >= wanted
        });
        index.map(longest)
    }
}

/// The bucket of a length: its power of two, and the quarter between it and the next.
fn bucket(tokens: u64) -> usize {
    let tokens = tokens.max(1);
    let power = tokens.ilog2() as usize;
    let quarter = if power >= 2 { (tokens >> (power - 2)) & 3 } else { (tokens << (2 - power)) & 3 };
    (power * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The longest length of a bucket.
fn longest(index: usize) -> u64 {
    let (power, quarter) = (index / 4, (index % 4) as u64);
    ((5 + quarter) << power).div_ceil(4) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_the_smallest_of_what_is_known() {
        assert_eq!(prompt_tokens(3_500), 1_100);
        assert_eq!(prompt_tokens(0), 0);
        for (max, usual, tight, expected) in [
            (None, None, false, 4_096),
            (Some(100), None, false, 100),
            (Some(100_000), None, false, 4_096),
            (Some(100_000), Some(700), false, 700),
            (Some(100_000), Some(700), true, 100_000),
            (Some(50), Some(700), true, 50),
            (None, Some(700), true, 700),
            (None, Some(9_000), false, 4_096),
        ] {
            assert_eq!(output_tokens(max, usual, tight), expected, "{max:?} {usual:?} {tight}");
        }
    }

    #[test]
    fn the_usual_length_is_the_95th_percentile_at_most_a_quarter_too_long() {
        let (key, model): (Arc<str>, Arc<str>) = ("k".into(), "m".into());
        let lengths = OutputLengths::new();
        for tokens in 1..20 {
            lengths.note(&key, &model, tokens * 50);
        }
        assert_eq!(lengths.usual(&key, &model), None, "too few");
        for tokens in 1..=1_000 {
            lengths.note(&key, &model, tokens);
        }
        let usual = lengths.usual(&key, &model).unwrap();
        assert!((950..=1_250).contains(&usual), "{usual}");
        assert_eq!(lengths.usual(&key, &"other".into()), None);
    }

    #[test]
    fn every_length_is_in_a_bucket_that_reaches_it() {
        for tokens in (0..4_000).chain((12..20).map(|power| 1 << power)).chain((12..20).map(|power| (1 << power) - 1)) {
            let longest = longest(bucket(tokens));
            assert!(longest >= tokens && longest <= tokens.max(4) * 5 / 4, "{tokens}: {longest}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
