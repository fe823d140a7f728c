//! The control plane: agrees on configuration and health, and publishes them to edges.
//!
//! It is never on the path of a request. What it agrees on is decided by pure functions of the state and the command; consensus brings
//! the order, and this crate's shells bring the sockets.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod agreement;
pub mod api;
mod edges;
pub mod fleet;
pub mod health_batch;
pub mod leader;
mod machine;
pub mod node;
mod proposer;
mod published;
pub mod publisher;
mod relay;
pub mod shares;
pub mod state;

pub use agreement::{Agreement, Alone};
pub use edges::{Confirmed, Edges, Gathered};
pub use machine::Machine;
pub use node::{ControlConfig, Node, NodeBound, NodeError, NodeServices};
pub use proposer::{Proposer, SubmitError};
pub use published::Published;
pub use relay::{Peers, RelayService};
pub use state::State;
