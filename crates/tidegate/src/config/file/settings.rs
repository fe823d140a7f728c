//! Constants of health, breakers and weights.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_routing::Settings;

use crate::config::scalar::Span;

/// Declares the section once: documentation, default (routing's own) and both conversions.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $read:expr, $write:expr;)*) => {
        /// Constants of health, breakers and weights.
        #[derive(Debug, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Routing {
            $($(#[$doc])* pub(crate) $name: $kind,)*
        }

        impl From<Settings> for Routing {
            fn from(settings: Settings) -> Routing {
                Routing { $($name: $read(settings.$name),)* }
            }
        }

        impl From<&Routing> for Settings {
            fn from(routing: &Routing) -> Settings {
                Settings { $($name: $write(routing.$name),)* }
            }
        }
    };
}

settings! {
    /// Power of the expected price in a weight. 2 is the market's documented behaviour: a third of the price, nine
    /// times the traffic.
    price_exponent: i32 = same, same;
    /// Power of the price in mode `price`: 4, so that almost everything goes to the cheapest.
    steep_price_exponent: i32 = same, same;
    /// Power of the success probability in a weight. 4 halves an endpoint at 84 % success.
    success_exponent: i32 = same, same;
    /// Free concurrency below which a weight shrinks, as a share of the limit.
    headroom_free_share: f64 = same, same;
    /// Remaining rate limit below which a weight shrinks, as a share of the limit.
    headroom_rate_share: f64 = same, same;
    /// Share of traffic that goes to endpoints with too little recent data, so that recovery can be noticed.
    exploration_share: f64 = same, same;
    /// Samples in the window below which an endpoint counts as unknown.
    exploration_samples: f64 = same, same;
    /// Draw success probabilities instead of taking their mean (Thompson sampling): useful with more than eight endpoints per model,
    /// noisier otherwise.
    thompson: bool = same, same;
    /// How many times the best cost a sticky endpoint may have before the conversation moves.
    sticky_cost_ratio: f64 = same, same;
    /// Share of a model's candidates that health may eject; above it ejections are ignored.
    ejection_share: f64 = same, same;
    /// Output tokens assumed when throughput is what counts.
    throughput_output_tokens: u32 = same, same;
    /// Prior success probability.
    success_prior: f64 = same, same;
    /// Samples the prior is worth.
    success_prior_samples: f64 = same, same;
    /// Local samples that remote evidence of full confidence is worth.
    remote_samples: f64 = same, same;
    /// Time constant with which remote evidence fades.
    remote_fade: Span = Span, time;
    /// Share of failures in the window above which an endpoint had an outage (mode `simple`): below 95 % is the public
    /// boundary of "degraded".
    outage_ratio: f64 = same, same;
    /// Hard failures in a row that open a breaker. Envoy uses 5, Linkerd 7.
    breaker_consecutive: u32 = same, same;
    /// The same when others report the endpoint as degraded.
    breaker_consecutive_degraded: u32 = same, same;
    /// Samples in the window before the failure ratio may open a breaker.
    breaker_ratio_samples: f64 = same, same;
    /// Failure ratio that opens a breaker.
    breaker_ratio: f64 = same, same;
    /// Samples in the window before an endpoint is compared with its peers.
    breaker_peer_samples: f64 = same, same;
    /// How many times the peers' median failure ratio, plus `breaker_peer_margin`, opens a breaker.
    breaker_peer_factor: f64 = same, same;
    /// Margin above that bound.
    breaker_peer_margin: f64 = same, same;
    /// First open time; doubles with every opening that follows soon.
    breaker_open: Span = Span, time;
    /// Longest open time.
    breaker_open_cap: Span = Span, time;
    /// Relative spread of every block and open time, so that edges do not come back together.
    jitter: f64 = same, same;
    /// Healthy time after which one doubling is forgotten.
    breaker_forget: Span = Span, time;
    /// Successful probes in a row that close a breaker.
    breaker_close_successes: u32 = same, same;
    /// Probability that a request which could probe a half-open endpoint does; 1 / (edges in the region).
    probe_probability: f64 = same, same;
    /// Length of the ramp after a breaker closed or an endpoint appeared.
    ramp: Span = Span, time;
    /// Where the ramp starts. Envoy's slow start has the same floor.
    ramp_floor: f64 = same, same;
    /// Weight of new evidence per second when a time to first token is above the estimate.
    first_token_rise: Span = Span, time;
    /// Least time a rise is credited with, so that a burst of slow answers still moves the estimate.
    first_token_rise_least: Span = Span, time;
    /// Time constant with which an estimate falls.
    first_token_fall: Span = Span, time;
    /// A sample counts at most this many times the current 95th percentile: first-token times are heavy-tailed.
    first_token_clip: f64 = same, same;
    /// What a failure counts as at least, instead of its real and short latency: else a fast failure attracts traffic.
    failure_penalty: Span = Span, time;
    /// Longest `Retry-After` that counts as latency.
    failure_penalty_cap: Span = Span, time;
    /// Time constant of the output speed.
    speed_fade: Span = Span, time;
    /// Assumed time to first token when nothing is known of any candidate.
    first_token_guess: Span = Span, time;
    /// Assumed output speed when nothing is known of any candidate, tokens per second.
    speed_guess: f64 = same, same;
    /// How much slower than the peers' median an endpoint without data is taken to be.
    unknown_first_token_factor: f64 = same, same;
    /// Concurrency limit before anything was learned. High: ignorance must not refuse.
    limit_initial: f64 = same, same;
    /// Lowest learned concurrency limit.
    limit_least: f64 = same, same;
    /// Highest learned concurrency limit.
    limit_most: f64 = same, same;
    /// Rise of the time to first token that is tolerated before the limit shrinks.
    limit_tolerance: f64 = same, same;
    /// Share of the new value in each step.
    limit_smoothing: f64 = same, same;
    /// Time between two steps of the limit.
    limit_step: Span = Span, time;
    /// Samples a step needs.
    limit_samples: u32 = same, same;
    /// What is left of the limit after 429, 503 or 529; at most once per step.
    limit_backoff: f64 = same, same;
    /// Time constant of the long-run time to first token.
    limit_long: Span = Span, time;
    /// Time constant of the current time to first token.
    limit_short: Span = Span, time;
    /// First block after a 429 without `Retry-After`; doubles while 429s go on.
    rate_limit_block: Span = Span, time;
    /// Longest such block.
    rate_limit_block_cap: Span = Span, time;
    /// Longest `Retry-After` that is believed.
    retry_after_cap: Span = Span, time;
    /// Block of a credential that ran out of credit.
    credit_block: Span = Span, time;
    /// Block of a credential the provider does not accept.
    unauthorized_block: Span = Span, time;
    /// Share of 429s among five seconds' answers above which the learned tokens per minute of an account fall.
    cap_burst_share: f64 = same, same;
    /// What is left of them then.
    cap_backoff: f64 = same, same;
    /// How much they grow with every quiet step.
    cap_growth: f64 = same, same;
    /// Length of a quiet step.
    cap_step: Span = Span, time;
    /// Retries earned per request.
    retry_share: f64 = same, same;
    /// Retries per second that are free.
    retry_reserve: f64 = same, same;
    /// Attempts per request, unless the intent says otherwise.
    max_attempts: u8 = same, same;
    /// Least wait before a request is sent a second time elsewhere, for keys with `hedge`.
    hedge_least: Span = Span, time;
    /// Most such hedges, as a share of the requests that may have one.
    hedge_share: f64 = same, same;
    /// Longest prompt that is hedged, tokens: both attempts are billed.
    hedge_prompt_most: u32 = same, same;
    /// Least wait for a first token.
    first_token_timeout_least: Span = Span, time;
    /// Longest wait for a first token while there is somewhere else to go.
    first_token_timeout_most: Span = Span, time;
    /// How many times the 95th percentile is waited for.
    first_token_timeout_factor: f64 = same, same;
    /// Longest silence between two chunks.
    idle_timeout: Span = Span, time;
    /// Requests below which an uptime is not stated.
    uptime_min_requests: u32 = same, same;
    /// Requests in 30 minutes below which an endpoint's quality is unknown (mode `exacto`).
    exacto_requests: u32 = same, same;
    /// Share of its weight that an endpoint keeps while others report it as degraded.
    degraded_weight: f64 = same, same;
    /// Endpoints a model needs before its quality is compared.
    exacto_endpoints: usize = same, same;
}

impl Default for Routing {
    fn default() -> Routing {
        Settings::default().into()
    }
}

fn same<T>(value: T) -> T {
    value
}

fn time(span: Span) -> Duration {
    span.0
}
