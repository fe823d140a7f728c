//! What is kept of a finished generation: the pieces as they were, put together only when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tidegate_ledger::AttemptRecord;
use tidegate_routing::{Decision, Timestamp};
use tidegate_wire::Facts;

use crate::auth::Caller;
use crate::bill::Bill;
use crate::context::RequestContext;
use crate::generation::{AttemptNote, End, Times};
use crate::state::RoutingState;

/// A finished generation.
pub(crate) struct Past {
    /// Names in the decision are indices into this state; it lives as long as a generation refers to it.
    pub(crate) state: Arc<RoutingState>,
    pub(crate) context: Arc<RequestContext>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) attempts: SmallVec<[AttemptNote; 2]>,
    pub(crate) times: Times,
    pub(crate) elapsed: Duration,
    pub(crate) end: End,
    pub(crate) facts: Facts,
    pub(crate) bill: Bill,
    pub(crate) decision: Decision,
}

impl Past {
    /// The record for `GET /generation`.
    pub(crate) fn record(&self) -> tidegate_ledger::Generation {
        let (end, facts, bill, elapsed) = (self.end, &self.facts, &self.bill, self.elapsed);
        let served = self.attempts.last();
        let empty: Arc<str> = Arc::clone(&self.context.nothing);
        let target = served.map(|note| self.state.target(note.plan.endpoint));
        let since_received = |at: Option<Timestamp>| at.map(|at| micros(at - self.times.received));
        tidegate_ledger::Generation {
            id: Arc::clone(&self.context.id),
            upstream_id: facts.upstream_id.clone(),
            request_id: Arc::clone(&self.context.id),
            session_id: self.context.session_id.clone(),
            created_ms: self.context.created_ms,
            model: target.map_or_else(|| Arc::clone(&self.state.model(self.context.model).slug), |target| Arc::clone(&target.model)),
            provider_name: target.map_or_else(|| Arc::clone(&empty), |target| Arc::clone(&target.provider.name)),
            endpoint: target.map_or_else(|| Arc::clone(&empty), |target| Arc::clone(&target.name)),
            router: None,
            api_type: tidegate_ledger::ApiType::Completions,
            streamed: self.context.streamed,
            ending: end.ending,
            first_token_us: since_received(self.times.answered),
            generation_us: served.map(|_| micros(elapsed)),
            finish_reason: facts.finish_reason.map(|reason| reason.as_str().into()),
            native_finish_reason: facts.native_finish_reason.clone(),
            usage: bill.usage,
            usage_estimated: bill.estimated,
            charge: bill.charge,
            fee: bill.toll.fee,
            charged: bill.toll.charged,
            upstream_cost: bill.upstream,
            is_byok: bill.own_key,
            service_tier: facts.service_tier.clone(),
            data_region: target.and_then(|target| target.region.clone()),
            region: Arc::clone(&self.context.region),
            origin: self.context.origin.clone(),
            http_referer: self.context.referer.clone(),
            app_title: self.context.title.clone(),
            user_agent: self.context.user_agent.clone(),
            external_user: self.context.user.clone(),
            preset_id: self.context.preset.clone(),
            key: Arc::clone(&self.caller.name),
            organisation: self.caller.organisation.clone(),
            workspace: self.caller.workspace.clone(),
            error_type: end.error_type.into(),
            recovered: false,
            attempts: (1u8..)
                .zip(&self.attempts)
                .map(|(number, note)| {
                    let target = self.state.target(note.plan.endpoint);
                    AttemptRecord {
                        number,
                        provider_name: Arc::clone(&target.provider.name),
                        model: Arc::clone(&target.model),
                        endpoint: Arc::clone(&target.name),
                        status: note.status,
                        outcome: note.end.label().into(),
                        latency_us: micros(note.latency),
                        service_tier: None,
                        upstream_id: note.upstream_id.clone(),
                        is_byok: self.state.is_own_key(note.plan.credential),
                    }
                })
                .collect(),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
