//! Building a mesh: simulated providers, the endpoints over them, and the edge in front.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_edge::config::{
    AccessLogConfig, CredentialConfig, Defaults, EdgeConfig, EndpointConfig, KeyConfig, LedgerConfig, Limits, ListenerConfig, ListenerTls,
    MeshConfig, ModelConfig, OrganisationConfig, PresetConfig, ProviderConfig, QuotaConfig, RuntimeModel, UpstreamHttp, WorkerConfig,
    WorkspaceConfig,
};
use tidegate_edge::{Edge, Services, StartError};
use tidegate_ledger::{PriceTable, Rate};
use tidegate_provider_sim::{Sim, SimHandle, SimSpec};
use tidegate_routing::{DataPolicy, ModalitySet, ParameterSet, Quantization, Settings, Tier};
use tidegate_wire::{AuthScheme, Dialect, ProviderInfo, Quirks, RateLimitScheme};

use crate::caller::Caller;
use crate::raw::RawUpstream;

/// What is to be started. Models are `m` unless a provider says otherwise; every provider hosts them all.
pub struct Topology {
    providers: Vec<ProviderDraft>,
    models: Vec<ModelConfig>,
    /// Changeable before the start.
    pub limits: Limits,
    /// Changeable before the start.
    pub defaults: Defaults,
    /// Changeable before the start.
    pub settings: Settings,
    /// Changeable before the start.
    pub presets: Vec<PresetConfig>,
    /// The key that [`Mesh`] calls with; changeable before the start.
    pub key: KeyConfig,
    /// Further keys, with the text as callers send it.
    pub more_keys: Vec<KeyConfig>,
    /// Who pays for keys.
    pub organisations: Vec<OrganisationConfig>,
    /// Parts of organisations.
    pub workspaces: Vec<WorkspaceConfig>,
    /// Records and sums.
    pub ledger: LedgerConfig,
    /// Where use is counted against limits.
    pub quota: QuotaConfig,
    /// Where the access log goes.
    pub access_log: AccessLogConfig,
    /// Serves TLS too; see [`crate::Authority::listener`].
    pub tls: Option<ListenerTls>,
    /// How workers share connections.
    pub model: RuntimeModel,
    /// Metrics and traces.
    pub services: Services,
}

/// One provider with its endpoints, before the start.
pub struct ProviderDraft {
    /// Slug, and tag of its endpoints.
    pub slug: String,
    /// What the simulation is told.
    pub sim: SimSpec,
    /// What it speaks.
    pub dialect: Dialect,
    /// US dollars per million tokens, prompt and completion alike.
    pub price: String,
    /// Slugs of the models it hosts; all of the topology when empty.
    pub models: Vec<String>,
    /// Last changes to the provider.
    pub provider: Box<dyn Fn(&mut ProviderConfig) + Send>,
    /// Last changes to each endpoint.
    pub endpoint: Box<dyn Fn(&mut EndpointConfig) + Send>,
}

/// A running mesh; calls like a [`Caller`] with the first key.
pub struct Mesh {
    /// The edge itself.
    pub edge: Edge,
    caller: Caller,
    sims: HashMap<String, SimHandle>,
    /// What the edge was started with, for reloads.
    pub config: MeshConfig,
}

/// Between two looks at something that does not tell when it changes.
const POLL: Duration = Duration::from_millis(2);
/// What should happen has happened long before; beyond it a test has failed, even on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// The key that tests call with.
pub const KEY: &str = "tg_test_0123456789_key-of-the-test-kit";

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}

impl Topology {
    /// One model `m`, no provider yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            providers: Vec::new(),
            models: vec![model("m")],
            limits: Limits { drain: Duration::from_secs(10), ..Limits::default() },
            defaults: Defaults::default(),
            settings: Settings::default(),
            presets: Vec::new(),
            key: key("test", KEY),
            more_keys: Vec::new(),
            organisations: Vec::new(),
            workspaces: Vec::new(),
            ledger: LedgerConfig::default(),
            quota: QuotaConfig::default(),
            access_log: AccessLogConfig::Off,
            tls: None,
            model: RuntimeModel::PerCore,
            services: Services::default(),
        }
    }

    /// Adds a model that providers host from now on.
    #[must_use]
    pub fn model(mut self, slug: &str) -> Self {
        self.models.push(model(slug));
        self
    }

    /// Changes the topology itself.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Changes a model.
    #[must_use]
    pub fn change_model(mut self, slug: &str, change: impl FnOnce(&mut ModelConfig)) -> Self {
        change(self.models.iter_mut().find(|model| model.slug == slug).expect("a model of this topology"));
        self
    }

    /// Adds a provider that speaks OpenAI chat unless changed.
    #[must_use]
    pub fn provider(mut self, slug: &str, change: impl FnOnce(&mut ProviderDraft)) -> Self {
        let mut draft = ProviderDraft {
            slug: slug.to_owned(),
            sim: SimSpec { name: slug.to_owned(), seed: self.providers.len() as u64 + 1, ..SimSpec::default() },
            dialect: Dialect::OpenaiChat,
            price: "1".to_owned(),
            models: Vec::new(),
            provider: Box::new(|_| {}),
            endpoint: Box::new(|_| {}),
        };
        change(&mut draft);
        self.providers.push(draft);
        self
    }

    /// Adds a provider whose every byte the test writes.
    #[must_use]
    pub fn raw(self, slug: &str, upstream: &RawUpstream) -> Self {
        let url = upstream.url();
        self.provider(slug, |draft| draft.provider = Box::new(move |provider| provider.info.base_url.clone_from(&url)))
    }

    /// Starts everything.
    pub async fn start(self) -> Mesh {
        self.try_start().await.expect("the edge starts")
    }

    /// The same for an edge that may not be able to.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn try_start(self) -> Result<Mesh, StartError> {
        let Parts { edge, mesh, sims, services } = self.build();
        let config = mesh;
        let edge = Box::pin(Edge::start(edge, config.clone(), services)).await?;
        let caller = Caller::new(edge.bound().listeners[0].1).with_key(KEY);
        Ok(Mesh { edge, caller, sims, config })
    }

    /// Starts the providers, and says what an edge in front of them is told.
    pub(crate) fn build(self) -> Parts {
        let mut sims = HashMap::new();
        let mut config = MeshConfig {
            revision: 1,
            providers: Vec::new(),
            models: self.models.clone(),
            endpoints: Vec::new(),
            organisations: self.organisations,
            workspaces: self.workspaces,
            keys: std::iter::once(self.key).chain(self.more_keys).collect(),
            keys_pepper: None,
            presets: self.presets,
            defaults: self.defaults,
            settings: self.settings,
        };
        for draft in self.providers {
            let handle = Sim::start(draft.sim.clone()).expect("a free loopback port");
            let mut provider = provider_config(&draft, handle.addr());
            (draft.provider)(&mut provider);
            config.providers.push(provider);
            for model in self.models.iter().filter(|model| draft.models.is_empty() || draft.models.contains(&model.slug)) {
                let mut endpoint = endpoint_config(&draft, &model.slug);
                (draft.endpoint)(&mut endpoint);
                config.endpoints.push(endpoint);
            }
            sims.insert(draft.slug, handle);
        }
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listeners = vec![ListenerConfig { name: "http".to_owned(), address: free, tls: None }];
        if self.tls.is_some() {
            listeners.push(ListenerConfig { name: "https".to_owned(), address: free, tls: self.tls });
        }
        let edge = EdgeConfig {
            listeners,
            operations: Some(free),
            workers: WorkerConfig { threads: 2, model: self.model },
            limits: self.limits,
            access_log: self.access_log,
            region: "test".to_owned(),
            generations_kept: 10_000,
            generations_ttl: Duration::from_secs(600),
            control: None,
            ledger: self.ledger,
            quota: self.quota,
        };
        Parts { edge, mesh: config, sims, services: self.services }
    }
}

/// What a topology comes to, before an edge is started.
pub(crate) struct Parts {
    pub(crate) edge: EdgeConfig,
    pub(crate) mesh: MeshConfig,
    pub(crate) sims: HashMap<String, SimHandle>,
    pub(crate) services: Services,
}

impl Mesh {
    /// A simulated provider by slug.
    #[must_use]
    pub fn sim(&self, slug: &str) -> &SimHandle {
        self.sims.get(slug).expect("a provider of this topology")
    }

    /// A caller with the first key, to be changed.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Address of the TLS listener.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        self.edge.bound().listeners[1].1
    }

    /// A caller of the operations port.
    #[must_use]
    pub fn operations(&self) -> Caller {
        Caller::new(self.edge.bound().operations.expect("the operations port is on"))
    }

    /// A metric's value, summed over the series whose labels contain all of `labels`; 0 when absent.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric_of(&self.edge, name, labels)
    }

    /// Waits until a metric satisfies `wanted`, for as long as a test may wait.
    pub async fn until_metric(&self, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) {
        let reached = async {
            while !wanted(self.metric(name, labels)) {
                tokio::time::sleep(POLL).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reached).await.is_ok();
        assert!(in_time, "{name}{labels:?} stayed at {}", self.metric(name, labels));
    }

    /// The record of a generation, as soon as there is one.
    pub async fn generation(&self, id: &str) -> Value {
        let found = async {
            loop {
                let answer = self.get(&format!("/v1/generation?id={id}")).await;
                if answer.status == 200 {
                    return answer.json()["data"].clone();
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no record of {id} turned up"))
    }

    /// Requests that a provider's simulation has seen.
    #[must_use]
    pub fn hits(&self, slug: &str) -> u64 {
        self.sim(slug).stats().requests
    }
}

/// A metric's value, summed over the series whose labels contain all of `labels`; 0 when absent.
pub(crate) fn metric_of(edge: &Edge, name: &str, labels: &[(&str, &str)]) -> f64 {
    let families = edge.registry().gather();
    let series = families.iter().filter(|family| family.name() == name).flat_map(prometheus::proto::MetricFamily::get_metric);
    let wanted = |metric: &&prometheus::proto::Metric| {
        labels.iter().all(|(name, value)| metric.get_label().iter().any(|pair| pair.name() == *name && pair.value() == *value))
    };
    series
        .filter(wanted)
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value() + metric.get_histogram().get_sample_count() as f64)
        .sum()
}

impl Deref for Mesh {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// A chat request. Each call says something new, so that no two requests are the same conversation.
#[must_use]
pub fn chat(model: &str, text: &str) -> Value {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    json!({ "model": model, "messages": [{ "role": "user", "content": format!("{text} ({number})") }] })
}

/// A key by its text.
#[must_use]
pub fn key(name: &str, text: &str) -> KeyConfig {
    KeyConfig::new(name, tidegate_edge::auth::digest(text, None))
}

/// [`chat`], streamed.
#[must_use]
pub fn stream(model: &str, text: &str) -> Value {
    let mut request = chat(model, text);
    request["stream"] = json!(true);
    request
}

fn model(slug: &str) -> ModelConfig {
    ModelConfig {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        aliases: Vec::new(),
        description: String::new(),
        created: 1_700_000_000,
        distillable: false,
        output_modalities: vec!["text".to_owned()],
        tokenizer: None,
        successor: None,
    }
}

/// What an edge in front of these providers is told, at whose addresses nobody is.
pub(crate) fn unserved(slugs: &[&str]) -> MeshConfig {
    let mut topology = Topology::new();
    for slug in slugs {
        topology = topology.provider(slug, |_| {});
    }
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    MeshConfig {
        revision: 1,
        providers: topology.providers.iter().map(|draft| provider_config(draft, nobody)).collect(),
        models: topology.models.clone(),
        endpoints: topology.providers.iter().map(|draft| endpoint_config(draft, "m")).collect(),
        organisations: Vec::new(),
        workspaces: Vec::new(),
        keys: Vec::new(),
        keys_pepper: None,
        presets: Vec::new(),
        defaults: topology.defaults,
        settings: topology.settings,
    }
}

fn provider_config(draft: &ProviderDraft, address: SocketAddr) -> ProviderConfig {
    let (base_url, auth, rate_limits) = match draft.dialect {
        Dialect::OpenaiChat => (format!("http://{address}/v1"), AuthScheme::Bearer, RateLimitScheme::Openai),
        Dialect::AnthropicMessages => (format!("http://{address}"), AuthScheme::Header("x-api-key".to_owned()), RateLimitScheme::Anthropic),
        Dialect::Gemini => (format!("http://{address}/v1beta"), AuthScheme::Header("x-goog-api-key".to_owned()), RateLimitScheme::None),
    };
    ProviderConfig {
        info: ProviderInfo {
            auth,
            rate_limits,
            cancels_billing: true,
            quirks: Quirks { developer_role: true, ..Quirks::default() },
            ..ProviderInfo::new(draft.slug.as_str(), draft.slug.to_uppercase(), base_url, draft.dialect)
        },
        credentials: vec![CredentialConfig { name: "main".to_owned(), weight: 1, secret: Some("upstream-secret".into()), own_key: false }],
        extra_roots: Vec::new(),
        only_extra_roots: false,
        allow_plain_http: true,
        allow_private_addresses: true,
        http: UpstreamHttp::Auto,
        connect_timeout: Duration::from_secs(2),
        idle_connections: 16,
        idle_timeout: Duration::from_secs(30),
        propagate_trace: true,
    }
}

fn endpoint_config(draft: &ProviderDraft, model: &str) -> EndpointConfig {
    let rate = Rate::per_million_usd(&draft.price).expect("a price of a test");
    EndpointConfig {
        name: format!("{}/{model}", draft.slug),
        provider: draft.slug.clone(),
        model: model.to_owned(),
        tag: draft.slug.clone(),
        upstream_model: format!("up-{model}"),
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
