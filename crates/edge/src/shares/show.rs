//! `GET /quota/shares?key=NAME` of the operations port: the shares that a key counts against here, for `tidegate quota explain`.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_quota::{Bound, ShareView, Topology};
use tidegate_runtime::ops::{OpsResponse, OpsRoute};

use crate::handler::percent_decoded;
use crate::shared::Shared;

/// The route.
pub(crate) fn route(shared: &Arc<Shared>) -> OpsRoute {
    let shared = Arc::clone(shared);
    OpsRoute::new("/quota/shares", "shares of limits that span regions, by ?key=", move |request| {
        if request.path != "/quota/shares" {
            return None;
        }
        let key = request.parameter("key").map(percent_decoded).filter(|key| !key.is_empty());
        let Some(key) = key else {
            return Some(OpsResponse::json(400, json!({ "error": "name a key: ?key=NAME" }).to_string()));
        };
        Some(match shown(&shared, &key) {
            Some(answer) => OpsResponse::json(200, answer.to_string()),
            None => OpsResponse::json(404, json!({ "error": format!("this edge knows no key `{key}`") }).to_string()),
        })
    })
}

fn shown(shared: &Shared, key: &str) -> Option<Value> {
    let (keys, state) = (shared.keys.load_full(), shared.state.load_full());
    let caller = match keys.by_id(key) {
        Some(caller) => caller,
        None => keys.iter().find(|caller| *caller.name == *key)?,
    };
    let account = caller.resolve(&state.owners);
    let shares = state.owners.shares();
    let regions = u32::try_from(state.owners.regions().len()).unwrap_or(u32::MAX);
    // Of the edges of its own region this one knows nothing.
    let topology = Topology { known_edges: 1, most_edges: 1, regions, sharing: regions, shared_store: shared.config.quota.is_shared() };
    let limits = account.limits.as_ref().map_or_else(Vec::new, |limits| {
        let bounds = tidegate_quota::explain(limits, limits.select_all(), topology);
        bounds.iter().filter_map(|bound| Some(limit_shown(bound, &shares.view(&bound.bucket)?))).collect()
    });
    Some(json!({
        "key": key,
        "region": &*shared.region,
        "regions": state.owners.regions().iter().map(|region| &**region).collect::<Vec<_>>(),
        "home_age_seconds": shares.home().age(tidegate_quota::monotonic()).map(seconds),
        "limits": limits,
    }))
}

fn limit_shown(bound: &Bound, view: &ShareView) -> Value {
    let dimension = bound.bucket.limit.dimension;
    json!({
        "limit": view.name.to_string(),
        "scope": view.name.scope,
        "dimension": dimension.as_str(),
        "model": view.name.model,
        "provider": view.name.provider,
        "amount": bound.bucket.limit.amount,
        "share": view.amount,
        "floor": view.floor,
        "lease_left_seconds": seconds(view.lease_left),
        "age_seconds": view.age.map(seconds),
        "left_elsewhere": dimension.window().map(|_| view.left),
        "home_away": view.away,
        "most_per_window": bound.store_up,
        "most_per_window_store_down": bound.store_down,
        "words": bound.words,
    })
}

fn seconds(micros: u64) -> f64 {
    // Milliseconds are enough for people.
    (micros / 1_000) as f64 / 1e3
}
