//! Which control node to try next. Pure.

use std::time::Duration;

use tidegate_runtime::backoff::BackoffBounds;

use crate::config::ControlEndpoint;

/// Where to connect, in which order, and how long to wait in between.
#[derive(Debug)]
pub(super) struct Places {
    endpoints: Vec<ControlEndpoint>,
    region: String,
    random: fastrand::Rng,
    /// What is left of this round, best last.
    round: Vec<ControlEndpoint>,
    /// Rounds, or single tries where there is one node, that failed in a row.
    failures: u32,
}

impl Places {
    pub(super) fn new(endpoints: Vec<ControlEndpoint>, region: &str, seed: u64) -> Self {
        Self { endpoints, region: region.to_owned(), random: fastrand::Rng::with_seed(seed), round: Vec::new(), failures: 0 }
    }

    /// The next node: those of the own region and of no named region in random order, then all others in random order.
    pub(super) fn next(&mut self) -> Option<ControlEndpoint> {
        if self.round.is_empty() {
            let near = |endpoint: &ControlEndpoint| endpoint.region.as_ref().is_none_or(|region| *region == self.region);
            let (mut near, mut far): (Vec<_>, Vec<_>) = self.endpoints.iter().cloned().partition(near);
            self.random.shuffle(&mut near);
            self.random.shuffle(&mut far);
            far.extend(near);
            self.round = far;
        }
        self.round.pop()
    }

    /// A node said where to go instead. Only nodes that are configured are gone to.
    pub(super) fn hinted(&mut self, hints: &[String]) {
        for hint in hints.iter().rev() {
            if let Some(endpoint) = self.endpoints.iter().find(|endpoint| endpoint.address == *hint) {
                self.round.push(endpoint.clone());
            }
        }
    }

    /// The last one did not serve. The wait before the next: short within a round, growing from round to round.
    pub(super) fn failed(&mut self) -> Duration {
        if self.round.is_empty() {
            self.failures = self.failures.saturating_add(1);
        }
        BACKOFF.full_jitter(self.failures, &mut self.random)
    }

    /// The last one serves, or did: start with the best again when it is lost.
    pub(super) fn served(&mut self) {
        self.failures = 0;
        self.round.clear();
    }
}

/// `control-plane.md`, 2.5.
const BACKOFF: BackoffBounds = BackoffBounds { base: Duration::from_millis(200), cap: Duration::from_secs(10) };

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, region: Option<&str>) -> ControlEndpoint {
        ControlEndpoint { address: address.to_owned(), region: region.map(str::to_owned) }
    }

    #[test]
    fn nodes_of_the_own_region_come_first_and_all_come_in_each_round() {
        let endpoints =
            vec![endpoint("far", Some("us")), endpoint("near-1", Some("eu")), endpoint("near-2", Some("eu")), endpoint("any", None)];
        let mut firsts = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut places = Places::new(endpoints.clone(), "eu", seed);
            let round: Vec<String> = (0..4).filter_map(|_| places.next()).map(|endpoint| endpoint.address).collect();
            assert_eq!(round[3], "far");
            firsts.insert(round[0].clone());
        }
        assert_eq!(firsts.len(), 3, "edges spread over the near ones: {firsts:?}");
    }

    #[test]
    fn waits_grow_from_round_to_round_and_end_with_a_success() {
        let mut places = Places::new(vec![endpoint("a", None)], "eu", 1);
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            places.next();
            longest = longest.max(places.failed());
        }
        assert!(longest > Duration::from_secs(5) && longest <= Duration::from_secs(10), "{longest:?}");
        places.served();
        places.next();
        assert!(places.failed() <= Duration::from_millis(400));
    }

    #[test]
    fn a_hint_is_followed_when_it_is_configured() {
        let mut places = Places::new(vec![endpoint("a", Some("eu")), endpoint("b", Some("us"))], "eu", 1);
        places.hinted(&["elsewhere".to_owned(), "b".to_owned()]);
        assert_eq!(places.next().map(|endpoint| endpoint.address).as_deref(), Some("b"));
    }
}
