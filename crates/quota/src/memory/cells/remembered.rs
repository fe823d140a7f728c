//! Requests that have been settled, so that nothing is settled twice.
//!
//! At thousands of requests per second these are by far the most of what a store holds. They are forgotten a whole table at a time, so
//! that nobody who holds the lock ever looks at each of them.

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::Map;
use crate::clock::Micros;

/// Ids, and until when each is remembered.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Remembered {
    recent: Map<Ulid, Micros>,
    older: Map<Ulid, Micros>,
    turned_at: Micros,
}

impl Remembered {
    pub(super) fn has(&self, id: Ulid, now: Micros) -> bool {
        self.recent.get(&id).or_else(|| self.older.get(&id)).is_some_and(|until| *until > now)
    }

    pub(super) fn insert(&mut self, id: Ulid, until: Micros) {
        self.recent.insert(id, until);
    }

    /// Drops a table, at most every `longest`, in which everything is over by then: nothing may be inserted for longer than that.
    pub(super) fn forget(&mut self, now: Micros, longest: Micros) {
        if now >= self.turned_at.saturating_add(longest) {
            self.turned_at = now;
            self.older = std::mem::take(&mut self.recent);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.older.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_as_long_as_it_was_said_and_then_takes_no_room() {
        let (mut remembered, id) = (Remembered::default(), Ulid::from_parts(1, 2));
        for turn in 0..10_u64 {
            let began = 1_000 + turn * 137;
            remembered.insert(id, began + 60);
            for now in began..began + 137 {
                remembered.forget(now, 60);
                assert_eq!(remembered.has(id, now), now < began + 60, "{now} of {began}");
            }
            assert!(remembered.is_empty(), "two turns later it is gone");
        }
        remembered.insert(id, 2_000);
        let copy: Remembered = serde_json::from_value(serde_json::to_value(&remembered).expect("JSON")).expect("what was written");
        assert!(copy.has(id, 1_999) && !copy.has(id, 2_000));
    }
}
