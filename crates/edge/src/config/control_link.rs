//! How an edge follows the control plane.

use std::path::PathBuf;
use std::time::Duration;

/// How an edge follows the control plane.
#[derive(Debug, Clone)]
pub struct ControlLinkConfig {
    /// Control nodes; at least one.
    pub endpoints: Vec<ControlEndpoint>,
    /// Name of this edge, unique among all; its certificate's name wins where it has one.
    pub edge: String,
    /// Where the last good state is kept over a restart; `None` keeps none.
    pub state_dir: Option<PathBuf>,
    /// How long known keys are served without word from the control plane, unless a key says otherwise. It bounds how long a key that
    /// was revoked can be used at an edge that is cut off.
    pub key_grace: Duration,
    /// A state that was last known to be current longer ago than this is not started with.
    pub max_boot_staleness: Duration,
    /// Time that a new configuration has to serve without harm before it is kept as good.
    pub bake: Duration,
}

/// One control node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlEndpoint {
    /// `host:port`.
    pub address: String,
    /// Its region; those of the edge's own are tried first, and another region's node is hung up on.
    pub region: Option<String>,
}

impl ControlLinkConfig {
    /// Times as `docs/configuration.md` documents them.
    #[must_use]
    pub fn new(edge: impl Into<String>, endpoints: Vec<ControlEndpoint>) -> Self {
        Self {
            endpoints,
            edge: edge.into(),
            state_dir: None,
            // A day: an outage of the control plane must be repairable without haste, and a key that was revoked meanwhile is of use to
            // a thief only at edges that nobody can reach.
            key_grace: Duration::from_secs(24 * 3600),
            max_boot_staleness: Duration::from_secs(7 * 24 * 3600),
            bake: Duration::from_secs(30),
        }
    }
}
