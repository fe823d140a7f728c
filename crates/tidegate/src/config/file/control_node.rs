//! The file of a control node, as it is written.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::process::{Address, Log, Operations};
use crate::config::scalar::{SecretRef, Span};

/// A Tidegate control node: where it listens, whom it agrees with, and who may tell it what to do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tidegate control node configuration")]
pub(crate) struct ControlFile {
    /// Name of the node, unique in the cluster and the same for every instance of one pod.
    pub(crate) name: String,
    /// Region of the node. Without it: `local`.
    pub(crate) region: Option<String>,
    /// Where log and snapshots live. One process at a time.
    pub(crate) data_dir: PathBuf,
    /// How nodes agree.
    pub(crate) raft: Raft,
    /// Where edges connect.
    #[serde(default)]
    pub(crate) sync: SyncListener,
    /// Where operators connect.
    #[serde(default)]
    pub(crate) admin: AdminListener,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt` of this node: mutual TLS on every listener. Without it everything is plain, which is
    /// accepted on loopback addresses only.
    pub(crate) identity: Option<PathBuf>,
    /// Sealing of providers' credentials.
    #[serde(default)]
    pub(crate) sealing: Sealing,
    /// Secret that keys the digest function of callers' keys; the same as `keys_pepper` of the edges. `env:NAME` or `file:PATH`.
    pub(crate) keys_pepper: Option<SecretRef>,
    /// Staged rollouts.
    #[serde(default)]
    pub(crate) rollout: RolloutSettings,
    /// Folder that the audit log is written to on and on. Without it: `audit` in `data_dir`.
    pub(crate) audit_archive: Option<PathBuf>,
    /// The port for metrics and probes.
    #[serde(default)]
    pub(crate) operations: Operations,
    /// What the process says about itself, on standard error.
    #[serde(default)]
    pub(crate) log: Log,
}

/// How nodes agree.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raft {
    /// Address and port for other control nodes.
    pub(crate) listen: Address,
    /// Host name and port under which the others reach this node; best a name, as it is resolved anew each time. Without it: `listen`.
    pub(crate) advertise: Option<String>,
    /// Addresses of other control nodes: asked before a cluster is founded, and for a place by `tidegate control join`.
    #[serde(default)]
    pub(crate) peers: Vec<String>,
    /// Intervals of the protocol. Without it: `local`.
    #[serde(default)]
    pub(crate) timing: TimingName,
    /// Whether the node is to vote once it has caught up; otherwise it follows, serves edges and reads. Without it: `true`.
    pub(crate) voter: Option<bool>,
    /// Regions to hand leadership to first when this node stops, in order.
    #[serde(default)]
    pub(crate) preferred_regions: Vec<String>,
}

/// Intervals of the protocol, by what lies between the voters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TimingName {
    /// One region: round trips of at most 5 ms.
    #[default]
    Local,
    /// One continent: round trips of at most 120 ms.
    Continental,
    /// Anywhere: round trips of at most 250 ms.
    Global,
}

/// Where edges connect.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SyncListener {
    /// Address and port.
    pub(crate) listen: Address,
    /// Host name and port for edges. Without it: `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
}

/// Where operators connect, and what they may do.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminListener {
    /// Address and port.
    pub(crate) listen: Address,
    /// Host name and port for operators. Without it: `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
    /// Bearer tokens. With neither tokens nor `identity`, everyone who reaches the listener (on a loopback address) may do everything.
    pub(crate) tokens: Vec<AdminToken>,
    /// What certificates of role admin may do. Without it: everything.
    pub(crate) certificates: Vec<AdminCertificate>,
}

/// A bearer token, known by its digest.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminToken {
    /// Shown in the audit log.
    pub(crate) name: String,
    /// `blake3:` and 64 hex digits, as printed by `tidegate key new`.
    pub(crate) digest: String,
    /// What it may do.
    pub(crate) roles: Vec<RoleName>,
}

/// What a certificate of role admin may do.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminCertificate {
    /// Last part of the name in the certificate; `*` is all of them.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) roles: Vec<RoleName>,
}

/// What an identity may do. Each can read everything that is not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RoleName {
    /// Reads.
    Viewer,
    /// Declares, rolls back, overrides, and changes the cluster.
    Operator,
    /// Manages callers' keys.
    KeyAdmin,
    /// Puts providers' credentials.
    SecretAdmin,
}

/// Sealing of providers' credentials.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sealing {
    /// File of public key-encryption keys, as printed by `tidegate kek public`. Without it no credential can be put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
}

/// Staged rollouts of what can take traffic down.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RolloutSettings {
    /// How long a stage lasts at least.
    pub(crate) bake: Span,
}

impl Default for SyncListener {
    fn default() -> Self {
        Self { listen: Address(SocketAddr::from(([127, 0, 0, 1], 7202))), advertise: None }
    }
}

impl Default for AdminListener {
    fn default() -> Self {
        Self { listen: Address(SocketAddr::from(([127, 0, 0, 1], 7203))), advertise: None, tokens: Vec::new(), certificates: Vec::new() }
    }
}

impl Default for RolloutSettings {
    fn default() -> Self {
        Self { bake: Span(tidegate_control::leader::BAKE) }
    }
}
