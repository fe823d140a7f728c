//! `GET /providers`: who serves here.

use http::Response;
use serde_json::json;

use super::{Reading, public, value_answer};
use crate::body::EdgeBody;
use crate::error::EdgeError;

/// Lists the configured providers. Public: names and policies, no accounts.
pub(super) fn list(reading: &Reading<'_>) -> Result<Response<EdgeBody>, EdgeError> {
    let data: Vec<_> = reading
        .state
        .config
        .providers
        .iter()
        .map(|provider| {
            let info = &provider.info;
            json!({
                "name": info.name,
                "slug": info.slug,
                "privacy_policy_url": info.privacy_policy_url,
                "terms_of_service_url": info.terms_of_service_url,
                "status_page_url": info.status_page_url,
                "headquarters": info.headquarters,
                "datacenters": info.datacenters,
            })
        })
        .collect();
    Ok(public(value_answer(&json!({ "data": data }))))
}
