//! Every constant of routing, each with its reason. A deployment may override them; tests rely on the defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The constants that decisions are made with. `Default` is what the design was simulated with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Power of the expected price in a weight. 2 is the market's documented behaviour: a third of the price, nine times
    /// the traffic.
    pub price_exponent: i32,
    /// Power of the price in [`Mode::Price`](crate::Mode::Price): 4, so that almost everything goes to the cheapest.
    pub steep_price_exponent: i32,
    /// Power of the success probability in a weight. 4 halves an endpoint at 84 % success.
    pub success_exponent: i32,
    /// Free concurrency below which a weight shrinks, as a share of the limit.
    pub headroom_free_share: f64,
    /// Remaining rate limit below which a weight shrinks, as a share of the limit.
    pub headroom_rate_share: f64,
    /// Share of traffic that goes to endpoints with too little recent data, so that recovery can be noticed.
    pub exploration_share: f64,
    /// Samples in the window below which an endpoint counts as unknown.
    pub exploration_samples: f64,
    /// Draw success probabilities instead of taking their mean (Thompson sampling): useful with more than eight endpoints per model,
    /// noisier otherwise.
    pub thompson: bool,
    /// How many times the best cost a sticky endpoint may have before the conversation moves.
    pub sticky_cost_ratio: f64,
    /// Share of a model's candidates that health may eject; above it ejections are ignored.
    pub ejection_share: f64,
    /// Output tokens assumed when throughput is what counts.
    pub throughput_output_tokens: u32,

    /// Prior success probability.
    pub success_prior: f64,
    /// Samples the prior is worth.
    pub success_prior_samples: f64,
    /// Local samples that remote evidence of full confidence is worth.
    pub remote_samples: f64,
    /// Time constant with which remote evidence fades.
    pub remote_fade: Duration,
    /// Share of its weight that an endpoint keeps which others call degraded.
    pub degraded_weight: f64,
    /// Share of failures in the window above which an endpoint had an outage ([`Mode::Simple`](crate::Mode::Simple)):
    /// below 95 % is the public boundary of "degraded".
    pub outage_ratio: f64,

    /// Hard failures in a row that open a breaker. Envoy uses 5, Linkerd 7.
    pub breaker_consecutive: u32,
    /// The same when others report the endpoint as degraded.
    pub breaker_consecutive_degraded: u32,
    /// Samples in the window before the failure ratio may open a breaker.
    pub breaker_ratio_samples: f64,
    /// Failure ratio that opens a breaker.
    pub breaker_ratio: f64,
    /// Samples in the window before an endpoint is compared with its peers.
    pub breaker_peer_samples: f64,
    /// How many times the peers' median failure ratio opens a breaker …
    pub breaker_peer_factor: f64,
    /// … plus this margin.
    pub breaker_peer_margin: f64,
    /// First open time; doubles with every opening that follows soon.
    pub breaker_open: Duration,
    /// Longest open time.
    pub breaker_open_cap: Duration,
    /// Relative spread of every block and open time, so that edges do not come back together.
    pub jitter: f64,
    /// Healthy time after which one doubling is forgotten.
    pub breaker_forget: Duration,
    /// Successful probes in a row that close a breaker.
    pub breaker_close_successes: u32,
    /// Probability that a request which could probe a half-open endpoint does; 1 / (edges in the region).
    pub probe_probability: f64,
    /// Length of the ramp after a breaker closed or an endpoint appeared.
    pub ramp: Duration,
    /// Where the ramp starts. Envoy's slow start has the same floor.
    pub ramp_floor: f64,

    /// Weight of new evidence per second when a time to first token is above the estimate.
    pub first_token_rise: Duration,
    /// Least time a rise is credited with, so that a burst of slow answers still moves the estimate.
    pub first_token_rise_least: Duration,
    /// Time constant with which an estimate falls.
    pub first_token_fall: Duration,
    /// A sample counts at most this many times the current 95th percentile: first-token times are heavy-tailed.
    pub first_token_clip: f64,
    /// What a failure counts as at least, instead of its real and short latency: else a fast failure attracts traffic.
    pub failure_penalty: Duration,
    /// Longest `Retry-After` that counts as latency.
    pub failure_penalty_cap: Duration,
    /// Time constant of the output speed.
    pub speed_fade: Duration,
    /// Assumed time to first token when nothing is known of any candidate.
    pub first_token_guess: Duration,
    /// Assumed output speed when nothing is known of any candidate, tokens per second.
    pub speed_guess: f64,
    /// How much slower than the peers' median an endpoint without data is taken to be.
    pub unknown_first_token_factor: f64,

    /// Concurrency limit before anything was learned. High: ignorance must not refuse.
    pub limit_initial: f64,
    /// Lowest learned concurrency limit.
    pub limit_least: f64,
    /// Highest learned concurrency limit.
    pub limit_most: f64,
    /// Rise of the time to first token that is tolerated before the limit shrinks.
    pub limit_tolerance: f64,
    /// Share of the new value in each step.
    pub limit_smoothing: f64,
    /// Time between two steps of the limit.
    pub limit_step: Duration,
    /// Samples a step needs.
    pub limit_samples: u32,
    /// What is left of the limit after 429, 503 or 529; at most once per step.
    pub limit_backoff: f64,
    /// Time constant of the long-run time to first token.
    pub limit_long: Duration,
    /// Time constant of the current time to first token.
    pub limit_short: Duration,

    /// First block after a 429 without `Retry-After`; doubles while 429s go on.
    pub rate_limit_block: Duration,
    /// Longest such block.
    pub rate_limit_block_cap: Duration,
    /// Longest `Retry-After` that is believed.
    pub retry_after_cap: Duration,
    /// Block of a credential that ran out of credit.
    pub credit_block: Duration,
    /// Block of a credential the provider does not accept.
    pub unauthorized_block: Duration,

    /// Share of 429s among five seconds' answers above which the learned tokens per minute of an account fall.
    pub cap_burst_share: f64,
    /// What is left of them then.
    pub cap_backoff: f64,
    /// How much they grow with every quiet step.
    pub cap_growth: f64,
    /// Length of a quiet step.
    pub cap_step: Duration,

    /// Retries earned per request.
    pub retry_share: f64,
    /// Retries per second that are free.
    pub retry_reserve: f64,
    /// Attempts per request, unless the intent says otherwise.
    pub max_attempts: u8,

    /// Least wait before a request is sent a second time elsewhere, for callers who opted in.
    pub hedge_least: Duration,
    /// Most such hedges, as a share of the requests that may have one.
    pub hedge_share: f64,
    /// Longest prompt that is hedged, tokens: both attempts are billed.
    pub hedge_prompt_most: u32,

    /// Least wait for a first token.
    pub first_token_timeout_least: Duration,
    /// Longest wait for a first token while there is somewhere else to go.
    pub first_token_timeout_most: Duration,
    /// How many times the 95th percentile is waited for.
    pub first_token_timeout_factor: f64,
    /// Longest silence between two chunks.
    pub idle_timeout: Duration,

    /// Requests below which an uptime is not stated.
    pub uptime_min_requests: u32,
    /// Requests in 30 minutes below which an endpoint's quality is unknown ([`Mode::Exacto`](crate::Mode::Exacto)).
    pub exacto_requests: u32,
    /// Endpoints a model needs before its quality is compared.
    pub exacto_endpoints: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            price_exponent: 2,
            steep_price_exponent: 4,
            success_exponent: 4,
            headroom_free_share: 0.2,
            headroom_rate_share: 0.1,
            exploration_share: 0.01,
            exploration_samples: 20.0,
            thompson: false,
            sticky_cost_ratio: 2.0,
            ejection_share: 0.5,
            throughput_output_tokens: 2_000,

            success_prior: 0.95,
            success_prior_samples: 10.0,
            remote_samples: 10.0,
            remote_fade: Duration::from_secs(5),
            degraded_weight: 0.25,
            outage_ratio: 0.05,

            breaker_consecutive: 5,
            breaker_consecutive_degraded: 2,
            breaker_ratio_samples: 20.0,
            breaker_ratio: 0.5,
            breaker_peer_samples: 50.0,
            breaker_peer_factor: 3.0,
            breaker_peer_margin: 0.1,
            breaker_open: Duration::from_secs(10),
            breaker_open_cap: Duration::from_secs(300),
            jitter: 0.2,
            breaker_forget: Duration::from_secs(60),
            breaker_close_successes: 3,
            probe_probability: 1.0,
            ramp: Duration::from_secs(30),
            ramp_floor: 0.1,

            first_token_rise: Duration::from_secs(1),
            first_token_rise_least: Duration::from_millis(250),
            first_token_fall: Duration::from_secs(10),
            first_token_clip: 4.0,
            failure_penalty: Duration::from_secs(5),
            failure_penalty_cap: Duration::from_secs(300),
            speed_fade: Duration::from_secs(30),
            first_token_guess: Duration::from_secs(1),
            speed_guess: 50.0,
            unknown_first_token_factor: 1.2,

            limit_initial: 512.0,
            limit_least: 4.0,
            limit_most: 4_096.0,
            limit_tolerance: 1.5,
            limit_smoothing: 0.2,
            limit_step: Duration::from_secs(1),
            limit_samples: 10,
            limit_backoff: 0.8,
            limit_long: Duration::from_secs(60),
            limit_short: Duration::from_secs(1),

            rate_limit_block: Duration::from_secs(1),
            rate_limit_block_cap: Duration::from_secs(60),
            retry_after_cap: Duration::from_secs(300),
            credit_block: Duration::from_secs(300),
            unauthorized_block: Duration::from_secs(600),

            cap_burst_share: 0.05,
            cap_backoff: 0.8,
            cap_growth: 0.02,
            cap_step: Duration::from_secs(10),

            retry_share: 0.2,
            retry_reserve: 3.0,
            max_attempts: 3,

            hedge_least: Duration::from_millis(1_500),
            hedge_share: 0.02,
            hedge_prompt_most: 8_192,

            first_token_timeout_least: Duration::from_secs(5),
            first_token_timeout_most: Duration::from_secs(120),
            first_token_timeout_factor: 4.0,
            idle_timeout: Duration::from_secs(60),

            uptime_min_requests: 100,
            exacto_requests: 100,
            exacto_endpoints: 4,
        }
    }
}

impl Settings {
    /// Names of the settings whose value cannot work, with the reason.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let checks = [
            ("price_exponent", (0..=8).contains(&self.price_exponent), "must be 0 to 8"),
            ("steep_price_exponent", (0..=8).contains(&self.steep_price_exponent), "must be 0 to 8"),
            ("success_exponent", (0..=8).contains(&self.success_exponent), "must be 0 to 8"),
            ("headroom_free_share", positive(self.headroom_free_share), "must be above 0"),
            ("headroom_rate_share", positive(self.headroom_rate_share), "must be above 0"),
            ("exploration_share", share(self.exploration_share), "must be 0 to 1"),
            ("sticky_cost_ratio", self.sticky_cost_ratio >= 1.0, "must be at least 1"),
            ("ejection_share", share(self.ejection_share), "must be 0 to 1"),
            ("success_prior", share(self.success_prior), "must be 0 to 1"),
            ("success_prior_samples", positive(self.success_prior_samples), "must be above 0"),
            ("breaker_consecutive", self.breaker_consecutive > 0, "must be at least 1"),
            ("breaker_consecutive_degraded", self.breaker_consecutive_degraded > 0, "must be at least 1"),
            ("breaker_ratio", share(self.breaker_ratio), "must be 0 to 1"),
            ("breaker_close_successes", self.breaker_close_successes > 0, "must be at least 1"),
            ("breaker_open", !self.breaker_open.is_zero(), "must be above 0"),
            ("jitter", (0.0..1.0).contains(&self.jitter), "must be 0 to below 1"),
            ("probe_probability", share(self.probe_probability), "must be 0 to 1"),
            ("ramp_floor", share(self.ramp_floor) && self.ramp_floor > 0.0, "must be above 0 and at most 1"),
            ("first_token_rise", !self.first_token_rise.is_zero(), "must be above 0"),
            ("first_token_fall", !self.first_token_fall.is_zero(), "must be above 0"),
            ("first_token_clip", self.first_token_clip >= 1.0, "must be at least 1"),
            ("speed_fade", !self.speed_fade.is_zero(), "must be above 0"),
            ("speed_guess", positive(self.speed_guess), "must be above 0"),
            ("limit_least", self.limit_least >= 1.0, "must be at least 1"),
            ("limit_initial", self.limit_initial >= self.limit_least, "must be at least limit_least"),
            ("limit_most", self.limit_most >= self.limit_initial, "must be at least limit_initial"),
            ("limit_smoothing", share(self.limit_smoothing), "must be 0 to 1"),
            ("limit_backoff", share(self.limit_backoff) && self.limit_backoff > 0.0, "must be above 0 and at most 1"),
            ("limit_long", !self.limit_long.is_zero(), "must be above 0"),
            ("limit_short", !self.limit_short.is_zero(), "must be above 0"),
            ("cap_burst_share", share(self.cap_burst_share), "must be 0 to 1"),
            ("cap_backoff", share(self.cap_backoff) && self.cap_backoff > 0.0, "must be above 0 and at most 1"),
            ("cap_growth", share(self.cap_growth), "must be 0 to 1"),
            ("cap_step", !self.cap_step.is_zero(), "must be above 0"),
            ("hedge_share", share(self.hedge_share), "must be 0 to 1"),
            ("retry_share", share(self.retry_share), "must be 0 to 1"),
            ("retry_reserve", self.retry_reserve >= 0.0, "must not be negative"),
            ("max_attempts", self.max_attempts > 0, "must be at least 1"),
            (
                "first_token_timeout_most",
                self.first_token_timeout_most >= self.first_token_timeout_least,
                "must be at least first_token_timeout_least",
            ),
            ("idle_timeout", !self.idle_timeout.is_zero(), "must be above 0"),
        ];
        checks.into_iter().filter(|(_, holds, _)| !holds).map(|(name, _, reason)| (name, reason)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_problems_are_named_together() {
        assert_eq!(Settings::default().problems(), []);
        let broken = Settings { max_attempts: 0, jitter: 1.0, ..Settings::default() };
        let names: Vec<_> = broken.problems().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["jitter", "max_attempts"]);
    }
}
