//! The seam between deciding and counting.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ulid::Ulid;

use crate::bucket::{Bucket, Cost};
use crate::clock::Micros;
use crate::decision::{Decision, Reservation};
use crate::period::Period;
use crate::set::{LimitSet, Selection};
use crate::settlement::{Settled, Settlement};
use crate::usage::Usage;

/// An answer that may have to wait for a network.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Where use is counted. All methods may be called again after an error: nothing counts twice.
pub trait QuotaStore: Send + Sync + 'static {
    /// The decision without waiting, when this store can.
    fn reserve_now(&self, _request: &ReserveRequest<'_>) -> Option<Decision> {
        None
    }

    /// Settles without waiting, when this store can: its caller may be back with the next request before any other task has run.
    fn settle_now(&self, _settlement: &Settlement) -> Option<Settled> {
        None
    }

    /// Checks every limit of the request, and holds its estimate if all pass. The same id again gives the same answer.
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> Pending<'a, Decision>;

    /// Replaces a reservation by what was used.
    fn settle<'a>(&'a self, settlement: &'a Settlement) -> Pending<'a, Settled>;

    /// Keeps the slots of running requests for another minute.
    fn renew<'a>(&'a self, reservation: &'a Reservation) -> Pending<'a, ()>;

    /// Buys many requests' worth at once; gives less than was asked for rather than nothing, down to one request.
    fn buy_slice<'a>(&'a self, request: &'a SliceRequest<'a>) -> Pending<'a, Decision>;

    /// Gives back what a slice holds beyond `keep` (per entry). Does nothing for what it holds less of.
    fn return_slice<'a>(&'a self, slice: &'a Reservation, keep: &'a [Cost]) -> Pending<'a, ()>;

    /// What is used and left of the selected limits.
    fn snapshot<'a>(&'a self, limits: &'a LimitSet, selection: Selection) -> Pending<'a, Snapshot>;

    /// Looks after the store's connections; called twice a second by the gate's worker. Nothing to do for a store in this process. True
    /// when another server than before answers, which may have lost something: told once.
    fn tend(&self) -> Pending<'_, bool> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// The process ends: the last call.
    fn close(&self) -> Pending<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The store's clock minus this process's, in microseconds, as far as the last answer told.
    fn ahead(&self) -> i64 {
        0
    }

    /// After a loss: raises spend counters of an organisation to what the ledger knows, and lets its prepaid keys spend again. Never lowers.
    fn restore<'a>(&'a self, organisation: &'a str, spent: &'a [SpentEntry]) -> Pending<'a, ()>;
}

/// One request's demand.
#[derive(Debug, Clone, Copy)]
pub struct ReserveRequest<'a> {
    /// The request's id. The time in it must be the time of the request: see [`Settled::Restored`].
    pub id: Ulid,
    /// The key's limits.
    pub limits: &'a Arc<LimitSet>,
    /// Those that apply.
    pub selection: Selection,
    /// The estimate.
    pub estimate: Usage,
    /// How long the reservation stands when nobody settles it: the request's deadline and ten minutes.
    pub lifetime: Duration,
}

/// An edge's demand for a hot key.
#[derive(Debug, Clone, Copy)]
pub struct SliceRequest<'a> {
    /// The slice's id.
    pub id: Ulid,
    /// The key's limits.
    pub limits: &'a Arc<LimitSet>,
    /// Those that apply.
    pub selection: Selection,
    /// What at least one request needs; less is a refusal.
    pub least: Usage,
    /// What is hoped for.
    pub want: Usage,
    /// Concurrency slots hoped for.
    pub slots: u32,
    /// At most this part of what is left is taken: twice the number of live edges.
    pub divisor: u32,
    /// How long the slice stands when nobody settles it.
    pub lifetime: Duration,
}

/// What is used and left, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The store's time.
    pub at: Micros,
    /// One per limit.
    pub limits: Vec<Remaining>,
}

/// What is used and left of one limit.
#[derive(Debug, Clone)]
pub struct Remaining {
    /// The limit.
    pub bucket: Arc<Bucket>,
    /// Used (for a rate: of its burst), in the limit's unit.
    pub used: u64,
    /// Left, in the limit's unit. Negative when more was used than is allowed now.
    pub remaining: i64,
    /// Microseconds until the whole limit is there again; `None` for a total or a concurrency limit.
    pub reset_after: Option<Micros>,
}

/// What the ledger knows of a spend counter.
#[derive(Debug, Clone)]
pub struct SpentEntry {
    /// The limit.
    pub bucket: Arc<Bucket>,
    /// The period.
    pub period: Period,
    /// What was spent in it, in micro-dollars.
    pub micro_dollars: u64,
}

/// Why a store gave no answer. Never a verdict about the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No answer in time.
    #[error("the quota store gave no answer to `{operation}` within {millis} ms")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        millis: u64,
    },
    /// The store cannot be reached, or refuses to serve.
    #[error("the quota store failed at `{operation}`: {detail}")]
    Unavailable {
        /// What was asked.
        operation: &'static str,
        /// What it said.
        detail: String,
    },
    /// The breaker is open: not asked.
    #[error("the quota store is not asked for {millis} ms after repeated time-outs")]
    Broken {
        /// How long it will not be asked.
        millis: u64,
    },
    /// The store does not know what an organisation with prepaid credits has spent: it is new, or was wiped.
    #[error("the quota store does not know what organisation `{organisation}` has spent: restore its spend from the ledger")]
    SpendUnknown {
        /// The organisation.
        organisation: Arc<str>,
    },
    /// The store answered something else than agreed.
    #[error("the quota store's answer to `{operation}` is not understood: {detail}")]
    Protocol {
        /// What was asked.
        operation: &'static str,
        /// What came back.
        detail: String,
    },
}
