//! `GET /key`: what the calling key may do.

use http::Response;
use serde_json::json;
use tidegate_ledger::UnixMillis;

use super::{Reading, authenticate, value_answer};
use crate::body::EdgeBody;
use crate::error::EdgeError;

/// Describes the calling key. One edge by itself sets no spending limits, so these are `null`.
pub(super) fn current(reading: &Reading<'_>) -> Result<Response<EdgeBody>, EdgeError> {
    let caller = authenticate(reading.shared, reading.connection, reading.headers)?;
    Ok(value_answer(&json!({ "data": {
        "label": caller.name.as_ref(),
        "name": caller.name.as_ref(),
        "hash": caller.hash(),
        "disabled": false,
        "limit": null,
        "limit_remaining": null,
        "limit_reset": null,
        "include_byok_in_limit": false,
        "usage": 0,
        "usage_daily": 0,
        "usage_weekly": 0,
        "usage_monthly": 0,
        "byok_usage": 0,
        "byok_usage_daily": 0,
        "byok_usage_weekly": 0,
        "byok_usage_monthly": 0,
        "is_free_tier": false,
        "is_management_key": caller.management,
        "is_provisioning_key": caller.management,
        "creator_user_id": null,
        "organization_id": null,
        "workspace_id": null,
        "effective_budget": null,
        "budgets": [],
        "allowed_data_regions": [],
        "free_model_daily_requests": { "limit": 0, "remaining": 0, "used": 0 },
        "expires_at": (caller.expires_at != 0).then(|| UnixMillis(caller.expires_at.saturating_mul(1000)).to_string()),
        "allowed_models": caller.allowed_models(),
        "rate_limit": { "requests": -1, "interval": "10s", "note": "No limit is set." },
    }})))
}
