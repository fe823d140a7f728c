//! The body of every answer to a caller: bytes at hand, or a relayed stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::io::Serving;
use crate::relay::Relay;
use crate::stall::Awaits;

/// A response body.
pub(crate) struct EdgeBody {
    kind: Kind,
    _idle: Option<IdleAfterwards>,
}

enum Kind {
    Full(Bytes),
    Relay(Box<Relay>),
}

impl EdgeBody {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), _idle: None }
    }

    pub(crate) fn relay(relay: Relay) -> Self {
        Self { kind: Kind::Relay(Box::new(relay)), _idle: None }
    }

    /// Tells the connection's guard that nothing is being served any more when this body is gone.
    pub(crate) fn on_end(&mut self, serving: Serving) {
        self._idle = Some(IdleAfterwards(serving));
        Awaits::Caller.tell();
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match &mut self.kind {
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Relay(relay) => relay.poll_next(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        };
        if frame.is_pending() { Awaits::Provider } else { Awaits::Caller }.tell();
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Relay(relay) => relay.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Relay(_) => SizeHint::default(),
        }
    }
}

struct IdleAfterwards(Serving);

impl Drop for IdleAfterwards {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
