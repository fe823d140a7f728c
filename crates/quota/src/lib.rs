//! Quotas: says whether a key may spend, and records what it spent.
//!
//! Decisions are arithmetic over integers, the same in memory and in Redis: a [`Limit`] is compiled into a [`Bucket`], a request into a
//! cost per bucket (microseconds of a rate, micro-dollars of a budget, slots of a concurrency limit), and a [`QuotaStore`] checks every
//! bucket before it writes any. What was reserved is settled exactly once with what was used. Prices, requests and HTTP are not known
//! here; an edge says how much of what is asked for, and later how much it was.
//!
//! # The parts
//!
//! - [`LimitSet`]: the limits of one key, its workspace and its organisation, compiled once per configuration.
//! - [`Gate`]: what an edge asks. Slices for hot keys, remembered refusals, each edge's own counting while the store is away. Its
//!   [`GateWorker`] runs beside it.
//! - [`MemoryStore`]: exact on one node, survives restarts by a file. [`RedisStore`]: shared by the edges of a region.
//! - [`Allocator`], [`BudgetAllocator`] and [`Desk`]: regional shares of global rates, and grants of global budgets. Pure; the control
//!   plane carries the messages.
//! - [`explain`]: how wrong each limit can become, in numbers and sentences.
//!
//! # What a Redis needs
//!
//! Redis 7 or Valkey 8 and later. `maxmemory-policy noeviction`: an evicted counter is a limit that was never there. With replicas
//! `min-replicas-to-write 1` and `min-replicas-max-lag 2`, so that a fail-over loses at most two seconds. An ACL user can do with
//! `~q:* +@read +@write +@scripting +time +info +wait +client +hello +ping` (in a cluster also `+cluster +asking`).
//!
//! # Proof
//!
//! `cargo nextest run -p tidegate-quota` takes under a minute and needs `redis-server`. Longer runs, and what they show:
//!
//! ```text
//! TIDEGATE_QUOTA_HISTORIES=100000 cargo test -p tidegate-quota --test conformance   three implementations decide alike
//! TIDEGATE_QUOTA_SIMULATIONS=5000 cargo test -p tidegate-quota --test shares        shares never exceed the limit
//! TIDEGATE_QUOTA_CHAOS=200        cargo test -p tidegate-quota --test chaos rounds  kills and pauses under load: nothing lost or doubled
//! cargo run --release -p tidegate-quota --example throughput                        how fast
//! ```

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod bucket;
mod clock;
mod decision;
mod denials;
mod explain;
mod gate;
mod gcra;
mod limit;
mod local;
mod memory;
mod metrics;
mod period;
mod redis;
mod set;
mod settlement;
mod share;
mod store;
mod usage;
mod wallet;

pub use bucket::{Bucket, Cost, Meter};
pub use clock::{Clock, Micros, SystemClock, monotonic};
pub use decision::{Decision, Entry, Mode, Refusal, RefusalKind, Reservation};
pub use explain::{Bound, Topology, explain};
pub use gate::{Gate, GateError, GateOptions, GateWorker};
pub use limit::{Dimension, Funding, Limit, Scope, StoreDown, TokenKind, Window};
pub use memory::{FileError, MemoryStore};
pub use period::Period;
pub use redis::{RedisAuth, RedisLink, RedisOptions, RedisStore, RedisTls, RedisTopology};
pub use set::{LimitError, LimitSet, Selection, Subject};
pub use settlement::{Settled, Settlement};
pub use share::{
    Allocator, Assign, BudgetAllocator, Desk, Due, GRANT_LEASE, GrantRow, Holder, Home, LimitName, MOST_REPORTS, Member, Quiet,
    SHARE_LEASE, Share, ShareReport, ShareView, Shared, Shares, Taken,
};
pub use store::{Pending, QuotaStore, Remaining, ReserveRequest, SliceRequest, Snapshot, SpentEntry, StoreError};
pub use usage::Usage;
