//! `GET /key`: what the calling key may do and has used.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};
use tidegate_ledger::{Filter, Money, Period as SumPeriod, Row, Sums, UnixMillis};
use tidegate_quota::{Dimension, Funding, Limit, Period, Remaining, Scope, Window};

use super::{Reading, of_key};
use crate::auth::Caller;
use crate::body::EdgeBody;
use crate::error::EdgeError;
use crate::handler::value_answer;
use crate::sums::SumsView;

/// Describes the calling key in OpenRouter's fields; every limit with its use stands in `tidegate`.
pub(super) async fn current(reading: &Reading<'_>, caller: &Arc<Caller>) -> Result<Response<EdgeBody>, EdgeError> {
    let shared = reading.shared;
    let now_ms = shared.clock.unix_millis();
    let used = Used::read(&shared.sums, caller, now_ms).await?;
    let account = caller.account();
    // A store that gives no answer leaves out what is left; what was used comes from the ledger.
    let limits = match &account.limits {
        Some(limits) => shared.quotas.gate().snapshot(limits, limits.select_all()).await.ok().map(|snapshot| snapshot.limits),
        None => Some(Vec::new()),
    };
    let declared: Vec<&Limit> = match &account.limits {
        Some(limits) => limits.buckets(limits.select_all()).map(|bucket| &bucket.limit).collect(),
        None => Vec::new(),
    };
    let left = |limit: &Limit| limits.as_ref()?.iter().find(|one| one.bucket.limit == *limit).map(|one| one.remaining);
    let of_key_itself = |limit: &&&Limit| limit.scope == Scope::Key && limit.model.is_none() && limit.provider.is_none() && !limit.shadow;
    let spend = declared.iter().filter(of_key_itself).find(|limit| limit.dimension.is_spend());
    let per_minute = declared.iter().filter(of_key_itself).find(|limit| limit.dimension == Dimension::RequestsPerMinute);
    let free = declared.iter().find(|limit| limit.dimension == Dimension::FreeRequestsPerDay);
    let free_left = free.and_then(|limit| left(limit)).map(|left| u64::try_from(left).unwrap_or(0));
    Ok(value_answer(&json!({ "data": {
        "label": caller.name.as_ref(),
        "name": caller.name.as_ref(),
        "hash": caller.hash(),
        "disabled": false,
        "limit": spend.map(|limit| usd(limit.amount)),
        "limit_remaining": spend.and_then(|limit| left(limit)).map(|left| usd(u64::try_from(left).unwrap_or(0))),
        "limit_reset": spend.and_then(|limit| reset(limit.dimension)),
        "include_byok_in_limit": false,
        "usage": used.total.charged,
        "usage_daily": used.day.charged,
        "usage_weekly": used.week.charged,
        "usage_monthly": used.month.charged,
        "byok_usage": used.total.own_key_cost,
        "byok_usage_daily": used.day.own_key_cost,
        "byok_usage_weekly": used.week.own_key_cost,
        "byok_usage_monthly": used.month.own_key_cost,
        "is_free_tier": false,
        "is_management_key": caller.management,
        "is_provisioning_key": caller.management,
        "creator_user_id": null,
        "organization_id": account.organisation.as_deref(),
        "workspace_id": account.workspace.as_deref(),
        "effective_budget": null,
        "budgets": [],
        "allowed_data_regions": [],
        "free_model_daily_requests": {
            "limit": free.map_or(0, |limit| limit.amount),
            "remaining": free_left.unwrap_or(0),
            "used": free.map_or(0, |limit| limit.amount.saturating_sub(free_left.unwrap_or(limit.amount))),
        },
        "expires_at": (caller.expires_at != 0).then(|| UnixMillis(caller.expires_at.saturating_mul(1000)).to_string()),
        "allowed_models": caller.allowed_models(),
        "rate_limit": match per_minute {
            Some(limit) => json!({ "requests": limit.amount, "interval": "1m", "note": "Requests per minute." }),
            None => json!({ "requests": -1, "interval": "10s", "note": "No limit is set." }),
        },
        "tidegate": {
            "limits": limits.map(|limits| limits.iter().map(|limit| shown(limit, now_ms)).collect::<Vec<Value>>()),
            "on_store_down": account.limits.as_ref().map(|limits| limits.on_store_down()),
            "stores_content": caller.stores_content() && shared.content.is_on(),
        },
    }})))
}

/// What a key has used, by period.
#[derive(Default)]
pub(in crate::handler) struct Used {
    pub(in crate::handler) total: Sums,
    pub(in crate::handler) day: Sums,
    pub(in crate::handler) week: Sums,
    pub(in crate::handler) month: Sums,
}

impl Used {
    pub(in crate::handler) async fn read(sums: &SumsView, caller: &Caller, now_ms: u64) -> Result<Self, EdgeError> {
        let since = |window| SumPeriod::day_of(Period::containing(now_ms * 1_000, window, 0).start / 1_000).number();
        let (day, week, month) = (since(Window::Day), since(Window::Week), since(Window::Month));
        let rows = sums.days(caller, &Filter { from: week.min(month), ..of_key(caller) }).await?;
        let from = |first: u32| Row::sum(rows.iter().filter(|row| row.period.number() >= first));
        Ok(Self { total: sums.total(caller, &of_key(caller)).await?, day: from(day), week: from(week), month: from(month) })
    }
}

/// One limit with its use.
fn shown(limit: &Remaining, now_ms: u64) -> Value {
    let declared = &limit.bucket.limit;
    let money = declared.dimension.is_spend();
    let amount = |value: u64| if money { json!(usd(value)) } else { json!(value) };
    json!({
        "scope": declared.scope.as_str(),
        "dimension": declared.dimension.as_str(),
        "model": declared.model.as_deref(),
        "provider": declared.provider.as_deref(),
        "limit": amount(declared.amount),
        "used": amount(limit.used),
        "remaining": amount(u64::try_from(limit.remaining).unwrap_or(0)),
        "resets_at": limit.reset_after.map(|after| UnixMillis(now_ms.saturating_add(after / 1_000)).to_string()),
        "shadow": declared.shadow,
        "prepaid": money && declared.funding == Funding::Prepaid,
    })
}

fn usd(micro_dollars: u64) -> Money {
    Money::from_picodollars(i128::from(micro_dollars) * 1_000_000)
}

fn reset(dimension: Dimension) -> Option<&'static str> {
    match dimension {
        Dimension::Spend(Window::Day) => Some("daily"),
        Dimension::Spend(Window::Week) => Some("weekly"),
        Dimension::Spend(Window::Month) => Some("monthly"),
        _ => None,
    }
}
