//! Bodies on the upstream leg: what we send, and what we read.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use smallvec::SmallVec;

use super::pool::Lease;

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
pub(crate) struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    ended: bool,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Option<Lease>) -> Self {
        Self { incoming, lease, ended: false }
    }

    /// The next piece as the provider sent it; `None` at the end. Trailers are dropped.
    pub(crate) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(frame) => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.ended = true;
                    if let Some(lease) = self.lease.take() {
                        lease.give_back();
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// The next piece; see [`ResponseBody::poll_data`].
    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        std::future::poll_fn(|context| self.poll_data(context)).await
    }
}
