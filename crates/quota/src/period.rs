//! Calendar periods: days, weeks from Monday, months; at a fixed offset from UTC.
//!
//! Calendar days are computed by hand (Howard Hinnant's `civil_from_days`, public domain): five lines of integers instead of a time
//! zone database that a quota with a fixed offset does not need.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::limit::Window;

/// A span of time in which a budget is counted: `start <= now < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Period {
    /// The first microsecond. 0 for a budget that never starts anew.
    pub start: Micros,
    /// The first microsecond after it. [`Period::NEVER`] for a budget that never starts anew.
    pub end: Micros,
    /// The window, for the name.
    pub window: Window,
    /// Minutes east of UTC, for the name.
    pub utc_offset_minutes: i16,
}

const DAY: i64 = 86_400 * 1_000_000;

impl Period {
    /// The end of a period without end: the largest integer that a double holds exactly.
    pub const NEVER: Micros = (1 << 53) - 1;

    /// The period that contains `now`.
    pub fn containing(now: Micros, window: Window, utc_offset_minutes: i16) -> Self {
        let offset = i64::from(utc_offset_minutes) * 60 * 1_000_000;
        let day = (i64::try_from(now).unwrap_or(i64::MAX - DAY).saturating_add(offset)).div_euclid(DAY);
        let (first, last) = match window {
            Window::Total => return Self { start: 0, end: Self::NEVER, window, utc_offset_minutes },
            Window::Day => (day, day + 1),
            // Day 0 was a Thursday: Monday was three days before.
            Window::Week => {
                let monday = (day + 3).div_euclid(7) * 7 - 3;
                (monday, monday + 7)
            }
            Window::Month => {
                let (year, month, _) = civil(day);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (days(year, month), days(next.0, next.1))
            }
        };
        let at = |day: i64| Micros::try_from(day * DAY - offset).unwrap_or(0);
        Self { start: at(first), end: at(last), window, utc_offset_minutes }
    }

    /// Whether `now` is inside.
    pub const fn contains(&self, now: Micros) -> bool {
        self.start <= now && now < self.end
    }
}

/// The suffix of the storage key: `d:2026-11-23`, `w:2026-11-23` (its Monday), `m:2026-11`, or `t`.
impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = i64::try_from(self.start).unwrap_or(0) + i64::from(self.utc_offset_minutes) * 60 * 1_000_000;
        let (year, month, day) = civil(local.div_euclid(DAY));
        match self.window {
            Window::Day => write!(out, "d:{year:04}-{month:02}-{day:02}"),
            Window::Week => write!(out, "w:{year:04}-{month:02}-{day:02}"),
            Window::Month => write!(out, "m:{year:04}-{month:02}"),
            Window::Total => out.write_str("t"),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(day: i64) -> (i64, i64, i64) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The first day of a month, counted from 1970-01-01.
fn days(year: i64, month: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let yoe = year.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Micros = 3_600_000_000;
    /// 2026-11-28 00:00 UTC, a Saturday.
    const SATURDAY: Micros = 1_795_824_000_000_000;

    #[test]
    fn periods_have_the_calendars_bounds_and_names() {
        let now = SATURDAY + 16 * HOUR;
        for (window, name, start, end) in [
            (Window::Day, "d:2026-11-28", SATURDAY, SATURDAY + 24 * HOUR),
            (Window::Week, "w:2026-11-23", SATURDAY - 5 * 24 * HOUR, SATURDAY + 2 * 24 * HOUR),
            (Window::Month, "m:2026-11", SATURDAY - 27 * 24 * HOUR, SATURDAY + 3 * 24 * HOUR),
            (Window::Total, "t", 0, Period::NEVER),
        ] {
            let period = Period::containing(now, window, 0);
            assert_eq!((period.to_string().as_str(), period.start, period.end), (name, start, end));
        }
    }

    #[test]
    fn the_offset_moves_midnight() {
        let period = Period::containing(SATURDAY + 23 * HOUR, Window::Day, 120);
        assert_eq!((period.to_string().as_str(), period.start), ("d:2026-11-29", SATURDAY + 22 * HOUR));
        let period = Period::containing(SATURDAY + HOUR, Window::Month, -720);
        assert_eq!(period.to_string(), "m:2026-11");
    }

    #[test]
    fn every_moment_is_in_the_period_that_contains_it_and_periods_touch() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let now = random.u64(0..4_000_000_000_000_000);
            let offset = random.i16(-720..=840);
            for window in [Window::Day, Window::Week, Window::Month] {
                let period = Period::containing(now, window, offset);
                assert!(period.contains(now), "{now} {window:?} {offset}");
                assert_eq!(Period::containing(period.end, window, offset).start, period.end);
                assert_eq!(Period::containing(period.end - 1, window, offset), period);
            }
        }
    }
}
