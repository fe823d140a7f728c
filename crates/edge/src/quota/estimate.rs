//! What a request may use before anybody knows.
//!
//! Prompt tokens are counted from the bytes of the texts (about 3.5 bytes of English per token, a tenth on top), as the request reader does
//! anyway; a tokenizer per model would cost more than the error it avoids, because what is held is corrected as soon as the answer is here.
//! Answer tokens are what the caller allows, at most what 19 of 20 answers of this key stay below, at most 4 096.

use tidegate_ledger::{Fee, Money, PriceTable};
use tidegate_quota::Usage;

use super::Demand;

/// The most that any endpoint of a model takes, per unit, at any hour. In pico-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ceiling {
    prompt: u64,
    completion: u64,
    request: u64,
    image: u64,
    /// Longest answer of any endpoint, tokens.
    longest: u32,
    /// Every endpoint is free.
    pub(crate) free: bool,
}

/// How much answer to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What is usual for this key.
    Usual,
    /// The most that can come: near the end of a budget, so that it cannot be outrun.
    Longest,
}

/// A request's estimate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    ceiling: Ceiling,
    fee: Fee,
    prompt_tokens: u64,
    usual: u64,
    longest: u64,
    images: u64,
}

impl Ceiling {
    /// Of one endpoint.
    pub(crate) fn of(prices: &PriceTable, max_output: Option<u32>) -> Self {
        let mut ceiling = Self { longest: max_output.unwrap_or(0), free: true, ..Self::default() };
        ceiling.raise(prices);
        // An override replaces some rates; the base may still hold for the others.
        for entry in &prices.overrides {
            let with = |rate: Option<tidegate_ledger::Rate>, base| rate.unwrap_or(base);
            ceiling.raise(&PriceTable {
                prompt: with(entry.prompt, prices.prompt),
                completion: with(entry.completion, prices.completion),
                cache_write: entry.cache_write.or(prices.cache_write),
                cache_write_1h: entry.cache_write_1h.or(prices.cache_write_1h),
                cache_read: entry.cache_read.or(prices.cache_read),
                reasoning: entry.reasoning.or(prices.reasoning),
                audio: entry.audio.or(prices.audio),
                request: with(entry.request, prices.request),
                image: with(entry.image, prices.image),
                ..PriceTable::default()
            });
        }
        ceiling
    }

    /// Of both.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            prompt: self.prompt.max(other.prompt),
            completion: self.completion.max(other.completion),
            request: self.request.max(other.request),
            image: self.image.max(other.image),
            longest: self.longest.max(other.longest),
            free: self.free && other.free,
        }
    }

    fn raise(&mut self, prices: &PriceTable) {
        let pico = |rate: Option<tidegate_ledger::Rate>| rate.map_or(0, tidegate_ledger::Rate::picodollars);
        let prompt = [Some(prices.prompt), prices.cache_write, prices.cache_write_1h, prices.cache_read, prices.audio];
        let completion = [Some(prices.completion), prices.reasoning];
        self.prompt = prompt.into_iter().map(pico).fold(self.prompt, u64::max);
        self.completion = completion.into_iter().map(pico).fold(self.completion, u64::max);
        self.request = self.request.max(prices.request.picodollars());
        self.image = self.image.max(prices.image.picodollars());
        self.free &= self.prompt == 0 && self.completion == 0 && self.request == 0 && self.image == 0;
    }
}

impl Estimate {
    /// Of a request whose answers are usually `expected` tokens long.
    pub(crate) fn of(demand: &Demand<'_>, expected: Option<u32>) -> Self {
        let ceilings = demand.models.iter().map(|model| demand.state.model(*model).ceiling);
        let ceiling = ceilings.reduce(Ceiling::max).unwrap_or_default();
        let allowed = demand.call.max_output();
        let longest = allowed.unwrap_or(if ceiling.longest > 0 { ceiling.longest } else { LONGEST_UNKNOWN });
        let usual = allowed.unwrap_or(u32::MAX).min(expected.unwrap_or(MOST_USUAL)).min(MOST_USUAL).min(longest);
        Self {
            ceiling,
            fee: demand.account.fee,
            prompt_tokens: demand.prompt_tokens.into(),
            usual: usual.into(),
            longest: longest.into(),
            images: u64::from(demand.call.inputs().image),
        }
    }

    /// What is to be held.
    pub(crate) fn usage(&self, answer: Answer) -> Usage {
        let output_tokens = match answer {
            Answer::Usual => self.usual,
            Answer::Longest => self.longest,
        };
        let price = |rate: u64, units: u64| i128::from(rate) * i128::from(units);
        let cost = price(self.ceiling.prompt, self.prompt_tokens)
            + price(self.ceiling.completion, output_tokens)
            + price(self.ceiling.request, 1)
            + price(self.ceiling.image, self.images);
        Usage {
            requests: 1,
            input_tokens: self.prompt_tokens,
            output_tokens,
            micro_dollars: micro_dollars(self.fee.most(Money::from_picodollars(cost))),
            free: self.ceiling.free,
        }
    }
}

/// Rounded up, so that a counter never knows less than was spent.
pub(crate) fn micro_dollars(amount: Money) -> u64 {
    u64::try_from(amount.micro_dollars_rounded_up()).unwrap_or(0)
}

/// Longest answer that is held for a request without a bound.
const MOST_USUAL: u32 = 4_096;
/// Longest answer where neither request nor endpoint says: beyond what models give in one answer without being asked to.
const LONGEST_UNKNOWN: u32 = 16_384;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_ledger::{PriceOverride, Rate, UtcWindow};

    use super::*;

    proptest! {
        #[test]
        fn no_hour_and_no_size_costs_more_than_the_ceiling(
            rates in proptest::array::uniform8(0u64..100_000_000), prompt in 0u64..300_000, completion in 0u64..50_000,
            written in 0u64..1_000, hhmm in 0u16..2400,
        ) {
            let rate = |index: usize| Rate::from_picodollars(rates[index]);
            let prices = PriceTable {
                prompt: rate(0),
                completion: rate(1),
                cache_write: Some(rate(2)),
                reasoning: Some(rate(3)),
                request: rate(4),
                overrides: vec![
                    PriceOverride { min_prompt_tokens: Some(200_000), prompt: Some(rate(5)), ..PriceOverride::default() },
                    PriceOverride { hours: Some(UtcWindow { start: 1630, end: 30 }), completion: Some(rate(6)), request: Some(rate(7)), ..PriceOverride::default() },
                ],
                ..PriceTable::default()
            };
            let used = tidegate_ledger::Usage {
                prompt_tokens: prompt,
                cache_write_tokens: written.min(prompt),
                completion_tokens: completion,
                reasoning_tokens: completion / 3,
                ..tidegate_ledger::Usage::default()
            };
            let estimate = Estimate {
                ceiling: Ceiling::of(&prices, None),
                fee: Fee { markup_ppm: 50_000, own_key_ppm: 0 },
                prompt_tokens: prompt,
                usual: completion,
                longest: completion,
                images: 0,
            };
            let charged = estimate.fee.on(&prices.charge(&used, hhmm), false).charged;
            prop_assert!(estimate.usage(Answer::Usual).micro_dollars >= micro_dollars(charged));
        }
    }
}
