//! Quotas: says whether a key may spend, and records what it spent.
//!
//! Decisions are arithmetic over integers, the same in memory and in Redis. Prices, requests and HTTP are not known here; an edge says
//! how much of what is asked for, and later how much it was.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
