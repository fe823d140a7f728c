//! The compiled configuration: what a request routes by.
//!
//! A [`RoutingState`] is immutable and replaced as a whole. Building it is the proof that a configuration is good: everything that can be
//! wrong is found here, all at once, and nothing is half applied. Health, breakers and connections live on over a reload, found again
//! by the names of endpoints, credentials and origins.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use tidegate_ledger::PriceTable;
use tidegate_routing::{
    CredentialIndex, CredentialSpec, Endpoint, EndpointId, EndpointIndex, EndpointSpec, Health, ModelIndex, ModelSpec, Price, ProviderSpec,
    Snapshot, SnapshotSpec,
};
use tidegate_wire::{AuthScheme, Dialect, Failure, ProviderInfo};

use crate::auth::{Account, Owners};
use crate::config::{CredentialConfig, EndpointConfig, MeshConfig, ModelConfig, PresetConfig, ProviderConfig};
use crate::metrics::{EndpointMetrics, Metrics, ModelMetrics};
use crate::quota::Ceiling;
use crate::upstream::Origin;

/// Everything that one configuration means.
pub(crate) struct RoutingState {
    pub(crate) config: MeshConfig,
    pub(crate) snapshot: Snapshot,
    pub(crate) health: Health,
    /// Whom keys belong to.
    pub(crate) owners: Arc<Owners>,
    targets: Vec<Arc<Target>>,
    credentials: Vec<Credential>,
    models: Vec<ModelFacts>,
    endpoints_by_id: HashMap<u64, EndpointIndex>,
    /// By what the mesh calls them.
    endpoints_in_mesh: HashMap<EndpointId, EndpointIndex>,
    origins: HashMap<String, Arc<Origin>>,
    presets: HashMap<String, PresetConfig>,
}

/// What the edge knows of an endpoint besides what routing knows.
pub(crate) struct Target {
    /// Stable over reloads: a hash of the name.
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) model: Arc<str>,
    pub(crate) upstream_model: String,
    pub(crate) prices: PriceTable,
    pub(crate) region: Option<Arc<str>>,
    pub(crate) implicit_caching: bool,
    pub(crate) metrics: EndpointMetrics,
}

/// What the edge knows of a provider.
pub(crate) struct Provider {
    pub(crate) info: ProviderInfo,
    pub(crate) name: Arc<str>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) propagate_trace: bool,
    /// Headers that every request to this provider carries.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Provider {
    pub(crate) fn dialect(&self) -> Dialect {
        self.info.dialect
    }
}

/// One account: the header that authenticates us. Never printed.
struct Credential {
    name: Arc<str>,
    header: Option<(HeaderName, HeaderValue)>,
    /// `name=value`, for the few providers that want the key in the address.
    query: Option<SecretString>,
    /// The account is the callers' own: its provider bills them.
    own_key: bool,
    /// The bare secret, to be recognised when a provider repeats it.
    secret: Option<SecretString>,
}

/// What the edge knows of a model besides what routing knows.
pub(crate) struct ModelFacts {
    pub(crate) slug: Arc<str>,
    pub(crate) config: ModelConfig,
    pub(crate) metrics: ModelMetrics,
    /// The most that any endpoint takes for it.
    pub(crate) ceiling: Ceiling,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateProblem {
    /// Which part, such as `endpoints` or `providers`.
    pub section: &'static str,
    /// Which entry of it, by name.
    pub entry: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for StateProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`: {}", self.section, self.entry, self.message)
    }
}

/// Builds the state and throws it away: what `tidegate check` asks.
///
/// # Errors
/// Everything that is wrong with the configuration.
pub fn check(config: &MeshConfig) -> Result<(), Vec<StateProblem>> {
    let problem = |error: prometheus::Error| vec![StateProblem { section: "metrics", entry: String::new(), message: error.to_string() }];
    let metrics = Metrics::register(&Registry::new()).map_err(problem)?;
    RoutingState::build(config.clone(), None, &metrics).map(drop)
}

impl RoutingState {
    /// Compiles a configuration. `previous` lends its health and its connections.
    pub(crate) fn build(config: MeshConfig, previous: Option<&RoutingState>, metrics: &Metrics) -> Result<Self, Vec<StateProblem>> {
        let mut problems = Vec::new();
        let mut origins = HashMap::new();
        let mut providers = HashMap::new();
        let mut credentials = Vec::new();
        for provider in &config.providers {
            let slug = provider.info.slug.to_string();
            for credential in &provider.credentials {
                match Credential::of(credential, &provider.info) {
                    Ok(credential) => credentials.push(credential),
                    Err(message) => problems.push(StateProblem { section: "providers", entry: slug.clone(), message }),
                }
            }
            match Provider::of(provider, previous.and_then(|previous| previous.origins.get(&slug))) {
                Ok(compiled) => {
                    origins.insert(slug.clone(), Arc::clone(&compiled.origin));
                    providers.insert(slug, Arc::new(compiled));
                }
                Err(message) => problems.push(StateProblem { section: "providers", entry: slug, message }),
            }
        }
        let snapshot = Snapshot::build(spec_of(&config)).map_err(|errors| {
            problems.extend(errors.iter().map(|error| StateProblem {
                section: "endpoints",
                entry: String::new(),
                message: error.to_string(),
            }));
        });
        let Ok(snapshot) = snapshot else { return Err(problems) };
        if !problems.is_empty() {
            return Err(problems);
        }
        let models: Vec<ModelFacts> = config
            .models
            .iter()
            .map(|model| ModelFacts {
                slug: model.slug.as_str().into(),
                metrics: metrics.model(&model.slug),
                ceiling: ceiling_of(&config, &model.slug),
                config: model.clone(),
            })
            .collect();
        let mut targets = Vec::with_capacity(config.endpoints.len());
        for (endpoint, compiled) in config.endpoints.iter().zip(snapshot.endpoints()) {
            // The snapshot was built, so the provider exists.
            let Some(provider) = providers.get(&endpoint.provider) else { continue };
            let model = &models[compiled.model().get()].slug;
            targets.push(Arc::new(Target::of(endpoint, provider, model, metrics)));
        }
        let endpoints_by_id = (0u32..).zip(&targets).map(|(position, target)| (target.id, EndpointIndex::new(position))).collect();
        let endpoints_in_mesh =
            (0u32..).zip(snapshot.endpoints()).map(|(position, endpoint)| (endpoint.id(), EndpointIndex::new(position))).collect();
        let health = Health::new(&snapshot, previous.map(|previous| &previous.health));
        let owners = Owners::of(&config.organisations, &config.workspaces);
        let owners = match previous {
            Some(previous) => owners.sharing(&config.defaults.quota_regions, previous.owners.own_region(), previous.owners.shares()),
            None => owners,
        };
        let owners = match previous {
            // The same owners stay the same, so that no key's account is put together again.
            Some(previous) if *previous.owners == owners => Arc::clone(&previous.owners),
            _ => Arc::new(owners),
        };
        let wrong = config.keys.iter().filter_map(|key| {
            let message = Account::of_config(key, &owners).err()?;
            Some(StateProblem { section: "keys", entry: key.name.clone(), message })
        });
        let wrong: Vec<StateProblem> = wrong.collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let presets = config.presets.iter().map(|preset| (preset.slug.clone(), preset.clone())).collect();
        Ok(Self { config, snapshot, health, owners, targets, credentials, models, endpoints_by_id, endpoints_in_mesh, origins, presets })
    }

    /// Says in which region this edge shares limits with others; before anybody else sees this state, and those that follow it inherit it.
    pub(crate) fn in_region(mut self, region: &Arc<str>) -> Self {
        let owners = Owners::of(&self.config.organisations, &self.config.workspaces);
        self.owners = Arc::new(owners.sharing(&self.config.defaults.quota_regions, region, &Arc::default()));
        self
    }

    pub(crate) fn target(&self, endpoint: EndpointIndex) -> &Arc<Target> {
        &self.targets[endpoint.get()]
    }

    pub(crate) fn endpoint(&self, endpoint: EndpointIndex) -> &Endpoint {
        self.snapshot.endpoint(endpoint)
    }

    pub(crate) fn model(&self, model: ModelIndex) -> &ModelFacts {
        &self.models[model.get()]
    }

    pub(crate) fn models(&self) -> &[ModelFacts] {
        &self.models
    }

    /// The header that authenticates us with this credential.
    pub(crate) fn credential_header(&self, credential: CredentialIndex) -> Option<(HeaderName, HeaderValue)> {
        self.credentials[credential.get()].header.clone()
    }

    /// The query that authenticates us with this credential, where the provider wants one.
    pub(crate) fn credential_query(&self, credential: CredentialIndex) -> Option<&SecretString> {
        self.credentials[credential.get()].query.as_ref()
    }

    /// Takes our credential out of what a provider said. Some repeat a key that they do not like.
    pub(crate) fn redact(&self, credential: CredentialIndex, failure: &mut Failure) {
        let Some(secret) = self.credentials[credential.get()].secret.as_ref().map(ExposeSecret::expose_secret) else { return };
        if secret.is_empty() {
            return;
        }
        let said = [Some(&mut failure.message), failure.provider_code.as_mut(), failure.raw.as_mut()];
        for text in said.into_iter().flatten().filter(|text| text.contains(secret)) {
            *text = text.replace(secret, "[redacted]");
        }
    }

    /// The account of this credential is the callers' own.
    pub(crate) fn is_own_key(&self, credential: CredentialIndex) -> bool {
        self.credentials[credential.get()].own_key
    }

    pub(crate) fn credential_name(&self, credential: CredentialIndex) -> &Arc<str> {
        &self.credentials[credential.get()].name
    }

    /// The endpoint with this stable id, if it still exists.
    pub(crate) fn endpoint_by_id(&self, id: u64) -> Option<EndpointIndex> {
        self.endpoints_by_id.get(&id).copied()
    }

    /// The endpoint that the mesh calls so, if this configuration has it.
    pub(crate) fn endpoint_in_mesh(&self, id: EndpointId) -> Option<EndpointIndex> {
        self.endpoints_in_mesh.get(&id).copied()
    }

    pub(crate) fn preset(&self, slug: &str) -> Option<&PresetConfig> {
        self.presets.get(slug)
    }
}

impl Provider {
    fn of(config: &ProviderConfig, previous: Option<&Arc<Origin>>) -> Result<Self, String> {
        let origin = Origin::of(config, previous).map_err(|error| error.to_string())?;
        let mut headers = Vec::new();
        for (name, value) in &config.info.extra_headers {
            let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is not a header name"))?;
            let value =
                HeaderValue::try_from(value.as_str()).map_err(|_| format!("the value of header `{name}` holds control characters"))?;
            headers.push((name, value));
        }
        Ok(Self {
            name: config.info.name.as_str().into(),
            info: config.info.clone(),
            origin,
            propagate_trace: config.propagate_trace,
            headers,
        })
    }
}

impl Credential {
    fn of(config: &CredentialConfig, provider: &ProviderInfo) -> Result<Self, String> {
        let (name, own_key) = (config.name.as_str().into(), config.own_key);
        let Some(secret) = config.secret.as_ref().map(ExposeSecret::expose_secret) else {
            return Ok(Self { name, header: None, query: None, own_key, secret: None });
        };
        let bare = config.secret.clone();
        let (header, value) = match &provider.auth {
            AuthScheme::None => return Ok(Self { name, header: None, query: None, own_key, secret: None }),
            AuthScheme::Query(parameter) => {
                if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
                    return Err(format!("credential `{}` holds characters that an address cannot", config.name));
                }
                return Ok(Self { name, header: None, query: Some(format!("{parameter}={secret}").into()), own_key, secret: bare });
            }
            AuthScheme::Bearer => (http::header::AUTHORIZATION, format!("Bearer {secret}")),
            AuthScheme::Header(name) => {
                let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("`{name}` is not a header name"))?;
                (name, secret.to_owned())
            }
        };
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("credential `{}` holds characters that a header cannot (a line end?)", config.name))?;
        value.set_sensitive(true);
        Ok(Self { name, header: Some((header, value)), query: None, own_key, secret: bare })
    }
}

impl Target {
    fn of(endpoint: &EndpointConfig, provider: &Arc<Provider>, model: &Arc<str>, metrics: &Metrics) -> Self {
        Self {
            id: crate::hash::of(&[endpoint.name.as_bytes()]),
            name: endpoint.name.as_str().into(),
            provider: Arc::clone(provider),
            model: Arc::clone(model),
            upstream_model: endpoint.upstream_model.clone(),
            prices: endpoint.prices.clone(),
            region: endpoint.region.as_deref().map(Into::into),
            implicit_caching: endpoint.implicit_caching,
            metrics: metrics.endpoint(&endpoint.provider, model, &endpoint.name),
        }
    }
}

/// Over every endpoint of a model.
fn ceiling_of(config: &MeshConfig, slug: &str) -> Ceiling {
    let endpoints = config.endpoints.iter().filter(|endpoint| endpoint.model == slug);
    endpoints.map(|endpoint| Ceiling::of(&endpoint.prices, endpoint.max_output)).reduce(Ceiling::max).unwrap_or_default()
}

/// What routing needs of a configuration, in the same order, so that indices agree.
fn spec_of(config: &MeshConfig) -> SnapshotSpec {
    let providers = config.providers.iter().map(|provider| ProviderSpec {
        slug: provider.info.slug.to_string(),
        name: provider.info.name.to_string(),
        credentials: provider
            .credentials
            .iter()
            .map(|credential| CredentialSpec { name: credential.name.clone(), weight: credential.weight })
            .collect(),
    });
    let models = config.models.iter().map(|model| ModelSpec {
        slug: model.slug.clone(),
        aliases: model.aliases.clone(),
        distillable: model.distillable,
    });
    let endpoints = config.endpoints.iter().map(|endpoint| EndpointSpec {
        tag: endpoint.tag.clone(),
        price: price_of(&endpoint.prices),
        context_length: endpoint.context_length,
        max_output: endpoint.max_output,
        quantization: endpoint.quantization,
        region: endpoint.region.clone(),
        data: endpoint.data,
        parameters: endpoint.parameters,
        inputs: endpoint.inputs,
        tier: endpoint.tier,
        drained: endpoint.drained,
        pinned: endpoint.pinned,
        max_concurrency: endpoint.max_concurrency,
        cache_lifetime: endpoint.cache_lifetime,
        prior_first_token: endpoint.prior_first_token,
        prior_tokens_per_second: endpoint.prior_tokens_per_second,
        ..EndpointSpec::new(endpoint.name.clone(), endpoint.provider.clone(), endpoint.model.clone())
    });
    SnapshotSpec {
        revision: config.revision,
        providers: providers.collect(),
        models: models.collect(),
        endpoints: endpoints.collect(),
        settings: config.settings.clone(),
    }
}

/// Routing weighs by plain prices; discounts are applied here, overrides only matter to the bill.
fn price_of(prices: &PriceTable) -> Price {
    let discounted = |rate: tidegate_ledger::Rate| {
        let kept = 1_000_000 - u128::from(prices.discount_ppm.min(1_000_000));
        u64::try_from(u128::from(rate.picodollars()) * kept / 1_000_000).unwrap_or(u64::MAX)
    };
    Price {
        prompt: discounted(prices.prompt),
        completion: discounted(prices.completion),
        cache_read: prices.cache_read.map(discounted),
        cache_write: prices.cache_write.map(discounted),
        request: discounted(prices.request),
        image: discounted(prices.image),
        audio: prices.audio.map_or(0, discounted),
    }
}
