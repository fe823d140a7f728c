//! `GET /generation?id=`: what one generation was and cost.

use http::Response;
use serde_json::json;
use tidegate_routing::Timestamp;

use super::{Reading, authenticate, value_answer};
use crate::body::EdgeBody;
use crate::error::EdgeError;

/// Looks a finished generation up. A key sees its own generations only; others look unknown.
pub(super) fn lookup(reading: &Reading<'_>) -> Result<Response<EdgeBody>, EdgeError> {
    let caller = authenticate(reading.shared, reading.connection, reading.headers)?;
    let id = reading.query.get("id").ok_or(EdgeError::MissingParameter { name: "id" })?;
    let now = Timestamp(reading.shared.clock.micros());
    let past = reading.shared.generations.get(&id, now).filter(|past| past.caller.public_id == caller.public_id);
    let Some(past) = past else { return Err(EdgeError::UnknownGeneration { id: id.chars().take(64).collect() }) };
    Ok(value_answer(&json!({ "data": past.record() })))
}
