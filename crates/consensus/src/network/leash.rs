//! Ends a stream of requests together with the stream of its answers.
//!
//! openraft reads the next entries under a lock that belongs to the follower, inside the stream of requests. HTTP/2 lets the two directions
//! of a call end apart, so a call that was given up could go on holding that lock, and nothing would ever be replicated to that follower
//! again.

use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::oneshot;

/// While it lives, the requests flow.
pub(crate) struct Leash {
    _held: oneshot::Sender<()>,
}

/// The requests, until the leash is dropped.
pub(crate) fn leash<S: Stream + Unpin>(requests: S) -> (Leash, impl Stream<Item = S::Item>) {
    let (held, dropped) = oneshot::channel();
    let requests = stream::unfold((requests, dropped), |(mut requests, dropped)| async move {
        // The end of the leash drops the wait for the next request, and with it the requests: that is what it is for.
        match select(dropped, requests.next()).await {
            Either::Left(_) => None,
            Either::Right((request, dropped)) => request.map(|request| (request, (requests, dropped))),
        }
    });
    (Leash { _held: held }, requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_a_request_lets_go_with_the_leash() {
        struct Lock(Option<oneshot::Sender<()>>);
        impl Drop for Lock {
            fn drop(&mut self) {
                let _ = self.0.take().unwrap().send(());
            }
        }
        let (released, lock) = oneshot::channel();
        let held = Lock(Some(released));
        let waiting = stream::iter([1, 2]).chain(stream::once(Box::pin(async move {
            let _held = held;
            std::future::pending::<u8>().await
        })));
        let (leash, requests) = leash(waiting);
        let mut requests = Box::pin(requests);
        assert_eq!((requests.next().await, requests.next().await), (Some(1), Some(2)));
        let waiting = async { assert_eq!(requests.next().await, None) };
        let dropping = async {
            tokio::task::yield_now().await;
            drop(leash);
        };
        tokio::join!(waiting, dropping);
        lock.await.expect("what the stream held was dropped with it");
    }
}
