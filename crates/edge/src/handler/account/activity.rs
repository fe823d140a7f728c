//! `GET /activity`: sums by day, model and endpoint.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};
use tidegate_ledger::{Facet, Filter, Period, Row, UnixMillis};

use super::{Reading, of_key};
use crate::auth::Caller;
use crate::body::EdgeBody;
use crate::error::EdgeError;
use crate::handler::value_answer;

/// The last 30 whole days of UTC, or the day that `date` names, today included. Newest first.
pub(super) async fn daily(reading: &Reading<'_>, caller: &Arc<Caller>) -> Result<Response<EdgeBody>, EdgeError> {
    let today = Period::day_of(reading.shared.clock.unix_millis()).number();
    let (from, until) = match reading.query.get("date") {
        None => (today.saturating_sub(DAYS), today),
        Some(date) => {
            let day = day_of(&date)
                .filter(|day| *day <= today && *day + DAYS >= today)
                .ok_or(EdgeError::BadParameter { name: "date", reason: "it is not a day of the last 30, written as `2026-11-28`" })?;
            (day, day + 1)
        }
    };
    if reading.query.get("api_key_hash").is_some_and(|hash| hash != caller.hash) {
        return Err(EdgeError::BadParameter { name: "api_key_hash", reason: "a key sees its own activity only" });
    }
    // `until` 0 would mean no end; no day before the second one of 1970 is asked for.
    let rows = reading.shared.sums.days(caller, &Filter { from, until: until.max(1), ..of_key(caller) }).await?;
    let mut rows = Row::grouped(rows, &[Facet::Model, Facet::Endpoint, Facet::Provider]);
    rows.reverse();
    Ok(value_answer(&json!({ "data": rows.iter().map(shown).collect::<Vec<Value>>() })))
}

fn shown(row: &Row) -> Value {
    let (facets, sums) = (&row.facets, &row.sums);
    json!({
        "date": &UnixMillis(row.period.begins_ms()).to_string()[..10],
        "model": &*facets.model,
        "model_permaslug": &*facets.model,
        "endpoint_id": &*facets.endpoint,
        "provider_name": &*facets.provider,
        "usage": sums.charged,
        "byok_usage_inference": sums.own_key_cost,
        "requests": sums.requests,
        "byok_requests": sums.own_key,
        "prompt_tokens": sums.prompt_tokens,
        "completion_tokens": sums.completion_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
    })
}

/// The number of a day written as `2026-11-28`.
fn day_of(text: &str) -> Option<u32> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<u32>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    // Howard Hinnant's `days_from_civil`, public domain; years of this API begin in 1970.
    if text.len() != 10 || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year;
    days.checked_sub(719_468)
}

/// Days that are shown.
const DAYS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_they_are_written() {
        for day in [0, 58, 59, 60, 11_016, 19_723, 20_785, 20_786, 47_540] {
            let text = UnixMillis(Period::Day(day).begins_ms()).to_string();
            assert_eq!(day_of(&text[..10]), Some(day), "{text}");
        }
        for wrong in ["", "2026-11", "2026-13-01", "2026-11-1", "28.11.2026", "0001-01-01"] {
            assert_eq!(day_of(wrong), None, "{wrong}");
        }
    }
}
