//! Where use is counted against limits.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{SecretRef, Span};

/// Where use is counted against limits.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Quota {
    /// Redis or Valkey, 7 or newer, shared by the edges of a region. Without it each edge counts by itself, in memory.
    pub(crate) redis: Option<Redis>,
}

/// A Redis: exactly one of `address`, `sentinels` and `cluster`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Redis {
    /// One server, or an address behind which a service keeps the primary: `redis:6379`.
    pub(crate) address: Option<String>,
    /// Sentinels that know the primary; name several.
    pub(crate) sentinels: Vec<String>,
    /// The name that the sentinels watch the primary under. Without it: `mymaster`.
    pub(crate) primary: Option<String>,
    /// Nodes of a cluster; name several.
    pub(crate) cluster: Vec<String>,
    /// The ACL user. Without it: the default user.
    pub(crate) username: Option<String>,
    /// Its password. Without it: none.
    pub(crate) password: Option<SecretRef>,
    /// The user at the sentinels.
    pub(crate) sentinel_username: Option<String>,
    /// Its password. Without it: none.
    pub(crate) sentinel_password: Option<SecretRef>,
    /// Encrypt, and check the server's certificate. Without it: plain TCP.
    pub(crate) tls: Option<RedisTls>,
    /// The database number; always 0 in a cluster.
    pub(crate) database: u16,
    /// Connections to each server. Without it: 4.
    pub(crate) connections: Option<usize>,
    /// Time for one question, a reconnect included. Without it: `50ms`.
    pub(crate) call_timeout: Option<Span>,
    /// Time to connect in the background. Without it: `250ms`.
    pub(crate) connect_timeout: Option<Span>,
}

/// Certificates for a Redis.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RedisTls {
    /// PEM file of the authorities to trust. Without it: the system's.
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of our certificate, for servers that ask for one.
    pub(crate) cert: Option<PathBuf>,
    /// PEM file of its key.
    pub(crate) key: Option<PathBuf>,
}
