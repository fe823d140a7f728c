//! Whether it is me: an edge that fails at provider after provider while its region does not.
//!
//! A sick edge must neither eject good providers nor keep callers. It stops being believed at once and stops being ready after half a
//! minute, unless so many edges of the region say the same that it must be what they share.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{ProviderIndex, Timestamp};

/// What an edge and its region saw of one provider lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// This edge's samples in 30 seconds; a failure to connect counts double.
    pub samples: f64,
    /// This edge's failures among them.
    pub failed: f64,
    /// The region's share of failures.
    pub region_failed: f64,
    /// Edges behind the region's share, this one included.
    pub region_reporters: u32,
}

/// The edge's opinion of itself.
#[derive(Clone, Debug, Default)]
pub struct SelfTest {
    /// When each provider was last seen failing here and not in the region.
    failing: BTreeMap<ProviderIndex, Timestamp>,
    suspect_since: Option<Timestamp>,
}

/// How sure an edge is of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfVerdict {
    /// It takes itself for sick: its reports carry no weight.
    pub suspect: bool,
    /// It should leave: no new callers.
    pub leave: bool,
}

impl SelfTest {
    /// Looks again. `active` and `suspects` are the region's edges, and how many of them take themselves for sick (this one included
    /// once it said so).
    pub fn step(
        &mut self,
        sights: impl IntoIterator<Item = (ProviderIndex, Sight)>,
        active: u32,
        suspects: u32,
        now: Timestamp,
    ) -> SelfVerdict {
        for (provider, sight) in sights {
            if sight.samples < LEAST_SAMPLES {
                // Breakers are open here because of what was seen; that nothing new is seen does not prove recovery.
                continue;
            }
            if sight.disagrees() {
                self.failing.insert(provider, now);
            } else if sight.agrees() {
                self.failing.remove(&provider);
            }
        }
        self.failing.retain(|_, seen| now.since(*seen) <= REMEMBERED);
        if self.failing.len() >= PROVIDERS {
            self.suspect_since.get_or_insert(now);
        } else {
            self.suspect_since = None;
        }
        let shared = f64::from(suspects) > SHARED_CAUSE * f64::from(active);
        SelfVerdict {
            suspect: self.suspect_since.is_some(),
            leave: self.suspect_since.is_some_and(|since| now.since(since) >= LEAVES_AFTER) && !shared,
        }
    }
}

impl Sight {
    /// Works here, or fails in the region as well. Neither holds when there is nobody to compare with.
    fn agrees(&self) -> bool {
        let own = self.failed / self.samples;
        own < FAILING || (self.region_reporters >= 2 && self.region_failed + CLEARLY > own)
    }

    /// Failing here, and clearly less so in a region of more than this edge.
    fn disagrees(&self) -> bool {
        let own = self.failed / self.samples;
        own >= FAILING && self.region_reporters >= 2 && self.region_failed + CLEARLY <= own
    }
}

/// Failure ratio from which a provider counts as failing here.
const FAILING: f64 = 0.5;
/// How far the region must be from it. The region's share includes this edge's own failures.
const CLEARLY: f64 = 0.25;
/// Providers that must fail: one or two can fail for many reasons, three at once have only this edge in common.
const PROVIDERS: usize = 3;
/// Samples below which a ratio says nothing.
const LEAST_SAMPLES: f64 = 5.0;
/// How long a failing provider stays failing without a new look at it: as long as breakers stay open at first, twice over.
const REMEMBERED: Duration = Duration::from_secs(60);
/// A suspect that gets well within this time keeps its callers.
const LEAVES_AFTER: Duration = Duration::from_secs(30);
/// Share of suspect edges above which the cause is shared, and leaving would only take capacity away.
const SHARED_CAUSE: f64 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn fails_here(count: u32) -> Vec<(ProviderIndex, Sight)> {
        let sight = Sight { samples: 20.0, failed: 18.0, region_failed: 0.1, region_reporters: 8 };
        (0..count).map(|at| (ProviderIndex::new(at), sight)).collect()
    }

    #[test]
    fn three_providers_make_a_suspect_that_leaves_after_half_a_minute() {
        let mut test = SelfTest::default();
        assert!(!test.step(fails_here(2), 8, 0, second(0)).suspect);
        assert_eq!(test.step(fails_here(3), 8, 0, second(1)), SelfVerdict { suspect: true, leave: false });
        assert_eq!(test.step(Vec::new(), 8, 1, second(30)), SelfVerdict { suspect: true, leave: false });
        assert_eq!(test.step(fails_here(3), 8, 1, second(31)), SelfVerdict { suspect: true, leave: true });
    }

    #[test]
    fn what_the_region_sees_too_is_not_this_edge() {
        let shared = Sight { samples: 20.0, failed: 18.0, region_failed: 0.8, region_reporters: 8 };
        let alone = Sight { region_failed: 0.0, region_reporters: 1, ..shared };
        for sight in [shared, alone] {
            let mut test = SelfTest::default();
            let all: Vec<_> = (0..5).map(|at| (ProviderIndex::new(at), sight)).collect();
            assert!(!test.step(all, 8, 0, second(0)).suspect, "{sight:?}");
        }
    }

    #[test]
    fn an_edge_that_saw_it_first_is_cleared_when_the_region_follows() {
        let mut test = SelfTest::default();
        assert!(test.step(fails_here(3), 8, 0, second(0)).suspect);
        let followed = Sight { samples: 20.0, failed: 18.0, region_failed: 0.8, region_reporters: 8 };
        let all: Vec<_> = (0..3).map(|at| (ProviderIndex::new(at), followed)).collect();
        assert!(!test.step(all, 8, 1, second(2)).suspect);
    }

    #[test]
    fn nobody_leaves_when_a_third_of_the_region_is_suspect() {
        let mut test = SelfTest::default();
        test.step(fails_here(3), 8, 3, second(0));
        assert_eq!(test.step(fails_here(3), 8, 3, second(60)), SelfVerdict { suspect: true, leave: false });
        assert!(test.step(fails_here(3), 8, 2, second(61)).leave);
    }

    #[test]
    fn success_or_time_clears_it() {
        let mut test = SelfTest::default();
        test.step(fails_here(3), 8, 0, second(0));
        let well = Sight { samples: 10.0, failed: 0.0, region_failed: 0.0, region_reporters: 8 };
        assert!(!test.step([(ProviderIndex::new(0), well)], 8, 1, second(10)).suspect);
        test.step(fails_here(3), 8, 0, second(20));
        assert!(!test.step(Vec::new(), 8, 1, second(81)).suspect);
    }
}
