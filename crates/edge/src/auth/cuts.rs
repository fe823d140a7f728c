//! Keys whose running answers end at their next chunk.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The newest of them. While none was added, a stream pays one load per chunk.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    added: AtomicU64,
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Cuts {
    /// Cuts what runs for these keys.
    pub(crate) fn add(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let mut newest = self.newest.lock();
        for id in ids {
            if newest.ids.insert(id.clone()) {
                newest.order.push_back(id);
            }
        }
        while newest.order.len() > REMEMBERED {
            if let Some(oldest) = newest.order.pop_front() {
                newest.ids.remove(&oldest);
            }
        }
        drop(newest);
        self.added.fetch_add(1, Ordering::Release);
    }

    /// Whether a stream of this key is to end. `seen` is what the stream remembers between calls, 0 at first.
    pub(crate) fn includes(&self, public_id: &str, seen: &mut u64) -> bool {
        let added = self.added.load(Ordering::Acquire);
        if added == *seen {
            return false;
        }
        *seen = added;
        self.newest.lock().ids.contains(public_id)
    }
}

/// Streams older than as many cuts as this have long looked.
const REMEMBERED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_notices_once_and_others_do_not() {
        let cuts = Cuts::default();
        let (mut one, mut other) = (0, 0);
        assert!(!cuts.includes("k1", &mut one));
        cuts.add(vec!["k1".to_owned()]);
        assert!(cuts.includes("k1", &mut one));
        assert!(!cuts.includes("k2", &mut other));
        assert_eq!(other, 1, "nothing to look up until the next cut");
    }

    #[test]
    fn memory_is_bounded() {
        let cuts = Cuts::default();
        cuts.add((0..REMEMBERED + 5).map(|number| number.to_string()).collect());
        assert_eq!(cuts.newest.lock().ids.len(), REMEMBERED);
        assert!(!cuts.includes("0", &mut 0));
        assert!(cuts.includes("9999", &mut 0));
    }
}
