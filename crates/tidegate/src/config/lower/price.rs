//! Prices: decimals to exact rates.

use tidegate_ledger::{Money, MoneyError, PriceOverride, PriceTable, Rate, UtcWindow};

use super::{Lowering, Place};
use crate::config::file::{PriceOverride as RawOverride, Prices};
use crate::config::scalar::Decimal;

/// What a price is for one of.
#[derive(Clone, Copy)]
enum Unit {
    MillionTokens,
    One,
}

impl<'a> Lowering<'a> {
    pub(super) fn prices(&mut self, raw: &Prices, place: Place<'a>) -> PriceTable {
        let mut rate = |value: &Option<Decimal>, key, unit| self.rate(value.as_ref(), place.get(key), unit);
        let table = PriceTable {
            prompt: Rate::ZERO,
            completion: Rate::ZERO,
            cache_read: rate(&raw.cache_read, "cache_read", Unit::MillionTokens),
            cache_write: rate(&raw.cache_write, "cache_write", Unit::MillionTokens),
            cache_write_1h: rate(&raw.cache_write_1h, "cache_write_1h", Unit::MillionTokens),
            reasoning: rate(&raw.reasoning, "reasoning", Unit::MillionTokens),
            request: rate(&raw.request, "request", Unit::One).unwrap_or_default(),
            image: rate(&raw.image, "image", Unit::One).unwrap_or_default(),
            audio: rate(&raw.audio, "audio", Unit::MillionTokens),
            discount_ppm: self.discount(raw.discount.as_ref(), place.get("discount")).unwrap_or(0),
            overrides: Vec::new(),
        };
        let prompt = self.rate(Some(&raw.prompt), place.get("prompt"), Unit::MillionTokens).unwrap_or_default();
        let completion = self.rate(Some(&raw.completion), place.get("completion"), Unit::MillionTokens).unwrap_or_default();
        for (rate, key) in [(prompt, "prompt"), (completion, "completion")] {
            if rate != Rate::ZERO && rate < SUSPICIOUSLY_CHEAP {
                self.warning(
                    place.get(key),
                    format!("{} USD per million tokens is less than any provider asks", rate.usd_per_million()),
                    "prices are per million tokens; a price per token has to be multiplied by 1000000",
                );
            }
        }
        let overrides =
            (0..).zip(&raw.overrides).map(|(index, entry)| self.price_override(entry, place.get("overrides").item(index))).collect();
        PriceTable { prompt, completion, overrides, ..table }
    }

    fn price_override(&mut self, raw: &RawOverride, place: Place<'a>) -> PriceOverride {
        let hours = match (raw.utc_start, raw.utc_end) {
            (None, None) => None,
            (Some(start), Some(end)) => {
                let valid = [(start, "utc_start"), (end, "utc_end")].into_iter().all(|(hhmm, key)| self.is_minute(hhmm, place.get(key)));
                if valid && start == end {
                    self.error(
                        place.get("utc_end"),
                        "the window is empty: it ends when it starts",
                        "leave both keys out for the whole day",
                    );
                }
                Some(UtcWindow { start, end })
            }
            (Some(_), None) | (None, Some(_)) => {
                self.error(place, "half a time window", "give both `utc_start` and `utc_end`");
                None
            }
        };
        if hours.is_none() && raw.min_prompt_tokens.is_none() && raw.utc_start.is_none() && raw.utc_end.is_none() {
            self.warning(place, "an override without a condition always applies", "change the price itself, or add `min_prompt_tokens`");
        }
        let mut rate = |value: &Option<Decimal>, key, unit| self.rate(value.as_ref(), place.get(key), unit);
        PriceOverride {
            min_prompt_tokens: raw.min_prompt_tokens,
            hours,
            prompt: rate(&raw.prompt, "prompt", Unit::MillionTokens),
            completion: rate(&raw.completion, "completion", Unit::MillionTokens),
            cache_read: rate(&raw.cache_read, "cache_read", Unit::MillionTokens),
            cache_write: rate(&raw.cache_write, "cache_write", Unit::MillionTokens),
            cache_write_1h: rate(&raw.cache_write_1h, "cache_write_1h", Unit::MillionTokens),
            reasoning: rate(&raw.reasoning, "reasoning", Unit::MillionTokens),
            request: rate(&raw.request, "request", Unit::One),
            image: rate(&raw.image, "image", Unit::One),
            audio: rate(&raw.audio, "audio", Unit::MillionTokens),
            discount_ppm: self.discount(raw.discount.as_ref(), place.get("discount")),
        }
    }

    fn rate(&mut self, value: Option<&Decimal>, place: Place<'a>, unit: Unit) -> Option<Rate> {
        let Decimal(text) = value?;
        let result = match unit {
            Unit::MillionTokens => Rate::per_million_usd(text),
            Unit::One => Rate::per_unit_usd(text),
        };
        match result {
            Ok(rate) => Some(rate),
            Err(error) => {
                let per_token = Rate::per_unit_usd(text).ok().filter(|_| matches!(unit, Unit::MillionTokens));
                let help = match (error, per_token) {
                    (MoneyError::NotANumber | MoneyError::TooLong, _) => {
                        "write a decimal number of USD, such as `0.15`, without a currency sign".to_owned()
                    }
                    (MoneyError::Negative, _) => "use 0 for what is free, and `discount` for what is cheaper".to_owned(),
                    (MoneyError::TooPrecise, Some(rate)) => {
                        let per_million = rate.usd_per_million();
                        format!("prices are per million tokens: `{text}` per token is `{per_million}` here")
                    }
                    (MoneyError::TooPrecise, None) => "round it to what the provider bills".to_owned(),
                    (MoneyError::OutOfRange, _) => "token prices are per million tokens".to_owned(),
                };
                self.error(place, format!("price `{text}`: {error}"), help);
                None
            }
        }
    }

    fn discount(&mut self, value: Option<&Decimal>, place: Place<'a>) -> Option<u32> {
        let Decimal(text) = value?;
        let ppm = Money::parse_usd(text).ok().and_then(|share| {
            let share = share.picodollars();
            let in_range = (0..=1_000_000_000_000).contains(&share) && share % 1_000_000 == 0;
            in_range.then(|| u32::try_from(share / 1_000_000).ok()).flatten()
        });
        if ppm.is_none() {
            self.error(
                place,
                format!("discount `{text}` is not a share"),
                "write 0 to 1 with at most six decimals: `0.25` is a quarter off",
            );
        }
        ppm
    }

    fn is_minute(&mut self, hhmm: u16, place: Place<'a>) -> bool {
        let valid = hhmm / 100 < 24 && hhmm % 100 < 60;
        if !valid {
            self.error(place, format!("`{hhmm}` is not a time of day"), "write HHMM in UTC: `0` to `2359`");
        }
        valid
    }
}

/// A tenth of a cent per million tokens; the cheapest models of 2026 ask several cents.
const SUSPICIOUSLY_CHEAP: Rate = Rate::from_picodollars(1_000);
