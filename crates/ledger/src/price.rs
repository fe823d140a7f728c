//! What an endpoint charges: base rates, conditional overrides and a discount.
//!
//! The rules are those of OpenRouter's price objects: an override applies when all its conditions hold, later overrides win per rate,
//! the prompt threshold is a strict "greater than", time windows are half-open and may wrap midnight.

use crate::charge::{Charge, Usage};
use crate::money::{Money, Rate};

/// One whole in parts per million.
const WHOLE_PPM: u32 = 1_000_000;

/// The prices of one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceTable {
    /// Per prompt token.
    pub prompt: Rate,
    /// Per completion token.
    pub completion: Rate,
    /// Per prompt token read from the provider's cache; the prompt rate when absent.
    pub cache_read: Option<Rate>,
    /// Per prompt token written to the provider's cache; the prompt rate when absent.
    pub cache_write: Option<Rate>,
    /// Per prompt token written to the cache for one hour; the `cache_write` rate when absent.
    pub cache_write_1h: Option<Rate>,
    /// Per reasoning token; the completion rate when absent.
    pub reasoning: Option<Rate>,
    /// Per request, whatever its size.
    pub request: Rate,
    /// Per image in the prompt.
    pub image: Rate,
    /// Per audio token in the prompt; the prompt rate when absent.
    pub audio: Option<Rate>,
    /// Taken off every rate, parts per million; more than 1 000 000 counts as 1 000 000 (free).
    pub discount_ppm: u32,
    /// Rates that hold under conditions; later ones win per rate.
    pub overrides: Vec<PriceOverride>,
}

/// Rates that replace those of the table while all its conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceOverride {
    /// Holds for prompts of **more** than this many tokens, cached ones included.
    pub min_prompt_tokens: Option<u64>,
    /// Holds within this window of the UTC day.
    pub hours: Option<UtcWindow>,
    /// Replaces `prompt`.
    pub prompt: Option<Rate>,
    /// Replaces `completion`.
    pub completion: Option<Rate>,
    /// Replaces `cache_read`.
    pub cache_read: Option<Rate>,
    /// Replaces `cache_write`.
    pub cache_write: Option<Rate>,
    /// Replaces `cache_write_1h`.
    pub cache_write_1h: Option<Rate>,
    /// Replaces `reasoning`.
    pub reasoning: Option<Rate>,
    /// Replaces `request`.
    pub request: Option<Rate>,
    /// Replaces `image`.
    pub image: Option<Rate>,
    /// Replaces `audio`.
    pub audio: Option<Rate>,
    /// Replaces `discount_ppm`.
    pub discount_ppm: Option<u32>,
}

/// A half-open part of the UTC day, `start` included and `end` not, as HHMM integers (`0930`, `2400` is not needed: use 0).
///
/// A window whose start is later than its end wraps midnight. Start equal to end is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UtcWindow {
    /// First minute, HHMM.
    pub start: u16,
    /// First minute after the window, HHMM.
    pub end: u16,
}

impl PriceTable {
    /// What `usage` costs when the request started at `utc_hhmm` (HHMM of the UTC day, 0 to 2359).
    pub fn charge(&self, usage: &Usage, utc_hhmm: u16) -> Charge {
        Charge::of(usage, &self.effective(usage.prompt_tokens, utc_hhmm))
    }

    /// The most that a request of these token counts can cost at any time of the day: nothing cached, no images.
    pub fn estimate(&self, prompt: u64, completion: u64) -> Money {
        let usage = Usage { prompt_tokens: prompt, completion_tokens: completion, ..Usage::default() };
        // Rates change only where a window starts or ends, so these moments stand for the whole day.
        let changes = self.overrides.iter().filter_map(|entry| entry.hours).flat_map(|window| [window.start, window.end]);
        changes.chain([0]).map(|moment| self.charge(&usage, moment).total).max().unwrap_or_default()
    }

    /// The table that holds for a prompt of this size at this time: overrides applied, none left.
    pub fn effective(&self, prompt_tokens: u64, utc_hhmm: u16) -> PriceTable {
        let mut table = PriceTable { overrides: Vec::new(), discount_ppm: self.discount_ppm, ..*self };
        for entry in self.overrides.iter().filter(|entry| entry.applies(prompt_tokens, utc_hhmm)) {
            entry.apply(&mut table);
        }
        table
    }

    /// `amount` after this table's discount, rounded to the nearest pico-dollar, halves away from zero.
    pub(crate) fn discounted(&self, amount: Money) -> Money {
        if self.discount_ppm == 0 {
            return amount;
        }
        let whole = i128::from(WHOLE_PPM);
        let kept = i128::from(WHOLE_PPM - self.discount_ppm.min(WHOLE_PPM));
        let picodollars = amount.picodollars();
        // Split so that the product cannot overflow for any amount.
        let (units, rest) = (picodollars / whole, picodollars % whole);
        let rounded = (rest * kept + whole / 2 * picodollars.signum()) / whole;
        Money::from_picodollars(units.saturating_mul(kept).saturating_add(rounded))
    }
}

impl PriceOverride {
    /// All conditions hold. An entry without conditions always applies.
    pub fn applies(&self, prompt_tokens: u64, utc_hhmm: u16) -> bool {
        self.min_prompt_tokens.is_none_or(|minimum| prompt_tokens > minimum) && self.hours.is_none_or(|window| window.contains(utc_hhmm))
    }

    fn apply(&self, table: &mut PriceTable) {
        table.prompt = self.prompt.unwrap_or(table.prompt);
        table.completion = self.completion.unwrap_or(table.completion);
        table.cache_read = self.cache_read.or(table.cache_read);
        table.cache_write = self.cache_write.or(table.cache_write);
        table.cache_write_1h = self.cache_write_1h.or(table.cache_write_1h);
        table.reasoning = self.reasoning.or(table.reasoning);
        table.request = self.request.unwrap_or(table.request);
        table.image = self.image.unwrap_or(table.image);
        table.audio = self.audio.or(table.audio);
        table.discount_ppm = self.discount_ppm.unwrap_or(table.discount_ppm);
    }
}

impl UtcWindow {
    /// Whether the minute `utc_hhmm` lies within.
    pub fn contains(self, utc_hhmm: u16) -> bool {
        if self.start <= self.end { (self.start..self.end).contains(&utc_hhmm) } else { utc_hhmm >= self.start || utc_hhmm < self.end }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(usd_per_million: &str) -> Rate {
        Rate::per_million_usd(usd_per_million).unwrap()
    }

    #[test]
    fn windows_are_half_open_and_wrap_midnight() {
        let day = UtcWindow { start: 900, end: 1730 };
        assert!(day.contains(900) && day.contains(1729) && !day.contains(1730) && !day.contains(859));
        let night = UtcWindow { start: 1630, end: 30 };
        assert!(night.contains(1630) && night.contains(2359) && night.contains(0) && night.contains(29));
        assert!(!night.contains(30) && !night.contains(1629));
        let empty = UtcWindow { start: 1200, end: 1200 };
        assert!(!empty.contains(1200) && !empty.contains(0));
        let evening = UtcWindow { start: 2000, end: 0 };
        assert!(evening.contains(2359) && !evening.contains(0));
    }

    #[test]
    fn long_prompt_price_starts_above_the_threshold() {
        let table = PriceTable {
            prompt: rate("1.25"),
            overrides: vec![PriceOverride { min_prompt_tokens: Some(200_000), prompt: Some(rate("2.5")), ..PriceOverride::default() }],
            ..PriceTable::default()
        };
        assert_eq!(table.effective(200_000, 0).prompt, rate("1.25"));
        assert_eq!(table.effective(200_001, 0).prompt, rate("2.5"));
    }

    #[test]
    fn later_overrides_win_per_rate_and_need_all_conditions() {
        let night = Some(UtcWindow { start: 1630, end: 30 });
        let table = PriceTable {
            prompt: rate("4"),
            completion: rate("8"),
            overrides: vec![
                PriceOverride { hours: night, prompt: Some(rate("2")), completion: Some(rate("4")), ..Default::default() },
                PriceOverride { hours: night, min_prompt_tokens: Some(10), prompt: Some(rate("3")), ..Default::default() },
            ],
            ..PriceTable::default()
        };
        let price = |tokens, hhmm| {
            let table = table.effective(tokens, hhmm);
            (table.prompt, table.completion)
        };
        assert_eq!(price(11, 1200), (rate("4"), rate("8")));
        assert_eq!(price(10, 1700), (rate("2"), rate("4")));
        assert_eq!(price(11, 1700), (rate("3"), rate("4")));
    }

    #[test]
    fn estimate_is_the_dearest_moment_of_the_day() {
        let table = PriceTable {
            prompt: rate("1"),
            overrides: vec![PriceOverride {
                hours: Some(UtcWindow { start: 2200, end: 600 }),
                prompt: Some(rate("5")),
                ..Default::default()
            }],
            ..PriceTable::default()
        };
        assert_eq!(table.estimate(1_000_000, 0), Money::parse_usd("5").unwrap());
    }

    proptest! {
        #[test]
        fn discount_rounds_to_nearest(amount in any::<i64>(), discount_ppm in 0u32..1_200_000) {
            let table = PriceTable { discount_ppm, ..PriceTable::default() };
            let kept = i128::from(1_000_000 - discount_ppm.min(1_000_000));
            let exact_times_million = i128::from(amount) * kept;
            let discounted = table.discounted(Money::from_picodollars(i128::from(amount))).picodollars();
            let error = (discounted * 1_000_000 - exact_times_million).abs();
            prop_assert!(error <= 500_000, "off by {} millionths of a pico-dollar", error);
        }

        #[test]
        fn a_window_and_its_reverse_split_the_day(start in 0u16..2400, end in 0u16..2400, moment in 0u16..2400) {
            prop_assume!(start != end);
            let window = UtcWindow { start, end };
            let rest = UtcWindow { start: end, end: start };
            prop_assert!(window.contains(moment) != rest.contains(moment));
        }
    }
}
