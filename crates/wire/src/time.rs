//! The forms in which vendors write "wait until" and "wait for".

use std::time::Duration;

/// Longest wait believed; whatever is further away is a quota for another day, or a broken clock.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Plain numbers from here on are moments (Unix seconds), below they are spans: nobody asks to wait thirty years.
const FIRST_EPOCH: f64 = 1e9;

/// Reads seconds, Unix seconds or milliseconds, a Go duration (`1m3.5s`), an RFC 3339 time or an HTTP date, as a wait from
/// `unix_now` on. Moments that have passed are no wait; nonsense is `None`.
pub(crate) fn parse_wait(text: &str, unix_now: u64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return match number {
            _ if !number.is_finite() || number < 0.0 => None,
            _ if number >= FIRST_EPOCH * 1000.0 => seconds(number / 1000.0 - unix_now as f64),
            _ if number >= FIRST_EPOCH => seconds(number - unix_now as f64),
            _ => seconds(number),
        };
    }
    if let Some(wait) = go_duration(text) {
        return Some(wait.min(LONGEST));
    }
    let moment = rfc3339(text).or_else(|| http_date(text))?;
    seconds(moment - unix_now as f64)
}

/// Seconds as a wait; negative ones are none.
pub(crate) fn seconds(number: f64) -> Option<Duration> {
    number.is_finite().then(|| Duration::from_secs_f64(number.clamp(0.0, LONGEST.as_secs_f64())))
}

/// `1h2m3.5s`, `20ms`: at least one number with a unit, nothing else.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let (factor, tail) =
            [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
                .into_iter()
                .find_map(|(unit, factor)| Some((factor, rest[digits..].strip_prefix(unit)?)))?;
        total += number * factor;
        rest = tail;
    }
    if text.is_empty() { None } else { seconds(total) }
}

/// `2026-10-21T07:28:00.5Z` or with an offset, as Unix seconds.
fn rfc3339(text: &str) -> Option<f64> {
    let (date, clock) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let days = days(date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?)?;
    let zone = clock.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = clock.split_at(zone);
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, ..] => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if *sign == b'-' { -minutes * 60 } else { minutes * 60 }
        }
        [] => return None,
    };
    Some((days * 86_400 - offset) as f64 + clock_seconds(clock)?)
}

/// `Wed, 21 Oct 2026 07:28:00 GMT`, as Unix seconds. The two older forms that HTTP still allows are not sent by any vendor.
fn http_date(text: &str) -> Option<f64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split_ascii_whitespace();
    let day = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let year = words.next()?.parse().ok()?;
    let clock = clock_seconds(words.next()?)?;
    (words.next()? == "GMT").then_some(days(year, month, day)? as f64 * 86_400.0 + clock)
}

/// Seconds of the day.
fn clock_seconds(text: &str) -> Option<f64> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    let sane = hours < 24 && minutes < 60 && (0.0..61.0).contains(&seconds);
    sane.then(|| f64::from(hours * 3600 + minutes * 60) + seconds)
}

/// Days since 1970-01-01 of a Gregorian date. Years are counted from March, which puts the leap day last; 400 years are 146,097
/// days.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-10-21T07:28:00Z
    const NOW: u64 = 1_792_567_680;

    #[test]
    fn all_forms_say_the_same() {
        for text in [
            "90",
            "90.0",
            "1m30s",
            "90s",
            "90000ms",
            "2026-10-21T07:29:30Z",
            "2026-10-21T09:29:30.000+02:00",
            "2026-10-21T05:29:30-02:00",
            "Wed, 21 Oct 2026 07:29:30 GMT",
            "1792567770",
            "1792567770000",
            " 90 ",
        ] {
            assert_eq!(parse_wait(text, NOW), Some(Duration::from_secs(90)), "{text}");
        }
        assert_eq!(parse_wait("6m0s", NOW), Some(Duration::from_secs(360)));
        assert_eq!(parse_wait("20ms", NOW), Some(Duration::from_millis(20)));
        assert_eq!(parse_wait("34.074824224s", NOW).map(|wait| wait.as_millis()), Some(34_074));
    }

    #[test]
    fn the_past_is_no_wait_and_the_far_future_is_bounded() {
        assert_eq!(parse_wait("2026-10-21T07:00:00Z", NOW), Some(Duration::ZERO));
        assert_eq!(parse_wait("999999999", NOW), Some(LONGEST));
        assert_eq!(parse_wait("2999-01-01T00:00:00Z", NOW), Some(LONGEST));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "soon", "-5", "NaN", "inf", "5x", "1m x", "2026-13-01T00:00:00Z", "2026-10-21", "Wed, 21 Foo 2026 07:29:30 GMT"] {
            assert_eq!(parse_wait(text, NOW), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = parse_wait(&text, NOW);
        }

        #[test]
        fn dates_follow_each_other(year in 1970..9999_i64, month in 1..=12_i64, day in 1..=27_i64) {
            prop_assert_eq!(days(year, month, day).unwrap() + 1, days(year, month, day + 1).unwrap());
        }
    }
}
