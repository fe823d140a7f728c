//! What processes say to each other and write to disk: the generated protobuf code, and its conversions to domain types.
//!
//! Nothing here decides anything. Messages are versioned by adding fields, never by changing one; a format number stands wherever bytes
//! outlive the process that wrote them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod health;
mod ledger;
mod problem;
mod resource;
mod shares;

pub use health::region_verdict;
pub use ledger::{RecordError, encode_ended};
pub use problem::Problem;
pub use resource::{Digest, Kind, ResourceMap, UnknownKind};
pub use shares::{LimitRefError, limit_name, limit_ref};

/// Messages and services of `proto/tidegate/v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("tidegate.v1");
}
