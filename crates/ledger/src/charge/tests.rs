use proptest::prelude::*;

use super::*;
use crate::money::Rate;

fn usd(text: &str) -> Money {
    Money::parse_usd(text).unwrap()
}

fn rate(usd_per_million: &str) -> Rate {
    Rate::per_million_usd(usd_per_million).unwrap()
}

/// The shape of Anthropic's prices: reads at a tenth, writes at 1.25 and 2 times the prompt rate.
fn cached_prices() -> PriceTable {
    PriceTable {
        prompt: rate("3"),
        completion: rate("15"),
        cache_read: Some(rate("0.3")),
        cache_write: Some(rate("3.75")),
        cache_write_1h: Some(rate("6")),
        ..PriceTable::default()
    }
}

#[test]
fn each_part_has_its_own_rate() {
    let usage = Usage {
        prompt_tokens: 10_000,
        cached_tokens: 5_000,
        cache_write_tokens: 3_000,
        cache_write_1h_tokens: 1_000,
        completion_tokens: 500,
        ..Usage::default()
    };
    let charge = cached_prices().charge(&usage, 0);
    // 2 000 plain, 5 000 read, 2 000 written for 5 minutes, 1 000 for an hour.
    assert_eq!(charge.prompt, usd("0.006") + usd("0.0015") + usd("0.0075") + usd("0.006"));
    assert_eq!(charge.completion, usd("0.0075"));
    assert_eq!(charge.total, usd("0.0285"));
    assert_eq!(charge.cache_discount, usd("0.03") - charge.prompt);
}

#[test]
fn cache_discount_is_negative_when_only_writing() {
    let usage = Usage { prompt_tokens: 1_000, cache_write_tokens: 1_000, ..Usage::default() };
    assert_eq!(cached_prices().charge(&usage, 0).cache_discount, usd("-0.00075"));
}

#[test]
fn missing_rates_fall_back_to_the_plain_ones() {
    let prices = PriceTable { prompt: rate("2"), completion: rate("8"), ..PriceTable::default() };
    let usage = Usage {
        prompt_tokens: 100,
        cached_tokens: 40,
        cache_write_tokens: 20,
        cache_write_1h_tokens: 10,
        audio_tokens: 10,
        completion_tokens: 50,
        reasoning_tokens: 30,
        image_count: 3,
    };
    let charge = prices.charge(&usage, 0);
    assert_eq!(charge.prompt, usd("0.0002"));
    assert_eq!(charge.completion, usd("0.0004"));
    assert_eq!(charge.cache_discount, Money::ZERO);
}

#[test]
fn reasoning_images_audio_and_request_are_priced() {
    let prices = PriceTable {
        prompt: rate("1"),
        completion: rate("2"),
        reasoning: Some(rate("4")),
        request: Rate::per_unit_usd("0.005").unwrap(),
        image: Rate::per_unit_usd("0.001").unwrap(),
        audio: Some(rate("10")),
        ..PriceTable::default()
    };
    let usage =
        Usage { prompt_tokens: 100, audio_tokens: 20, completion_tokens: 30, reasoning_tokens: 10, image_count: 2, ..Usage::default() };
    let charge = prices.charge(&usage, 0);
    assert_eq!(charge.prompt, usd("0.00008") + usd("0.0002") + usd("0.002"));
    assert_eq!(charge.completion, usd("0.00004") + usd("0.00004"));
    assert_eq!(charge.request, usd("0.005"));
}

#[test]
fn inconsistent_counts_never_charge_a_prompt_token_twice() {
    let usage = Usage {
        prompt_tokens: 10,
        cached_tokens: u64::MAX,
        cache_write_tokens: u64::MAX,
        cache_write_1h_tokens: u64::MAX,
        completion_tokens: 5,
        reasoning_tokens: u64::MAX,
        audio_tokens: u64::MAX,
        ..Usage::default()
    };
    let charge = cached_prices().charge(&usage, 0);
    assert_eq!(charge.prompt, usd("0.000003"));
    assert_eq!(charge.completion, usd("0.000075"));
}

#[test]
fn nothing_is_charged_without_a_completion() {
    let usage = Usage { prompt_tokens: 1_000, ..Usage::default() };
    let prices = PriceTable { request: Rate::per_unit_usd("1").unwrap(), ..cached_prices() };
    for ending in [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::Cut] {
        assert_eq!(charge_for(ending, None, &usage, &prices, 0), Charge::default(), "{ending:?}");
        assert_eq!(charge_for(ending, Some("error"), &usage, &prices, 0), Charge::default(), "{ending:?}");
    }
    // An empty answer that ended properly is an answer.
    assert!(charge_for(Ending::Completed, Some("stop"), &usage, &prices, 0).total > Money::ZERO);
}

#[test]
fn a_cut_or_cancelled_stream_costs_what_was_delivered() {
    let usage = Usage { prompt_tokens: 1_000, completion_tokens: 10, ..Usage::default() };
    let full = cached_prices().charge(&usage, 0);
    for ending in [Ending::Cut, Ending::Cancelled] {
        assert_eq!(charge_for(ending, None, &usage, &cached_prices(), 0), full);
    }
    assert_eq!(charge_for(Ending::Failed, None, &usage, &cached_prices(), 0), Charge::default());
}

#[test]
fn extreme_counts_saturate() {
    let prices = PriceTable {
        prompt: Rate::from_picodollars(u64::MAX),
        completion: Rate::from_picodollars(u64::MAX),
        discount_ppm: 1,
        ..PriceTable::default()
    };
    let usage = Usage { prompt_tokens: u64::MAX, completion_tokens: u64::MAX, ..Usage::default() };
    assert!(prices.charge(&usage, 0).total > Money::ZERO);
}

prop_compose! {
    fn any_usage()(
        plain in 0u64..2_000_000, cached_tokens in 0u64..2_000_000, write_5m in 0u64..500_000,
        cache_write_1h_tokens in 0u64..500_000, answer in 0u64..200_000, reasoning_tokens in 0u64..200_000,
        image_count in 0u64..50, audio_tokens in 0u64..50_000,
    ) -> Usage {
        Usage {
            prompt_tokens: plain + cached_tokens + write_5m + cache_write_1h_tokens + audio_tokens,
            cached_tokens,
            cache_write_tokens: write_5m + cache_write_1h_tokens,
            cache_write_1h_tokens,
            completion_tokens: answer + reasoning_tokens,
            reasoning_tokens,
            image_count,
            audio_tokens,
        }
    }
}

prop_compose! {
    fn any_prices()(rates in proptest::array::uniform9(0u64..1_000_000_000), discount_ppm in 0u32..=1_000_000) -> PriceTable {
        let rate = |index: usize| Rate::from_picodollars(rates[index]);
        PriceTable {
            prompt: rate(0),
            completion: rate(1),
            cache_read: Some(rate(2)),
            cache_write: Some(rate(3)),
            cache_write_1h: Some(rate(4)),
            reasoning: Some(rate(5)),
            request: rate(6),
            image: rate(7),
            audio: Some(rate(8)),
            discount_ppm,
            overrides: Vec::new(),
        }
    }
}

/// The exact price in millionths of a pico-dollar: a rational reference that never rounds.
fn exact_millionths(usage: &Usage, prices: &PriceTable) -> i128 {
    let times = |rate: Rate, units: u64| i128::from(rate.picodollars()) * i128::from(units);
    let optional = |rate: Option<Rate>, units| times(rate.unwrap_or_default(), units);
    let plain = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens - usage.audio_tokens;
    let sum = times(prices.prompt, plain)
        + optional(prices.cache_read, usage.cached_tokens)
        + optional(prices.cache_write, usage.cache_write_tokens - usage.cache_write_1h_tokens)
        + optional(prices.cache_write_1h, usage.cache_write_1h_tokens)
        + optional(prices.audio, usage.audio_tokens)
        + times(prices.image, usage.image_count)
        + times(prices.completion, usage.completion_tokens - usage.reasoning_tokens)
        + optional(prices.reasoning, usage.reasoning_tokens)
        + times(prices.request, 1);
    sum * i128::from(1_000_000 - prices.discount_ppm)
}

proptest! {
    #[test]
    fn charges_match_a_rational_reference(usage in any_usage(), prices in any_prices()) {
        let charge = prices.charge(&usage, 0);
        prop_assert_eq!(charge.total, charge.prompt + charge.completion + charge.request);
        let error = (charge.total.picodollars() * 1_000_000 - exact_millionths(&usage, &prices)).abs();
        // Three parts, each rounded by at most half a pico-dollar; exact without a discount.
        let bound = if prices.discount_ppm == 0 { 0 } else { 1_500_000 };
        prop_assert!(error <= bound, "off by {} millionths of a pico-dollar", error);
    }

    #[test]
    fn more_tokens_never_cost_less(usage in any_usage(), prices in any_prices(), prompt in 0u64..1_000, completion in 0u64..1_000) {
        let more = Usage {
            prompt_tokens: usage.prompt_tokens + prompt,
            completion_tokens: usage.completion_tokens + completion,
            ..usage
        };
        prop_assert!(prices.charge(&more, 0).total >= prices.charge(&usage, 0).total);
    }

    #[test]
    fn estimate_bounds_every_hour(prompt in 0u64..1_000_000, completion in 0u64..100_000, moment in 0u16..2400) {
        let prices = PriceTable {
            overrides: vec![crate::price::PriceOverride {
                hours: Some(crate::price::UtcWindow { start: 1630, end: 30 }),
                min_prompt_tokens: Some(200_000),
                prompt: Some(rate("9")),
                completion: Some(rate("1")),
                ..Default::default()
            }],
            ..cached_prices()
        };
        let usage = Usage { prompt_tokens: prompt, completion_tokens: completion, ..Usage::default() };
        prop_assert!(prices.estimate(prompt, completion) >= prices.charge(&usage, moment).total);
    }
}
