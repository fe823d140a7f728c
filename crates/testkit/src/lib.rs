//! Whole topologies in one process: an edge over simulated providers, and a caller that looks at it from outside.
//!
//! Never shipped. Everything listens on free loopback ports, ends by itself, and is driven by conditions, never by sleeping.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidegate_testkit::{Topology, chat};
//!
//! let mesh = Topology::new().provider("a", |_| {}).provider("b", |p| p.price = "2".into()).start().await;
//! mesh.sim("a").push_script("status=503".parse()?);
//! let answer = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
//! assert_eq!(answer.status, 200);
//! # Ok(()) }
//! ```

#![allow(clippy::missing_panics_doc, reason = "a test kit fails by panicking, with the reason as message")]

mod caller;
mod canned;
mod certs;
pub mod control;
mod health;
pub mod network;
pub mod poison;
pub mod processes;
pub mod raw;
pub mod simulated;
mod topology;
mod wan;

pub use caller::{Answer, Caller, Event, Stream};
pub use canned::Canned;
pub use certs::{Authority, leaf};
pub use topology::{KEY, Mesh, ProviderDraft, Topology, chat, key, stream};
pub use wan::{Path, Unavailable, Wan};
