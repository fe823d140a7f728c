//! Weights and costs: the arithmetic every strategy shares.
//!
//! A weight says what share of the traffic an endpoint deserves: `price^-2 · success^4 · headroom · ramp`. A cost says how
//! long this request would take there: `(first token + output / speed) · (1 + load) / success`, in seconds.

use smallvec::SmallVec;

use crate::Settings;
use crate::explain::{Considered, Gate};
use crate::health::median;

/// Fills in the cost of every candidate, and a weight with this power of the price (0: price does not matter).
pub(crate) fn weigh(settings: &Settings, price_exponent: i32, output: u32, considered: &mut [Considered]) {
    let speeds = Speeds::of(settings, considered);
    let scale = PriceScale::of(considered);
    for one in considered {
        let success = trusted_success(one);
        one.weight = scale.relative(one.price).powi(-price_exponent)
            * success.powi(settings.success_exponent)
            * headroom(settings, one)
            * f64::from(one.ramp)
            * remote_share(settings, one);
        one.cost = cost(&speeds, output, success, one);
    }
}

/// Weight without price and success: what is left when speed decides, because the cost has success in it already.
pub(crate) fn weigh_by_capacity(settings: &Settings, output: u32, considered: &mut [Considered]) {
    let speeds = Speeds::of(settings, considered);
    for one in considered {
        one.weight = headroom(settings, one) * f64::from(one.ramp) * remote_share(settings, one);
        one.cost = cost(&speeds, output, trusted_success(one), one);
    }
}

/// Success as far as it is to be trusted: an open breaker is evidence that outlives the window it came from.
fn trusted_success(one: &Considered) -> f64 {
    let success = f64::from(one.success).clamp(LEAST_SUCCESS, 1.0);
    if one.gate.is_ejected() { success.min(EJECTED_SUCCESS) } else { success }
}

/// Free concurrency and free rate limit: 1 while there is enough of both, falling to almost nothing.
fn headroom(settings: &Settings, one: &Considered) -> f64 {
    let free = 1.0 - f64::from(one.in_flight) / f64::from(one.limit.max(1));
    let concurrency = free / settings.headroom_free_share;
    let rate = f64::from(one.remaining) / settings.headroom_rate_share;
    concurrency.min(rate).clamp(LEAST_HEADROOM, 1.0)
}

/// What others' verdict leaves of a weight.
fn remote_share(settings: &Settings, one: &Considered) -> f64 {
    if one.degraded { settings.degraded_weight } else { 1.0 }
}

fn cost(speeds: &Speeds, output: u32, success: f64, one: &Considered) -> f64 {
    let first_token = one.first_token.map_or(speeds.unknown_first_token, f64::from);
    let speed = one.speed.map_or(speeds.unknown_speed, f64::from).max(LEAST_SPEED);
    let load = f64::from(one.in_flight) / f64::from(one.limit.max(1));
    (first_token + f64::from(output) / speed) * (1.0 + load) / success
}

/// What is assumed of candidates that were never measured: the median of those that were, a little slower.
#[derive(Debug)]
struct Speeds {
    unknown_first_token: f64,
    unknown_speed: f64,
}

impl Speeds {
    fn of(settings: &Settings, considered: &[Considered]) -> Speeds {
        Speeds {
            unknown_first_token: median_of(considered.iter().map(|one| one.first_token))
                .map_or(settings.first_token_guess.as_secs_f64(), |known| known * settings.unknown_first_token_factor),
            unknown_speed: median_of(considered.iter().map(|one| one.speed)).unwrap_or(settings.speed_guess),
        }
    }
}

/// Median over those that are known.
pub(crate) fn median_of(values: impl Iterator<Item = Option<f32>>) -> Option<f64> {
    let mut known: SmallVec<[f64; 8]> = values.flatten().map(f64::from).collect();
    median(&mut known)
}

/// Prices relative to the cheapest candidate, so that weights stay near 1. A free endpoint counts as a thousandth of the
/// dearest: nearly all of the traffic, but a finite weight.
#[derive(Debug)]
struct PriceScale {
    floor: f64,
    cheapest: f64,
}

impl PriceScale {
    fn of(considered: &[Considered]) -> PriceScale {
        let prices = || considered.iter().filter(|one| one.gate != Gate::Tried).map(|one| one.price);
        let floor = (prices().fold(0.0, f64::max) * FREE_SHARE).max(LEAST_PRICE);
        let cheapest = prices().fold(f64::INFINITY, f64::min).max(floor);
        PriceScale { floor, cheapest: if cheapest.is_finite() { cheapest } else { floor } }
    }

    fn relative(&self, price: f64) -> f64 {
        price.max(self.floor) / self.cheapest
    }
}

const LEAST_SUCCESS: f64 = 0.01;
/// No breaker opens with fewer failures than half; see the breaker's ratio.
const EJECTED_SUCCESS: f64 = 0.5;
/// Nobody is left without any weight: what has none can never show that it is well again.
const LEAST_HEADROOM: f64 = 0.01;
/// Tokens per second; keeps a cost finite.
const LEAST_SPEED: f64 = 0.1;
const FREE_SHARE: f64 = 1e-3;
/// One pico-dollar.
const LEAST_PRICE: f64 = 1.0;

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EndpointIndex, ProviderIndex};

    pub(crate) fn candidate(endpoint: u32, price: f64) -> Considered {
        Considered {
            endpoint: EndpointIndex(endpoint),
            provider: ProviderIndex(endpoint),
            model: 0,
            gate: Gate::Open,
            rank: 0,
            price,
            success: 0.95,
            samples: 0.0,
            failures: 0.0,
            first_token: None,
            first_token_p95: None,
            speed: None,
            in_flight: 0,
            limit: 100,
            remaining: 1.0,
            ramp: 1.0,
            degraded: false,
            requests: 0,
            affinity: 0,
            weight: 0.0,
            cost: 0.0,
        }
    }

    fn weights(considered: &mut [Considered]) -> Vec<f64> {
        weigh(&Settings::default(), 2, 100, considered);
        considered.iter().map(|one| one.weight).collect()
    }

    #[test]
    fn a_third_of_the_price_is_nine_times_the_weight() {
        let all = weights(&mut [candidate(0, 1e6), candidate(1, 3e6)]);
        assert!((all[0] / all[1] - 9.0).abs() < 1e-9);
    }

    #[test]
    fn success_of_84_percent_halves_a_weight() {
        let all = weights(&mut [Considered { success: 1.0, ..candidate(0, 1.0) }, Considered { success: 0.84, ..candidate(1, 1.0) }]);
        assert!((all[1] / all[0] - 0.5).abs() < 0.01);
    }

    #[test]
    fn headroom_shrinks_below_a_fifth_of_concurrency_and_a_tenth_of_the_rate() {
        let settings = Settings::default();
        for (in_flight, remaining, expected) in
            [(0, 1.0, 1.0), (80, 1.0, 1.0), (90, 1.0, 0.5), (0, 0.05, 0.5), (90, 0.01, 0.1), (100, 1.0, 0.01)]
        {
            let one = Considered { in_flight, remaining, ..candidate(0, 1.0) };
            assert!((headroom(&settings, &one) - expected).abs() < 1e-6, "{in_flight} {remaining}");
        }
    }

    #[test]
    fn free_endpoints_get_nearly_everything_and_finite_weights() {
        let all = weights(&mut [candidate(0, 0.0), candidate(1, 1e9)]);
        assert!(all[0] / all[1] > 1e5 && all.iter().all(|one| one.is_finite()));
        let all = weights(&mut [candidate(0, 0.0), candidate(1, 0.0)]);
        assert_eq!(all[0], all[1]);
    }

    #[test]
    fn the_unmeasured_are_taken_for_slightly_slower_than_their_peers() {
        let mut all = [Considered { first_token: Some(1.0), speed: Some(50.0), ..candidate(0, 1.0) }, candidate(1, 1.0)];
        weigh(&Settings::default(), 2, 50, &mut all);
        assert!((all[0].cost - 2.0 / 0.95).abs() < 1e-5);
        assert!((all[1].cost - 2.2 / 0.95).abs() < 1e-5);
    }

    proptest! {
        #[test]
        fn weights_and_costs_are_positive_and_finite(
            price in 0.0_f64..1e15, success in 0.0_f32..1.0, in_flight in 0_u32..10_000, limit in 0_u32..5_000,
            remaining in 0.0_f32..1.0, ramp in 0.1_f32..1.0, output in 0_u32..200_000,
        ) {
            let mut all = [
                Considered { success, in_flight, limit, remaining, ramp, ..candidate(0, price) },
                candidate(1, 1e6),
            ];
            weigh(&Settings::default(), 2, output, &mut all);
            for one in all {
                prop_assert!(one.weight > 0.0 && one.weight.is_finite(), "{:?}", one);
                prop_assert!(one.cost >= 0.0 && one.cost.is_finite(), "{:?}", one);
            }
        }
    }
}
