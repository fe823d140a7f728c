//! The downstream socket with three guards around it.
//!
//! A caller that takes no bytes for too long is cut off: hyper does not poll the response body while a write is stuck, so no timer
//! inside the body could notice. A caller that drips its request head is cut off too, and so is one that asks nothing for much longer:
//! hyper has one timeout for both, and sets it anew for every request. Here the timer of an idle connection stays where it is while
//! requests come and go, and only when it fires is it asked how long the connection has been idle.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Says whether a request is being served on the connection, and since when not; set by the service, read by the guard.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    epoch: Instant,
    /// Microseconds since the epoch, plus one, at which the connection became idle; 0 while a request is served.
    idle: Arc<AtomicU64>,
}

impl Default for Serving {
    /// Of a new connection, which is idle.
    fn default() -> Self {
        Self { epoch: Instant::now(), idle: Arc::new(AtomicU64::new(1)) }
    }
}

impl Serving {
    pub(crate) fn set(&self, serving: bool) {
        let idle = if serving { 0 } else { u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1 };
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// When the connection became idle; `None` while a request is served.
    fn idle_since(&self) -> Option<Instant> {
        let idle = self.idle.load(Ordering::Relaxed);
        (idle > 0).then(|| self.epoch + Duration::from_micros(idle - 1))
    }
}

/// A stream whose writes fail when the peer takes nothing for too long, and whose reads fail when a request does not come.
pub(crate) struct GuardedIo<S> {
    inner: S,
    write_stall: Duration,
    requests: Option<RequestPatience>,
    serving: Serving,
    /// Bytes of a request head have come, and no request is being served yet.
    head_begun: bool,
    /// Timers of what is stuck: a healthy connection never touches them.
    write_timer: Option<Pin<Box<Sleep>>>,
    head_timer: Option<Pin<Box<Sleep>>>,
    /// Fires within the patience with an idle connection.
    idle_timer: Option<Pin<Box<Sleep>>>,
}

/// How long requests are waited for, where a connection has time between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestPatience {
    /// From the first byte of a head to its end.
    pub(crate) head: Duration,
    /// For the first byte.
    pub(crate) idle: Duration,
}

impl<S> GuardedIo<S> {
    pub(crate) fn new(inner: S, write_stall: Duration, requests: Option<RequestPatience>, serving: Serving) -> Self {
        Self { inner, write_stall, requests, serving, head_begun: false, write_timer: None, head_timer: None, idle_timer: None }
    }

    fn watch_head(&mut self, context: &mut Context<'_>, patience: Duration) -> Poll<io::Result<()>> {
        let timer = self.head_timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        match timer.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the request head took too long"))),
        }
    }

    /// Also while a request is served: hyper may not look for the next one before something wakes it.
    fn watch_idle(&mut self, context: &mut Context<'_>, patience: Duration, since: Option<Instant>) -> Poll<io::Result<()>> {
        let over = || since.unwrap_or_else(Instant::now) + patience;
        let timer = self.idle_timer.get_or_insert_with(|| Box::pin(sleep_until(over())));
        while timer.as_mut().poll(context).is_ready() {
            let over = over();
            if Instant::now() >= over {
                return Poll::Ready(Err(timed_out("no request came for too long")));
            }
            timer.as_mut().reset(over);
        }
        Poll::Pending
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
        let Some(patience) = self.requests else { return progress };
        let idle_since = self.serving.idle_since();
        if idle_since.is_none() {
            self.head_begun = false;
            self.head_timer = None;
        }
        if progress.is_ready() {
            self.head_begun |= idle_since.is_some() && buffer.filled().len() > before;
            return progress;
        }
        match self.head_begun {
            true => self.watch_head(context, patience.head),
            false => self.watch_idle(context, patience.idle, idle_since),
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
