//! HTTP/2 streams whose callers open no window.
//!
//! A caller can keep an HTTP/2 connection lively and yet take nothing of one stream. hyper then polls neither the socket's writes nor the
//! response body, so no guard there can notice, and a provider would work for nobody. Here each stream's task is watched instead:
//! after a body gave something and was not asked for more, the caller is who is waited for, and not for longer than the stall limit.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Sleep, sleep};

/// Whom a response body has left its stream waiting for.
#[derive(Clone, Copy)]
pub(crate) enum Awaits {
    /// There is something to send.
    Caller,
    /// There is nothing to send yet.
    Provider,
}

thread_local! {
    /// What the body of the stream that is being polled on this thread said last.
    static LAST: Cell<Option<Awaits>> = const { Cell::new(None) };
}

impl Awaits {
    /// Told by a body, from within the poll of its stream.
    pub(crate) fn tell(self) {
        LAST.set(Some(self));
    }
}

/// Runs the streams of a connection, and drops those whose callers take nothing for too long; that resets the stream and ends the
/// request as if the caller had left.
#[derive(Clone)]
pub(crate) struct WatchedStreams {
    write_stall: Duration,
}

impl WatchedStreams {
    pub(crate) fn new(write_stall: Duration) -> Self {
        Self { write_stall }
    }
}

impl<F> Executor<F> for WatchedStreams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// The task ends with its stream.
    fn execute(&self, stream: F) {
        let write_stall = self.write_stall;
        TokioExecutor::new().execute(async move {
            let mut stream = pin!(stream);
            // Exists only while the caller is waited for.
            let mut timer: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|context| {
                LAST.set(None);
                if stream.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                match LAST.take() {
                    Some(Awaits::Caller) => timer = Some(Box::pin(sleep(write_stall))),
                    Some(Awaits::Provider) => timer = None,
                    None => {}
                }
                timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
            })
            .await;
        });
    }
}
