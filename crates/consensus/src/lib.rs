//! Consensus: owns every openraft type, so that nothing else in the tree knows which Raft library there is.
//!
//! It agrees on an order of opaque entries and feeds them to an application; what the entries mean is the application's business.

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
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod sim;
mod snapshot;
mod space;
mod state_store;
mod timing;
mod types;

pub use application::{Application, Frozen, RestoreError};
pub use config::ConsensusConfig;
pub use consensus::{Committed, Consensus};
pub use error::{BackupError, ChangeError, InitError, ProposeError, ReadError, StartError};
pub use member::{Instance, Member, MemberStatus, Role, Status, Uuid};
pub use network::{RaftService, Served};
pub use space::Room;
pub use timing::Timing;
