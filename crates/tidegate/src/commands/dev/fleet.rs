//! The simulated providers of `tidegate dev`, and the mesh that routes over them.
//!
//! Five vendors host the same few models at different prices, speeds and reliabilities. One of them goes down and comes back like the
//! tide, so that failing over can be watched without breaking anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_edge::config::{CredentialConfig, EndpointConfig, ModelConfig, ProviderConfig, UpstreamHttp};
use tidegate_ledger::{MoneyError, PriceTable, Rate};
use tidegate_provider_sim::{Fault, FaultRule, PromptCacheSpec, Schedule, Sim, SimHandle, SimSpec, Timing};
use tidegate_routing::{DataPolicy, ModalitySet, ParameterSet, Quantization, Tier};
use tidegate_wire::{AuthScheme, Dialect, ProviderInfo, Quirks, RateLimitScheme};

/// A running simulated provider.
pub(super) struct Simulated {
    pub(super) vendor: &'static Vendor,
    pub(super) handle: Arc<SimHandle>,
}

/// What a simulated vendor is like.
pub(super) struct Vendor {
    pub(super) slug: &'static str,
    pub(super) name: &'static str,
    pub(super) dialect: Dialect,
    /// One line for the person at the terminal.
    pub(super) about: &'static str,
    first_token: Duration,
    tokens_per_second: f64,
    /// Share of requests that fail by themselves.
    flaky: f64,
    /// Goes down on a schedule.
    tidal: bool,
    quantization: Quantization,
    trains: bool,
    /// Price relative to the model's list price, in percent.
    price_percent: u64,
    models: &'static [&'static str],
}

struct Model {
    slug: &'static str,
    name: &'static str,
    description: &'static str,
    /// US dollars per million tokens.
    prompt: u64,
    completion: u64,
    context: u32,
    output: u32,
    images: bool,
}

pub(super) static VENDORS: [Vendor; 5] = [
    Vendor {
        slug: "brightwater",
        name: "Brightwater",
        dialect: Dialect::OpenaiChat,
        about: "steady and quick, list price",
        first_token: Duration::from_millis(180),
        tokens_per_second: 140.0,
        flaky: 0.0,
        tidal: false,
        quantization: Quantization::Bf16,
        trains: false,
        price_percent: 100,
        models: &["tidal/harbor", "tidal/reef-mini", "tidal/abyss"],
    },
    Vendor {
        slug: "kelpforge",
        name: "Kelpforge",
        dialect: Dialect::OpenaiChat,
        about: "the cheapest, and down for 8 s every 30 s",
        first_token: Duration::from_millis(250),
        tokens_per_second: 90.0,
        flaky: 0.02,
        tidal: true,
        quantization: Quantization::Fp8,
        trains: true,
        price_percent: 50,
        models: &["tidal/harbor", "tidal/reef-mini"],
    },
    Vendor {
        slug: "saltmarsh",
        name: "Saltmarsh",
        dialect: Dialect::AnthropicMessages,
        about: "fast and dear, speaks Anthropic Messages",
        first_token: Duration::from_millis(120),
        tokens_per_second: 220.0,
        flaky: 0.0,
        tidal: false,
        quantization: Quantization::Unknown,
        trains: false,
        price_percent: 140,
        models: &["tidal/harbor", "tidal/abyss"],
    },
    Vendor {
        slug: "gulfstream",
        name: "Gulfstream",
        dialect: Dialect::Gemini,
        about: "a little cheaper, speaks Gemini",
        first_token: Duration::from_millis(220),
        tokens_per_second: 170.0,
        flaky: 0.01,
        tidal: false,
        quantization: Quantization::Unknown,
        trains: false,
        price_percent: 90,
        models: &["tidal/harbor", "tidal/reef-mini", "tidal/abyss"],
    },
    Vendor {
        slug: "driftwood",
        name: "Driftwood",
        dialect: Dialect::OpenaiChat,
        about: "cheap and slow, fails one request in twenty",
        first_token: Duration::from_millis(900),
        tokens_per_second: 35.0,
        flaky: 0.05,
        tidal: false,
        quantization: Quantization::Int4,
        trains: true,
        price_percent: 60,
        models: &["tidal/harbor", "tidal/reef-mini"],
    },
];

static MODELS: [Model; 3] = [
    Model {
        slug: "tidal/harbor",
        name: "Harbor",
        description: "A simulated all-round model; every simulated provider hosts it.",
        prompt: 2,
        completion: 8,
        context: 128_000,
        output: 16_384,
        images: true,
    },
    Model {
        slug: "tidal/reef-mini",
        name: "Reef Mini",
        description: "A simulated small model.",
        prompt: 1,
        completion: 3,
        context: 32_000,
        output: 8_192,
        images: false,
    },
    Model {
        slug: "tidal/abyss",
        name: "Abyss",
        description: "A simulated reasoning model.",
        prompt: 5,
        completion: 25,
        context: 200_000,
        output: 64_000,
        images: true,
    },
];

/// Starts every vendor on a free loopback port. `reliable` leaves their faults out, for test suites.
pub(super) fn start(reliable: bool) -> io::Result<Vec<Simulated>> {
    let mut running = Vec::with_capacity(VENDORS.len());
    for (seed, vendor) in (1u64..).zip(&VENDORS) {
        let spec = SimSpec {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: vendor.name.to_owned(),
            seed,
            models: vendor.models.iter().map(|slug| upstream_name(slug).to_owned()).collect(),
            keys: vec![SIM_KEY.to_owned()],
            timing: if reliable {
                Timing { first_token: Duration::from_millis(5), spread: 0.0, tokens_per_second: 2_000.0, tokens_per_chunk: 2 }
            } else {
                Timing { first_token: vendor.first_token, spread: 0.3, tokens_per_second: vendor.tokens_per_second, tokens_per_chunk: 2 }
            },
            faults: if reliable { Vec::new() } else { vendor.faults() },
            prompt_cache: Some(PromptCacheSpec::default()),
            ..SimSpec::default()
        };
        running.push(Simulated { vendor, handle: Arc::new(Sim::start(spec)?) });
    }
    Ok(running)
}

/// What routes over the fleet.
pub(super) struct FleetMesh {
    pub(super) providers: Vec<ProviderConfig>,
    pub(super) models: Vec<ModelConfig>,
    pub(super) endpoints: Vec<EndpointConfig>,
}

/// Providers, models and endpoints over the running fleet.
pub(super) fn mesh(fleet: &[Simulated]) -> Result<FleetMesh, MoneyError> {
    let providers = fleet.iter().map(|simulated| simulated.vendor.provider(simulated.handle.addr())).collect();
    let models = MODELS.iter().map(Model::config).collect();
    let mut endpoints = Vec::new();
    for vendor in &VENDORS {
        for model in MODELS.iter().filter(|model| vendor.models.contains(&model.slug)) {
            endpoints.push(vendor.endpoint(model)?);
        }
    }
    Ok(FleetMesh { providers, models, endpoints })
}

/// Slugs of the simulated models.
pub(super) fn slugs() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.slug)
}

impl Vendor {
    fn faults(&self) -> Vec<FaultRule> {
        let mut faults = Vec::new();
        if self.tidal {
            let schedule =
                Schedule::Every { period: Duration::from_secs(30), down: Duration::from_secs(8), phase: Duration::from_secs(12) };
            faults.push(FaultRule::always(Fault::Status { status: 503, retry_after: None }).with_schedule(schedule));
        }
        if self.flaky > 0.0 {
            faults.push(FaultRule::always(Fault::Status { status: 500, retry_after: None }).with_ratio(self.flaky));
        }
        faults
    }

    fn provider(&self, address: SocketAddr) -> ProviderConfig {
        let base_url = match self.dialect {
            Dialect::OpenaiChat => format!("http://{address}/v1"),
            Dialect::AnthropicMessages => format!("http://{address}"),
            Dialect::Gemini => format!("http://{address}/v1beta"),
        };
        ProviderConfig {
            info: ProviderInfo {
                auth: match self.dialect {
                    Dialect::OpenaiChat => AuthScheme::Bearer,
                    Dialect::AnthropicMessages => AuthScheme::Header("x-api-key".to_owned()),
                    Dialect::Gemini => AuthScheme::Header("x-goog-api-key".to_owned()),
                },
                rate_limits: match self.dialect {
                    Dialect::OpenaiChat => RateLimitScheme::Openai,
                    Dialect::AnthropicMessages => RateLimitScheme::Anthropic,
                    Dialect::Gemini => RateLimitScheme::None,
                },
                cancels_billing: true,
                quirks: Quirks { developer_role: true, ..Quirks::default() },
                ..ProviderInfo::new(self.slug, self.name, base_url, self.dialect)
            },
            credentials: vec![CredentialConfig { name: "simulated".to_owned(), weight: 1, secret: Some(SIM_KEY.into()), own_key: false }],
            extra_roots: Vec::new(),
            only_extra_roots: false,
            allow_plain_http: true,
            allow_private_addresses: true,
            http: UpstreamHttp::Auto,
            connect_timeout: Duration::from_secs(2),
            idle_connections: 64,
            idle_timeout: Duration::from_secs(30),
            propagate_trace: true,
        }
    }

    fn endpoint(&self, model: &Model) -> Result<EndpointConfig, MoneyError> {
        // Prices in cents per million tokens, so that a percentage of a whole dollar stays exact.
        let rate = |dollars: u64| {
            Rate::per_million_usd(&format!("{}.{:02}", dollars * self.price_percent / 100, dollars * self.price_percent % 100))
        };
        let tenth = |dollars: u64| {
            Rate::per_million_usd(&format!("{}.{:03}", dollars * self.price_percent / 1000, dollars * self.price_percent % 1000))
        };
        let mut inputs = ModalitySet::TEXT | ModalitySet::FILE;
        if model.images {
            inputs = inputs | ModalitySet::IMAGE;
        }
        Ok(EndpointConfig {
            name: format!("{}/{}", self.slug, upstream_name(model.slug)),
            provider: self.slug.to_owned(),
            model: model.slug.to_owned(),
            tag: self.slug.to_owned(),
            upstream_model: upstream_name(model.slug).to_owned(),
            prices: PriceTable {
                prompt: rate(model.prompt)?,
                completion: rate(model.completion)?,
                cache_read: Some(tenth(model.prompt)?),
                ..PriceTable::default()
            },
            context_length: model.context,
            max_output: Some(model.output),
            quantization: self.quantization,
            region: Some("local".to_owned()),
            data: DataPolicy { trains: self.trains, retains: self.trains },
            parameters: ParameterSet::all(),
            inputs,
            tier: Tier::Default,
            drained: false,
            pinned: false,
            max_concurrency: None,
            cache_lifetime: Duration::from_secs(300),
            implicit_caching: true,
            prior_first_token: None,
            prior_tokens_per_second: None,
        })
    }
}

impl Model {
    fn config(&self) -> ModelConfig {
        ModelConfig {
            slug: self.slug.to_owned(),
            name: self.name.to_owned(),
            aliases: Vec::new(),
            description: self.description.to_owned(),
            created: 1_790_000_000,
            distillable: true,
            output_modalities: vec!["text".to_owned()],
            tokenizer: None,
            successor: None,
        }
    }
}

fn upstream_name(slug: &'static str) -> &'static str {
    slug.rsplit('/').next().unwrap_or(slug)
}

/// Simulated providers want a key like real ones do. It opens nothing else.
const SIM_KEY: &str = "simulated-provider-key";
