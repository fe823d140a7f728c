//! What the nodes say to each other, over tonic on the connections of the mesh.

mod bucket;
mod client;
pub(crate) mod hello;
mod leash;
mod links;
pub(crate) mod requests;
mod service;
mod snapshot;

pub(crate) use self::client::Network;
#[cfg(test)]
pub(crate) use self::leash::leash;
pub(crate) use self::links::{Lane, Links, Outcome, client, expect};
pub use self::service::{RaftService, Served};
pub(crate) use self::snapshot::Partial;
