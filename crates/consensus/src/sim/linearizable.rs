//! Whether a history of one register can be explained by an order in which each operation took effect at one moment between its call and
//! its return. The search of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017).

use std::collections::HashSet;

use super::registers::{Answer, Operation};

/// One operation on one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) operation: Operation,
    /// When it was called.
    pub(crate) called: u64,
    /// When it returned and what; `None` when that is not known: it may have taken effect at any later time, or never.
    pub(crate) returned: Option<(u64, Answer)>,
}

/// Whether there is such an order, beginning with an empty register.
pub(crate) fn is_linearizable(history: &[Event]) -> bool {
    let mut search = Search { history, done: vec![0; history.len().div_ceil(64)], seen: HashSet::new() };
    search.extend(None)
}

struct Search<'h> {
    history: &'h [Event],
    /// One bit for each operation that has its place.
    done: Vec<u64>,
    seen: HashSet<(Vec<u64>, Option<u64>)>,
}

impl Search<'_> {
    fn extend(&mut self, value: Option<u64>) -> bool {
        let open = |done: &[u64], place: usize| done[place / 64] >> (place % 64) & 1 == 0;
        // What has returned must come before whatever was called later.
        let horizon = self.history.iter().enumerate().filter(|(place, _)| open(&self.done, *place)).filter_map(|(_, event)| event.returned);
        let Some(horizon) = horizon.map(|(at, _)| at).min() else {
            // Only operations without an answer are left; they need not have happened.
            return true;
        };
        if !self.seen.insert((self.done.clone(), value)) {
            return false;
        }
        for place in 0..self.history.len() {
            let event = self.history[place];
            if !open(&self.done, place) || event.called > horizon {
                continue;
            }
            let (after, answer) = event.operation.on(value);
            if event.returned.is_some_and(|(_, returned)| returned != answer) {
                continue;
            }
            self.done[place / 64] |= 1 << (place % 64);
            if self.extend(after) {
                return true;
            }
            self.done[place / 64] &= !(1 << (place % 64));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(operation: Operation, called: u64, returned: Option<(u64, Option<u64>, bool)>) -> Event {
        Event { operation, called, returned: returned.map(|(at, before, changed)| (at, Answer { before, changed })) }
    }

    #[test]
    fn histories_that_are_known_are_judged_right() {
        use Operation::{Delete, Get, Put, Swap};
        let table = [
            ("nothing", vec![], true),
            ("a read sees a write that has returned", vec![event(Put(1), 0, Some((1, None, true))), event(Get, 2, Some((3, Some(1), false)))], true),
            ("a read does not see a write that has returned", vec![event(Put(1), 0, Some((1, None, true))), event(Get, 2, Some((3, None, false)))], false),
            ("a read during a write sees either", vec![event(Put(1), 0, Some((9, None, true))), event(Get, 2, Some((3, None, false))), event(Get, 4, Some((5, Some(1), false)))], true),
            ("and never goes back", vec![event(Put(1), 0, Some((9, None, true))), event(Get, 2, Some((3, Some(1), false))), event(Get, 4, Some((5, None, false)))], false),
            ("an unknown write may take effect late", vec![event(Put(1), 0, None), event(Get, 2, Some((3, None, false))), event(Get, 90, Some((91, Some(1), false)))], true),
            ("but only once", vec![event(Put(1), 0, None), event(Put(2), 2, Some((3, Some(1), true))), event(Get, 4, Some((5, Some(1), false)))], false),
            ("two swaps of one value cannot both win", vec![event(Swap(None, 1), 0, Some((9, None, true))), event(Swap(None, 2), 0, Some((9, None, true)))], false),
            ("a deleted value is gone", vec![event(Put(1), 0, Some((1, None, true))), event(Delete, 2, Some((3, Some(1), true))), event(Get, 4, Some((5, Some(1), false)))], false),
            ("nobody reads what nobody wrote", vec![event(Get, 0, Some((1, Some(7), false)))], false),
        ];
        for (name, history, expected) in table {
            assert_eq!(is_linearizable(&history), expected, "{name}");
        }
    }

    proptest! {
        /// A history that was made by taking effect at one moment each is found good, whatever its calls and returns overlap; and with one answer
        /// changed to a value that was never written it is found bad.
        #[test]
        fn made_histories_are_good_and_forged_ones_bad(
            steps in prop::collection::vec((0_u8..4, 0_u64..4, 0_u64..30, 0_u64..30, any::<bool>()), 1..40),
            forged in any::<prop::sample::Index>(),
        ) {
            let mut value = None;
            let mut history = Vec::new();
            for (place, (kind, number, early, late, known)) in steps.iter().enumerate() {
                let operation = match kind {
                    0 => Operation::Get,
                    1 => Operation::Put(*number),
                    2 => Operation::Swap(value.filter(|_| number % 2 == 0), *number),
                    _ => Operation::Delete,
                };
                let (after, answer) = operation.on(value);
                value = after;
                let moment = place as u64 * 10 + 100;
                history.push(Event { operation, called: moment - early, returned: known.then_some((moment + late, answer)) });
            }
            prop_assert!(is_linearizable(&history));
            let place = forged.index(history.len());
            if let Some((at, answer)) = history[place].returned {
                history[place].returned = Some((at, Answer { before: Some(999), ..answer }));
                prop_assert!(!is_linearizable(&history));
            }
        }
    }
}
