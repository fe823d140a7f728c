//! The open loop's clock: hands out the moments at which requests should be sent.
//!
//! Runtime timers round to a millisecond, more than a whole relay costs. A kernel timer (`timerfd`) wakes within microseconds and
//! burns no CPU. Moments that pass while the generator is busy are handed out late but unchanged, so that their delay counts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

/// The moments `begin + k / rate` in turn.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    begin: Instant,
    interval: f64,
    next: u64,
    stride: u64,
}

impl Schedule {
    /// The `index`-th of `of` interleaved parts of a schedule with `rate` moments per second in total.
    pub(super) fn new(begin: Instant, rate: f64, index: usize, of: usize) -> Self {
        Self { begin, interval: 1.0 / rate.max(1e-3), next: index as u64, stride: of as u64 }
    }

    /// The next moment, not yet taken.
    pub(super) fn peek(&self) -> Instant {
        // Multiplied, not added up: no drift over a long run.
        self.begin + Duration::from_secs_f64(self.interval * self.next as f64)
    }

    /// Takes the next moment when it has come and lies before `end`.
    pub(super) fn take_due(&mut self, now: Instant, end: Instant) -> Option<Instant> {
        let moment = self.peek();
        if moment > now || moment >= end {
            return None;
        }
        self.next += self.stride;
        Some(moment)
    }
}

/// Sleeps to the microsecond.
pub(super) struct Alarm {
    timer: AsyncFd<rustix::fd::OwnedFd>,
}

impl Alarm {
    #[expect(deprecated, reason = "its successor is an unsafe fn; the descriptor is owned by the `AsyncFd` and closed by nobody else")]
    pub(super) fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("create a kernel timer")?;
        Ok(Self { timer: AsyncFd::new(timer).context("register the kernel timer")? })
    }

    /// Waits until `moment`.
    pub(super) async fn wait_until(&self, moment: Instant) -> Result<()> {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let value = Timespec { tv_sec: left.as_secs().try_into()?, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).context("set the kernel timer")?;
        loop {
            let mut ready = self.timer.readable().await.context("wait for the kernel timer")?;
            let mut expirations = [0; 8];
            match rustix::io::read(&self.timer, &mut expirations) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error).context("read the kernel timer"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_generator_gets_every_moment_it_missed_unchanged() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 1000.0, 0, 1);
        let end = begin + Duration::from_secs(1);
        // Nothing was taken for 5.5 ms: six moments are due, each with its own intended time.
        let now = begin + Duration::from_micros(5500);
        let due: Vec<_> = std::iter::from_fn(|| schedule.take_due(now, end)).collect();
        let expected: Vec<_> = (0..=5).map(|k| begin + Duration::from_millis(k)).collect();
        assert_eq!(due, expected);
        // Their latencies, answered at once, still carry the delay: 5.5, 4.5, … 0.5 ms.
        assert_eq!(now - due[0], Duration::from_micros(5500));
        assert_eq!(schedule.take_due(now, end), None);
    }

    #[test]
    fn threads_share_one_schedule() {
        let begin = Instant::now();
        let mut moments = Vec::new();
        for index in 0..2 {
            let mut schedule = Schedule::new(begin, 100.0, index, 2);
            while let Some(moment) = schedule.take_due(begin + Duration::from_millis(45), begin + Duration::from_secs(1)) {
                moments.push(moment - begin);
            }
        }
        moments.sort_unstable();
        assert_eq!(moments, [0, 10, 20, 30, 40].map(Duration::from_millis));
    }

    #[test]
    fn the_schedule_ends() {
        let begin = Instant::now();
        let mut schedule = Schedule::new(begin, 10.0, 0, 1);
        let end = begin + Duration::from_millis(250);
        assert_eq!(std::iter::from_fn(|| schedule.take_due(begin + Duration::from_secs(9), end)).count(), 3);
    }
}
