//! Which servers, and how to reach them.

use std::time::Duration;

use secrecy::SecretString;

/// Everything a [`super::RedisStore`] needs to know.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The servers.
    pub topology: RedisTopology,
    /// An ACL user; the default user without a password when absent.
    pub auth: Option<RedisAuth>,
    /// How to authenticate at the sentinels, when they ask for it.
    pub sentinel_auth: Option<RedisAuth>,
    /// Encrypt, and check the server's certificate.
    pub tls: Option<RedisTls>,
    /// The database number. Always 0 in a cluster.
    pub database: u16,
    /// Multiplexed connections to each server.
    pub connections: usize,
    /// For one call that a request waits for, a reconnect included; the others may take five times as long.
    pub call_timeout: Duration,
    /// For one connect in the background.
    pub connect_timeout: Duration,
}

/// The kinds of installation. Addresses are `host:port`; a host is resolved at each connect.
#[derive(Debug, Clone)]
pub enum RedisTopology {
    /// One server, or one address behind which a service keeps a primary.
    Single(String),
    /// Sentinels that know the primary.
    Sentinel {
        /// The sentinels; name several.
        sentinels: Vec<String>,
        /// The name they watch the primary under.
        primary: String,
    },
    /// Redis Cluster; name several nodes.
    Cluster(Vec<String>),
}

/// A user and its password.
#[derive(Debug, Clone)]
pub struct RedisAuth {
    /// The ACL user; `default` when absent.
    pub username: Option<String>,
    /// Its password.
    pub password: SecretString,
}

/// Certificates, as PEM.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// Whom to trust; the system's roots when absent.
    pub roots: Option<Vec<u8>>,
    /// Our certificate chain and key, when the server asks for one.
    pub client: Option<(Vec<u8>, SecretString)>,
}

impl RedisOptions {
    /// Options with the defaults: no user, no TLS, 4 connections, 50 ms per call, 250 ms per connect.
    pub fn new(topology: RedisTopology) -> Self {
        Self {
            topology,
            auth: None,
            sentinel_auth: None,
            tls: None,
            database: 0,
            connections: DEFAULT_CONNECTIONS,
            call_timeout: DEFAULT_CALL_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        }
    }
}

/// Enough that one large answer does not hold up the others; more only cost the server file descriptors.
const DEFAULT_CONNECTIONS: usize = 4;
/// A request waits at most this long for its quota; ten times the usual 99th percentile within a region.
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_millis(50);
/// A TLS handshake and authentication in the same region, with room.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
