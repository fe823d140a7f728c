//! Quotas: says whether a key may spend, and records what it spent.
//!
//! Decisions are arithmetic over integers, the same in memory and in Redis: a [`Limit`] is compiled into a [`Bucket`], a request into a
//! cost per bucket (microseconds of a rate, micro-dollars of a budget, slots of a concurrency limit), and a [`QuotaStore`] checks every
//! bucket before it writes any. What was reserved is settled exactly once with what was used. Prices, requests and HTTP are not known
//! here; an edge says how much of what is asked for, and later how much it was.

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
pub use clock::{Clock, Micros, SystemClock};
pub use decision::{Decision, Entry, Mode, Refusal, RefusalKind, Reservation};
pub use explain::{Bound, Topology, explain};
pub use gate::{Gate, GateError, GateOptions, GateWorker};
pub use limit::{Dimension, Funding, Limit, Scope, StoreDown, TokenKind, Window};
pub use memory::{FileError, MemoryStore};
pub use period::Period;
pub use redis::{RedisAuth, RedisLink, RedisOptions, RedisStore, RedisTls, RedisTopology};
pub use set::{LimitError, LimitSet, Selection, Subject};
pub use settlement::{Settled, Settlement};
pub use share::{Allocator, Assign, GRANT_LEASE, Holder, SHARE_LEASE, Share, ShareReport, Shared, Shares};
pub use store::{Pending, QuotaStore, Remaining, ReserveRequest, SliceRequest, Snapshot, SpentEntry, StoreError};
pub use usage::Usage;
