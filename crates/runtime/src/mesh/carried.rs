//! How much of what was said to the other side its connection has taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that one accepted connection took from us, so that whoever has much to say can wait until it is taken: HTTP/2 alone
/// lets a whole window of it lie in memory for a reader that hangs. Over TLS the last 64 KiB may still be in its buffer. Clones count
/// together.
#[derive(Debug, Clone, Default)]
pub struct Carried(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    bytes: AtomicU64,
    more: Notify,
}

/// The same connection.
impl PartialEq for Carried {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Carried {}

impl Carried {
    /// Bytes since the connection was accepted.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }

    /// Completes once so many bytes were taken. Dropping it loses nothing.
    pub async fn reached(&self, bytes: u64) {
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            // Registered before the look, so that what is taken in between is not missed.
            more.as_mut().enable();
            if self.bytes() >= bytes {
                return;
            }
            more.await;
        }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        self.0.more.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_of_the_bytes_that_were_still_missing() {
        let carried = Carried::default();
        carried.reached(0).await;
        let waiting = carried.reached(10);
        tokio::pin!(waiting);
        carried.add(9);
        tokio::select! {
            biased;
            () = &mut waiting => panic!("one is missing"),
            () = tokio::task::yield_now() => {}
        }
        carried.add(1);
        waiting.await;
        assert_eq!(carried.bytes(), 10);
        assert!(carried == carried.clone() && carried != Carried::default());
    }
}
