//! Keeps retries from becoming the load: one budget per edge and model.
//!
//! Every request deposits a fifth of a retry, three retries per second are free, and everything is forgotten after ten
//! seconds. Finagle and Linkerd use the same shape.

use parking_lot::Mutex;

use crate::{Settings, Timestamp};

/// Deposits and withdrawals of the last ten seconds.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    seconds: Mutex<[Second; EXPIRY as usize]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    epoch: u64,
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// Counts a request.
    pub(crate) fn deposit(&self, now: Timestamp) {
        let mut seconds = self.seconds.lock();
        let slot = current(&mut seconds, now);
        slot.requests = slot.requests.saturating_add(1);
    }

    /// Takes one retry if there is one.
    pub(crate) fn withdraw(&self, settings: &Settings, now: Timestamp) -> bool {
        let mut seconds = self.seconds.lock();
        if balance(&seconds, settings, now) < 1.0 {
            return false;
        }
        let slot = current(&mut seconds, now);
        slot.retries = slot.retries.saturating_add(1);
        true
    }

    /// Retries that could be taken now.
    pub(crate) fn balance(&self, settings: &Settings, now: Timestamp) -> f64 {
        balance(&self.seconds.lock(), settings, now)
    }
}

fn balance(seconds: &[Second; EXPIRY as usize], settings: &Settings, now: Timestamp) -> f64 {
    let epoch = epoch(now);
    let live = seconds.iter().filter(|second| second.epoch <= epoch && second.epoch + EXPIRY > epoch);
    let (requests, retries) =
        live.fold((0.0, 0.0), |(requests, retries), second| (requests + f64::from(second.requests), retries + f64::from(second.retries)));
    settings.retry_reserve * EXPIRY as f64 + settings.retry_share * requests - retries
}

fn current(seconds: &mut [Second; EXPIRY as usize], now: Timestamp) -> &mut Second {
    let epoch = epoch(now);
    let slot = &mut seconds[(epoch % EXPIRY) as usize];
    if slot.epoch != epoch {
        *slot = Second { epoch, ..Second::default() };
    }
    slot
}

/// Epochs start at the number of slots, so that an unused slot never looks current.
fn epoch(now: Timestamp) -> u64 {
    now.micros() / 1_000_000 + EXPIRY
}

const EXPIRY: u64 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn drain(budget: &RetryBudget, now: Timestamp) -> u32 {
        (0..).take_while(|_| budget.withdraw(&Settings::default(), now)).count() as u32
    }

    #[test]
    fn the_reserve_is_free_and_comes_back_after_ten_seconds() {
        let budget = RetryBudget::default();
        assert_eq!(drain(&budget, second(0)), 30);
        assert_eq!(drain(&budget, second(9)), 0);
        assert_eq!(drain(&budget, second(10)), 30);
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let budget = RetryBudget::default();
        for _ in 0..1_000 {
            budget.deposit(second(3));
        }
        assert_eq!(drain(&budget, second(3)), 230);
        assert_eq!(drain(&budget, second(13)), 30, "deposits expire too");
    }

    proptest! {
        #[test]
        fn retries_never_exceed_reserve_plus_share(requests in prop::collection::vec(0_u32..200, 1..30)) {
            let budget = RetryBudget::default();
            let mut spent = Vec::new();
            for (at, count) in requests.iter().enumerate() {
                for _ in 0..*count {
                    budget.deposit(second(at as u64));
                }
                spent.push(drain(&budget, second(at as u64)));
                let seconds = |count: u64| (at + 1).saturating_sub(count as usize)..=at;
                let retries: u32 = spent[seconds(EXPIRY)].iter().sum();
                // The last retry of these ten seconds may have been paid by requests ten seconds older.
                let deposits: u32 = requests[seconds(2 * EXPIRY)].iter().sum();
                prop_assert!(f64::from(retries) <= 30.0 + 0.2 * f64::from(deposits) + 1e-9);
            }
        }
    }
}
