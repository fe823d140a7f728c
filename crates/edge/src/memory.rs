//! Refusing new requests before the kernel kills the process for the memory of all.
//!
//! The files of the control group are looked at four times a second by one task; a request reads one flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_runtime::Tasks;
use tidegate_runtime::memory::MemoryLimit;

/// Says whether memory is short.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryWatch(Arc<AtomicBool>);

impl MemoryWatch {
    /// Begins to watch; without a limit, or with a `share` of 0, memory is never short. The task ends with `tasks`.
    pub(crate) fn start(share: f64, tasks: &Tasks) -> Self {
        let watch = Self::default();
        if let Some(limit) = MemoryLimit::find().filter(|_| share > 0.0) {
            let (short, shutdown) = (watch.clone(), tasks.shutdown().clone());
            tasks.spawn("memory-watch", async move {
                let mut tick = tokio::time::interval(LOOK_EVERY);
                loop {
                    // Dropping the losing branch is safe: a tick is cancel-safe, and shutdown is a level.
                    tokio::select! {
                        biased;
                        () = shutdown.requested() => return,
                        _ = tick.tick() => short.set(limit.used_share().is_some_and(|used| used > share)),
                    }
                }
            });
        }
        watch
    }

    /// No new request should be taken.
    pub(crate) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, short: bool) {
        if self.0.swap(short, Ordering::Relaxed) != short {
            if short {
                tracing::warn!("memory is short: new requests are refused with 503 until some is given back");
            } else {
                tracing::info!("memory is no longer short");
            }
        }
    }
}

/// Requests are small against what is left above the share; a quarter of a second of them does not fill it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Admitted;
    use crate::error::EdgeError;

    #[test]
    fn requests_are_refused_while_memory_is_short() {
        let (watch, in_flight) = (MemoryWatch::default(), Arc::default());
        assert!(Admitted::admit(&in_flight, 10, &watch).is_ok());
        watch.set(true);
        assert!(matches!(Admitted::admit(&in_flight, 10, &watch), Err(EdgeError::Saturated { .. })));
        watch.set(false);
        assert!(Admitted::admit(&in_flight, 10, &watch).is_ok());
        assert_eq!(in_flight.load(Ordering::Relaxed), 0);
    }
}
