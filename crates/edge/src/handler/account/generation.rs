//! `GET /generation?id=`: what one generation was and cost.

use std::sync::Arc;

use http::Response;
use serde_json::json;
use tidegate_routing::Timestamp;

use super::Reading;
use crate::auth::Caller;
use crate::body::EdgeBody;
use crate::error::EdgeError;
use crate::handler::value_answer;

/// Looks a finished generation up, on this edge and then in its region. A key sees its own generations only; others look unknown.
pub(super) async fn lookup(reading: &Reading<'_>, caller: &Arc<Caller>) -> Result<Response<EdgeBody>, EdgeError> {
    let id = reading.query.get("id").ok_or(EdgeError::MissingParameter { name: "id" })?;
    let now = Timestamp(reading.shared.clock.micros());
    let here = reading.shared.generations.get(&id, now).filter(|past| past.caller.counted_as() == caller.counted_as());
    if let Some(past) = here {
        return Ok(value_answer(&json!({ "data": past.record() })));
    }
    match reading.shared.sums.generation(&id).await?.filter(|record| record.key == *caller.counted_as()) {
        Some(record) => Ok(value_answer(&json!({ "data": record }))),
        None => Err(EdgeError::UnknownGeneration { id: id.chars().take(64).collect() }),
    }
}
