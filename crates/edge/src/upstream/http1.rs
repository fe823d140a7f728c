//! HTTP/1.1 to a provider, driven by the request that uses the connection.
//!
//! There is no task, no channel and no buffer behind a connection: whoever waits for the answer polls the socket itself. Bytes are read
//! into one buffer of the thread and leave it as exactly the pieces that are kept, so that a thousand open streams hold next to nothing, a
//! piece costs one wake-up, and a caller who does not read holds the provider back. All chunks of one read become one piece.
//!
//! Only what a gateway needs: one POST at a time with a known length, no trailers, no upgrades.

mod framing;
mod head;
mod socket;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::StatusCode;
use smallvec::SmallVec;
use thiserror::Error;

use framing::Framing;
pub(crate) use head::Head;
pub(super) use socket::Socket;

/// Why a connection gave no answer, or not all of it.
#[derive(Debug, Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the provider closed the connection")]
    Closed,
    #[error("the provider does not speak HTTP/1.1: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
}

/// A request as it goes over the wire, and how much of it has gone.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) head: Vec<u8>,
    pub(super) body: SmallVec<[Bytes; 4]>,
    sent: usize,
}

/// A request that got no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: Broken,
    /// Some of an answer had come.
    pub(super) heard: bool,
}

/// An answer's body, read on demand.
#[derive(Debug)]
pub(super) struct Body {
    connection: Connection,
    framing: Framing,
    /// Came together with the head.
    first: Bytes,
    keep_alive: bool,
    /// The provider began to answer before it had everything.
    unsent: Option<Box<Message>>,
}

impl Message {
    pub(super) fn new(head: Vec<u8>, body: SmallVec<[Bytes; 4]>) -> Self {
        Self { head, body, sent: 0 }
    }

    /// Writes until nothing is left, in as few system calls as the socket takes.
    fn poll_send(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut slices: SmallVec<[io::IoSlice<'_>; 6]> = SmallVec::new();
            let mut skip = self.sent;
            for part in std::iter::once(self.head.as_slice()).chain(self.body.iter().map(Bytes::as_ref)) {
                if skip < part.len() {
                    slices.push(io::IoSlice::new(&part[skip..]));
                }
                skip = skip.saturating_sub(part.len());
            }
            if slices.is_empty() {
                return socket.poll_flush(context);
            }
            match std::task::ready!(socket.poll_write(context, &slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
    }
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket }
    }

    /// Nobody has closed it, and nothing was said that nobody asked for.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.socket.poll_read(&mut context, &mut [0]).is_pending()
    }

    /// Sends a request and waits for the head of the answer. Dropping the future closes the connection.
    pub(super) async fn send(mut self, message: Message) -> Result<(Head, Body), Unanswered> {
        let mut unsent = Some(message);
        let mut broken = None;
        let mut begun = Vec::new();
        let outcome = poll_fn(|context| {
            if let Some(message) = &mut unsent {
                match message.poll_send(&mut self.socket, context) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => unsent = None,
                    // What refused to take more may have said why.
                    Poll::Ready(Err(error)) => {
                        broken = Some(error);
                        unsent = None;
                    }
                }
            }
            read_head(&mut self.socket, context, &mut begun)
        })
        .await;
        match outcome {
            Ok((Answer { head, framing, keep_alive }, first)) => {
                let keep_alive = keep_alive && broken.is_none();
                Ok((head, Body { connection: self, framing, first, keep_alive, unsent: unsent.map(Box::new) }))
            }
            Err(error) => {
                let heard = !begun.is_empty() || matches!(error, Broken::Malformed(_));
                let error = match (error, broken) {
                    (Broken::Closed, Some(broken)) => Broken::Io(broken),
                    (error, _) => error,
                };
                Err(Unanswered { error, heard })
            }
        }
    }
}

/// What a head says.
struct Answer {
    head: Head,
    framing: Framing,
    keep_alive: bool,
}

/// Reads up to the end of a head that is no interim one; gives it with the payload that came behind it. `begun` is what came of a head
/// that one read did not bring whole.
fn read_head(socket: &mut Socket, context: &mut Context<'_>, begun: &mut Vec<u8>) -> Poll<Result<(Answer, Bytes), Broken>> {
    loop {
        let found = SCRATCH.with_borrow_mut(|scratch| {
            let read = match std::task::ready!(socket.poll_read(context, scratch)) {
                Ok(0) => return Poll::Ready(Err(Broken::Closed)),
                Ok(read) => &mut scratch[..read],
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            // Nearly always one read has the whole head, which is then understood where it is.
            if begun.is_empty()
                && let Some(found) = understand(read)?
            {
                return Poll::Ready(Ok(Some(found)));
            }
            let first = begun.is_empty();
            begun.extend_from_slice(read);
            if begun.len() > HEAD_BYTES {
                return Poll::Ready(Err(Broken::Malformed("its head is too large")));
            }
            Poll::Ready(if first { Ok(None) } else { understand(begun) })
        });
        if let Some(found) = std::task::ready!(found)? {
            return Poll::Ready(Ok(found));
        }
    }
}

/// The first head that is no interim one, and the payload behind it; `None` while it is not complete.
fn understand(bytes: &mut [u8]) -> Result<Option<(Answer, Bytes)>, Broken> {
    let mut rest = bytes;
    while let Some((head, mut framing, keep_alive, length)) = head::parse(rest).map_err(Broken::Malformed)? {
        rest = &mut rest[length..];
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Broken::Malformed("it switches protocols"));
        }
        if !head.status.is_informational() {
            let payload = framing.decode(rest).map_err(Broken::Malformed)?;
            return Ok(Some((Answer { head, framing, keep_alive }, Bytes::copy_from_slice(&rest[..payload]))));
        }
    }
    Ok(None)
}

impl Body {
    /// The next piece, at most one read long; `None` at the end.
    pub(super) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        if let Some(message) = &mut self.unsent
            && let Poll::Ready(sent) = message.poll_send(&mut self.connection.socket, context)
        {
            self.keep_alive &= sent.is_ok();
            self.unsent = None;
        }
        loop {
            if self.framing.is_done() {
                return Poll::Ready(None);
            }
            let (socket, framing) = (&mut self.connection.socket, &mut self.framing);
            let piece = SCRATCH.with_borrow_mut(|scratch| match socket.poll_read(context, scratch) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(0)) => Poll::Ready(if framing.end() { Ok(None) } else { Err(Broken::Closed) }),
                Poll::Ready(Ok(read)) => {
                    let read = &mut scratch[..read];
                    let payload = framing.decode(read).map_err(Broken::Malformed)?;
                    Poll::Ready(Ok(Some(Bytes::copy_from_slice(&read[..payload]))))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            });
            match std::task::ready!(piece) {
                // Only framing came; there may be more.
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(piece) => return Poll::Ready(piece.map(Ok)),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The connection, when it can take another request.
    pub(super) fn into_connection(self) -> Option<Connection> {
        let clean = self.framing.is_done() && self.framing.is_exact() && self.unsent.is_none();
        (clean && self.keep_alive).then_some(self.connection)
    }
}

thread_local! {
    /// Where this thread's sockets are read into: always warm, never a page of its own for a connection.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Most bytes of one read: what a socket that was left alone for a while has gathered, and small enough to stay in the cache.
const READ_BYTES: usize = 64 * 1024;
/// Longest head, bytes: providers send two or three thousand.
const HEAD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests;
