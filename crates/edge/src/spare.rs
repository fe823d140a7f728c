//! Large buffers that are used again.
//!
//! A body of a megabyte in fresh memory costs the kernel 256 pages, which is more than reading it. What a worker's large bodies were
//! collected in is therefore kept for the next ones: a few buffers, and none for longer than there is use for them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// The buffers of one worker.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The most recently used last: it is the warmest.
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    /// Fewest buffers that were here since the last sweep: nobody needed so many.
    unneeded: usize,
}

impl Spares {
    /// An empty buffer with room for at least `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let found = {
            let mut kept = self.kept.lock();
            let found = kept.buffers.pop();
            kept.bytes -= found.as_ref().map_or(0, Vec::capacity);
            kept.unneeded = kept.unneeded.min(kept.buffers.len());
            found
        };
        let mut buffer = found.unwrap_or_default();
        if buffer.capacity() < bytes {
            // Not grown, which would copy what nobody needs.
            buffer = Vec::with_capacity(bytes);
        }
        buffer
    }

    /// The buffer as bytes that give it back when the last of them is gone.
    pub(crate) fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: Arc::clone(self) })
    }

    /// Frees what was not needed since the last call.
    pub(crate) fn sweep(&self) {
        let freed = {
            let mut kept = self.kept.lock();
            let unneeded = kept.unneeded.min(kept.buffers.len());
            // The coldest ones.
            let freed: Vec<_> = kept.buffers.drain(..unneeded).collect();
            kept.bytes -= freed.iter().map(Vec::capacity).sum::<usize>();
            kept.unneeded = kept.buffers.len();
            freed
        };
        drop(freed);
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept.lock();
        if kept.bytes + buffer.capacity() <= MOST_KEPT {
            kept.bytes += buffer.capacity();
            kept.buffers.push(buffer);
        }
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Arc<Spares>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

/// Bytes that a worker keeps at most: a dozen requests of a megabyte at once.
const MOST_KEPT: usize = 12 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_is_used_again() {
        let spares = Arc::new(Spares::default());
        let mut buffer = spares.take(100_000);
        let address = buffer.as_ptr();
        buffer.extend_from_slice(b"hello");
        let bytes = spares.lend(buffer);
        let part = bytes.slice(1..3);
        drop(bytes);
        let other = spares.take(1);
        assert_ne!(other.as_ptr(), address, "still in use");
        assert_eq!(&part[..], b"el");
        drop(part);
        let again = spares.take(50_000);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert!(spares.take(1).capacity() < 100_000);
    }

    #[test]
    fn what_nobody_needs_is_freed_and_no_more_than_the_bound_is_kept() {
        let spares = Arc::new(Spares::default());
        let many: Vec<_> = (0..20).map(|_| spares.lend(Vec::with_capacity(1024 * 1024))).collect();
        drop(many);
        assert_eq!(spares.kept.lock().buffers.len(), 12);
        // Two are used between sweeps, so that two stay.
        spares.sweep();
        let two = [spares.take(1), spares.take(1)].map(|buffer| spares.lend(buffer));
        drop(two);
        spares.sweep();
        assert_eq!(spares.kept.lock().buffers.len(), 2);
        spares.sweep();
        assert_eq!(spares.kept.lock().buffers.len(), 0);
        assert_eq!(spares.kept.lock().bytes, 0);
    }
}
