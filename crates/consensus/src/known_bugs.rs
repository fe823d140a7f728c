//! Mistakes that were made once, in this or another implementation, and that a test can make again to see that it would notice.
//!
//! Without the feature `known-bugs` every switch is the constant `false` and nothing of this is left in the binary.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Tells openraft that entries are flushed before they are.
    AcknowledgeBeforeFlush,
    /// Applies entries again that were applied before a restart or within a batch.
    DoubleApply,
    /// Installs a snapshot whose digest does not match.
    SnapshotWithoutDigest,
    /// Counts a follower for the quorum that has not answered.
    #[cfg_attr(not(test), expect(dead_code, reason = "lives in the transport of the simulator"))]
    WrongQuorum,
}

/// Whether the mistake is to be made on this thread.
#[cfg(not(feature = "known-bugs"))]
pub(crate) const fn on(_bug: Bug) -> bool {
    false
}

/// Whether the mistake is to be made on this thread.
#[cfg(feature = "known-bugs")]
pub(crate) fn on(bug: Bug) -> bool {
    MADE.with(|made| made.get() == Some(bug))
}

#[cfg(feature = "known-bugs")]
thread_local! {
    static MADE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Makes the mistake on this thread while the guard lives.
#[cfg(all(test, feature = "known-bugs"))]
pub(crate) fn make(bug: Bug) -> impl Drop {
    struct Unmake;
    impl Drop for Unmake {
        fn drop(&mut self) {
            MADE.with(|made| made.set(None));
        }
    }
    MADE.with(|made| made.set(Some(bug)));
    Unmake
}
