//! Connections of the admin API: HTTP/1.1 over whatever the listener accepts.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_runtime::mesh::{Accept, Io, Peer};
use tokio::sync::Semaphore;

use super::Admin;
use super::answer::{Answer, Content};
use super::call::{Call, Received};
use super::error::AdminError;
use super::routes::find;

/// Open connections at once: people and their tools.
const CONNECTIONS: usize = 1_000;
/// Time for the head of a request, and between two requests.
const HEAD: Duration = Duration::from_secs(30);
/// Time for a body.
const BODY: Duration = Duration::from_secs(120);
/// Pause when a connection cannot be accepted: only time brings file descriptors back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the stop of the admin's tasks is requested or the listener is closed.
pub async fn serve(admin: Admin, listener: Arc<dyn Accept>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = admin.parts.tasks.clone();
    let shutdown = tasks.shutdown().clone();
    loop {
        // Dropping either branch is safe: accepting loses none, and a stop is a level.
        let accepted = tokio::select! {
            biased;
            () = shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, peer)) => {
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
                let connection = connection(admin.clone(), io, peer);
                tasks.spawn("admin-connection", async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Ends with the connection, or after the current answer once the stop is requested.
async fn connection(admin: Admin, io: Io, peer: Peer) {
    let shutdown = admin.parts.tasks.shutdown().clone();
    let peer = Arc::new(peer);
    let service = service_fn(|request| {
        let (admin, peer) = (admin.clone(), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(handle(admin, &peer, request).await) }
    });
    let mut builder = http1::Builder::new();
    let mut served = pin!(builder.timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(io), service));
    // Dropping the losing branch is safe: the connection is pinned outside, and a stop is a level.
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = shutdown.requested() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

async fn handle(admin: Admin, peer: &Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let published = admin.parts.published.clone();
    let mut response = match answer(admin, peer, request).await {
        Ok(Answer { status, content }) => {
            let (kind, body) = match content {
                Content::Json(value) => ("application/json", Bytes::from(value.to_string())),
                Content::Bytes(bytes) => ("application/octet-stream", bytes),
            };
            respond(status, kind, body)
        }
        Err(error) => {
            tracing::debug!(%method, %path, status = error.status.as_u16(), code = error.code, message = %error.message, "admin request refused");
            let mut response = respond(error.status, "application/json", Bytes::from(error.body().to_string()));
            if let Some(seconds) = error.retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    };
    response.headers_mut().insert(HeaderName::from_static("x-index"), HeaderValue::from(published.load().applied()));
    response
}

async fn answer(admin: Admin, peer: &Peer, request: Request<Incoming>) -> Result<Answer, AdminError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path == "/openapi.json" && parts.method == Method::GET {
        return Ok(Answer { status: http::StatusCode::OK, content: Content::Json(super::openapi::document()) });
    }
    let principal = admin.parts.access.principal(peer, &parts.headers)?;
    let (route, segments) = find(&parts.method, path)?;
    principal.may(route.permission)?;
    let body = read(body, route.body).await?;
    let query = parts.uri.query().unwrap_or_default();
    let received = Received { method: &parts.method, path, query, headers: &parts.headers, body, segments, random: fastrand::u128(..) };
    let call = Call::new(principal, received)?;
    let (actor, reason) = (call.principal.name.clone(), call.reason.clone());
    let answered = (route.action)(admin, call).await;
    if route.method != Method::GET {
        let outcome = answered.as_ref().map_or_else(|error| error.code, |_| "done");
        tracing::info!(operation = route.operation.id, actor, reason, outcome, "admin request");
    }
    answered
}

async fn read(body: Incoming, most: usize) -> Result<Bytes, AdminError> {
    let collected = tokio::time::timeout(BODY, Limited::new(body, most).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {most} bytes");
            Err(AdminError::new(http::StatusCode::PAYLOAD_TOO_LARGE, "too_large", message))
        }
        Ok(Err(error)) => Err(AdminError::bad_request(format!("the body could not be read: {error}"))),
        Err(_elapsed) => Err(AdminError::new(http::StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long")),
    }
}

fn respond(status: http::StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
