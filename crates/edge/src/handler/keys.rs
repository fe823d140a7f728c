//! `/keys` and `/keys/{hash}`: callers' keys, for management keys.
//!
//! The control plane decides and answers; the edge adds what it knows, which is what each key has used, and writes moments as text.
//!
//! `hash` is the hex digest by which a key is known everywhere in the mesh, as `GET /key` shows it, not SHA-256 of its text: with a pepper
//! the mesh holds nothing by which a guess at a key could be checked outside of it, and a second digest would be exactly that. It changes
//! when a key is rotated; the key's public id (`tidegate.id`) does not, and names the key just as well.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tidegate_ledger::{Money, UnixMillis};
use tidegate_proto::v1::{ManageOperation, ManageRequest};

use super::account::key::Used;
use super::{Query, authenticate, json_answer, value_answer};
use crate::admission::read_body;
use crate::auth::{AuthFailure, key_of};
use crate::body::EdgeBody;
use crate::config::Limits;
use crate::connection::ConnectionInfo;
use crate::error::EdgeError;
use crate::shared::Shared;

/// Has the control plane do what a management key asks, and answers in OpenRouter's shape.
pub(super) async fn answer(
    operation: ManageOperation,
    handle: String,
    shared: &Arc<Shared>,
    connection: &ConnectionInfo,
    request: Request<Incoming>,
) -> Result<Response<EdgeBody>, EdgeError> {
    let (head, body) = request.into_parts();
    let caller = authenticate(shared, connection, &head.headers)?;
    shared.management.follows().map_err(EdgeError::Management)?;
    if !caller.management {
        return Err(EdgeError::Auth(AuthFailure::Inference));
    }
    let query = Query(head.uri.query().unwrap_or_default());
    let body = match operation {
        ManageOperation::Create | ManageOperation::Edit => {
            let limits = Limits { body_bytes: LARGEST_BODY.min(shared.config.limits.body_bytes), ..shared.config.limits.clone() };
            // Small and rare: no buffer of theirs is kept.
            with_seconds(&read_body(body, &limits, &Arc::default()).await?)?
        }
        ManageOperation::List | ManageOperation::Get | ManageOperation::Delete | ManageOperation::Unspecified => String::new(),
    };
    let asked = ManageRequest {
        public_id: caller.public_id.to_string(),
        key: key_of(&head.headers).unwrap_or_default().to_owned(),
        operation: operation.into(),
        handle,
        body: body.into(),
        idempotency_key: text(&head.headers, "idempotency-key").to_owned(),
        offset: offset(query)?,
        include_disabled: query.get("include_disabled").is_some_and(|value| value != "false" && value != "0"),
        workspace: query.get("workspace_id").unwrap_or_default(),
    };
    let reply = shared.management.ask(asked).await.map_err(EdgeError::Management)?;
    let status = u16::try_from(reply.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    if !status.is_success() {
        return Err(EdgeError::ManagementRefused {
            status: status.as_u16(),
            message: String::from_utf8_lossy(&reply.body).into_owned(),
            retry_after: (reply.retry_after > 0).then(|| Duration::from_secs(reply.retry_after.into())),
        });
    }
    let mut response = match serde_json::from_slice::<Value>(&reply.body) {
        Ok(mut answer) => {
            let keys: &mut [Value] = match answer.get_mut("data") {
                Some(Value::Array(keys)) => keys.as_mut_slice(),
                Some(key) => std::slice::from_mut(key),
                None => &mut [],
            };
            for key in keys.iter_mut().filter_map(Value::as_object_mut) {
                complete(key, shared).await?;
            }
            value_answer(&answer)
        }
        // Of a newer version of this protocol, perhaps.
        Err(_) => json_answer(reply.body),
    };
    *response.status_mut() = status;
    Ok(response)
}

/// Adds what a key has used, and writes moments as text.
async fn complete(key: &mut Map<String, Value>, shared: &Shared) -> Result<(), EdgeError> {
    let id = key.get("tidegate").and_then(|more| more["id"].as_str());
    let known = id.and_then(|id| shared.keys.load().by_id(id).cloned());
    let used = match known {
        // One that this edge has not heard of has used nothing that it knows of.
        None => Used::default(),
        Some(caller) => {
            caller.resolve(&shared.state.load().owners);
            Used::read(&shared.sums, &caller, shared.clock.unix_millis()).await?
        }
    };
    let spent = match key.get("limit_reset").and_then(Value::as_str) {
        Some("daily") => used.day.charged,
        Some("weekly") => used.week.charged,
        Some("monthly") => used.month.charged,
        _ => used.total.charged,
    };
    let limit = key.get("limit").and_then(Value::as_number).and_then(|limit| Money::parse_usd(&limit.to_string()).ok());
    let left = limit.map(|limit| Money::from_picodollars((limit.picodollars() - spent.picodollars()).max(0)));
    key.insert("limit_remaining".to_owned(), json!(left));
    for (name, amount) in [
        ("usage", used.total.charged),
        ("usage_daily", used.day.charged),
        ("usage_weekly", used.week.charged),
        ("usage_monthly", used.month.charged),
        ("byok_usage", used.total.own_key_cost),
        ("byok_usage_daily", used.day.own_key_cost),
        ("byok_usage_weekly", used.week.own_key_cost),
        ("byok_usage_monthly", used.month.own_key_cost),
    ] {
        key.insert(name.to_owned(), json!(amount));
    }
    for name in ["created_at", "updated_at", "expires_at"] {
        if let Some(moment) = key.get_mut(name)
            && let Some(seconds) = moment.as_u64()
        {
            *moment = UnixMillis(seconds.saturating_mul(1_000)).to_string().into();
        }
    }
    Ok(())
}

/// The body with `expires_at` as Unix seconds.
fn with_seconds(body: &[u8]) -> Result<String, EdgeError> {
    let broken = |reason: String| EdgeError::ManagementRefused {
        status: 400,
        message: format!("The body cannot be used: {reason}."),
        retry_after: None,
    };
    let mut body: Value = serde_json::from_slice(body).map_err(|error| broken(error.to_string()))?;
    let Some(fields) = body.as_object_mut() else { return Err(broken("it is no JSON object".to_owned())) };
    if let Some(moment) = fields.get_mut("expires_at").filter(|moment| !moment.is_null()) {
        let read = moment.as_str().and_then(UnixMillis::parse);
        let UnixMillis(millis) =
            read.ok_or_else(|| broken("`expires_at` is a moment in UTC, such as `2026-12-31T23:59:59Z`, or null".to_owned()))?;
        // 0 would be never; the first second of 1970 is as far gone as the second one.
        *moment = (millis / 1_000).max(1).into();
    }
    Ok(body.to_string())
}

fn offset(query: Query<'_>) -> Result<u64, EdgeError> {
    let reason = "it is the number of keys to skip";
    query.get("offset").map_or(Ok(0), |text| text.parse().map_err(|_| EdgeError::BadParameter { name: "offset", reason }))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A name, a limit and a moment.
const LARGEST_BODY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_to_the_control_plane_as_seconds() {
        let sent = |body: &str| with_seconds(body.as_bytes()).ok();
        assert_eq!(sent(r#"{"expires_at":"1970-01-02T00:00:00Z"}"#).as_deref(), Some(r#"{"expires_at":86400}"#));
        assert_eq!(sent(r#"{"expires_at":"1970-01-01T00:00:00Z"}"#).as_deref(), Some(r#"{"expires_at":1}"#));
        assert_eq!(sent(r#"{"expires_at":null}"#).as_deref(), Some(r#"{"expires_at":null}"#));
        for wrong in [r#"{"expires_at":86400}"#, r#"{"expires_at":"tomorrow"}"#, "[]", "{", ""] {
            assert_eq!(sent(wrong), None, "{wrong}");
        }
    }
}
