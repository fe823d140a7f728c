//! What is let in: request bodies within size and pace, and not more requests than the edge can carry.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Limits;
use crate::error::EdgeError;
use crate::memory::MemoryWatch;
use crate::spare::Spares;

/// Counts requests in flight; dropping it counts one out.
pub(crate) struct Admitted(Arc<AtomicUsize>);

impl Admitted {
    /// Lets one more request in, unless `most` are in flight already or memory is short.
    pub(crate) fn admit(in_flight: &Arc<AtomicUsize>, most: usize, memory: &MemoryWatch) -> Result<Self, EdgeError> {
        if memory.is_short() {
            return Err(EdgeError::Saturated { retry_after: SATURATED_RETRY });
        }
        if in_flight.fetch_add(1, Ordering::Relaxed) >= most {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(EdgeError::Saturated { retry_after: SATURATED_RETRY });
        }
        Ok(Self(Arc::clone(in_flight)))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a whole request body. Bytes are counted before they are kept; a body that came in one piece is not copied, a larger one is
/// collected in a buffer of the worker's.
pub(crate) async fn read_body(mut body: Incoming, limits: &Limits, spares: &Arc<Spares>) -> Result<Bytes, EdgeError> {
    let too_large = || EdgeError::BodyTooLarge { limit: limits.body_bytes };
    let announced = body.size_hint().exact().map(|exact| usize::try_from(exact).unwrap_or(usize::MAX));
    if announced.is_some_and(|announced| announced > limits.body_bytes) {
        return Err(too_large());
    }
    let mut pace = Pace::new(limits);
    let mut first = Bytes::new();
    let mut all = Vec::new();
    loop {
        let read = first.len() + all.len();
        let frame = poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(context) {
                return Poll::Ready(Ok(frame));
            }
            pace.poll_too_slow(context, read).map(Err)
        });
        let Some(frame) = frame.await? else { break };
        let frame = frame.map_err(|error| EdgeError::BodyBroken { reason: error.to_string() })?;
        let Ok(data) = frame.into_data() else { continue };
        if read + data.len() > limits.body_bytes {
            return Err(too_large());
        }
        if read == 0 {
            first = data;
        } else {
            if all.is_empty() {
                // An announced length is trusted only as far as the limit, and only up to a megabyte in advance.
                all = spares.take(announced.unwrap_or(2 * read).min(RESERVE).max(read + data.len()));
                all.extend_from_slice(&first);
                first = Bytes::new();
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { spares.lend(all) })
}

/// Ends bodies that drip. The timer exists only once the body makes us wait.
struct Pace<'a> {
    limits: &'a Limits,
    timer: Option<Pin<Box<Sleep>>>,
    begun: Option<Instant>,
}

impl<'a> Pace<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, timer: None, begun: None }
    }

    fn poll_too_slow(&mut self, context: &mut std::task::Context<'_>, read: usize) -> Poll<EdgeError> {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(CHECK_EVERY)));
        while timer.as_mut().poll(context).is_ready() {
            let elapsed = begun.elapsed();
            let judged = elapsed.saturating_sub(self.limits.body_grace);
            if !judged.is_zero() && (read as u64) < self.limits.body_rate.saturating_mul(judged.as_secs().max(1)) {
                return Poll::Ready(EdgeError::BodyTooSlow);
            }
            timer.as_mut().reset(Instant::now() + CHECK_EVERY);
        }
        Poll::Pending
    }
}

/// Load sheds quickly and comes back quickly.
const SATURATED_RETRY: Duration = Duration::from_secs(1);
/// How often a waiting body's pace is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Most bytes that a mere announcement of a length allocates: a megabyte and what is beside its text.
const RESERVE: usize = 1024 * 1024 + 64 * 1024;
