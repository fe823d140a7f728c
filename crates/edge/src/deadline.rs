//! Waiting, but not past a moment.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Runs `work` until `deadline`; `None` when the deadline came first. The timer exists only once the work makes us wait.
pub(crate) fn before<F: Future + Unpin>(deadline: Instant, work: F) -> Before<F> {
    Before { work, deadline, timer: None }
}

/// See [`before`].
pub(crate) struct Before<F> {
    work: F,
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future + Unpin> Future for Before<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(done) = Pin::new(&mut this.work).poll(context) {
            return Poll::Ready(Some(done));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
        timer.as_mut().poll(context).map(|()| None)
    }
}
