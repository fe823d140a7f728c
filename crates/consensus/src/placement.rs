//! Where leadership is best placed: at the voter that has a quorum nearest to it, as every commit takes that round trip. Pure: the caller
//! measures, brings the time and hands over.
//!
//! Leadership that wanders costs more than it gains, so a better place must be clearly better, for long, and moves are rare. A new leader
//! counts from its election, whatever that came from, which makes the rest between two moves hold for the cluster and not only for one node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// When leadership moves to a better place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacementRule {
    /// Between two measurements of the distance to each voter.
    pub measure: Duration,
    /// Between two looks at whether another voter is better placed.
    pub look: Duration,
    /// The better place must have a round trip to its quorum below this share of the leader's.
    pub share: f64,
    /// And shorter by at least this: below it nobody notices.
    pub gain: Duration,
    /// For so long without a break.
    pub patience: Duration,
    /// Shortest time between two moves.
    pub rest: Duration,
}

impl Default for PlacementRule {
    fn default() -> Self {
        Self {
            measure: Duration::from_secs(10),
            look: Duration::from_secs(60),
            share: 0.75,
            gain: Duration::from_millis(2),
            patience: Duration::from_secs(600),
            rest: Duration::from_secs(1_800),
        }
    }
}

/// The last measurements of one distance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(VecDeque<Option<Duration>>);

impl Samples {
    /// One more; `None` when there was no answer.
    pub(crate) fn push(&mut self, sample: Option<Duration>) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The shortest: what is beyond it is queues and busy machines, not distance.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        self.0.iter().flatten().min().copied()
    }
}

/// Distances by the voter that has measured them, and the voter they lead to.
pub(crate) type RoundTrips = BTreeMap<u64, BTreeMap<u64, Duration>>;

/// What a leader knows of the voters.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) leader: u64,
    pub(crate) voters: BTreeSet<u64>,
    /// Entries that a voter does not have yet.
    pub(crate) lags: BTreeMap<u64, u64>,
    /// Place of a voter's region among those that the operator prefers; less is better.
    pub(crate) ranks: BTreeMap<u64, usize>,
    pub(crate) round_trips: RoundTrips,
}

impl View {
    /// The round trip from a voter to the one that completes its quorum. `None` while too little is known.
    pub(crate) fn to_quorum(&self, voter: u64) -> Option<Duration> {
        let measured = |from: u64, to: u64| self.round_trips.get(&from).and_then(|row| row.get(&to)).copied();
        let others = self.voters.iter().filter(|other| **other != voter);
        let mut distances: Vec<Duration> = others.filter_map(|other| measured(voter, *other).or_else(|| measured(*other, voter))).collect();
        distances.sort_unstable();
        // A voter is part of its own quorum.
        match self.voters.len() / 2 {
            0 => Some(Duration::ZERO),
            needed => distances.get(needed - 1).copied(),
        }
    }

    /// Voters that may take the place of the leader: an operator's preference is worth more than milliseconds.
    fn eligible(&self) -> impl Iterator<Item = u64> {
        let rank = |voter: u64| self.ranks.get(&voter).copied().unwrap_or(usize::MAX);
        self.voters.iter().copied().filter(move |voter| *voter != self.leader && rank(*voter) <= rank(self.leader))
    }
}

/// What a leader remembers between two looks.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    rule: PlacementRule,
    /// The last move: the election of this leader, or its last try to hand over.
    moved: Option<Duration>,
    /// The better place, and since when it is one.
    better: Option<(u64, Duration)>,
}

impl Placement {
    pub(crate) fn new(rule: PlacementRule) -> Self {
        Self { rule, moved: None, better: None }
    }

    /// This node does not lead.
    pub(crate) fn follow(&mut self) {
        (self.moved, self.better) = (None, None);
    }

    /// Whom to hand leadership to now, if to anybody.
    pub(crate) fn look(&mut self, now: Duration, view: &View) -> Option<u64> {
        let moved = *self.moved.get_or_insert(now);
        let here = view.to_quorum(view.leader);
        let clearly_shorter =
            |there: Duration| here.is_some_and(|here| there < here.mul_f64(self.rule.share) && there + self.rule.gain <= here);
        let candidates = || view.eligible().filter_map(|voter| Some((view.to_quorum(voter)?, voter)));
        let better = || candidates().filter(|(there, _)| clearly_shorter(*there));
        // Of two that are about as good the one that was seen first stays, or neither would ever have been better for long.
        let kept = self.better.filter(|(voter, _)| better().any(|(_, other)| other == *voter));
        self.better = kept.or_else(|| better().min().map(|(_, voter)| (voter, now)));
        let (voter, since) = self.better?;
        let settled = now.saturating_sub(since) >= self.rule.patience && now.saturating_sub(moved) >= self.rule.rest;
        if !settled || view.lags.get(&voter) != Some(&0) {
            return None;
        }
        (self.moved, self.better) = (Some(now), None);
        Some(voter)
    }
}

/// A minute of measurements.
const SAMPLES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Voters 1, 2, … with these distances, in milliseconds; 0 was not measured. Everyone has all entries.
    fn view(leader: u64, rows: &[&[u64]]) -> View {
        let voters: BTreeSet<u64> = (1..=rows.len() as u64).collect();
        let row = |row: &&[u64]| {
            let known = row.iter().zip(1..).filter(|(distance, _)| **distance > 0);
            known.map(|(distance, to)| (to, millis(*distance))).collect()
        };
        View {
            leader,
            lags: voters.iter().map(|voter| (*voter, 0)).collect(),
            round_trips: rows.iter().zip(1..).map(|(distances, from)| (from, row(distances))).collect(),
            voters,
            ranks: BTreeMap::new(),
        }
    }

    /// Two in one region, one far away: the far one leads.
    fn far_leader() -> View {
        view(3, &[&[0, 4, 80], &[4, 0, 82], &[80, 82, 0]])
    }

    /// Looks once a minute until somebody is named, at most for so many minutes.
    fn minutes_until(placement: &mut Placement, from: u64, most: u64, view: &View) -> Option<(u64, u64)> {
        (from..=from + most).find_map(|minute| placement.look(MINUTE * minute as u32, view).map(|voter| (minute - from, voter)))
    }

    #[test]
    fn the_distance_to_a_quorum_is_that_to_the_voter_that_completes_it() {
        let five =
            view(1, &[&[0, 5, 20, 90, 200], &[5, 0, 15, 80, 190], &[20, 15, 0, 70, 180], &[90, 80, 70, 0, 100], &[200, 190, 180, 100, 0]]);
        let table = [(1, 20), (2, 15), (3, 20), (4, 80), (5, 180)];
        for (voter, expected) in table {
            assert_eq!(five.to_quorum(voter), Some(millis(expected)), "voter {voter}");
        }
        assert_eq!(view(1, &[&[0]]).to_quorum(1), Some(Duration::ZERO), "alone");
        assert_eq!(view(1, &[&[0, 7], &[0, 0]]).to_quorum(2), Some(millis(7)), "what the other has measured is as good");
        assert_eq!(view(1, &[&[0, 0, 0], &[0, 0, 0], &[0, 0, 0]]).to_quorum(1), None, "nothing is known");
    }

    #[test]
    fn a_better_place_is_taken_after_the_rest_and_only_when_it_is_clearly_better() {
        let rows = |rows: &[&[u64]]| view(3, rows);
        let ranked = |ranks: [usize; 3]| View { ranks: (1..).zip(ranks).collect(), ..far_leader() };
        let behind = View { lags: BTreeMap::from([(1, 1), (2, 0), (3, 0)]), ..far_leader() };
        let table = [
            ("far away", far_leader(), Some((30, 1))),
            ("a quarter nearer is not enough", rows(&[&[0, 61, 80], &[61, 0, 82], &[80, 82, 0]]), None),
            ("more than a quarter is", rows(&[&[0, 59, 80], &[59, 0, 82], &[80, 82, 0]]), Some((30, 1))),
            ("nobody notices a millisecond", rows(&[&[0, 1, 2], &[1, 0, 2], &[2, 2, 0]]), None),
            ("best already", view(1, &[&[0, 4, 80], &[4, 0, 82], &[80, 82, 0]]), None),
            ("not measured", rows(&[&[0, 0, 80], &[0, 0, 0], &[80, 82, 0]]), None),
            ("the better one lacks an entry", behind, None),
            ("the operator prefers where it is", ranked([1, 1, 0]), None),
            ("the operator prefers the second", ranked([2, 0, 1]), Some((30, 2))),
            ("a voter that is gone is no place", View { voters: [2, 3].into(), ..far_leader() }, None),
        ];
        for (what, view, expected) in table {
            let mut placement = Placement::new(PlacementRule::default());
            assert_eq!(minutes_until(&mut placement, 0, 120, &view), expected, "{what}");
        }
    }

    #[test]
    fn better_for_a_moment_is_not_enough() {
        let mut placement = Placement::new(PlacementRule::default());
        let equal = view(3, &[&[0, 80, 80], &[80, 0, 80], &[80, 80, 0]]);
        for minute in 0..200 {
            let look = if minute % 10 == 9 { &equal } else { &far_leader() };
            assert_eq!(placement.look(MINUTE * minute, look), None, "minute {minute}");
        }
        // Better again since minute 200: ten minutes without a break are up, and the rest is long over.
        assert_eq!(minutes_until(&mut placement, 200, 60, &far_leader()), Some((10, 1)));
    }

    #[test]
    fn of_two_that_are_as_good_the_first_stays_the_candidate() {
        let mut placement = Placement::new(PlacementRule::default());
        for minute in 0..30 {
            let (to_first, to_second) = if minute % 2 == 0 { (80, 81) } else { (81, 80) };
            let view = view(3, &[&[0, 4, to_first], &[4, 0, to_second], &[to_first, to_second, 0]]);
            assert_eq!(placement.look(MINUTE * minute, &view), None);
        }
        assert_eq!(placement.look(MINUTE * 30, &far_leader()), Some(1));
    }

    #[test]
    fn moves_are_at_least_the_rest_apart_also_when_one_has_failed() {
        let mut placement = Placement::new(PlacementRule::default());
        let first = minutes_until(&mut placement, 0, 60, &far_leader()).unwrap().0;
        let again = minutes_until(&mut placement, first + 1, 60, &far_leader()).unwrap();
        assert_eq!((first, again), (30, (29, 1)));
        placement.follow();
        assert_eq!(minutes_until(&mut placement, 100, 60, &far_leader()), Some((30, 1)), "a new term begins with a rest");
    }

    #[test]
    fn a_measurement_that_took_long_does_not_count_and_old_ones_are_forgotten() {
        let mut samples = Samples::default();
        assert_eq!(samples.shortest(), None);
        for millis in [40, 900, 41] {
            samples.push(Some(Duration::from_millis(millis)));
        }
        assert_eq!(samples.shortest(), Some(millis(40)));
        (0..SAMPLES).for_each(|_| samples.push(None));
        assert_eq!(samples.shortest(), None, "unreachable for a minute");
    }
}
