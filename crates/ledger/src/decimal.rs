//! Exact reading and writing of decimal numbers.
//!
//! Prices arrive as text (`"0.0000012"`, `1.2e-06`). They become integers of a chosen decimal place without passing through a binary
//! float, and what cannot be held exactly is an error instead of a rounding.

use crate::money::MoneyError;

/// Longest accepted number, in bytes. Far beyond any price; keeps work bounded for texts from outside.
const MAX_LEN: usize = 64;

/// Most decimal places that are written; the fraction then fits 64 bits.
const MOST_PLACES: usize = 19;

/// Longest text: the 39 digits of an `i128`, the zeros before a fraction, point and sign.
const TEXT: usize = 39 + MOST_PLACES + 2;

/// Largest accepted exponent, either sign.
const MAX_EXPONENT: i32 = 40;

/// Reads `text` as a multiple of 10^-`places`. Accepts an optional sign, digits, one point and an exponent.
pub(crate) fn parse_scaled(text: &str, places: u32) -> Result<i128, MoneyError> {
    if text.len() > MAX_LEN {
        return Err(MoneyError::TooLong);
    }
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(MoneyError::NotANumber);
    }

    let mut digits: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return Err(MoneyError::NotANumber);
        }
        digits = digits.checked_mul(10).and_then(|digits| digits.checked_add(i128::from(byte - b'0'))).ok_or(MoneyError::OutOfRange)?;
    }
    // Both terms are bounded by MAX_LEN and MAX_EXPONENT.
    let shift = i32::try_from(places).unwrap_or(i32::MAX) + exponent - fraction.len() as i32;
    let scaled = shift_exactly(digits, shift)?;
    Ok(if negative { -scaled } else { scaled })
}

/// A multiple of 10^-`places` as a plain decimal: no exponent, no trailing zeros. At most 19 places.
///
/// Written from its end into a buffer of its own: several amounts are written per request, and the formatting machinery would cost
/// ten times as much.
pub(crate) fn text_of(value: i128, places: usize) -> DecimalText {
    let magnitude = value.unsigned_abs();
    let places = places.min(MOST_PLACES);
    let mut text = DecimalText { bytes: [0; TEXT], start: TEXT };
    // Ordinary amounts fit: 64-bit division is many times cheaper.
    let (whole, mut fraction) = match (u64::try_from(magnitude), 10u64.pow(places as u32)) {
        (Ok(magnitude), unit) => (u128::from(magnitude / unit), magnitude % unit),
        // A remainder by a 64-bit number fits 64 bits.
        (Err(_), unit) => (magnitude / u128::from(unit), (magnitude % u128::from(unit)) as u64),
    };
    let mut shown = false;
    for _ in 0..places {
        let digit = (fraction % 10) as u8;
        fraction /= 10;
        shown |= digit != 0;
        if shown {
            text.push(b'0' + digit);
        }
    }
    if shown {
        text.push(b'.');
    }
    let mut large = whole;
    while large > u128::from(u64::MAX) {
        text.push(b'0' + (large % 10) as u8);
        large /= 10;
    }
    let mut small = large as u64;
    loop {
        text.push(b'0' + (small % 10) as u8);
        small /= 10;
        if small == 0 {
            break;
        }
    }
    if value < 0 {
        text.push(b'-');
    }
    text
}

/// The digits of an amount.
#[derive(Clone, Copy)]
pub struct DecimalText {
    bytes: [u8; TEXT],
    start: usize,
}

impl DecimalText {
    /// The text: a number as JSON writes numbers.
    pub fn as_str(&self) -> &str {
        self.bytes.get(self.start..).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }
}

fn parse_exponent(text: &str) -> Result<i32, MoneyError> {
    let exponent: i32 = text.parse().map_err(|_| MoneyError::NotANumber)?;
    if exponent.abs() > MAX_EXPONENT {
        return Err(MoneyError::OutOfRange);
    }
    Ok(exponent)
}

fn shift_exactly(digits: i128, shift: i32) -> Result<i128, MoneyError> {
    if digits == 0 {
        return Ok(0);
    }
    let power = 10i128.checked_pow(shift.unsigned_abs());
    if shift >= 0 {
        return power.and_then(|power| digits.checked_mul(power)).ok_or(MoneyError::OutOfRange);
    }
    match power {
        Some(power) if digits % power == 0 => Ok(digits / power),
        _ => Err(MoneyError::TooPrecise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_exponent_forms_alike() {
        for text in ["0.00000015", "1.5e-07", "1.5E-7", "15e-8", "+0.000000150", ".00000015"] {
            assert_eq!(parse_scaled(text, 12), Ok(150_000), "{text}");
        }
        assert_eq!(parse_scaled("-1", 12), Ok(-1_000_000_000_000));
        assert_eq!(parse_scaled("0e-40", 12), Ok(0));
    }

    #[test]
    fn refuses_what_is_not_exact_or_not_a_number() {
        assert_eq!(parse_scaled("0.0000000000001", 12), Err(MoneyError::TooPrecise));
        for text in ["", "-", ".", "1..2", "1_000", "0x10", "NaN", "inf", "1e", "1e+", "1,5", " 1", "1 ", "--1", "१"] {
            assert_eq!(parse_scaled(text, 12), Err(MoneyError::NotANumber), "{text:?}");
        }
        assert_eq!(parse_scaled("1e41", 12), Err(MoneyError::OutOfRange));
        assert_eq!(parse_scaled("1e39", 12), Err(MoneyError::OutOfRange));
        assert_eq!(parse_scaled(&"1".repeat(65), 12), Err(MoneyError::TooLong));
    }
}
