//! Opening a connection: resolve, check the address, connect, TLS, HTTP handshake.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tidegate_runtime::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::is_public;
use super::body::SegmentBody;
use super::http1::{self, Socket};
use super::origin::Origin;
use crate::config::UpstreamHttp;

/// A fresh connection, ready for its first request.
pub(super) enum Connected {
    Http1(http1::Connection),
    Http2(http2::SendRequest<SegmentBody>),
}

/// How far a connection came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectStage {
    Resolve,
    Address,
    Tcp,
    Tls,
    Http,
}

/// Why no connection could be opened.
#[derive(Debug, Error)]
#[error("connect to {host}:{port} ({stage:?}): {reason}")]
pub(crate) struct ConnectError {
    pub(crate) stage: ConnectStage,
    host: String,
    port: u16,
    reason: String,
}

/// Opens one connection within the origin's connect timeout.
pub(super) async fn connect(origin: &Origin, tasks: &Tasks) -> Result<Connected, ConnectError> {
    let fail = |stage, reason: String| fail(origin, stage, reason);
    let work = async {
        let tcp = tcp(origin).await?;
        let Some((config, name)) = &origin.tls else {
            return match origin.http {
                UpstreamHttp::Http2 => http2(tcp, tasks).await,
                UpstreamHttp::Auto | UpstreamHttp::Http1 => return Ok(http1(Socket::Plain(tcp))),
            }
            .map_err(|error| fail(ConnectStage::Http, error.to_string()));
        };
        let tls = TlsConnector::from(config.clone())
            .connect(name.clone(), tcp)
            .await
            .map_err(|error| fail(ConnectStage::Tls, error.to_string()))?;
        let speaks_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        if !speaks_h2 {
            return Ok(http1(Socket::Tls(Box::new(tls))));
        }
        http2(tls, tasks).await.map_err(|error| fail(ConnectStage::Http, error.to_string()))
    };
    match tokio::time::timeout(origin.connect_timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(fail(ConnectStage::Tcp, format!("no connection within {:?}", origin.connect_timeout))),
    }
}

async fn tcp(origin: &Origin) -> Result<TcpStream, ConnectError> {
    let fail = |stage, reason: String| fail(origin, stage, reason);
    let mut last = None;
    for address in allowed(origin, &resolve(origin).await?)? {
        match tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Nagle and delayed acknowledgements together cost 40 ms per small write.
                if let Err(error) = stream.set_nodelay(true) {
                    return Err(fail(ConnectStage::Tcp, error.to_string()));
                }
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(format!("{address}: {error}")),
            Err(_) => last = Some(format!("{address}: no answer within {PER_ADDRESS:?}")),
        }
    }
    Err(fail(ConnectStage::Tcp, last.unwrap_or_default()))
}

/// The addresses of the origin's host. An address literal may end in a dot, as a name may; it is not asked for in the DNS.
async fn resolve(origin: &Origin) -> Result<Vec<SocketAddr>, ConnectError> {
    let literal = origin.host.strip_suffix('.').unwrap_or(&origin.host).parse::<IpAddr>();
    if let Ok(address) = literal {
        return Ok(vec![SocketAddr::new(address, origin.port)]);
    }
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
    Ok(found.map_err(|error| fail(origin, ConnectStage::Resolve, error.to_string()))?.collect())
}

/// Those that may be connected to; at least one. This is the only door: whatever spelling or name led to an address, it is judged here,
/// and the judged address is the one that is connected to.
fn allowed(origin: &Origin, addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, ConnectError> {
    let Some(first) = addresses.first() else {
        return Err(fail(origin, ConnectStage::Resolve, "the name has no address".to_owned()));
    };
    let allowed: Vec<SocketAddr> = addresses.iter().copied().filter(|address| origin.allow_private || is_public(address.ip())).collect();
    if allowed.is_empty() {
        let reason =
            format!("{} is not a public address; set `allow_private_addresses: true` on this provider if that is meant", first.ip());
        return Err(fail(origin, ConnectStage::Address, reason));
    }
    Ok(allowed)
}

fn fail(origin: &Origin, stage: ConnectStage, reason: String) -> ConnectError {
    ConnectError { stage, host: origin.host.clone(), port: origin.port, reason }
}

fn http1(socket: Socket) -> Connected {
    Connected::Http1(http1::Connection::new(socket))
}

async fn http2<S>(stream: S, tasks: &Tasks) -> Result<Connected, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .adaptive_window(true)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .handshake::<_, SegmentBody>(TokioIo::new(stream))
        .await?;
    // Ends when the provider closes, or when every sender and response body is gone.
    tasks.spawn("upstream-http2", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Connected::Http2(sender))
}

/// Time for one of several addresses of a name, so that a dead one leaves time for the next.
const PER_ADDRESS: Duration = Duration::from_secs(3);
/// HTTP/2 connections are long-lived; a ping finds a dead one before a request does.
const HTTP2_PING: Duration = Duration::from_secs(20);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
