//! How one node connects to another. The same shape as the mesh connections of the runtime crate.

use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection in both directions.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite + ?Sized> AsyncReadWrite for T {}

/// A connection of any kind.
pub type Io = Box<dyn AsyncReadWrite + Send + Unpin>;

/// Opens connections. Resolves names at each call.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `host:port`.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>>;
}
