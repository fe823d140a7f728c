//! Idle connections of one worker thread, by origin.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use parking_lot::Mutex;
use thiserror::Error;
use tidegate_runtime::Tasks;

use super::body::{ResponseBody, SegmentBody};
use super::connect::{ConnectError, Connected, connect};
use super::http1::{self, Broken, Head, Unanswered};
use super::origin::Origin;
use super::outgoing::Outgoing;

/// Why a request got no response head.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// No connection; the provider has not seen the request.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the response head.
    #[error("the connection broke before an answer came: {0}")]
    Broken(#[from] Broken),
}

/// Connections of one worker. The mutex is only contended when the runtime is shared; it is never held across an await.
pub(crate) struct Pool {
    /// Owns the tasks that drive the connections.
    tasks: Tasks,
    origins: Mutex<HashMap<u32, Connections>>,
}

#[derive(Default)]
struct Connections {
    /// Most recently used last: the busy ones stay warm, the others expire.
    http1: Vec<Idle>,
    http2: Option<http2::SendRequest<SegmentBody>>,
}

struct Idle {
    connection: http1::Connection,
    since: Instant,
    expires_after: Duration,
}

/// Where an HTTP/1.1 connection in use comes back to; see [`ResponseBody`] for when.
pub(super) struct Home {
    pool: Arc<Pool>,
    origin: Arc<Origin>,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Home").field("provider", &self.origin.provider).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn new(tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { tasks, origins: Mutex::default() })
    }

    /// Sends a request and waits for the response head. Dropping the future closes the connection it used.
    pub(crate) async fn send(self: &Arc<Self>, origin: &Arc<Origin>, outgoing: &Outgoing) -> Result<(Head, ResponseBody), SendError> {
        loop {
            match self.take(origin) {
                Some(Taken::Http2(mut sender)) => {
                    if sender.ready().await.is_err() {
                        self.forget_http2(origin);
                        continue;
                    }
                    return http2_answer(sender, origin, outgoing).await;
                }
                Some(Taken::Http1(connection)) => {
                    let sent = Instant::now();
                    match connection.send(outgoing.http1(origin)).await {
                        Ok(answer) => return Ok(self.at_home(origin, answer)),
                        // Closed by the provider while idle or while we wrote: no verdict about the provider, one fresh try.
                        Err(Unanswered { heard: false, .. }) if sent.elapsed() < STALE_WITHIN => break,
                        Err(Unanswered { error, .. }) => return Err(error.into()),
                    }
                }
                None => break,
            }
        }
        // Boxed: connecting is rare and its state is large, and every request's future would carry it.
        match Box::pin(connect(origin, &self.tasks)).await? {
            Connected::Http1(connection) => match connection.send(outgoing.http1(origin)).await {
                Ok(answer) => Ok(self.at_home(origin, answer)),
                Err(Unanswered { error, .. }) => Err(error.into()),
            },
            Connected::Http2(sender) => {
                self.remember_http2(origin, sender.clone());
                http2_answer(sender, origin, outgoing).await
            }
        }
    }

    /// Drops connections that have been idle for too long or were closed. Called now and then by the worker.
    pub(crate) fn sweep(&self, now: Instant) {
        self.origins.lock().retain(|_, connections| {
            connections
                .http1
                .retain_mut(|idle| now.saturating_duration_since(idle.since) < idle.expires_after && idle.connection.is_alive());
            if connections.http2.as_ref().is_some_and(http2::SendRequest::is_closed) {
                connections.http2 = None;
            }
            !connections.http1.is_empty() || connections.http2.is_some()
        });
    }

    /// Number of idle HTTP/1.1 connections.
    pub(crate) fn idle(&self) -> usize {
        self.origins.lock().values().map(|connections| connections.http1.len()).sum()
    }

    fn at_home(self: &Arc<Self>, origin: &Arc<Origin>, (head, body): (Head, http1::Body)) -> (Head, ResponseBody) {
        (head, ResponseBody::http1(body, Home { pool: Arc::clone(self), origin: Arc::clone(origin) }))
    }

    fn take(&self, origin: &Origin) -> Option<Taken> {
        let mut origins = self.origins.lock();
        let connections = origins.get_mut(&origin.id)?;
        if let Some(sender) = &connections.http2 {
            if !sender.is_closed() {
                return Some(Taken::Http2(sender.clone()));
            }
            connections.http2 = None;
        }
        while let Some(mut idle) = connections.http1.pop() {
            if idle.connection.is_alive() {
                return Some(Taken::Http1(idle.connection));
            }
        }
        None
    }

    fn remember_http2(&self, origin: &Origin, sender: http2::SendRequest<SegmentBody>) {
        self.origins.lock().entry(origin.id).or_default().http2 = Some(sender);
    }

    fn forget_http2(&self, origin: &Origin) {
        if let Some(connections) = self.origins.lock().get_mut(&origin.id) {
            connections.http2 = None;
        }
    }
}

enum Taken {
    Http1(http1::Connection),
    Http2(http2::SendRequest<SegmentBody>),
}

async fn http2_answer(
    mut sender: http2::SendRequest<SegmentBody>,
    origin: &Origin,
    outgoing: &Outgoing,
) -> Result<(Head, ResponseBody), SendError> {
    let (parts, body) = sender.send_request(outgoing.http2(origin)).await.map_err(Broken::from)?.into_parts();
    Ok((Head { status: parts.status, headers: parts.headers }, ResponseBody::http2(body)))
}

impl Home {
    /// Puts the connection back; it is checked for life when it is taken again.
    pub(super) fn give_back(self, connection: http1::Connection) {
        let Self { pool, origin } = self;
        let mut origins = pool.origins.lock();
        let connections = origins.entry(origin.id).or_default();
        if connections.http1.len() < origin.idle_connections {
            connections.http1.push(Idle { connection, since: Instant::now(), expires_after: origin.idle_timeout });
        }
    }
}

/// A kept-alive connection that the provider closed shows it at once; a later break is a failure of the request.
const STALE_WITHIN: Duration = Duration::from_secs(1);
