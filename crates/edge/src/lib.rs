//! The edge: terminates TLS, runs the pipeline, relays bodies.
//!
//! It is the only place where what a provider said ([`tidegate_wire`]) becomes what routing learns ([`tidegate_routing`]). It does not
//! parse files (the binary does), it does not decide where a request goes (`routing` does) and it does not know any dialect by name
//! (`wire` does). `pipeline.rs` is the place to start reading.
//!
//! ```text
//! listener > worker > connection > handler > pipeline > attempt > relay
//! ```

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access_line;
mod access_log;
mod admission;
mod affinity;
mod attempt;
pub mod auth;
mod bill;
mod body;
pub mod config;
mod connection;
mod content;
mod context;
pub mod control_link;
mod deadline;
mod draining;
mod edge;
mod error;
mod explain;
mod gauges;
mod generation;
mod generations;
mod handler;
mod hash;
mod head;
mod hedge;
mod hints;
mod intent;
mod io;
mod ledger;
mod listener;
mod memory;
mod metrics;
mod money;
mod openapi;
mod pipeline;
mod quota;
mod region;
mod relay;
mod shared;
mod shares;
#[doc(hidden)]
pub mod simulation;
mod spare;
mod stall;
mod state;
mod sums;
mod trace;
mod upstream;
mod usage;
mod worker;

pub use auth::limits_of;
pub use edge::{Bound, Edge, Services, StartError};
pub use openapi::document as openapi_document;
pub use state::{StateProblem, check};
