//! When not to ask: a server that does not answer must not cost every request its time-out.

use crate::clock::Micros;

/// Closed, open, or half open with one call on its way. Pure: the time is an argument.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// The last failures, oldest first.
    failures: [Micros; FAILURES],
    count: usize,
    open_until: Option<Micros>,
    probing_until: Micros,
}

/// So many failures ...
const FAILURES: usize = 5;
/// ... within this time open it ...
const WITHIN: Micros = 1_000_000;
/// ... for this long.
const OPEN_FOR: Micros = 2_000_000;
/// A probe whose caller left is forgotten after this.
const PROBE: Micros = 250_000;

impl Breaker {
    /// Whether a call may be made; if not, for how long.
    pub(super) fn admit(&mut self, now: Micros) -> Result<(), Micros> {
        match self.open_until {
            None => Ok(()),
            Some(until) if now < until => Err(until - now),
            Some(_) if now < self.probing_until => Err(self.probing_until - now),
            Some(_) => {
                self.probing_until = now + PROBE;
                Ok(())
            }
        }
    }

    /// How a call ended. True when this opened it: then the connections are worth nothing either.
    pub(super) fn record(&mut self, answered: bool, now: Micros) -> bool {
        if answered {
            *self = Self::default();
            return false;
        }
        if self.open_until.is_some_and(|until| now >= until) {
            // The probe failed.
            self.open_until = Some(now + OPEN_FOR);
            self.probing_until = 0;
            return true;
        }
        self.failures.rotate_left(1);
        self.failures[FAILURES - 1] = now;
        self.count = (self.count + 1).min(FAILURES);
        let opens = self.count == FAILURES && now - self.failures[0] <= WITHIN && self.open_until.is_none();
        if opens {
            self.open_until = Some(now + OPEN_FOR);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_second_open_it_for_two_then_one_call_probes() {
        let mut breaker = Breaker::default();
        for at in 0..4 {
            breaker.admit(at * 100).unwrap();
            breaker.record(false, at * 100);
        }
        breaker.admit(500_000).unwrap();
        breaker.record(false, 500_000);
        assert_eq!(breaker.admit(500_001), Err(1_999_999));
        assert!(breaker.admit(2_500_000).is_ok(), "half open");
        assert!(breaker.admit(2_500_001).is_err(), "one probe at a time");
        breaker.record(false, 2_550_000);
        assert!(breaker.admit(4_549_999).is_err());
        assert!(breaker.admit(4_550_000).is_ok());
        breaker.record(true, 4_550_100);
        assert!(breaker.admit(4_550_101).is_ok() && breaker.admit(4_550_102).is_ok());
    }

    #[test]
    fn slow_failures_do_not_open_it() {
        let mut breaker = Breaker::default();
        for at in 0..100 {
            breaker.record(false, at * 300_000);
            assert!(breaker.admit(at * 300_000 + 1).is_ok());
        }
    }
}
