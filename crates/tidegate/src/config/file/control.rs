//! How an edge follows the control plane.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{Named, Span};

/// The control plane to follow. With it, what to route and who may call comes from there; this file says where to listen, limits and files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Control {
    /// Control nodes near the edge, tried first in random order: `https://host:port`, or `http://host:port` without mutual TLS.
    pub(crate) endpoints: Vec<String>,
    /// Control nodes of other regions, by region, for when none of the near ones can be reached. A node of another region than its own
    /// is hung up on.
    #[serde(default)]
    pub(crate) elsewhere: Named<Vec<String>>,
    /// Name of this edge, unique in the mesh. Without it: the name in its certificate, else the host's name.
    pub(crate) name: Option<String>,
    /// Certificate of this edge in the mesh. Needed for `https://` endpoints.
    pub(crate) identity: Option<MeshIdentity>,
    /// Directory where the last good state is kept over a restart. Without it nothing is kept, and a restarted edge needs a control node.
    pub(crate) state_dir: Option<PathBuf>,
    /// File of key-encryption keys that open the providers' sealed credentials, as `tidegate kek new` makes it.
    pub(crate) kek: Option<PathBuf>,
    /// Instead of `kek`: a program and its arguments that prints such a file, as a client of a key management service does. It is run without
    /// a shell when the edge starts, and again when something was sealed with a key that is not there yet.
    pub(crate) kek_command: Option<Vec<String>>,
    /// Longest time for `kek_command`. Without it: `10s`.
    pub(crate) kek_patience: Option<Span>,
    /// How long known keys are served without word from the control plane; after that they are answered 503, never 401. It bounds how long
    /// a revoked key can be used at an edge that is cut off from every control node. A key can have its own. Without it: `24h`.
    pub(crate) key_grace: Option<Span>,
    /// A kept state that was last known to be current longer ago is not started with. Without it: `7d`.
    pub(crate) max_boot_staleness: Option<Span>,
    /// Time that a new configuration has to serve without harm before it is kept as good. Without it: `30s`.
    pub(crate) bake: Option<Span>,
}

/// A certificate of the mesh. The names that cert-manager gives the files of a secret are `tls.crt`, `tls.key` and `ca.crt`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MeshIdentity {
    /// PEM file of the chain, leaf first.
    pub(crate) cert: PathBuf,
    /// PEM file of the leaf's private key.
    pub(crate) key: PathBuf,
    /// PEM file of the authorities of the mesh.
    pub(crate) ca: PathBuf,
}
