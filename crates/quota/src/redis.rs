//! Counting in Redis or Valkey: shared by the edges of a region.
//!
//! One round trip per decision and one per settlement, each a Lua script that sees all limits of an organisation at once (they share a
//! cluster slot). The server's clock is the only one. Every call and every connect has our own time-out, because the client's are not kept
//! in all its modes; a breaker keeps a sick server from costing every request its time-out. After a fail-over, noticed by another run
//! id, the settlements of the last half minute are sent again: they count once, so what survived is left alone.
//!
//! Counters are only ever read from primaries.

mod breaker;
mod commands;
mod lines;
mod link;
mod options;
mod recent;
mod scripts;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::breaker::Breaker;
use self::commands::Reply;
use self::lines::Lines;
pub use self::link::RedisLink;
pub use self::options::{RedisAuth, RedisOptions, RedisTls, RedisTopology};
use self::recent::Recent;
use self::scripts::{Call, ClockSource, Scripts};
use crate::ask::{Ask, remaining, rule};
use crate::bucket::Cost;
use crate::clock::{Clock, Micros, SystemClock};
use crate::decision::{Decision, Mode, Reservation};
use crate::set::{LimitSet, Selection};
use crate::settlement::{Settled, Settlement};
use crate::store::{Pending, QuotaStore, ReserveRequest, SliceRequest, Snapshot, SpentEntry, StoreError};

/// The store of a region's edges.
pub struct RedisStore {
    scripts: Scripts,
    lines: Lines,
    breaker: Mutex<Breaker>,
    recent: Mutex<Recent>,
    clock: Arc<dyn Clock>,
    /// The server's clock minus ours, in microseconds: only for choosing the calendar period, which the script checks.
    ahead: AtomicI64,
    call_timeout: Duration,
    began: Instant,
}

/// Settlements beyond this many micro-dollars wait for a replica.
const LARGE: u64 = 1_000_000;

impl RedisStore {
    /// A store for the servers in `options`. Connects lazily: a server that is away at the start is a server that is away.
    ///
    /// # Errors
    /// When an address or a certificate cannot be understood.
    pub fn new(options: RedisOptions) -> Result<Self, StoreError> {
        Self::with_clock(options, Arc::new(SystemClock), ClockSource::Server)
    }

    /// A store whose scripts are told the time instead of asking the server. Two histories under the same clock can then be compared;
    /// nothing else may use it, because the clocks of several edges differ.
    ///
    /// # Errors
    /// As [`RedisStore::new`].
    #[doc(hidden)]
    pub fn with_given_clock(options: RedisOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::with_clock(options, clock, ClockSource::Given)
    }

    fn with_clock(options: RedisOptions, clock: Arc<dyn Clock>, source: ClockSource) -> Result<Self, StoreError> {
        Ok(Self {
            scripts: Scripts::new(source),
            call_timeout: options.call_timeout,
            lines: Lines::new(options)?,
            breaker: Mutex::default(),
            recent: Mutex::default(),
            clock,
            ahead: AtomicI64::new(0),
            began: Instant::now(),
        })
    }

    /// The server's time, as far as the last answer told.
    fn server_now(&self) -> Micros {
        self.clock.now().saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    fn ticks(&self) -> Micros {
        crate::ask::micros(self.began.elapsed())
    }

    /// One script call within the time-out, through the breaker.
    async fn call(&self, operation: &'static str, call: &Call) -> Result<Reply, StoreError> {
        self.judge(operation, self.call_timeout, self.lines.call(call, self.clock.now())).await
    }

    /// The same when no request waits for it: a server that is merely busy after an outage should not be asked again too early.
    async fn call_calmly(&self, operation: &'static str, call: &Call) -> Result<Reply, StoreError> {
        self.judge(operation, self.call_timeout * CALM, self.lines.call(call, self.clock.now())).await
    }

    async fn judge(
        &self,
        operation: &'static str,
        patience: Duration,
        calling: impl Future<Output = redis::RedisResult<redis::Value>>,
    ) -> Result<Reply, StoreError> {
        if let Err(left) = self.breaker.lock().admit(self.ticks()) {
            return Err(StoreError::Broken { millis: left / 1_000 });
        }
        let answer = match tokio::time::timeout(patience, calling).await {
            Ok(answer) => answer.map_err(|error| StoreError::Unavailable { operation, detail: error.to_string() }),
            Err(_) => Err(StoreError::Timeout { operation, millis: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX) }),
        };
        if self.breaker.lock().record(answer.is_ok(), self.ticks()) {
            self.lines.drop_all();
        }
        let reply = Reply::parse(operation, answer?)?;
        let ahead = i64::try_from(reply.now).unwrap_or(i64::MAX).saturating_sub(i64::try_from(self.clock.now()).unwrap_or(0));
        self.ahead.store(ahead, Ordering::Relaxed);
        Ok(reply)
    }
}

impl QuotaStore for RedisStore {
    fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> Pending<'a, Decision> {
        Box::pin(async move {
            let mut now = self.server_now();
            for _ in 0..PERIOD_TRIES {
                let ask = Ask::reserve(request, now, 1);
                let reply = self.call("reserve", &self.scripts.reserve(&ask, request.limits.has_prepaid(request.selection))).await?;
                match reply.verdict("reserve", &ask)? {
                    Some(verdict) => return Ok(ask.decision(verdict, reply.now, Mode::Exact)),
                    None => now = reply.now,
                }
            }
            Err(StoreError::Protocol { operation: "reserve", detail: "its clock jumps between periods".to_owned() })
        })
    }

    fn settle<'a>(&'a self, settlement: &'a Settlement) -> Pending<'a, Settled> {
        Box::pin(async move {
            let call = self.scripts.settle(settlement);
            let slow = if settlement.micro_dollars() > LARGE { self.lines.reserve_slow() } else { None };
            let reply = match &slow {
                Some(line) => {
                    let reply = self.judge("settle", self.call_timeout * CALM, line.call(&call, self.clock.now())).await?;
                    let replicas = line.wait().await;
                    tracing::debug!(replicas, "a large settlement waited for a replica");
                    reply
                }
                None => self.call_calmly("settle", &call).await?,
            };
            self.recent.lock().keep(call, self.ticks());
            reply.settled()
        })
    }

    fn renew<'a>(&'a self, reservation: &'a Reservation) -> Pending<'a, ()> {
        Box::pin(async move { self.call_calmly("renew", &self.scripts.renew(reservation)).await.map(drop) })
    }

    fn buy_slice<'a>(&'a self, request: &'a SliceRequest<'a>) -> Pending<'a, Decision> {
        Box::pin(async move {
            let mut now = self.server_now();
            for _ in 0..PERIOD_TRIES {
                let ask = Ask::slice(request, now);
                let call = self.scripts.reserve(&ask, request.limits.has_prepaid(request.selection));
                let reply = self.call("buy_slice", &call).await?;
                match reply.verdict("buy_slice", &ask)? {
                    Some(verdict) => return Ok(ask.decision(verdict, reply.now, Mode::Exact)),
                    None => now = reply.now,
                }
            }
            Err(StoreError::Protocol { operation: "buy_slice", detail: "its clock jumps between periods".to_owned() })
        })
    }

    fn return_slice<'a>(&'a self, slice: &'a Reservation, keep: &'a [Cost]) -> Pending<'a, ()> {
        Box::pin(async move { self.call_calmly("return_slice", &self.scripts.give_back(slice, keep)).await.map(drop) })
    }

    fn snapshot<'a>(&'a self, limits: &'a LimitSet, selection: Selection) -> Pending<'a, Snapshot> {
        Box::pin(async move {
            let mut now = self.server_now();
            for _ in 0..PERIOD_TRIES {
                let rules: Vec<_> = limits.buckets(selection).map(|bucket| (bucket, rule(bucket, now, 1).1)).collect();
                if rules.is_empty() {
                    return Ok(Snapshot { at: now, limits: Vec::new() });
                }
                let reply = self.call_calmly("snapshot", &self.scripts.snapshot(&rules)).await?;
                if reply.is_other_period() {
                    now = reply.now;
                    continue;
                }
                let shown = rules.iter().zip(reply.pairs("snapshot", rules.len())?);
                let shown = shown.map(|((bucket, rule), (left, full_in))| remaining(bucket, rule, left, full_in));
                return Ok(Snapshot { at: reply.now, limits: shown.collect() });
            }
            Err(StoreError::Protocol { operation: "snapshot", detail: "its clock jumps between periods".to_owned() })
        })
    }

    fn tend(&self) -> Pending<'_, bool> {
        Box::pin(async move {
            self.recent.lock().forget_old(self.ticks());
            let changed =
                self.lines.tend().await.map_err(|error| StoreError::Unavailable { operation: "connect", detail: error.to_string() })?;
            if changed {
                self.replay().await?;
            }
            Ok(changed)
        })
    }

    fn restore<'a>(&'a self, organisation: &'a str, spent: &'a [SpentEntry]) -> Pending<'a, ()> {
        Box::pin(async move {
            let slot = LimitSet::slot_of(organisation);
            self.call_calmly("restore", &self.scripts.restore(&slot, spent)).await.map(drop)
        })
    }
}

impl RedisStore {
    /// Sends the settlements of the last half minute again: another server may have lost the last of them.
    async fn replay(&self) -> Result<(), StoreError> {
        let calls = self.recent.lock().all();
        let (mut repeated, mut restored) = (0_u32, 0_u32);
        for call in &calls {
            match self.call_calmly("replay", call).await?.settled()? {
                Settled::Restored | Settled::Applied => restored += 1,
                Settled::Repeated | Settled::Expired => repeated += 1,
            }
        }
        tracing::info!(known = repeated, restored, "the quota store is another server than before: recent settlements were sent again");
        self.lines.replayed();
        Ok(())
    }
}

/// How many times longer a call may take that no request waits for.
const CALM: u32 = 5;
/// Midnight falls between two calls at most once.
const PERIOD_TRIES: u32 = 3;
