//! The admin API: HTTP and JSON over what the cluster has agreed on.
//!
//! Any node answers. Reads are linearizable unless the caller asks for what this node has (`stale=true`); writes go to the leader and
//! answer with their revision. Who calls is known by certificate or token, and every change carries who and why into the audit log.

mod access;
mod answer;
mod call;
mod cluster;
mod credentials;
mod declared;
mod error;
mod history;
mod keys;
mod management;
mod openapi;
mod overrides;
mod rollouts;
mod routes;
mod serve;
mod status;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;
use tidegate_proto::Problem;
use tidegate_proto::v1::{Applied, Command, Resource, command};
use tidegate_runtime::sealing::PublicKeyring;
use tidegate_runtime::{Clock, Tasks};
use tokio::time::timeout;

pub use access::{Access, Certificate, Role, Token};
pub use history::audit_entry;
pub use openapi::document as openapi_document;
pub use serve::serve;

use call::Call;
use error::AdminError;

use crate::edges::Edges;
use crate::fleet::FleetService;
use crate::proposer::{Proposer, SubmitError};
use crate::published::Published;
use crate::relay::Peers;
use crate::state::State;

/// Longest wait for this node to have what `x-min-index` asks for.
const MIN_INDEX_PATIENCE: Duration = Duration::from_secs(2);

/// Says whether a set of declared resources can be used, and everything that is wrong with it. This crate does not know what is in them.
pub type Validate = Arc<dyn Fn(&[Resource]) -> Result<(), Vec<Problem>> + Send + Sync>;

/// Says whether the policy of a key can be used.
pub type ValidatePolicy = Arc<dyn Fn(&[u8]) -> Result<(), Vec<Problem>> + Send + Sync>;

/// What the admin API works with.
pub struct AdminParts {
    /// How changes get agreed on.
    pub proposer: Proposer,
    /// The agreed state.
    pub published: Published,
    /// Other control nodes.
    pub peers: Arc<Peers>,
    /// Edges of all nodes.
    pub edges: Edges,
    /// Health of this node's region and the others; empty until the node has a place in a cluster.
    pub fleet: Arc<OnceLock<FleetService>>,
    /// Who may do what.
    pub access: Access,
    /// Rules of declared things.
    pub validate: Validate,
    /// Rules of keys.
    pub validate_policy: ValidatePolicy,
    /// Seals providers' credentials; without it none can be put.
    pub keyring: Option<PublicKeyring>,
    /// Keys the digests of callers' keys; the same as at the edges.
    pub pepper: Option<SecretString>,
    /// Raft addresses that a place in a cluster is asked of when a request names none.
    pub join_peers: Vec<String>,
    /// Version of this build.
    pub build: String,
    /// The node's clock.
    pub clock: Clock,
    /// Owns the connections' tasks.
    pub tasks: Tasks,
}

/// The admin API of one node. Clones share everything.
#[derive(Clone)]
pub struct Admin {
    parts: Arc<AdminParts>,
}

impl Admin {
    /// An API over these parts.
    pub fn new(parts: AdminParts) -> Admin {
        Admin { parts: Arc::new(parts) }
    }

    /// The state that a read may answer from.
    async fn read(&self, call: &Call) -> Result<Arc<State>, AdminError> {
        if let Some(index) = call.min_index()?
            && timeout(MIN_INDEX_PATIENCE, self.parts.published.reached(index)).await.is_err()
        {
            let has = self.parts.published.load().applied();
            return Err(AdminError::unavailable(
                "behind",
                format!("this node has index {has}, not yet {index}: ask again, or ask another"),
            ));
        }
        if !call.flag("stale")? {
            self.parts.proposer.agreement().read_barrier().await.map_err(|error| {
                let help = "ask again, or add `?stale=true` to see what this node has";
                AdminError::unavailable("no_leader", format!("the read cannot be made linearizable: {error}; {help}"))
            })?;
        }
        Ok(self.parts.published.load())
    }

    /// Gets a command agreed on in the caller's name.
    async fn write(&self, call: &Call, body: command::Body) -> Result<Applied, SubmitError> {
        self.parts.proposer.submit(self.command(call, body)).await
    }

    fn command(&self, call: &Call, body: command::Body) -> Command {
        Command {
            actor: call.principal.name.clone(),
            reason: call.reason.clone(),
            request_id: call.request_id.clone(),
            request_digest: call.digest.clone(),
            body: Some(body),
            ..Command::default()
        }
    }
}
