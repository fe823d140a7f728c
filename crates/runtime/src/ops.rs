//! The operations port: what probes, scrapers and operators ask a process. Never for callers of the data plane.
//!
//! Plain HTTP/1.1 on a loopback or cluster-internal address, answered on whatever runtime it was started on, so that a busy data
//! plane does not make a process look dead. There is no authentication and hence nothing secret: bodies, keys and credentials never
//! get here. Roles add routes of their own.

mod process;
mod readiness;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use crate::listen::BindError;
pub use process::{BuildInfo, register_build_info, register_process_metrics};
pub use readiness::{Condition, Readiness};

use crate::listen::{self, ListenOptions};
use crate::tasks::{Shutdown, Tasks};

/// What a route is asked. There is no body: operations requests have none that matters.
#[derive(Debug, Clone)]
pub struct OpsRequest {
    /// GET, HEAD or whatever the route allows.
    pub method: Method,
    /// Path, not percent-decoded.
    pub path: String,
    /// What follows the question mark, not decoded; empty when there is none.
    pub query: String,
}

impl OpsRequest {
    /// The first value of a query parameter, not percent-decoded; an empty string when it has no value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// What a route answers.
#[derive(Debug, Clone)]
pub struct OpsResponse {
    /// Status; one that does not exist becomes 500.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// The whole body.
    pub body: Bytes,
}

impl OpsResponse {
    /// An answer in plain text.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// An answer in JSON.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: "application/json", body: body.into() }
    }
}

/// Answers a request, or leaves it to the next route.
pub type OpsHandler = Arc<dyn Fn(&OpsRequest) -> Option<OpsAnswer> + Send + Sync>;

/// A route's answer.
pub enum OpsAnswer {
    /// From memory.
    Now(OpsResponse),
    /// From somewhere that has to be asked; whoever asks bounds the time.
    Later(OpsPending),
}

/// An answer on its way.
pub type OpsPending = Pin<Box<dyn Future<Output = OpsResponse> + Send>>;

/// A route that a role adds.
#[derive(Clone)]
pub struct OpsRoute {
    /// Requests whose path begins so are offered to the handler.
    pub path_prefix: &'static str,
    /// What is found there, for the list at `/`.
    pub about: &'static str,
    /// It may refuse by `None`.
    pub handler: OpsHandler,
}

impl OpsRoute {
    /// A route for the paths that begin with `path_prefix`, which answers from memory.
    pub fn new<F>(path_prefix: &'static str, about: &'static str, handler: F) -> Self
    where
        F: Fn(&OpsRequest) -> Option<OpsResponse> + Send + Sync + 'static,
    {
        Self { path_prefix, about, handler: Arc::new(move |request| handler(request).map(OpsAnswer::Now)) }
    }

    /// A route that may have to ask somebody.
    pub fn asking<F>(path_prefix: &'static str, about: &'static str, handler: F) -> Self
    where
        F: Fn(&OpsRequest) -> Option<OpsAnswer> + Send + Sync + 'static,
    {
        Self { path_prefix, about, handler: Arc::new(handler) }
    }
}

/// What the operations port shows.
#[derive(Clone)]
pub struct Operations {
    /// Everything under `/metrics`.
    pub registry: Registry,
    /// Decides `/readyz`.
    pub readiness: Readiness,
    /// Routes of the role, asked in order.
    pub routes: Vec<OpsRoute>,
}

/// An operations port that is bound but not yet served.
#[derive(Debug)]
pub struct OpsServer {
    listener: TcpListener,
    local_address: SocketAddr,
}

impl OpsServer {
    /// Takes the address; port 0 picks a free one. Panics outside of a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let listener = listen::bind_tokio(address, ListenOptions::default())?;
        let local_address = listener.local_addr().unwrap_or(address);
        Ok(Self { listener, local_address })
    }

    /// The address that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// Serves until the stop of `tasks` is requested. Probes must still see a draining process as alive and unready, so give it
    /// tasks that stop last.
    pub fn serve(self, operations: Operations, tasks: &Tasks) {
        let accepting = accept(self.listener, Arc::new(operations), tasks.clone());
        tasks.spawn("operations-accept", accepting);
    }
}

/// Ends when the stop is requested.
async fn accept(listener: TcpListener, operations: Arc<Operations>, tasks: Tasks) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let shutdown = tasks.shutdown().clone();
    loop {
        // Dropping the accept is safe: a connection that was not returned stays in the backlog.
        let accepted = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the operations port cannot accept");
                tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let connection = serve_connection(stream, Arc::clone(&operations), shutdown.clone());
        tasks.spawn("operations-connection", async move {
            connection.await;
            drop(permit);
        });
    }
}

/// Ends with the connection, or after the current answer once the stop is requested.
async fn serve_connection(stream: TcpStream, operations: Arc<Operations>, shutdown: Shutdown) {
    // One small answer per request: without this, Nagle's algorithm may hold it back.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let operations = Arc::clone(&operations);
        let asked = OpsRequest {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        };
        async move { Ok::<_, Infallible>(operations.answer(&asked).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // The connection lives on after the stop: it is polled again below.
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an operations connection failed");
    }
}

impl Operations {
    async fn answer(&self, asked: &OpsRequest) -> Response<Full<Bytes>> {
        let own = match asked.path.as_str() {
            "/" => Some(self.list()),
            "/metrics" => Some(self.metrics()),
            "/livez" => Some(OpsResponse::text(200, "alive\n")),
            "/readyz" => Some(self.ready()),
            _ => None,
        };
        if let Some(response) = own {
            if asked.method != Method::GET && asked.method != Method::HEAD {
                return method_not_allowed();
            }
            return into_http(response);
        }
        let answer = self.routes.iter().filter(|route| asked.path.starts_with(route.path_prefix)).find_map(|route| (route.handler)(asked));
        into_http(match answer {
            Some(OpsAnswer::Now(response)) => response,
            Some(OpsAnswer::Later(response)) => response.await,
            None => OpsResponse::text(404, "nothing here; / lists what there is\n"),
        })
    }

    fn list(&self) -> OpsResponse {
        let mut text = String::new();
        let own = OWN_ROUTES.iter().copied();
        let added = self.routes.iter().map(|route| (route.path_prefix, route.about));
        for (path, about) in own.chain(added) {
            text.push_str(path);
            text.push_str("  ");
            text.push_str(about);
            text.push('\n');
        }
        OpsResponse::text(200, text)
    }

    fn metrics(&self) -> OpsResponse {
        let mut text = Vec::with_capacity(64 * 1024);
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => OpsResponse { status: 200, content_type: prometheus::TEXT_FORMAT, body: text.into() },
            Err(error) => {
                tracing::error!(%error, "encode the metrics");
                OpsResponse::text(500, "the metrics cannot be encoded; see the log\n")
            }
        }
    }

    fn ready(&self) -> OpsResponse {
        let missing = self.readiness.missing();
        if missing.is_empty() {
            return OpsResponse::text(200, "ready\n");
        }
        let mut text = String::from("not ready\n");
        for line in missing {
            text.push_str(&line);
            text.push('\n');
        }
        OpsResponse::text(503, text)
    }
}

fn into_http(response: OpsResponse) -> Response<Full<Bytes>> {
    let mut http = Response::new(Full::new(response.body));
    *http.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = http.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(response.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    http
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let mut http = into_http(OpsResponse::text(405, "only GET and HEAD\n"));
    http.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    http
}

const OWN_ROUTES: [(&str, &str); 3] = [
    ("/metrics", "metrics in the Prometheus text format"),
    ("/livez", "200 while the process runs"),
    ("/readyz", "200 when it should get traffic, else 503 with the reasons"),
];

/// Scrapers and probes keep one connection each; more is a mistake or an attack on file descriptors.
const MOST_CONNECTIONS: usize = 64;
/// Largest request head, bytes; the smallest that hyper permits.
const LARGEST_HEAD: usize = 8 * 1024;
/// Longer than the usual scrape interval of 15 to 60 s, so that scrapers can keep their connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Accept fails for as long as descriptors are short; trying in a tight loop would not free any.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
