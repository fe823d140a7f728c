//! Consensus: owns every openraft type, so that nothing else in the tree knows which Raft library there is.
//!
//! It agrees on an order of opaque entries and feeds them to an application; what the entries mean is the application's business. Whoever
//! proposes learns whether the entry was committed, was certainly not, or that nobody knows ([`ProposeError`]); whoever reads can make the
//! read linearizable on any node ([`Consensus::read_barrier`]).
//!
//! What is on disk and on the wire is protobuf of our own (`proto/tidegate/v1/raft.proto`), with a format number. What is on disk is never
//! doubted and used at once: any error of the disk, and anything that does not verify, stops the node ([`Consensus::failed`]).
//!
//! # Tests with random input
//!
//! `cargo test -p tidegate-consensus` runs the share of a pull request. The environment says otherwise:
//!
//! ```text
//! nightly  TIDEGATE_SEEDS=100 cargo test --release -p tidegate-consensus: a hundred times the usual numbers
//! weekly   TIDEGATE_SEEDS=1000; TIDEGATE_FIRST_SEED begins with seeds that were not run before
//! some     TIDEGATE_SIM_SEEDS=n, and _HISTORY_, _SAME_, _REJOIN_, _PARTIAL_, _CRASH_, _DISK_ and _FLIP_ for the others
//! one      TIDEGATE_SEED=n cargo test -p tidegate-consensus NAME; a failure prints this line
//!          (TIDEGATE_SIM_TRACE=1 and --nocapture say what happened to the simulated machines)
//! ```
//!
//! `cargo test -p tidegate-consensus --features known-bugs known_bugs` makes known mistakes on purpose, and fails when one goes unnoticed.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod application;
#[cfg(test)]
mod cluster_tests;
mod config;
mod consensus;
mod error;
mod found;
mod known_bugs;
mod log_store;
mod member;
mod membership;
mod message;
mod metrics;
mod network;
mod node;
mod placement;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod sim;
mod snapshot;
mod space;
mod state_store;
mod survey;
mod timing;
mod types;

pub use application::{Application, Frozen, RestoreError};
pub use config::ConsensusConfig;
pub use consensus::{Committed, Consensus};
pub use error::{BackupError, ChangeError, InitError, ProposeError, ReadError, StartError};
pub use member::{Instance, Member, MemberStatus, Role, Status, Uuid};
pub use network::{RaftService, Served};
pub use placement::PlacementRule;
pub use space::Room;
pub use timing::Timing;
