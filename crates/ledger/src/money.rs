//! Exact money: amounts and rates in whole pico-dollars.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::decimal::{self, DecimalText};

/// Decimal places of a pico-dollar.
const PLACES: usize = 12;

/// Pico-dollars in a micro-dollar, the unit in which budgets are counted.
const PICO_PER_MICRO: i128 = 1_000_000;

/// One whole in parts per million.
const PPM: i128 = 1_000_000;

/// An exact amount in pico-dollars (1e-12 USD); negative for credits.
///
/// Arithmetic saturates at about 1.7e26 USD, which no sum of real charges reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i128);

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(0);

    /// An amount of whole pico-dollars.
    pub const fn from_picodollars(picodollars: i128) -> Money {
        Money(picodollars)
    }

    /// The amount in pico-dollars.
    pub const fn picodollars(self) -> i128 {
        self.0
    }

    /// `ppm` parts per million of the amount, rounded to the nearest pico-dollar, halves away from zero.
    pub fn share_ppm(self, ppm: u32) -> Money {
        // Split so that the product cannot overflow for any amount.
        let (units, rest) = (self.0 / PPM, self.0 % PPM);
        let ppm = i128::from(ppm);
        let rounded = (rest * ppm + PPM / 2 * self.0.signum()) / PPM;
        Money(units.saturating_mul(ppm).saturating_add(rounded))
    }

    /// Reads a decimal amount of USD, such as `0.0000012`, `-3` or `1.2e-6`; refuses what is finer than a pico-dollar.
    pub fn parse_usd(text: &str) -> Result<Money, MoneyError> {
        decimal::parse_scaled(text, PLACES as u32).map(Money)
    }

    /// Plain decimal USD without an allocation; the same text as [`Display`](fmt::Display).
    pub fn text(self) -> DecimalText {
        decimal::text_of(self.0, PLACES)
    }

    /// The amount in micro-dollars, rounded up, so that a budget never counts less than was spent. Clamped to the range of `i64`.
    pub fn micro_dollars_rounded_up(self) -> i64 {
        let floor = self.0.div_euclid(PICO_PER_MICRO);
        let up = floor + i128::from(self.0.rem_euclid(PICO_PER_MICRO) != 0);
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Plain decimal USD: no exponent, no trailing zeros (`0`, `0.000135`, `-2.5`).
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

/// A JSON number with all its digits. Works with `serde_json` only, like every raw value.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl Add for Money {
    type Output = Money;

    fn add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Money;

    fn sub(self, other: Money) -> Money {
        Money(self.0.saturating_sub(other.0))
    }
}

impl Neg for Money {
    type Output = Money;

    fn neg(self) -> Money {
        Money(self.0.saturating_neg())
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Money) {
        *self = *self + other;
    }
}

impl SubAssign for Money {
    fn sub_assign(&mut self, other: Money) {
        *self = *self - other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::ZERO, Add::add)
    }
}

/// A price in pico-dollars per unit: a token, a request or an image. Never negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// Free of charge.
    pub const ZERO: Rate = Rate(0);

    /// A rate of whole pico-dollars per unit.
    pub const fn from_picodollars(picodollars: u64) -> Rate {
        Rate(picodollars)
    }

    /// Reads USD per million units, the way price lists name token prices: `"2.50"` is 2 500 000 pico-dollars per token.
    pub fn per_million_usd(text: &str) -> Result<Rate, MoneyError> {
        Rate::parse(text, PLACES as u32 - 6)
    }

    /// Reads USD per single unit, the way request and image prices (and every price of OpenRouter's API) are named.
    pub fn per_unit_usd(text: &str) -> Result<Rate, MoneyError> {
        Rate::parse(text, PLACES as u32)
    }

    /// Decimal USD per unit, such as `0.0000025`.
    pub fn usd_per_unit(self) -> String {
        self.write(PLACES)
    }

    /// Decimal USD per million units, such as `2.5`.
    pub fn usd_per_million(self) -> String {
        self.write(PLACES - 6)
    }

    /// Pico-dollars per unit.
    pub const fn picodollars(self) -> u64 {
        self.0
    }

    /// The exact price of `units`.
    pub fn times(self, units: u64) -> Money {
        Money(i128::from(self.0).saturating_mul(i128::from(units)))
    }

    fn parse(text: &str, places: u32) -> Result<Rate, MoneyError> {
        let value = decimal::parse_scaled(text, places)?;
        if value < 0 {
            return Err(MoneyError::Negative);
        }
        u64::try_from(value).map(Rate).map_err(|_| MoneyError::OutOfRange)
    }

    fn write(self, places: usize) -> String {
        decimal::text_of(i128::from(self.0), places).as_str().to_owned()
    }
}

/// Why a text is not an amount or a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not digits with at most one point, sign and exponent.
    #[error("not a decimal number")]
    NotANumber,
    /// A price below zero.
    #[error("a price cannot be negative")]
    Negative,
    /// Finer than a pico-dollar, so that it could only be kept rounded.
    #[error("finer than a pico-dollar (1e-12 USD) per unit, which is the smallest amount counted")]
    TooPrecise,
    /// Beyond what the type holds.
    #[error("too large for a price")]
    OutOfRange,
    /// More characters than any price needs.
    #[error("more than 64 characters")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn displays_plain_decimals() {
        for (picodollars, text) in
            [(0, "0"), (1, "0.000000000001"), (135_000_000, "0.000135"), (-2_500_000_000_000, "-2.5"), (12_000_000_000_000, "12")]
        {
            assert_eq!(Money::from_picodollars(picodollars).to_string(), text);
        }
    }

    #[test]
    fn rates_convert_between_units() {
        let rate = Rate::per_million_usd("0.15").unwrap();
        assert_eq!(rate.picodollars(), 150_000);
        assert_eq!(rate, Rate::per_unit_usd("1.5e-07").unwrap());
        assert_eq!(rate.usd_per_unit(), "0.00000015");
        assert_eq!(rate.usd_per_million(), "0.15");
        assert_eq!(Rate::per_million_usd("-1"), Err(MoneyError::Negative));
        assert_eq!(Rate::per_million_usd("0.0000001"), Err(MoneyError::TooPrecise));
        assert_eq!(Rate::per_unit_usd("18446745"), Err(MoneyError::OutOfRange));
    }

    #[test]
    fn budgets_round_up() {
        for (picodollars, micro) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2), (-1, 0), (-1_000_001, -1)] {
            assert_eq!(Money::from_picodollars(picodollars).micro_dollars_rounded_up(), micro);
        }
        assert_eq!(Money::from_picodollars(i128::MAX).micro_dollars_rounded_up(), i64::MAX);
        assert_eq!(Money::from_picodollars(i128::MIN).micro_dollars_rounded_up(), i64::MIN);
    }

    #[test]
    fn serialises_as_an_exact_number() {
        let amount = Money::parse_usd("1234567890123.000000000001").unwrap();
        assert_eq!(serde_json::to_string(&amount).unwrap(), "1234567890123.000000000001");
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(picodollars in any::<i64>(), factor in 1i128..1_000_000_000) {
            let amount = Money::from_picodollars(i128::from(picodollars) * factor);
            prop_assert_eq!(Money::parse_usd(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn rates_round_trip_in_both_units(picodollars in any::<u64>()) {
            let rate = Rate::from_picodollars(picodollars);
            prop_assert_eq!(Rate::per_unit_usd(&rate.usd_per_unit()), Ok(rate));
            prop_assert_eq!(Rate::per_million_usd(&rate.usd_per_million()), Ok(rate));
        }

        #[test]
        fn sums_are_exact(amounts in proptest::collection::vec(any::<i64>(), 0..200)) {
            let reference: i128 = amounts.iter().map(|amount| i128::from(*amount)).sum();
            let sum: Money = amounts.iter().map(|amount| Money::from_picodollars(i128::from(*amount))).sum();
            prop_assert_eq!(sum.picodollars(), reference);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,70}") {
            if let Ok(amount) = Money::parse_usd(&text) {
                prop_assert_eq!(Money::parse_usd(&amount.to_string()), Ok(amount));
            }
        }
    }
}
