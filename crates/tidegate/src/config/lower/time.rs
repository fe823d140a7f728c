//! Calendar moments as Unix seconds.

/// Reads `2027-01-31` (the start of that UTC day) or an RFC 3339 moment such as `2027-01-31T18:00:00+01:00`.
pub(crate) fn unix_seconds(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let days = days_since_epoch(date)?;
    let seconds = match time {
        Some(time) => seconds_of_day(time)?,
        None => 0,
    };
    u64::try_from(days * 86_400 + seconds).ok()
}

fn days_since_epoch(date: &str) -> Option<i64> {
    let [year, month, day] = fields(date, '-')?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    // Years count from 1 March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    const DAYS_TO_EPOCH: i64 = 719_468; // 0000-03-01 to 1970-01-01
    Some(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - DAYS_TO_EPOCH)
}

fn seconds_of_day(time: &str) -> Option<i64> {
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => return None,
    };
    let clock = match clock.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit()) => whole,
        Some(_) => return None,
        None => clock,
    };
    let [hour, minute, second] = fields(clock, ':')?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let shift = match offset {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = fields(&offset[1..], ':')?;
            let minutes = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            if offset.starts_with('-') { -minutes } else { minutes }
        }
    };
    Some(hour * 3_600 + minute * 60 + second - shift * 60)
}

fn fields<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut values = [0; N];
    let mut parts = text.split(separator);
    for value in &mut values {
        let part = parts.next()?;
        if part.len() < 2 || part.len() > 4 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dates_and_moments() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2027-01-31T00:00:00Z", 1_801_353_600),
            ("2027-01-31T01:00:00+01:00", 1_801_353_600),
            ("2027-01-30 18:30:00.250-05:30", 1_801_353_600),
        ] {
            assert_eq!(unix_seconds(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in ["", "2027", "2027-02-29", "2027-13-01", "2027-01-31T00:00:00", "2027-01-31T24:00:00Z", "1969-12-31", "31.1.2027"] {
            assert_eq!(unix_seconds(text), None, "{text}");
        }
    }
}
