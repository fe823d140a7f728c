//! The endpoints a plan may use, what goes before what among them, and how the intent says to choose.

use crate::explain::Gate;
use crate::preferences::{Partition, SortBy};
use crate::strategy::Strategy;
use crate::{Endpoint, EndpointIndex, Intent, Mode, Snapshot, Tier, TierChoice};

/// An endpoint that can serve the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) endpoint: EndpointIndex,
    /// Position of its model in the intent.
    pub(super) model: u8,
    pub(super) rank: Rank,
    pub(super) price: f64,
    pub(super) state: CandidateState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateState {
    Untried,
    Tried,
    /// Its model cannot serve the request, or must leave the remaining attempts to the next model.
    ModelClosed,
    /// Another endpoint was the first choice, and the caller wants no other.
    NotAllowed,
}

/// What goes before what, besides the strategy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    model: u8,
    /// Position in `order`; present only if the caller gave one.
    listed: Option<u16>,
    tier: u8,
}

impl Candidate {
    pub(super) fn new(snapshot: &Snapshot, intent: &Intent, model: usize, index: EndpointIndex) -> Candidate {
        let endpoint = snapshot.endpoint(index);
        let model = u8::try_from(model).unwrap_or(u8::MAX);
        // A request of unknown size still prefers the cheaper endpoint.
        let prompt = intent.needs.prompt_tokens.max(1);
        let output = intent.needs.expected_output.max(1);
        Candidate {
            endpoint: index,
            model,
            rank: Rank::new(snapshot, intent, endpoint, model),
            price: endpoint.price.expected(prompt, output),
            state: CandidateState::Untried,
        }
    }

    pub(super) fn gate(&self) -> Gate {
        match self.state {
            CandidateState::Untried => Gate::Open,
            CandidateState::Tried => Gate::Tried,
            CandidateState::ModelClosed => Gate::ModelClosed,
            CandidateState::NotAllowed => Gate::NoFallback,
        }
    }
}

impl Rank {
    pub(super) fn new(snapshot: &Snapshot, intent: &Intent, endpoint: &Endpoint, model: u8) -> Rank {
        let order = &intent.preferences.order;
        let provider = snapshot.provider(endpoint.provider());
        let listed = (!order.is_empty()).then(|| {
            let at = order.iter().position(|slug| endpoint.matches(slug, provider));
            at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
        });
        let tier = match (intent.eligible_tiers, endpoint.tier) {
            (TierChoice::Priority, Tier::Default | Tier::Flex) => 1,
            (TierChoice::Priority, Tier::Priority)
            | (TierChoice::Default | TierChoice::Flex | TierChoice::Nitro | TierChoice::Floor, _) => 0,
        };
        Rank { model: if is_unpartitioned(intent) { 0 } else { model }, listed, tier }
    }

    /// One number, lower first. What was pushed to the end comes after the other models, but an explicit order holds.
    pub(super) fn value(self, pushed_to_the_end: bool) -> u32 {
        let model = u32::from(self.model) << 20;
        let tier = u32::from(self.tier) << 1;
        let end = u32::from(pushed_to_the_end);
        match self.listed {
            Some(listed) => model | u32::from(listed) << 2 | tier | end,
            None => end << 28 | model | tier,
        }
    }
}

pub(super) fn is_unpartitioned(intent: &Intent) -> bool {
    intent.preferences.sort.is_some_and(|sort| sort.partition == Partition::None)
}

/// An explicit sort, else the slug's, else the tier's, else the mode.
pub(super) fn strategy_of(intent: &Intent) -> Strategy {
    let by_tier = match intent.eligible_tiers {
        TierChoice::Priority => Some(SortBy::Throughput),
        TierChoice::Flex => Some(SortBy::Price),
        TierChoice::Default | TierChoice::Nitro | TierChoice::Floor => None,
    };
    let sort = intent.preferences.sort.and_then(|sort| sort.by).or(intent.variant_sort).or(by_tier);
    match sort {
        Some(by) => Strategy::of_sort(by),
        // Without a conversation there is nothing to stick to.
        None if intent.mode == Mode::Sticky && intent.affinity.is_none() => Strategy { mode: Mode::Balanced, strict: false },
        None => Strategy { mode: intent.mode, strict: false },
    }
}

/// The conversation's endpoint, where going back to it is worth something: an order switches it off, and so does a provider
/// that charges a cached prompt in full.
pub(super) fn sticky_endpoint(snapshot: &Snapshot, intent: &Intent, strategy: Strategy) -> Option<EndpointIndex> {
    let endpoint = intent.affinity?.endpoint?;
    if !intent.preferences.order.is_empty() || strategy.mode == Mode::Order {
        return None;
    }
    let pays = snapshot.endpoints().get(endpoint.get())?.price.rewards_stickiness();
    (pays || strategy.mode == Mode::Sticky).then_some(endpoint)
}
