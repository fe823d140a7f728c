//! Small configurations for tests of this crate.

use std::time::Duration;

use tidegate_ledger::{PriceTable, Rate};
use tidegate_routing::{DataPolicy, ModalitySet, ParameterSet, Quantization, Settings, Tier};
use tidegate_wire::{Dialect, ProviderInfo};

use super::{CredentialConfig, Defaults, EndpointConfig, MeshConfig, ModelConfig, ProviderConfig, UpstreamHttp};

/// One model, served by `endpoint-0` at `provider-0` and so on, at one price. Nothing listens at the addresses.
pub(crate) fn mesh(providers: usize, model: &str) -> MeshConfig {
    MeshConfig {
        revision: 1,
        providers: (0..providers).map(provider).collect(),
        models: vec![ModelConfig {
            slug: model.to_owned(),
            name: model.to_owned(),
            aliases: Vec::new(),
            description: String::new(),
            created: 1_700_000_000,
            distillable: false,
            output_modalities: vec!["text".to_owned()],
            tokenizer: None,
            successor: None,
        }],
        endpoints: (0..providers).map(|number| endpoint(number, model)).collect(),
        organisations: Vec::new(),
        workspaces: Vec::new(),
        keys: Vec::new(),
        keys_pepper: None,
        presets: Vec::new(),
        defaults: Defaults::default(),
        settings: Settings::default(),
    }
}

fn provider(number: usize) -> ProviderConfig {
    let slug = format!("provider-{number}");
    ProviderConfig {
        info: ProviderInfo::new(slug.clone(), slug, "http://127.0.0.1:9/v1", Dialect::OpenaiChat),
        credentials: vec![CredentialConfig { name: "main".to_owned(), weight: 1, own_key: false, secret: None }],
        extra_roots: Vec::new(),
        only_extra_roots: false,
        allow_plain_http: true,
        allow_private_addresses: true,
        http: UpstreamHttp::Auto,
        connect_timeout: Duration::from_secs(2),
        idle_connections: 1,
        idle_timeout: Duration::from_secs(30),
        propagate_trace: false,
    }
}

fn endpoint(number: usize, model: &str) -> EndpointConfig {
    let rate = Rate::per_million_usd("1").unwrap();
    EndpointConfig {
        name: format!("endpoint-{number}"),
        provider: format!("provider-{number}"),
        model: model.to_owned(),
        tag: format!("provider-{number}"),
        upstream_model: model.to_owned(),
        prices: PriceTable { prompt: rate, completion: rate, ..PriceTable::default() },
        context_length: 128_000,
        max_output: None,
        quantization: Quantization::Unknown,
        region: None,
        data: DataPolicy { trains: false, retains: false },
        parameters: ParameterSet::all(),
        inputs: ModalitySet::all(),
        tier: Tier::Default,
        drained: false,
        pinned: false,
        max_concurrency: None,
        cache_lifetime: Duration::from_secs(300),
        implicit_caching: true,
        prior_first_token: None,
        prior_tokens_per_second: None,
    }
}
