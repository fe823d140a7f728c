//! The one clock of a process.
//!
//! Durations and deadlines are counted in monotonic microseconds since the process started; wall time is only for what leaves the
//! process (records, logs, price windows). The pure crates take both as arguments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic and wall time. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that starts at zero now.
    pub fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// Microseconds since the start; never goes back.
    pub fn micros(&self) -> u64 {
        saturating_micros(self.epoch.elapsed())
    }

    /// The microsecond count of a moment, zero for moments before the start.
    pub fn micros_at(&self, moment: Instant) -> u64 {
        saturating_micros(moment.saturating_duration_since(self.epoch))
    }

    /// The moment of a microsecond count, for timers.
    pub fn instant_at(&self, micros: u64) -> Instant {
        let offset = Duration::from_micros(micros);
        // A count that the machine cannot represent is one that will not be reached; a century is as good.
        self.epoch.checked_add(offset).unwrap_or(self.epoch + A_CENTURY)
    }

    /// Seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        unix_now().as_secs()
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_millis(&self) -> u64 {
        u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the Unix epoch.
    pub fn unix_micros(&self) -> u64 {
        saturating_micros(unix_now())
    }

    /// Time of day in UTC as hours times 100 plus minutes: 1430 is half past two in the afternoon.
    pub fn utc_hhmm(&self) -> u16 {
        hhmm(self.unix_seconds())
    }
}

fn unix_now() -> Duration {
    // A machine whose clock stands before 1970 gets zero rather than a panic.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn saturating_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn hhmm(unix_seconds: u64) -> u16 {
    let minute_of_day = unix_seconds / 60 % (24 * 60);
    u16::try_from(minute_of_day / 60 * 100 + minute_of_day % 60).unwrap_or(0)
}

const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_wraps_at_midnight() {
        assert_eq!(hhmm(0), 0);
        assert_eq!(hhmm(59), 0);
        assert_eq!(hhmm(14 * 3600 + 30 * 60), 1430);
        assert_eq!(hhmm(86_399), 2359);
        assert_eq!(hhmm(86_400 * 20_000 + 61), 1);
    }

    #[test]
    fn moments_and_counts_convert_back_and_forth() {
        let clock = Clock::start();
        assert_eq!(clock.micros_at(clock.instant_at(1_234)), 1_234);
        assert!(clock.instant_at(u64::MAX) > Instant::now());
        let first = clock.micros();
        assert!(clock.micros() >= first);
    }

    #[test]
    fn wall_time_units_agree() {
        let clock = Clock::start();
        let seconds = clock.unix_seconds();
        assert!(clock.unix_millis() / 1_000 - seconds <= 1);
        assert!(clock.unix_micros() / 1_000_000 - seconds <= 1);
    }
}
