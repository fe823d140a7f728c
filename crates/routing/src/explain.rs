//! Why a request went where it went: recorded while deciding, read afterwards.
//!
//! Recording is part of the hot path, so a record holds indices and numbers and no text; names come from the snapshot when
//! somebody reads it. A record holds every input of every choice, so [`Decision::replay`] can make the choices again and
//! prove that nothing else had a say.

mod named;
mod render;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::filter::Excluded;
use crate::health::{BlockReason, BreakerState};
use crate::plan::Reason;
use crate::plan::decide::{Scene, decide};
use crate::strategy::Strategy;
use crate::{AttemptEnd, CredentialIndex, EndpointIndex, ModelIndex, ProviderIndex, Settings, Snapshot, Timestamp};

/// The record of one plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Revision of the snapshot it was made over.
    pub revision: u64,
    /// Source of its draws.
    pub seed: u64,
    /// Models in the order of the intent.
    pub models: SmallVec<[ModelIndex; 2]>,
    /// How it chose.
    pub strategy: Strategy,
    /// Where the conversation was before, if that counted.
    pub sticky: Option<EndpointIndex>,
    /// Output tokens the costs are for.
    pub expected_output: u32,
    /// Endpoints that could not serve the request at all.
    pub excluded: SmallVec<[Excluded; 4]>,
    /// One entry per choice, the last of which may have found nothing.
    pub attempts: SmallVec<[Choice; 2]>,
    /// What was weighed, choice after choice; see [`Choice::considered`].
    pub considered: Vec<Considered>,
    /// Why there was no further attempt, if one was asked for.
    pub stopped: Option<Reason>,
}

/// One choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// 1 for the first.
    pub number: u8,
    /// When.
    pub at: Timestamp,
    /// Where its entries in [`Decision::considered`] begin.
    pub first: u16,
    /// How many there are.
    pub count: u16,
    /// The endpoint that had to be kept because only its credential had failed.
    pub same_endpoint: Option<EndpointIndex>,
    /// Whether a half-open endpoint could be probed: its failure could still have been retried.
    pub may_probe: bool,
    /// Whether ejections were ignored because too much was ejected.
    pub panicked: bool,
    /// Whether the attempt before was still waited for.
    #[serde(default)]
    pub hedge: bool,
    /// What was chosen and how; nothing if the plan was exhausted.
    pub chosen: Option<Chosen>,
    /// How the attempt ended, once it did.
    pub end: Option<AttemptEnd>,
}

/// What a choice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Where to.
    pub endpoint: EndpointIndex,
    /// With which account.
    pub credential: CredentialIndex,
    /// By which rule.
    pub pick: Pick,
    /// Whether it was a probe of a half-open endpoint.
    pub probe: bool,
}

/// The rule a choice was made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The strategy.
    Strategy,
    /// The conversation's endpoint.
    Sticky,
    /// Another credential of the same endpoint.
    OtherCredential,
    /// A half-open endpoint that had to prove itself.
    Probe,
    /// A share of traffic for endpoints with too little recent data.
    Exploration,
}

/// One candidate as a choice saw it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Considered {
    /// Which.
    pub endpoint: EndpointIndex,
    /// Its provider.
    pub provider: ProviderIndex,
    /// Position of its model in [`Decision::models`].
    pub model: u8,
    /// Whether it could be chosen.
    pub gate: Gate,
    /// Lower ranks go first: order lists, model order, tiers, missed performance bounds.
    pub rank: u32,
    /// Expected price of the request, pico-dollars.
    pub price: f64,
    /// Success probability.
    pub success: f32,
    /// Samples in the window.
    pub samples: f32,
    /// Failures in the window.
    pub failures: f32,
    /// Expected time to first token, seconds; absent if never measured.
    pub first_token: Option<f32>,
    /// Its 95th percentile, seconds, once there is enough data.
    pub first_token_p95: Option<f32>,
    /// Output tokens per second; absent if never measured.
    pub speed: Option<f32>,
    /// Requests on their way.
    pub in_flight: u32,
    /// Most requests at once.
    pub limit: u32,
    /// Share of the rate limit that is left.
    pub remaining: f32,
    /// Share of its weight it gets while it comes back.
    pub ramp: f32,
    /// Whether others say it is degraded: it weighs a quarter then.
    #[serde(default)]
    pub degraded: bool,
    /// Attempts in half an hour, where quality is compared.
    pub requests: u32,
    /// Hash of conversation and endpoint, where conversations are spread by it.
    pub affinity: u64,
    /// What the strategy made of it: share of traffic relative to the others.
    pub weight: f64,
    /// What the strategy made of it: expected seconds until the answer is complete, corrected for load and failures.
    pub cost: f64,
}

/// Whether a candidate can be chosen, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// It can.
    Open,
    /// It can, as the one probe of a half-open endpoint.
    HalfOpen,
    /// This plan tried it already.
    Tried,
    /// This plan learned that its model cannot serve the request.
    ModelClosed,
    /// The caller wants no other than the first choice.
    NoFallback,
    /// Every credential is blocked.
    Blocked {
        /// When the first comes back.
        until: Timestamp,
        /// Why that one is blocked.
        reason: BlockReason,
    },
    /// Every credential has been tried by this plan.
    CredentialsTried,
    /// The breaker is open.
    BreakerOpen {
        /// When the first probe may go.
        until: Timestamp,
    },
    /// The breaker is half-open and someone else is probing.
    Probing,
    /// A server error asked to be left alone.
    BackingOff {
        /// Until when.
        until: Timestamp,
    },
    /// The region's quorum took it out.
    RemoteEjected,
    /// The configured concurrency is used up.
    Full,
    /// The learned concurrency is used up.
    Crowded,
    /// The deadline comes before even a fast first token.
    Late,
}

impl Gate {
    /// Whether health closed it, which a panic may overrule.
    pub(crate) fn is_ejected(self) -> bool {
        match self {
            Gate::BreakerOpen { .. } | Gate::Probing | Gate::BackingOff { .. } | Gate::RemoteEjected => true,
            Gate::Open
            | Gate::HalfOpen
            | Gate::Tried
            | Gate::ModelClosed
            | Gate::NoFallback
            | Gate::Blocked { .. }
            | Gate::CredentialsTried
            | Gate::Full
            | Gate::Crowded
            | Gate::Late => false,
        }
    }

    pub(crate) fn of_breaker(state: BreakerState, probing: bool) -> Option<Gate> {
        match state {
            BreakerState::Closed => None,
            BreakerState::Open { until } => Some(Gate::BreakerOpen { until }),
            BreakerState::HalfOpen if probing => Some(Gate::Probing),
            BreakerState::HalfOpen => Some(Gate::HalfOpen),
        }
    }
}

impl Choice {
    /// What it weighed.
    pub fn considered<'a>(&self, decision: &'a Decision) -> &'a [Considered] {
        let first = usize::from(self.first);
        decision.considered.get(first..first + usize::from(self.count)).unwrap_or_default()
    }
}

impl Decision {
    /// Makes every choice again from what was recorded: the endpoint of each choice, in order. Equal to what was chosen
    /// unless the record, the settings or the code differ. The record holds what health said, and candidates bring their providers, so
    /// that of the snapshot only the settings are needed.
    pub fn replay(&self, settings: &Settings) -> SmallVec<[Option<EndpointIndex>; 4]> {
        let mut used = SmallVec::<[ProviderIndex; 4]>::new();
        let mut choices = SmallVec::new();
        for choice in &self.attempts {
            let mut considered: Vec<Considered> = choice.considered(self).into();
            let scene = Scene {
                settings,
                strategy: self.strategy,
                seed: self.seed,
                number: choice.number,
                sticky: self.sticky,
                same_endpoint: choice.same_endpoint,
                may_probe: choice.may_probe,
                expected_output: self.expected_output,
                used_providers: &used,
            };
            let ruling = decide(&scene, &mut considered);
            let chosen = ruling.pick.map(|(at, _)| considered[at].endpoint);
            let left = choice.end.is_some_and(|end| end.retry_elsewhere());
            if left
                && let Some(recorded) = choice.chosen
                && let Some(one) = considered.iter().find(|one| one.endpoint == recorded.endpoint)
            {
                used.push(one.provider);
            }
            choices.push(chosen);
        }
        choices
    }

    /// Whether the replay comes to the recorded choices.
    pub fn is_reproducible(&self, snapshot: &Snapshot) -> bool {
        let recorded = self.attempts.iter().map(|choice| choice.chosen.map(|chosen| chosen.endpoint));
        recorded.eq(self.replay(snapshot.settings()))
    }

    /// The record as JSON with names instead of indices, for other programs.
    pub fn named(&self, snapshot: &Snapshot) -> serde_json::Value {
        named::named(self, snapshot)
    }

    /// Text for people: what was excluded and why, what each choice weighed, and how it went.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        render::render(self, snapshot)
    }
}
