//! Finished generations that can still be looked up.
//!
//! A ring of fixed size: the id of a generation names its slot, so that keeping one is a store and finding one is a look, and the memory
//! of the oldest is used again while it is still warm. A cache with an eviction policy would do the same for several times the price,
//! on every request, for records that hardly anybody asks for.

pub(crate) mod past;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_routing::Timestamp;

use past::Past;

/// The latest generations, bounded in number and age.
pub(crate) struct Generations {
    slots: Box<[Mutex<Option<Box<Kept>>>]>,
    next: AtomicU64,
    ttl: Duration,
}

struct Kept {
    id: Arc<str>,
    at: Timestamp,
    past: Arc<Past>,
}

impl Generations {
    /// Keeps `kept` generations (at least 1, at most 2^24) for `ttl`.
    pub(crate) fn new(kept: u64, ttl: Duration) -> Self {
        let slots = (0..kept.clamp(1, MOST)).map(|_| Mutex::default()).collect();
        Self { slots, next: AtomicU64::new(0), ttl }
    }

    /// A new id: `gen-` and a ULID, which sorts by time and says when it was made. 24 of its 80 random bits are the slot.
    pub(crate) fn new_id(&self, unix_millis: u64, random: u128) -> Arc<str> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len() as u64;
        let ulid = ulid::Ulid::from_parts(unix_millis, random >> SLOT_BITS << SLOT_BITS | u128::from(slot));
        let mut text = [0; 4 + ulid::ULID_LEN];
        text[..4].copy_from_slice(b"gen-");
        let mut digits = [0; ulid::ULID_LEN];
        text[4..].copy_from_slice(ulid.array_to_str(&mut digits).as_bytes());
        // Both parts are ASCII.
        std::str::from_utf8(&text).unwrap_or_default().into()
    }

    /// Keeps a finished generation in place of an older one.
    pub(crate) fn keep(&self, id: &Arc<str>, now: Timestamp, past: Arc<Past>) {
        let Some(slot) = self.slot(id) else { return };
        let kept = Box::new(Kept { id: Arc::clone(id), at: now, past });
        let older = self.slots[slot].lock().replace(kept);
        drop(older);
    }

    /// Finds a finished generation by its id.
    pub(crate) fn get(&self, id: &str, now: Timestamp) -> Option<Arc<Past>> {
        let slot = self.slots[self.slot(id)?].lock();
        let kept = slot.as_ref().filter(|kept| kept.id.as_ref() == id && now - kept.at < self.ttl)?;
        Some(Arc::clone(&kept.past))
    }

    /// The slot that `id` names; of an id that was not made here, any slot or none: what lies there has another id.
    fn slot(&self, id: &str) -> Option<usize> {
        let digits = id.as_bytes().last_chunk::<SLOT_DIGITS>()?;
        let number = digits.iter().try_fold(0, |number, digit| Some(number << BITS_PER_DIGIT | digit_of(*digit)?))?;
        let slot = number & ((1 << SLOT_BITS) - 1);
        (slot < self.slots.len()).then_some(slot)
    }
}

/// What a digit of a ULID stands for, in the base of Crockford as the specification of ULIDs has it; only ids as they were given out
/// are known, so that lower case and look-alikes are none.
fn digit_of(digit: u8) -> Option<usize> {
    let skipped = match digit {
        b'0'..=b'9' => return Some(usize::from(digit - b'0')),
        b'A'..=b'H' => 0,
        b'J' | b'K' => 1,
        b'M' | b'N' => 2,
        b'P'..=b'T' => 3,
        b'V'..=b'Z' => 4,
        _ => return None,
    };
    Some(usize::from(digit - b'A' + 10 - skipped))
}

const BITS_PER_DIGIT: usize = 5;
/// Digits that hold the bits of a slot.
const SLOT_DIGITS: usize = 5;
/// Room for 16 million generations; 56 random bits are left to tell two of the same millisecond apart.
const SLOT_BITS: u32 = 24;
const MOST: u64 = 1 << SLOT_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time_and_differ() {
        let generations = Generations::new(4, Duration::from_secs(1));
        let ids: Vec<Arc<str>> = (0..9).map(|_| generations.new_id(1_700_000_000_000, 0x1234_5678_9abc_def0_1234)).collect();
        let ulid: ulid::Ulid = ids[0].strip_prefix("gen-").expect("the prefix").parse().expect("a ULID");
        assert_eq!(ulid.timestamp_ms(), 1_700_000_000_000);
        assert_ne!(ids[0], ids[1]);
        for id in &ids {
            assert!(generations.slot(id).is_some_and(|slot| slot < 4));
        }
    }

    #[test]
    fn a_slot_is_read_from_the_end_of_the_id() {
        let generations = Generations::new(MOST, Duration::from_secs(1));
        for random in [0, 1, 31, 32, 0xff_ffff, 0x12_3456, 0xab_cdef, u128::MAX >> 48] {
            let id = format!("gen-{}", ulid::Ulid::from_parts(1, random));
            assert_eq!(generations.slot(&id), Some((random & 0xff_ffff) as usize), "{id}");
        }
        for wrong in ["gen-7ZZZZZZZZZZZZZZZZZZZZZZZZI", "gen-7ZZZZZZZZZZZZZZZZZZZZZZZZu", "gen-7ZZZZZZZZZZZZZZZZZZZZZZé"] {
            assert_eq!(generations.slot(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn foreign_ids_are_not_found() {
        let generations = Generations::new(4, Duration::from_secs(1));
        for id in ["", "gen-", "gen-nonsense", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "gen-7ZZZZZZZZZZZZZZZZZZZZZZZZZ"] {
            assert!(generations.get(id, Timestamp(0)).is_none(), "{id}");
        }
    }
}
