//! The downstream socket with two guards around it.
//!
//! A caller that takes no bytes for too long is cut off: hyper does not poll the response body while a write is stuck, so no timer
//! inside the body could notice. A caller that drips its request head is cut off too: hyper's own header timeout also runs while a
//! kept-alive connection is idle, and idling is allowed to take much longer than sending a head.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Says whether a request is being served on the connection; set by the service, read by the guard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Serving(Arc<AtomicBool>);

impl Serving {
    pub(crate) fn set(&self, serving: bool) {
        self.0.store(serving, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose writes fail when the peer takes nothing for `write_stall`, and whose reads fail when a request head that has begun
/// is not complete after `head_read`, where there is such a limit.
pub(crate) struct GuardedIo<S> {
    inner: S,
    write_stall: Duration,
    head_read: Option<Duration>,
    serving: Serving,
    /// Bytes of a request head have come, and no request is being served yet.
    head_begun: bool,
    /// Timers exist only while something is stuck: a healthy connection never touches them.
    write_timer: Option<Pin<Box<Sleep>>>,
    head_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> GuardedIo<S> {
    pub(crate) fn new(inner: S, write_stall: Duration, head_read: Option<Duration>, serving: Serving) -> Self {
        Self { inner, write_stall, head_read, serving, head_begun: false, write_timer: None, head_timer: None }
    }

    fn watch_write<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.write_timer = None;
            return progress;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(self.write_stall)));
        match timer.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the caller took no bytes for too long"))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let progress = Pin::new(&mut self.inner).poll_read(context, buffer);
        let Some(head_read) = self.head_read.filter(|_| !self.serving.get()) else {
            self.head_begun = false;
            self.head_timer = None;
            return progress;
        };
        if progress.is_ready() {
            self.head_begun |= buffer.filled().len() > before;
            return progress;
        }
        if !self.head_begun {
            return Poll::Pending;
        }
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(sleep(head_read)));
        match timer.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the request head took too long"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch_write(context, progress)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch_write(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_flush(context);
        self.watch_write(context, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

fn timed_out(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}
