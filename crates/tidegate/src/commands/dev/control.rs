//! Making simulated providers fail on demand, through the operations port.
//!
//! `POST /sims/{provider}/fault?script=status=503` makes every request fail so until it is changed; without a script it heals.
//! `POST /sims/{provider}/next?script=cut=3` is for the next request only. `GET /sims/{provider}` shows what the provider has seen.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tidegate_provider_sim::{FaultRule, Script, SimHandle, Stats};
use tidegate_runtime::ops::{OpsRequest, OpsResponse, OpsRoute};

use super::fleet::Simulated;

/// The route of all simulated providers.
pub(super) fn routes(simulated: &[Simulated]) -> Vec<OpsRoute> {
    let sims: Arc<HashMap<&'static str, Arc<SimHandle>>> =
        Arc::new(simulated.iter().map(|simulated| (simulated.vendor.slug, Arc::clone(&simulated.handle))).collect());
    vec![OpsRoute::new("/sims", "simulated providers: look at them, make them fail", move |request| Some(answer(&sims, request)))]
}

fn answer(sims: &HashMap<&'static str, Arc<SimHandle>>, request: &OpsRequest) -> OpsResponse {
    let rest = request.path.trim_start_matches("/sims").trim_matches('/');
    let (provider, action) = rest.split_once('/').unwrap_or((rest, ""));
    if provider.is_empty() {
        let mut names: Vec<&str> = sims.keys().copied().collect();
        names.sort_unstable();
        return OpsResponse::json(200, json!({ "providers": names }).to_string());
    }
    let Some(sim) = sims.get(provider) else {
        return failed(404, &format!("there is no simulated provider `{provider}`"));
    };
    match (&request.method, action) {
        (&Method::GET, "") => OpsResponse::json(200, described(&sim.stats()).to_string()),
        (&Method::POST, "fault" | "next") => match script(request) {
            Ok(script) => {
                apply(sim, action, script);
                OpsResponse::json(200, json!({ "ok": true }).to_string())
            }
            Err(reason) => failed(400, &reason),
        },
        _ => failed(405, "GET /sims/{provider}, POST /sims/{provider}/fault?script=…, POST /sims/{provider}/next?script=…"),
    }
}

fn apply(sim: &SimHandle, action: &str, script: Script) {
    if action == "next" {
        return sim.push_script(script);
    }
    let mut rules: Vec<FaultRule> = script.fault.into_iter().map(FaultRule::always).collect();
    rules.extend(script.slowness.map(|factor| FaultRule::always(tidegate_provider_sim::Fault::Slow { factor })));
    sim.set_faults(rules);
}

fn script(request: &OpsRequest) -> Result<Script, String> {
    let text = request.parameter("script").unwrap_or_default();
    let text = text.replace("%3D", "=").replace("%3d", "=").replace("%3B", ";").replace("%3b", ";").replace("%20", " ").replace('+', " ");
    text.parse::<Script>().map_err(|error| error.to_string())
}

fn described(stats: &Stats) -> Value {
    json!({
        "requests": stats.requests,
        "by_status": stats.by_status,
        "active_requests": stats.active_requests,
        "active_streams": stats.active_streams,
        "tokens_delivered": stats.tokens_delivered,
        "open_connections": stats.open_connections,
        "disconnects": stats.disconnects.len(),
    })
}

fn failed(status: u16, reason: &str) -> OpsResponse {
    OpsResponse::json(status, json!({ "error": reason }).to_string())
}
