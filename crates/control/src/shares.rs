//! Limits that span regions: the leader is home of all of them.
//!
//! Edges report through the control node that they follow, which passes the reports on to the leader and the answers back ([`ShareService`]).
//! What is declared is read from the agreed state, so an edge says only which limit it means. Shares of rates are leases in the leader's
//! memory: a new leader waits until those of the one before are over, and prolongs meanwhile what edges prove to hold. Only grants of budgets
//! go through the log, a quarter of a second's worth in one entry ([`ShareTable`]).
//!
//! The leader, not a home region for each key: it is one place that is known to everybody, its terms already say who may act, and losing
//! its region moves all homes with one election.

mod metrics;
mod service;
mod table;

pub use service::{ShareParts, ShareService};
pub use table::{Declared, ReadLimits, Reporter, ShareTable};
