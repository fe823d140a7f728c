//! Unix milliseconds as RFC 3339 text, without a calendar library.

use std::fmt;

/// Milliseconds of Unix time, displayed as `2026-11-23T05:03:38.250Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixMillis(pub u64);

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl UnixMillis {
    /// Reads `2026-11-23T05:03:38Z`, with or without a fraction of a second; UTC only, from 1970 on. `None` for everything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix("+00:00"))?.split_once(['T', 't', ' '])?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut date = date.splitn(3, '-').map(digits);
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let mut time = time.splitn(3, ':').map(digits);
        let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
        // A leap second is the one after it.
        if !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let days = days_from_civil(year, month, day)?;
        digits(fraction)?;
        let millis = digits(format!("{fraction:0<3}").get(..3)?)?;
        Some(Self((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000 + millis))
    }
}

/// ASCII digits, few enough for a number of 64 bits.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The day number of a date; `None` when there is no such date. The inverse of [`civil_from_days`], found through it.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    const DAYS_PER_YEAR: f64 = 365.2425;

    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Within a few days of it.
    let about = ((year - 1970) as f64 * DAYS_PER_YEAR) as u64 + (month - 1) * 30 + day - 1;
    (about.saturating_sub(5)..=about + 10).find(|days| civil_from_days(*days) == (year, month, day))
}

/// Gregorian date of a day number since 1970-01-01, by counting years from 1 March so that the leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_EPOCH: u64 = 719_468; // 0000-03-01 to 1970-01-01
    const DAYS_PER_ERA: u64 = 146_097; // 400 years

    let days = days + DAYS_TO_EPOCH;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_known_moments() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_410_218_250, "2026-11-23T05:03:38.250Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(UnixMillis(millis).to_string(), text);
        }
    }

    #[test]
    fn reads_what_it_writes_and_what_others_write() {
        for days in 0..146_097 {
            let moment = UnixMillis(days * 86_400_000 + days);
            assert_eq!(UnixMillis::parse(&moment.to_string()), Some(moment));
        }
        for (text, millis) in [
            ("2026-11-23T05:03:38Z", 1_795_410_218_000),
            ("2026-11-23 05:03:38.25+00:00", 1_795_410_218_250),
            ("2026-11-23t05:03:38.123456789z", 1_795_410_218_123),
        ] {
            assert_eq!(UnixMillis::parse(text), Some(UnixMillis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T05:03:38",
            "2026-11-23T05:03:38+02:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.5xZ",
            "1969-12-31T23:59:59Z",
            "-026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.éZ",
        ] {
            assert_eq!(UnixMillis::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut previous = civil_from_days(0);
        for days in 1..=146_097 {
            let (year, month, day) = civil_from_days(days);
            let next_day = (year, month, day) == (previous.0, previous.1, previous.2 + 1);
            let next_month = day == 1 && (year, month) == (previous.0, previous.1 + 1);
            let next_year = (month, day) == (1, 1) && year == previous.0 + 1 && previous.1 == 12;
            assert!(next_day || next_month || next_year, "{previous:?} to {:?}", (year, month, day));
            previous = (year, month, day);
        }
        assert_eq!(previous, (2370, 1, 1));
    }
}
