//! One downstream connection: TLS, then HTTP/1.1 or HTTP/2, until it ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::handler;
use crate::io::{GuardedIo, RequestPatience, Serving};
use crate::listener::ListenerMeta;
use crate::stall::WatchedStreams;
use crate::worker::{Arrival, Worker};

/// What a request needs to know about its connection.
#[derive(Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: SocketAddr,
}

/// Serves until the peer leaves, a limit is hit, or the edge drains and the connection is idle.
pub(crate) async fn serve(worker: &Arc<Worker>, arrival: Arrival) {
    let Arrival { stream, peer, listener, permit: _permit } = arrival;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    if let Some(tls) = &listener.tls {
        // Boxed, as is HTTP/2: a task is as large as its largest branch, and most of many are plain HTTP/1.1 behind a proxy.
        return Box::pin(serve_tls(worker, stream, peer, &listener, tls)).await;
    }
    // A caller who has not said anything yet is not waited for; nothing has been taken from the socket then.
    let Some(version) = worker.draining.or(pin!(spoken(&stream, worker.shared.config.limits.idle))).await else { return };
    speak(worker, stream, peer, version).await;
}

async fn serve_tls(worker: &Arc<Worker>, stream: TcpStream, peer: SocketAddr, listener: &ListenerMeta, tls: &Arc<ServerConfig>) {
    let limits = &worker.shared.config.limits;
    let accept = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
    let stream = match tokio::time::timeout(limits.tls_handshake, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            worker.shared.metrics.tls_handshake(&listener.name, "failed");
            tracing::debug!(%error, listener = %listener.name, "TLS handshake failed");
            return;
        }
        Err(_) => {
            worker.shared.metrics.tls_handshake(&listener.name, "timeout");
            return;
        }
    };
    let session = stream.get_ref().1;
    let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    worker.shared.metrics.tls_handshake(&listener.name, if resumed { "resumed" } else { "full" });
    let version = if session.alpn_protocol() == Some(b"h2") { Version::Http2 } else { Version::Http1 };
    speak(worker, stream, peer, version).await;
}

enum Version {
    Http1,
    Http2,
}

/// HTTP/2 without TLS starts with a fixed preface (RFC 9113, 3.4); no HTTP/1.1 method begins with these bytes.
async fn spoken(stream: &TcpStream, patience: Duration) -> Version {
    let mut first = [0; 3];
    let peeked = tokio::time::timeout(patience, stream.peek(&mut first)).await;
    if matches!(peeked, Ok(Ok(3))) && &first == b"PRI" { Version::Http2 } else { Version::Http1 }
}

async fn speak<S>(worker: &Arc<Worker>, stream: S, peer: SocketAddr, version: Version)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &worker.shared.config.limits;
    let serving = Serving::default();
    // An HTTP/2 connection has no time between requests at which bytes must be those of a head.
    let patience = RequestPatience { head: limits.header_read, idle: limits.idle };
    let requests = matches!(version, Version::Http1).then_some(patience);
    let io = TokioIo::new(GuardedIo::new(stream, limits.write_stall, requests, serving.clone()));
    let info = Arc::new(ConnectionInfo { peer });
    let service = service_fn(|request: http::Request<Incoming>| {
        serving.set(true);
        let (worker, info, serving) = (Arc::clone(worker), Arc::clone(&info), serving.clone());
        async move {
            let version = request.version();
            let mut response = handler::handle(&worker, &info, request).await;
            response.body_mut().on_end(serving);
            if worker.draining.has_begun() && version <= http::Version::HTTP_11 {
                response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    match version {
        Version::Http1 => {
            let mut connection = pin!(
                http1::Builder::new()
                    .max_headers(limits.headers)
                    .max_header_size(limits.header_bytes)
                    .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
                    .serve_connection(io, service)
            );
            if let Some(result) = worker.draining.or(connection.as_mut()).await {
                return ended(result);
            }
            connection.as_mut().graceful_shutdown();
            ended(connection.await);
        }
        Version::Http2 => {
            Box::pin(async move {
                let mut connection = pin!(
                    http2::Builder::new(WatchedStreams::new(limits.write_stall))
                        .timer(TokioTimer::new())
                        .max_concurrent_streams(limits.http2_streams)
                        .initial_stream_window_size(HTTP2_WINDOW)
                        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                        .keep_alive_interval(limits.idle)
                        .serve_connection(io, service)
                );
                if let Some(result) = worker.draining.or(connection.as_mut()).await {
                    return ended(result);
                }
                connection.as_mut().graceful_shutdown();
                ended(connection.await);
            })
            .await
        }
    }
}

fn ended(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "downstream connection ended");
    }
}

/// The least that hyper accepts.
const MIN_BUFFER: usize = 8 * 1024;
/// Upload window of one HTTP/2 stream, bytes.
const HTTP2_WINDOW: u32 = 64 * 1024;
