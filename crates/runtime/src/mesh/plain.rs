//! Plain TCP: for one machine and for networks that encrypt by themselves. Nobody proves who they are.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::{Accept, BoxFuture, Carried, Dial, DialError, Expect, Io, Peer};

/// Dials over plain TCP.
#[derive(Debug, Clone, Copy)]
pub struct PlainDialer {
    /// Longest time for look-up and connecting together.
    pub timeout: Duration,
}

impl Default for PlainDialer {
    fn default() -> Self {
        Self { timeout: DIAL_TIMEOUT }
    }
}

impl Dial for PlainDialer {
    fn dial<'a>(&'a self, address: &'a str, _expect: Expect) -> BoxFuture<'a, Result<Io, DialError>> {
        Box::pin(async move {
            let connecting = tokio::time::timeout(self.timeout, connect(address)).await;
            let stream = connecting.map_err(|_| DialError::Timeout { address: address.to_owned(), after: self.timeout })??;
            Ok(Box::new(stream) as Io)
        })
    }
}

/// Accepts over plain TCP.
#[derive(Debug)]
pub struct PlainListener {
    listener: TcpListener,
}

impl PlainListener {
    /// Accepts from a socket of [`crate::listen`].
    pub fn new(listener: TcpListener) -> Self {
        Self { listener }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Accept for PlainListener {
    fn accept(&self) -> BoxFuture<'_, Result<(Io, Peer), io::Error>> {
        Box::pin(async move {
            let (stream, address) = self.listener.accept().await?;
            prepare(&stream)?;
            Ok((Box::new(stream) as Io, Peer { name: None, address, carried: Carried::default() }))
        })
    }
}

/// A TCP connection to the first address of `address` that takes one. Names are looked up anew, so a peer that moved is found.
pub(super) async fn connect(address: &str) -> Result<TcpStream, DialError> {
    let resolve = |source| DialError::Resolve { address: address.to_owned(), source };
    let connect = |source| DialError::Connect { address: address.to_owned(), source };
    let mut last = None;
    for candidate in lookup_host(address).await.map_err(resolve)? {
        match TcpStream::connect(candidate).await {
            Ok(stream) => {
                prepare(&stream).map_err(connect)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address")), connect))
}

/// Small messages leave at once, and a peer that vanished without a word is noticed by the kernel too.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
}

/// A round trip around the world takes 0.3 s, three of them and a lost packet stay well below.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Only a net below HTTP/2's own pings, for the time before they run.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
