//! Bodies that come at their own pace. They are polled by the connection itself: no task and no channel lies between.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::dialect::Event;
use crate::spec::FixedAnswer;
use crate::state::Serving;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum SimBody {
    /// All at once.
    Whole { bytes: Option<Bytes>, serving: Serving },
    /// Event by event.
    Stream(Box<Stream>),
}

/// A stream of events with the time of each.
#[derive(Debug)]
pub(crate) struct Stream {
    events: Events,
    next: usize,
    began: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    end: End,
    /// The connection had a chance to send what it has before it is broken.
    flushed: bool,
    serving: Serving,
}

/// What a stream consists of.
#[derive(Debug)]
pub(crate) enum Events {
    /// Made for this request.
    Made(Vec<Due>),
    /// The same for all; the first one is due after the delay.
    Fixed { answer: Arc<FixedAnswer>, delay: Duration },
}

/// An event and when it is due, counted from the head.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) event: Event,
    pub(crate) after: Duration,
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Regular,
    /// The connection breaks.
    Break,
    /// It does not end.
    Silence,
}

impl SimBody {
    pub(crate) fn whole(bytes: Bytes, serving: Serving) -> Self {
        Self::Whole { bytes: Some(bytes), serving }
    }

    pub(crate) fn stream(events: Events, end: End, mut serving: Serving) -> Self {
        serving.streams();
        Self::Stream(Box::new(Stream { events, next: 0, began: Instant::now(), sleep: None, end, flushed: false, serving }))
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole { bytes, serving } => {
                let bytes = bytes.take();
                serving.finished();
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole { bytes: None, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

impl Stream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some((bytes, tokens, after)) = self.events.get(self.next) else {
            return self.poll_end(context);
        };
        if !after.is_zero() && self.wait_for(after, context).is_pending() {
            return Poll::Pending;
        }
        self.next += 1;
        self.serving.sent(tokens);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Times count from the head and not from the last event, so that delays do not add up.
    fn wait_for(&mut self, after: Duration, context: &mut Context<'_>) -> Poll<()> {
        let due = self.began + after;
        if Instant::now() >= due {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(context)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.end {
            End::Regular => {
                self.serving.finished();
                Poll::Ready(None)
            }
            // Nothing wakes it: the connection drops it when the caller leaves.
            End::Silence => Poll::Pending,
            End::Break if !self.flushed => {
                // An error makes the connection forget what it has not sent; pausing once lets it send that first.
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Break => {
                self.serving.finished();
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset))))
            }
        }
    }
}

impl Events {
    fn get(&self, index: usize) -> Option<(Bytes, u32, Duration)> {
        match self {
            Self::Made(events) => {
                let due = events.get(index)?;
                Some((due.event.bytes.clone(), due.event.tokens, due.after))
            }
            Self::Fixed { answer, delay } => {
                let bytes = answer.events.get(index)?.clone();
                let steps = u32::try_from(index).unwrap_or(u32::MAX);
                Some((bytes, 1, *delay + answer.pace.saturating_mul(steps)))
            }
        }
    }
}
