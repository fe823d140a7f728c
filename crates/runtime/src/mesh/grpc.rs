//! gRPC over the mesh's connections: a tonic channel over a [`Dial`], and a stream for tonic servers over an [`Accept`].

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tower_service::Service;

use super::{Accept, BoxFuture, Dial, DialError, Expect, Io, Peer};

/// How a channel behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Longest time of one call; `None` leaves it to the caller, as streams need it.
    pub timeout: Option<Duration>,
    /// Time without traffic after which a ping is sent, also while no call runs.
    pub keep_alive_interval: Duration,
    /// Time without an answer to a ping after which the connection counts as dead.
    pub keep_alive_timeout: Duration,
    /// HTTP/2 window of one stream, bytes.
    pub stream_window: u32,
    /// HTTP/2 window of the connection, bytes.
    pub connection_window: u32,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            timeout: None,
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            stream_window: 1 << 20,
            connection_window: 4 << 20,
        }
    }
}

/// A channel that connects when it is first used and again after each loss. Cheap to clone; clones share one connection.
///
/// `address` is dialled each time, so a name may come to mean another machine. A failed dial ends the waiting call with status
/// `Unavailable`, in whose sources the [`DialError`] is found (see [`dial_error`]).
pub fn channel(dial: Arc<dyn Dial>, address: impl Into<String>, expect: Expect, options: ChannelOptions) -> Channel {
    let mut endpoint = Endpoint::from_static(AUTHORITY)
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window);
    if let Some(timeout) = options.timeout {
        endpoint = endpoint.timeout(timeout);
    }
    endpoint.connect_with_connector_lazy(Connector { dial, address: address.into().into(), expect })
}

/// A tonic server with the settings that go with [`channel`]. Callers are asked to open a new connection (HTTP/2 GOAWAY) after 24 to
/// 30 minutes, at random per process; calls that run then have another 25 minutes. So identities change hands before
/// connections are cut at the age of an hour.
pub fn server() -> Server {
    let options = ChannelOptions::default();
    Server::builder()
        .max_connection_age(ASK_TO_MOVE.mul_f64(0.8 + 0.2 * fastrand::f64()))
        .max_connection_age_grace(MOVE_GRACE)
        .http2_keepalive_interval(Some(options.keep_alive_interval))
        .http2_keepalive_timeout(Some(options.keep_alive_timeout))
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
}

/// The failed dial behind a status, if that is what it was.
pub fn dial_error(status: &tonic::Status) -> Option<&DialError> {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<DialError>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// tonic's view of a [`Dial`].
struct Connector {
    dial: Arc<dyn Dial>,
    address: Arc<str>,
    expect: Expect,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Io>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<TokioIo<Io>, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    /// The URI is the same for all channels and says nothing: whom to dial is known here.
    fn call(&mut self, _: Uri) -> Self::Future {
        let (dial, address, expect) = (Arc::clone(&self.dial), Arc::clone(&self.address), self.expect.clone());
        Box::pin(async move { dial.dial(&address, expect).await.map(TokioIo::new) })
    }
}

/// Accepted connections for tonic's `serve_with_incoming`. Handlers find the [`Peer`] in the extensions of their requests.
///
/// The stream ends when the listener is closed; after any other error it pauses and goes on, as running out of file descriptors
/// passes.
pub fn incoming(accept: Arc<dyn Accept>) -> Incoming {
    Incoming { next: Some(next(accept)) }
}

/// See [`incoming`].
#[must_use = "connections are accepted only while it is polled"]
pub struct Incoming {
    /// `None` after the end.
    next: Option<Next>,
}

type Next = BoxFuture<'static, (Arc<dyn Accept>, Option<MeshIo>)>;

fn next(accept: Arc<dyn Accept>) -> Next {
    Box::pin(async move {
        loop {
            match accept.accept().await {
                Ok((io, peer)) => return (accept, Some(MeshIo { io, peer })),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return (accept, None),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection of the mesh");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

impl Stream for Incoming {
    type Item = Result<MeshIo, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(waiting) = self.next.as_mut() else {
            return Poll::Ready(None);
        };
        let (accept, io) = ready!(waiting.as_mut().poll(cx));
        self.next = io.is_some().then(|| next(accept));
        Poll::Ready(io.map(Ok))
    }
}

/// An accepted connection that remembers who called.
pub struct MeshIo {
    io: Io,
    peer: Peer,
}

impl MeshIo {
    /// Who called.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for MeshIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for MeshIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for MeshIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.peer.carried.add(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.peer.carried.add(taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// What HTTP/2 calls the authority. Who the other side is, TLS says.
const AUTHORITY: &str = "http://tidegate.mesh";
/// Half of the greatest age.
const ASK_TO_MOVE: Duration = Duration::from_secs(1_800);
/// Together with [`ASK_TO_MOVE`] not above the 54 minutes after which a connection may be cut, give or take one.
const MOVE_GRACE: Duration = Duration::from_secs(1_500);
/// Long enough not to spin, short enough that nobody's dial times out meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
pub(super) mod tests;
