//! Real providers, switched on by the keys in the environment.

use std::collections::HashSet;
use std::time::Duration;

use tidegate_edge::config::{CredentialConfig, EndpointConfig, ModelConfig, ProviderConfig, UpstreamHttp};

use crate::catalog;

/// What the environment switches on.
#[derive(Default)]
pub(super) struct Real {
    pub(super) providers: Vec<ProviderConfig>,
    pub(super) models: Vec<ModelConfig>,
    pub(super) endpoints: Vec<EndpointConfig>,
    announced: Vec<(String, String)>,
}

impl Real {
    /// Slugs of the providers with the variable that switched each on.
    pub(super) fn announced(&self) -> Vec<(String, String)> {
        self.announced.clone()
    }
}

/// Looks for keys and takes the shipped catalogue of their providers.
pub(super) fn from_environment() -> Real {
    let mut real = Real::default();
    for info in tidegate_wire::providers() {
        let found = info.key_env.iter().find_map(|name| Some((name, std::env::var(name).ok().filter(|value| !value.trim().is_empty())?)));
        let Some((variable, secret)) = found else { continue };
        // Addresses with a gap, such as a region, need a configuration file.
        if info.base_url.contains('{') {
            continue;
        }
        real.announced.push((info.slug.clone(), variable.clone()));
        real.providers.push(ProviderConfig {
            info: info.clone(),
            credentials: vec![CredentialConfig { name: variable.clone(), weight: 1, secret: Some(secret.trim().into()), own_key: false }],
            extra_roots: Vec::new(),
            only_extra_roots: false,
            allow_plain_http: false,
            allow_private_addresses: false,
            http: UpstreamHttp::Auto,
            connect_timeout: Duration::from_secs(5),
            idle_connections: 32,
            idle_timeout: Duration::from_secs(60),
            propagate_trace: false,
        });
    }
    let on: HashSet<&str> = real.providers.iter().map(|provider| provider.info.slug.as_str()).collect();
    let shipped = catalog::shipped();
    real.endpoints = shipped.endpoints.iter().filter(|endpoint| on.contains(endpoint.provider.as_str())).cloned().collect();
    let served: HashSet<&str> = real.endpoints.iter().map(|endpoint| endpoint.model.as_str()).collect();
    real.models = shipped.models.iter().filter(|model| served.contains(model.slug.as_str())).cloned().collect();
    real
}
