//! What was measured: one cell per endpoint, one per credential, one retry budget per model.
//!
//! Health is shared by all worker threads and outlives snapshots: [`Health::new`] takes over every cell whose endpoint or
//! credential still has the same name. Locks are per cell and short; nothing here grows with traffic.

mod account;
mod breaker;
mod cell;
mod ewma;
mod histogram;
mod history;
mod increment;
mod limiter;
mod log8;
mod pace;
mod remote;
mod self_test;
mod sketch;
mod slot;
mod verdict;
mod view;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) use account::AccountCell;
pub use account::BlockReason;
pub use breaker::{BreakerState, Opening};
pub(crate) use cell::{Context, EndpointCell, State, prompt_class};
pub use histogram::{Histogram, HistogramError};
pub use increment::{FailureClass, Increment};
pub use log8::Log8;
pub use remote::{RegionEvidence, RemoteEvidence, RemoteVerdict, combine};
pub use self_test::{SelfTest, SelfVerdict, Sight};
pub use sketch::Percentiles;
pub(crate) use slot::Slot;
pub use verdict::{
    Course, Elsewhere, Finding, Probes, RegionSays, RegionVerdict, Reporter, Rule, Seen, VerdictRules, elsewhere, judge, judge_windows,
};
pub use view::{CredentialView, EndpointView};

use breaker::Stir;

use crate::budget::RetryBudget;
use crate::outcome::{Outcome, Verdict};
use crate::plan::hedge::HedgeBudget;
use crate::{AttemptEnd, CredentialIndex, EndpointIndex, ModelIndex, Snapshot, Timestamp};

/// What one edge knows of the endpoints of one snapshot. Use it only with the snapshot it was made for.
#[derive(Debug)]
pub struct Health {
    endpoints: Box<[Arc<EndpointCell>]>,
    credentials: Box<[Arc<AccountCell>]>,
    budgets: Box<[Arc<RetryBudget>]>,
    /// Usable credentials with their stable ids, by provider.
    accounts: Box<[Accounts]>,
    /// Position of each endpoint's provider.
    provider_of: Box<[u32]>,
    names: Names,
    hedges: Arc<HedgeBudget>,
    /// News since it was last asked for: the number of a [`News`], the graver one; 0 for none.
    news: Arc<AtomicU8>,
    settings: crate::Settings,
}

/// What happened that others should hear of before the next report is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// An endpoint that worked before has failed.
    FailureBegan = 1,
    /// A breaker has opened.
    BreakerOpened = 2,
}

/// One provider's credentials with their stable ids.
type Accounts = Box<[(CredentialIndex, u64)]>;

/// Positions by stable name, to find the cells again when the snapshot changes.
#[derive(Debug)]
struct Names {
    endpoints: HashMap<String, u32>,
    credentials: HashMap<u64, u32>,
    models: HashMap<String, u32>,
}

impl Health {
    /// Health for a snapshot. Whatever `previous` knows by the same name is shared with it, requests in flight included, so
    /// both stay correct while requests of the old snapshot finish.
    pub fn new(snapshot: &Snapshot, previous: Option<&Health>) -> Health {
        let settings = snapshot.settings();
        let mut names = Names { endpoints: HashMap::new(), credentials: HashMap::new(), models: HashMap::new() };
        let mut endpoints = Vec::with_capacity(snapshot.endpoints().len());
        for endpoint in snapshot.endpoints() {
            let known = previous.and_then(|health| health.endpoint_named(&endpoint.name));
            names.endpoints.insert(endpoint.name.clone(), endpoints.len() as u32);
            endpoints.push(known.unwrap_or_else(|| Arc::new(EndpointCell::new(settings))));
        }
        let mut credentials = Vec::with_capacity(snapshot.credential_count());
        for (_, credential) in snapshot.providers().iter().flat_map(|provider| provider.credentials()) {
            let known = previous.and_then(|health| health.credential_with_id(credential.id()));
            names.credentials.insert(credential.id(), credentials.len() as u32);
            credentials.push(known.unwrap_or_default());
        }
        let mut budgets = Vec::with_capacity(snapshot.models().len());
        for model in snapshot.models() {
            let known = previous.and_then(|health| health.budget_of(model.slug()));
            names.models.insert(model.slug().to_owned(), budgets.len() as u32);
            budgets.push(known.unwrap_or_default());
        }
        Health {
            endpoints: endpoints.into(),
            credentials: credentials.into(),
            budgets: budgets.into(),
            accounts: snapshot
                .providers()
                .iter()
                .map(|provider| {
                    let weighted = provider.credentials().filter(|(_, credential)| credential.weight() > 0);
                    weighted.map(|(index, credential)| (index, credential.id())).collect()
                })
                .collect(),
            provider_of: snapshot.endpoints().iter().map(|endpoint| endpoint.provider().0).collect(),
            names,
            hedges: previous.map_or_else(Arc::default, |health| Arc::clone(&health.hedges)),
            news: previous.map_or_else(Arc::default, |health| Arc::clone(&health.news)),
            settings: settings.clone(),
        }
    }

    /// Takes in what others say about an endpoint.
    pub fn set_remote(&self, endpoint: EndpointIndex, evidence: RemoteEvidence) {
        if let Some(cell) = self.endpoints.get(endpoint.get()) {
            cell.with(|state| state.remote = evidence);
        }
    }

    /// The region gave this edge the token to try an ejected endpoint until the moment, one request at a time. A moment that is past
    /// takes the token away.
    pub fn grant_probe(&self, endpoint: EndpointIndex, until: Timestamp) {
        if let Some(cell) = self.endpoints.get(endpoint.get()) {
            cell.with(|state| state.token.granted_until = until);
        }
    }

    /// The region took an endpoint back: this edge's breaker closes with it, and its weight ramps up from `ramp_from`, which each edge
    /// sets off by a random time so that they do not return in step.
    pub fn taken_back(&self, endpoint: EndpointIndex, ramp_from: Timestamp, now: Timestamp) {
        if let Some(cell) = self.endpoints.get(endpoint.get()) {
            cell.with(|state| state.taken_back(ramp_from, now));
        }
    }

    /// What happened at an endpoint since this was last called; nothing if nothing did.
    pub fn take_increment(&self, endpoint: EndpointIndex) -> Option<Increment> {
        self.endpoints.get(endpoint.get())?.with(|state| state.measured.as_mut()?.pending.take())
    }

    /// What an open breaker knows of an endpoint, unless the region has taken it out and decides by probes of its own.
    pub fn opening(&self, endpoint: EndpointIndex, now: Timestamp) -> Option<Opening> {
        self.endpoints.get(endpoint.get())?.with(|state| state.opening(&self.settings, now))
    }

    /// Whether something happened that others should hear of soon. Cheap: for the end of every failed attempt.
    pub fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) != 0
    }

    /// The gravest of what happened since this was last asked.
    pub fn take_news(&self) -> Option<News> {
        match self.news.swap(0, Ordering::Relaxed) {
            0 => None,
            1 => Some(News::FailureBegan),
            _ => Some(News::BreakerOpened),
        }
    }

    /// Requests of this edge at an endpoint now.
    pub fn in_flight(&self, endpoint: EndpointIndex) -> u32 {
        self.endpoints.get(endpoint.get()).map_or(0, |cell| cell.in_flight())
    }

    /// Samples and failures of the last 30 seconds, the soft ones half.
    pub fn window(&self, endpoint: EndpointIndex, now: Timestamp) -> (f64, f64) {
        self.endpoints.get(endpoint.get()).map_or((0.0, 0.0), |cell| {
            let counts = cell.counts(now);
            (counts.total(), counts.failed)
        })
    }

    /// Retries the model's budget would allow now.
    pub fn retry_balance(&self, model: ModelIndex, now: Timestamp) -> f64 {
        self.budgets.get(model.get()).map_or(0.0, |budget| budget.balance(&self.settings, now))
    }

    pub(crate) fn cell(&self, endpoint: EndpointIndex) -> Option<&Arc<EndpointCell>> {
        self.endpoints.get(endpoint.get())
    }

    pub(crate) fn account(&self, credential: CredentialIndex) -> Option<&AccountCell> {
        self.credentials.get(credential.get()).map(Arc::as_ref)
    }

    /// The accounts an endpoint can be called with.
    fn accounts_of(&self, endpoint: EndpointIndex) -> &[(CredentialIndex, u64)] {
        let provider = self.provider_of.get(endpoint.get());
        provider.and_then(|at| self.accounts.get(*at as usize)).map_or(&[], |accounts| accounts)
    }

    pub(crate) fn budget(&self, model: ModelIndex) -> Option<&RetryBudget> {
        self.budgets.get(model.get()).map(Arc::as_ref)
    }

    pub(crate) fn hedges(&self) -> &HedgeBudget {
        &self.hedges
    }

    /// Learns from a finished attempt.
    pub(crate) fn observe(
        &self,
        snapshot: &Snapshot,
        endpoint: EndpointIndex,
        credential: CredentialIndex,
        outcome: &Outcome,
        mut context: Context,
        now: Timestamp,
    ) {
        let settings = snapshot.settings();
        let Some(cell) = self.cell(endpoint) else {
            return;
        };
        let block = match outcome.end {
            AttemptEnd::CreditExhausted => Some((settings.credit_block, BlockReason::CreditExhausted)),
            AttemptEnd::Unauthorized => Some((settings.unauthorized_block, BlockReason::Unauthorized)),
            _ => None,
        };
        if let (Some((length, reason)), Some(account)) = (block, self.account(credential)) {
            account.block(now + length, reason);
        }
        if matches!(outcome.end.verdict(), Verdict::Hard | Verdict::Soft) {
            context.peers = self.peer_failure_ratio(snapshot, endpoint, now);
        }
        let news = match cell.with(|state| state.learn(outcome, &context, settings, now)) {
            Stir::None => return,
            Stir::Began => News::FailureBegan,
            Stir::Opened => News::BreakerOpened,
        };
        self.news.fetch_max(news as u8, Ordering::Relaxed);
    }

    /// Median failure ratio of the model's other endpoints. Cells are read one after the other, never two at once.
    fn peer_failure_ratio(&self, snapshot: &Snapshot, endpoint: EndpointIndex, now: Timestamp) -> Option<f64> {
        let model = snapshot.endpoints().get(endpoint.get())?.model();
        let mut ratios: smallvec::SmallVec<[f64; 8]> = snapshot
            .endpoints_of(model)
            .iter()
            .filter(|other| **other != endpoint)
            .filter_map(|other| self.cell(*other))
            .map(|cell| cell.counts(now))
            .filter(|counts| counts.total() >= PEER_SAMPLES)
            .map(|counts| counts.failure_ratio())
            .collect();
        median(&mut ratios)
    }

    fn endpoint_named(&self, name: &str) -> Option<Arc<EndpointCell>> {
        self.endpoints.get(*self.names.endpoints.get(name)? as usize).cloned()
    }

    fn credential_with_id(&self, id: u64) -> Option<Arc<AccountCell>> {
        self.credentials.get(*self.names.credentials.get(&id)? as usize).cloned()
    }

    fn budget_of(&self, slug: &str) -> Option<Arc<RetryBudget>> {
        self.budgets.get(*self.names.models.get(slug)? as usize).cloned()
    }
}

/// Middle value; the lower one of two.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = (values.len() - 1) / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

/// Samples below which a peer's failure ratio is not compared with.
const PEER_SAMPLES: f64 = 5.0;

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
