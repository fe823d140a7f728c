//! The one clock of a process.
//!
//! Durations and deadlines are counted in monotonic microseconds since the process started; wall time is only for what leaves the
//! process (records, logs, price windows). The pure crates take both as arguments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic and wall time. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch: Instant,
    source: Source,
}

/// Whose time it is.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The machine's.
    Machine,
    /// The machine's, and so many microseconds more. Tests only.
    Ahead(&'static AtomicU64),
    /// The tokio runtime's, which a simulation lets pass without waiting; wall time at the epoch.
    Runtime { unix: Duration },
}

/// Moves a [`Clock::movable`] and all of its copies forward.
#[derive(Debug, Clone, Copy)]
pub struct Forward(&'static AtomicU64);

impl Forward {
    /// Lets so much time pass.
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(saturating_micros(time), Ordering::SeqCst);
    }
}

impl Clock {
    /// A clock that starts at zero now.
    pub fn start() -> Self {
        Self { epoch: Instant::now(), source: Source::Machine }
    }

    /// A clock that goes with the timers of the tokio runtime it is made and asked in, for simulations: where that runtime's time is
    /// paused, so is this clock. It begins at this Unix time.
    pub fn of_runtime(unix: Duration) -> Self {
        Self { epoch: tokio::time::Instant::now().into_std(), source: Source::Runtime { unix } }
    }

    /// A clock whose time a test can let pass. Timers of the runtime do not follow it.
    pub fn movable() -> (Self, Forward) {
        // Never freed: clocks are copied everywhere, and a test process makes a handful.
        let ahead: &'static AtomicU64 = Box::leak(Box::default());
        (Self { epoch: Instant::now(), source: Source::Ahead(ahead) }, Forward(ahead))
    }

    fn ahead(&self) -> Duration {
        match self.source {
            Source::Machine | Source::Runtime { .. } => Duration::ZERO,
            Source::Ahead(ahead) => Duration::from_micros(ahead.load(Ordering::SeqCst)),
        }
    }

    fn elapsed(&self) -> Duration {
        match self.source {
            Source::Machine => self.epoch.elapsed(),
            Source::Ahead(_) => self.epoch.elapsed().saturating_add(self.ahead()),
            Source::Runtime { .. } => tokio::time::Instant::now().into_std().saturating_duration_since(self.epoch),
        }
    }

    fn unix_now(&self) -> Duration {
        match self.source {
            Source::Machine => unix_now(),
            Source::Ahead(_) => unix_now().saturating_add(self.ahead()),
            Source::Runtime { unix } => unix.saturating_add(self.elapsed()),
        }
    }

    /// Microseconds since the start; never goes back.
    pub fn micros(&self) -> u64 {
        saturating_micros(self.elapsed())
    }

    /// The microsecond count of a moment, zero for moments before the start.
    pub fn micros_at(&self, moment: Instant) -> u64 {
        saturating_micros((moment + self.ahead()).saturating_duration_since(self.epoch))
    }

    /// The moment of a microsecond count, for timers.
    pub fn instant_at(&self, micros: u64) -> Instant {
        let offset = Duration::from_micros(micros).saturating_sub(self.ahead());
        // A count that the machine cannot represent is one that will not be reached; a century is as good.
        self.epoch.checked_add(offset).unwrap_or(self.epoch + A_CENTURY)
    }

    /// Seconds since the Unix epoch.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_now().as_secs()
    }

    /// Milliseconds since the Unix epoch.
    pub fn unix_millis(&self) -> u64 {
        u64::try_from(self.unix_now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the Unix epoch.
    pub fn unix_micros(&self) -> u64 {
        saturating_micros(self.unix_now())
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
    fn a_movable_clock_passes_time_for_all_its_copies() {
        let (clock, forward) = Clock::movable();
        let (copy, before) = (clock, clock.unix_seconds());
        forward.pass(Duration::from_secs(3600));
        assert!(copy.micros() >= 3_600_000_000 && copy.micros() < 3_700_000_000);
        assert!((3600..3700).contains(&(copy.unix_seconds() - before)));
        assert_eq!(copy.micros_at(copy.instant_at(3_600_000_123)), 3_600_000_123);
    }

    #[test]
    fn a_clock_of_a_paused_runtime_passes_with_its_timers() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let clock = Clock::of_runtime(Duration::from_secs(1_000_000));
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(clock.micros() >= 2_000);
            assert_eq!(clock.unix_seconds(), 1_000_000);
            let at = clock.instant_at(3_600_000_000);
            assert_eq!(clock.micros_at(at), 3_600_000_000);
        });
    }

    #[test]
    fn wall_time_units_agree() {
        let clock = Clock::start();
        let seconds = clock.unix_seconds();
        assert!(clock.unix_millis() / 1_000 - seconds <= 1);
        assert!(clock.unix_micros() / 1_000_000 - seconds <= 1);
    }
}
