//! The request to end what can be ended, as connections see it: asked about once per turn of each, made once in a process.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use tidegate_runtime::Shutdown;

/// The request. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draining {
    /// Wakes whoever waits. Asking it takes a lock that every connection of every worker would meet in.
    wake: Shutdown,
    begun: Arc<AtomicBool>,
}

impl Draining {
    /// Makes the request; it cannot be taken back.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.wake.request();
    }

    /// Whether it was made.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Runs `work` to its end, or until the request is made: then `None`, and the work is where it was.
    pub(crate) async fn or<F: Future + Unpin>(&self, mut work: F) -> Option<F::Output> {
        let mut begun = pin!(self.wake.requested());
        // Whom the request will wake. It is left alone while that is who runs this, which for a task is always.
        let mut told: Option<Waker> = None;
        poll_fn(|context| {
            if let Poll::Ready(done) = Pin::new(&mut work).poll(context) {
                return Poll::Ready(Some(done));
            }
            let same = told.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
            if same && !self.has_begun() {
                return Poll::Pending;
            }
            told = Some(context.waker().clone());
            begun.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
    async fn work_ends_by_itself_or_when_asked() {
        let draining = Draining::default();
        assert_eq!(draining.or(ready(7)).await, Some(7));
        let asked = draining.clone();
        let waiting = tokio::spawn(async move {
            // Woken many times for other reasons before the request comes.
            let mut turns = 0;
            let work = poll_fn(|context| {
                turns += 1;
                if turns < 100 {
                    context.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            });
            asked.or(work).await
        });
        tokio::task::yield_now().await;
        assert!(!draining.has_begun());
        draining.begin();
        let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the request wakes whoever waits");
        assert_eq!(ended.unwrap(), None);
        assert_eq!(draining.or(pending::<()>()).await, None);
        assert_eq!(draining.or(ready(7)).await, Some(7), "what is done is done");
    }
}
