//! One sum as fields of a Redis hash.
//!
//! Counters of Redis are 64-bit integers. Money is therefore two of them: whole micro-dollars, and the pico-dollars below one, so that
//! nothing is rounded and nothing overflows before nine trillion dollars or nine trillion records.

use std::collections::HashMap;

use prost::Message;
use tidegate_ledger::{Facets, Money, Period, Row, Sums};
use tidegate_proto::v1::RollupRow;

/// The field that says what a sum is over; its counters begin with it.
pub(super) fn prefix(facets: &Facets) -> String {
    let over = over(facets);
    blake3::hash(&over).to_hex()[..24].to_owned()
}

/// What a sum is over, as bytes.
pub(super) fn over(facets: &Facets) -> Vec<u8> {
    RollupRow::from(&Row { period: Period::Total, facets: facets.clone(), sums: Sums::default() }).encode_to_vec()
}

/// The counters that are not zero.
pub(super) fn counters(sums: &Sums) -> Vec<(String, i64)> {
    let count = |name: &str, value: u64| (name.to_owned(), i64::try_from(value).unwrap_or(i64::MAX));
    let mut counters = vec![
        count(":r", sums.requests),
        count(":f", sums.failed),
        count(":x", sums.cancelled),
        count(":b", sums.cut),
        count(":o", sums.own_key),
        count(":p", sums.prompt_tokens),
        count(":c", sums.completion_tokens),
        count(":n", sums.reasoning_tokens),
        count(":h", sums.cached_tokens),
        count(":w", sums.cache_write_tokens),
    ];
    for (name, amount) in [("$c", sums.cost), ("$u", sums.upstream), ("$f", sums.fee), ("$t", sums.charged), ("$o", sums.own_key_cost)] {
        let (micros, rest) = (amount.picodollars().div_euclid(PICO), amount.picodollars().rem_euclid(PICO));
        counters.push((name.to_owned(), i64::try_from(micros).unwrap_or(i64::MAX)));
        counters.push((format!("{name}."), i64::try_from(rest).unwrap_or(i64::MAX)));
    }
    counters.retain(|(_, amount)| *amount != 0);
    counters
}

/// The sums of one hash.
pub(super) fn rows_of(period: Period, fields: &HashMap<&[u8], &[u8]>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (prefix, over) in fields.iter().filter(|(field, _)| !field.contains(&b':') && !field.contains(&b'$')) {
        let Ok(row) = RollupRow::decode(*over) else { continue };
        let number = |name: &str| -> i64 {
            let field = [*prefix, name.as_bytes()].concat();
            fields.get(field.as_slice()).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
        };
        let count = |name: &str| u64::try_from(number(name)).unwrap_or(0);
        let money = |name: &str| {
            let rest = number(&format!("{name}."));
            Money::from_picodollars(i128::from(number(name)) * PICO + i128::from(rest))
        };
        let sums = Sums {
            requests: count(":r"),
            failed: count(":f"),
            cancelled: count(":x"),
            cut: count(":b"),
            own_key: count(":o"),
            prompt_tokens: count(":p"),
            completion_tokens: count(":c"),
            reasoning_tokens: count(":n"),
            cached_tokens: count(":h"),
            cache_write_tokens: count(":w"),
            cost: money("$c"),
            upstream: money("$u"),
            fee: money("$f"),
            charged: money("$t"),
            own_key_cost: money("$o"),
        };
        rows.push(Row { period, facets: Row::from(row).facets, sums });
    }
    rows
}

/// Pico-dollars in a micro-dollar.
const PICO: i128 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_comes_back_from_its_fields_to_the_pico_dollar() {
        let facets = Facets { model: "a:b$c".into(), key: "k".into(), ..Facets::default() };
        let amount = Money::from_picodollars;
        let sums = Sums {
            requests: 3,
            cut: 1,
            prompt_tokens: 9,
            charged: amount(12_345_678),
            cost: amount(-7),
            fee: amount(999_999),
            ..Sums::default()
        };
        let (prefix, over) = (prefix(&facets), over(&facets));
        let texts: Vec<(String, String)> =
            counters(&sums).into_iter().map(|(name, value)| (format!("{prefix}{name}"), value.to_string())).collect();
        let mut fields: HashMap<&[u8], &[u8]> = texts.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        fields.insert(prefix.as_bytes(), &over);
        assert_eq!(rows_of(Period::Day(3), &fields), [Row { period: Period::Day(3), facets, sums }]);
    }
}
