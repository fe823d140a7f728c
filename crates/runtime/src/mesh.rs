//! Connections inside the mesh: who is at the other end, how one is dialled and how one is accepted.
//!
//! Nothing here knows what is said over a connection. Two seams, [`Dial`] and [`Accept`], have two shapes each: mutual TLS for real
//! meshes and plain TCP for development; the simulator brings its own pair. [`channel`] and [`incoming`] put gRPC on top of either.

mod aging;
mod carried;
mod grpc;
mod identity;
mod mtls;
mod name;
mod plain;
mod refusal;
mod security;
mod verdict;
mod verify;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use carried::Carried;
pub use grpc::{ChannelOptions, Incoming, MeshIo, channel, dial_error, incoming, server};
pub use identity::{Identity, IdentityFiles};
pub use mtls::{MtlsDialer, MtlsListener, MtlsOptions};
pub use name::{MeshName, NameError, Role};
pub use plain::{PlainDialer, PlainListener};
pub use refusal::MeshMetrics;
pub use security::{Security, SecurityError};
pub use verify::Admit;

/// A future that owns what it needs for `'a`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a connection can do: implemented by everything that can.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// One connection, whatever it runs over.
pub type Io = Box<dyn AsyncReadWrite>;

/// Makes connections to other members of the mesh.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `address` (`host:port`; a name is resolved anew each time) and returns once the other side is known to be what
    /// `expect` says and has let us in. Where nobody proves who they are (plain TCP), `expect` is not looked at.
    fn dial<'a>(&'a self, address: &'a str, expect: Expect) -> BoxFuture<'a, Result<Io, DialError>>;
}

/// Takes connections from other members of the mesh.
pub trait Accept: Send + Sync + 'static {
    /// The next connection that was let in. Dropping the future loses none. An error of kind `NotConnected` says that there will be
    /// no more; any other is worth another try after a pause.
    fn accept(&self) -> BoxFuture<'_, Result<(Io, Peer), io::Error>>;
}

/// What the other side of a dialled connection has to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expect {
    /// Its role.
    pub role: Role,
    /// Its region; `None` takes any.
    pub region: Option<String>,
}

impl Expect {
    /// A role in any region.
    pub fn role(role: Role) -> Self {
        Self { role, region: None }
    }

    /// A role in one region.
    pub fn in_region(role: Role, region: impl Into<String>) -> Self {
        Self { role, region: Some(region.into()) }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "role {} in region {region}", self.role),
            None => write!(f, "role {} in any region", self.role),
        }
    }
}

/// The other side of an accepted connection. In a gRPC handler: `request.extensions().get::<Peer>()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it proved to be; `None` over plain TCP.
    pub name: Option<MeshName>,
    /// Where it called from.
    pub address: SocketAddr,
    /// What its connection has taken from us.
    pub carried: Carried,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} at {}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host name has no address.
    #[error("look up {address}: {source}")]
    Resolve {
        /// Whom we called.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of its addresses takes connections.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Whom we called.
        address: String,
        /// Why, of the last address that was tried.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("connect to {address}: not done after {} ms", after.as_millis())]
    Timeout {
        /// Whom we called.
        address: String,
        /// How long we waited.
        after: Duration,
    },
    /// The two sides found no common ground, or one does not trust the other's certificate.
    #[error("TLS with {address}: {reason}")]
    Tls {
        /// Whom we called.
        address: String,
        /// What went wrong, and what to look at.
        reason: String,
    },
    /// The other side is not what we expected; we hung up.
    #[error("{address} is not what was expected: expected {expected}, found {found}: {reason}")]
    Unexpected {
        /// Whom we called.
        address: String,
        /// What it had to be.
        expected: Expect,
        /// What it says it is.
        found: String,
        /// Which part does not fit.
        reason: String,
    },
    /// The other side does not let us in.
    #[error("{address} refused us: {reason}")]
    Refused {
        /// Whom we called.
        address: String,
        /// Its reason.
        reason: String,
    },
}
