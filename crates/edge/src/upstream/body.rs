//! Bodies on the upstream leg: what we send, and what we read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use smallvec::SmallVec;

use super::http1::{self, Broken};
use super::pool::Home;

/// A request body made of slices of the caller's bytes and what was spliced between them. Cloning it costs reference counts, so that
/// a failover sends the same bytes again.
#[derive(Debug, Clone)]
pub(crate) struct SegmentBody {
    segments: SmallVec<[Bytes; 4]>,
    next: usize,
    remaining: u64,
}

impl SegmentBody {
    pub(crate) fn new(segments: SmallVec<[Bytes; 4]>) -> Self {
        let remaining = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { segments, next: 0, remaining }
    }

    /// What is to be sent.
    pub(super) fn segments(&self) -> SmallVec<[Bytes; 4]> {
        self.segments.clone()
    }

    /// Bytes that are to be sent.
    pub(super) fn len(&self) -> u64 {
        self.remaining
    }

    /// The whole body in one piece.
    pub(crate) fn contiguous(&self) -> Bytes {
        self.segments.concat().into()
    }
}

impl Body for SegmentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let at = self.next;
        let Some(segment) = self.segments.get(at) else { return Poll::Ready(None) };
        let segment = segment.clone();
        self.next += 1;
        self.remaining -= segment.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.segments.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// A response body together with the connection it comes from. Read to its end, it gives the connection back to the pool; dropped
/// before, it closes the connection, which tells the provider to stop generating.
#[derive(Debug)]
pub(crate) struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Http1 { body: http1::Body, home: Home },
    Http2(Incoming),
    Ended,
}

impl ResponseBody {
    pub(super) fn http1(body: http1::Body, home: Home) -> Self {
        Self(Kind::Http1 { body, home })
    }

    pub(super) fn http2(incoming: Incoming) -> Self {
        Self(Kind::Http2(incoming))
    }

    /// The next piece as the provider sent it; `None` at the end. Trailers are dropped.
    pub(crate) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let data = match &mut self.0 {
            Kind::Http1 { body, .. } => std::task::ready!(body.poll_data(context)),
            Kind::Http2(incoming) => loop {
                match std::task::ready!(Pin::new(&mut *incoming).poll_frame(context)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            break Some(Ok(data));
                        }
                    }
                    Some(Err(error)) => break Some(Err(error.into())),
                    None => break None,
                }
            },
            Kind::Ended => None,
        };
        if !matches!(data, Some(Ok(_))) {
            self.end(data.is_none());
        }
        Poll::Ready(data)
    }

    fn end(&mut self, well: bool) {
        if let Kind::Http1 { body, home } = std::mem::replace(&mut self.0, Kind::Ended)
            && well
            && let Some(connection) = body.into_connection()
        {
            home.give_back(connection);
        }
    }

    /// The next piece; see [`ResponseBody::poll_data`].
    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, Broken>> {
        std::future::poll_fn(|context| self.poll_data(context)).await
    }
}
