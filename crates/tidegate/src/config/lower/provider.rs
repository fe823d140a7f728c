//! Vendors: the shipped entry with the file's changes, at an address that may be used.

use std::net::IpAddr;
use std::time::Duration;

use tidegate_edge::config::{CredentialConfig, ProviderConfig, UpstreamHttp};
use tidegate_wire::{AuthScheme, Dialect, MaxTokensField, ProviderCatalog, ProviderInfo, RateLimitScheme, ReasoningStyle};

use super::credential::well_known;
use super::{Lowering, Place, SLUG_HELP, is_slug};
use crate::config::file::{Auth, DialectName, MaxTokensFieldName, Provider, Quirks, RateLimitsName, ReasoningName, UpstreamHttpName};
use crate::config::problem::Problem;
use crate::config::read::Environment;
use crate::config::scalar::Named;
use crate::config::suggest;

/// Time to reach a provider, TLS included: three round trips around the globe and one lost packet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections kept per worker: a burst of this size needs no new handshakes.
const IDLE_CONNECTIONS: usize = 64;
/// Below the 100 s and more after which vendors' load balancers close idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A shipped provider with the key found in its well-known variables; `None` when none is set.
pub(super) fn from_environment(slug: &str, environment: &Environment) -> Option<ProviderConfig> {
    let info = ProviderCatalog::shipped().get(slug)?;
    let (name, secret) = well_known(info, environment)?;
    Some(config_of(info.clone(), vec![CredentialConfig { name, weight: 1, secret: Some(secret), own_key: false }]))
}

/// A provider with everything at its default.
fn config_of(info: ProviderInfo, credentials: Vec<CredentialConfig>) -> ProviderConfig {
    ProviderConfig {
        info,
        credentials,
        extra_roots: Vec::new(),
        only_extra_roots: false,
        allow_plain_http: false,
        allow_private_addresses: false,
        http: UpstreamHttp::Auto,
        connect_timeout: CONNECT_TIMEOUT,
        idle_connections: IDLE_CONNECTIONS,
        idle_timeout: IDLE_TIMEOUT,
        propagate_trace: false,
    }
}

impl<'a> Lowering<'a> {
    pub(super) fn providers(&mut self, providers: &Named<Provider>, place: Place<'a>) -> Vec<ProviderConfig> {
        let mut configs = Vec::with_capacity(providers.0.len());
        for (slug, raw) in &providers.0 {
            if !is_slug(slug) {
                self.error_of_key(place, slug, format!("`{slug}` cannot be the slug of a provider"), SLUG_HELP);
                self.dangling.entry("providers").or_default().push(slug.clone());
                continue;
            }
            match self.provider(slug, raw, place.get(slug)) {
                Some(config) => configs.push(config),
                None => self.dangling.entry("providers").or_default().push(slug.clone()),
            }
        }
        configs
    }

    fn provider(&mut self, slug: &str, raw: &Provider, place: Place<'a>) -> Option<ProviderConfig> {
        let shipped = self.inherited(slug, raw, place)?;
        let mut info = shipped.cloned().unwrap_or_else(|| unknown_vendor(slug));
        slug.clone_into(&mut info.slug);
        apply(raw, &mut info);
        apply_quirks(&raw.quirks, &mut info);
        let Some(base_url) = raw.base_url.as_ref().or(shipped.map(|shipped| &shipped.base_url)) else {
            let problem = Problem::at(place.node(), format!("`{slug}` does not ship with Tidegate and has no `base_url`"));
            let known: Vec<&str> = ProviderCatalog::shipped().iter().map(|known| known.slug.as_str()).collect();
            let near = suggest::nearest(slug, known).map(|near| format!("did you mean the shipped provider `{near}`?"));
            self.report.problems.push(problem.maybe_help(near).help("add `base_url: https://…/v1`, or `inherits: SLUG`"));
            return None;
        };
        info.base_url = base_url.trim_end_matches('/').to_owned();
        let host = self.base_url(raw, &info.base_url, place)?;
        let loopback = host == Host::Loopback;
        if let Some(path) = &raw.chat_path
            && !path.starts_with('/')
        {
            self.error(place.get("chat_path"), format!("`{path}` does not start with a slash"), "write `/chat/completions`");
        }
        self.headers(raw, &mut info, place.get("headers"));

        let credentials = self.credentials(raw, &info, place)?;
        for (index, path) in raw.tls.extra_roots.iter().enumerate() {
            self.file_exists(path, place.get("tls").get("extra_roots").item(index));
        }
        if raw.tls.only_extra_roots && raw.tls.extra_roots.is_empty() {
            self.error(place.get("tls"), "no authority at all would be trusted", "list PEM files under `extra_roots`");
        }
        Some(ProviderConfig {
            extra_roots: raw.tls.extra_roots.clone(),
            only_extra_roots: raw.tls.only_extra_roots,
            allow_plain_http: raw.allow_plain_http || loopback,
            allow_private_addresses: raw.allow_private_addresses || loopback,
            http: match raw.http {
                None | Some(UpstreamHttpName::Auto) => UpstreamHttp::Auto,
                Some(UpstreamHttpName::Http1) => UpstreamHttp::Http1,
                Some(UpstreamHttpName::Http2) => UpstreamHttp::Http2,
            },
            connect_timeout: raw.connect_timeout.map_or(CONNECT_TIMEOUT, |span| span.0),
            idle_connections: raw.idle_connections.unwrap_or(IDLE_CONNECTIONS),
            idle_timeout: raw.idle_timeout.map_or(IDLE_TIMEOUT, |span| span.0),
            propagate_trace: raw.propagate_trace,
            ..config_of(info, credentials)
        })
    }

    /// The shipped entry to start from; the outer `None` is a reported error.
    fn inherited(&mut self, slug: &str, raw: &Provider, place: Place<'a>) -> Option<Option<&'static ProviderInfo>> {
        let catalogue = ProviderCatalog::shipped();
        let Some(parent) = &raw.inherits else { return Some(catalogue.get(slug)) };
        if let Some(info) = catalogue.get(parent) {
            return Some(Some(info));
        }
        let known: Vec<&str> = catalogue.iter().map(|info| info.slug.as_str()).collect();
        let problem = Problem::at(place.get("inherits").node(), format!("no provider `{parent}` ships with Tidegate"));
        self.report.problems.push(problem.maybe_help(suggest::advice(parent, &known)));
        None
    }

    /// Checks an address; `None` is a reported error.
    fn base_url(&mut self, raw: &Provider, url: &str, place: Place<'a>) -> Option<Host> {
        let place = place.get("base_url");
        if let Some(start) = url.find('{') {
            let end = url[start..].find('}').map_or(url.len(), |end| start + end + 1);
            let message = format!("the address has a placeholder: `{}`", &url[start..end]);
            self.error(place, message, format!("give the whole address: `base_url: {url}` with your own value in it"));
            return None;
        }
        let example = "write `https://api.example.com/v1`";
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme @ ("https" | "http"), rest)) => (scheme, rest),
            _ => {
                self.error(place, format!("`{url}` is not an http(s) address"), example);
                return None;
            }
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            self.error(place, "an address with a user name", "put secrets under `credentials`");
            return None;
        }
        let host = Host::of(authority);
        if host != Host::Empty && (rest.contains(['?', '#', ' ', '\\']) || url.parse::<http::Uri>().is_err()) {
            self.error(place, format!("`{url}` is not a plain address"), "leave out queries, fragments and spaces");
            return None;
        }
        match host {
            Host::Empty => {
                self.error(place, "an address without a host", example);
                return None;
            }
            Host::Internal if !raw.allow_private_addresses => {
                let message = "an internal address, which is refused so that nobody can be made to call it";
                self.error(place, message, "set `allow_private_addresses: true` if this provider is yours");
                return None;
            }
            Host::Internal | Host::Loopback | Host::Other => {}
        }
        if scheme == "http" && host != Host::Loopback && !raw.allow_plain_http {
            let message = "plain HTTP sends credentials and prompts in the clear";
            self.error(place, message, "use `https://`, or set `allow_plain_http: true` for a network you trust");
            return None;
        }
        Some(host)
    }

    fn headers(&mut self, raw: &Provider, info: &mut ProviderInfo, place: Place<'a>) {
        for (name, value) in &raw.headers.0 {
            let place = place.get(name);
            let reserved = ["authorization", "host", "content-length", "transfer-encoding", "connection", "x-api-key", "x-goog-api-key"];
            if reserved.contains(&name.to_ascii_lowercase().as_str()) {
                self.error(place, format!("header `{name}` is Tidegate's own"), "use `credentials` and `auth` for keys");
            } else if http::HeaderName::try_from(name.as_str()).is_err() || http::HeaderValue::try_from(value.as_str()).is_err() {
                self.error(place, format!("`{name}` is not a header"), "names are letters, digits and `-`; values are one line of ASCII");
            } else {
                info.extra_headers.insert(name.to_ascii_lowercase(), value.clone());
            }
        }
    }
}

/// Kind of host in an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Empty,
    Loopback,
    /// A literal private or link-local address; names are checked when they are resolved.
    Internal,
    Other,
}

impl Host {
    fn of(authority: &str) -> Host {
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        if host.is_empty() {
            return Host::Empty;
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Host::Loopback;
        }
        match host.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => Host::Loopback,
            Ok(IpAddr::V4(v4)) if v4.is_private() || v4.is_link_local() || v4.is_unspecified() => Host::Internal,
            Ok(IpAddr::V6(v6)) if v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified() => Host::Internal,
            _ => Host::Other,
        }
    }
}

fn unknown_vendor(slug: &str) -> ProviderInfo {
    ProviderInfo {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        base_url: String::new(),
        dialect: Dialect::OpenaiChat,
        auth: AuthScheme::default(),
        key_env: Vec::new(),
        rate_limits: RateLimitScheme::default(),
        cancels_billing: false,
        chat_path: None,
        quirks: tidegate_wire::Quirks::default(),
        extra_headers: Default::default(),
        privacy_policy_url: None,
        terms_of_service_url: None,
        status_page_url: None,
        headquarters: None,
        datacenters: Vec::new(),
    }
}

fn apply(raw: &Provider, info: &mut ProviderInfo) {
    if let Some(name) = &raw.name {
        info.name.clone_from(name);
    }
    match raw.dialect {
        Some(DialectName::OpenaiChat) => info.dialect = Dialect::OpenaiChat,
        Some(DialectName::AnthropicMessages) => info.dialect = Dialect::AnthropicMessages,
        Some(DialectName::Gemini) => info.dialect = Dialect::Gemini,
        None => {}
    }
    match &raw.auth {
        Some(Auth::Bearer) => info.auth = AuthScheme::Bearer,
        Some(Auth::Header(name)) => info.auth = AuthScheme::Header(name.to_ascii_lowercase()),
        Some(Auth::Query(name)) => info.auth = AuthScheme::Query(name.clone()),
        Some(Auth::None) => info.auth = AuthScheme::None,
        None => {}
    }
    match raw.rate_limits {
        Some(RateLimitsName::None) => info.rate_limits = RateLimitScheme::None,
        Some(RateLimitsName::Openai) => info.rate_limits = RateLimitScheme::Openai,
        Some(RateLimitsName::Anthropic) => info.rate_limits = RateLimitScheme::Anthropic,
        Some(RateLimitsName::Cerebras) => info.rate_limits = RateLimitScheme::Cerebras,
        Some(RateLimitsName::Digitalocean) => info.rate_limits = RateLimitScheme::Digitalocean,
        Some(RateLimitsName::Together) => info.rate_limits = RateLimitScheme::Together,
        None => {}
    }
    if let Some(cancels) = raw.cancels_billing {
        info.cancels_billing = cancels;
    }
    if raw.chat_path.is_some() {
        info.chat_path.clone_from(&raw.chat_path);
    }
}

fn apply_quirks(raw: &Quirks, info: &mut ProviderInfo) {
    let quirks = &mut info.quirks;
    match raw.max_tokens_field {
        Some(MaxTokensFieldName::AsSent) => quirks.max_tokens_field = MaxTokensField::AsSent,
        Some(MaxTokensFieldName::MaxTokens) => quirks.max_tokens_field = MaxTokensField::MaxTokens,
        Some(MaxTokensFieldName::MaxCompletionTokens) => quirks.max_tokens_field = MaxTokensField::MaxCompletionTokens,
        None => {}
    }
    match raw.reasoning {
        Some(ReasoningName::Effort) => quirks.reasoning = ReasoningStyle::Effort,
        Some(ReasoningName::Object) => quirks.reasoning = ReasoningStyle::Object,
        Some(ReasoningName::Thinking) => quirks.reasoning = ReasoningStyle::Thinking,
        Some(ReasoningName::EnableThinking) => quirks.reasoning = ReasoningStyle::EnableThinking,
        Some(ReasoningName::TemplateKwargs) => quirks.reasoning = ReasoningStyle::TemplateKwargs,
        Some(ReasoningName::None) => quirks.reasoning = ReasoningStyle::None,
        None => {}
    }
    if let Some(rejects) = &raw.rejects {
        quirks.rejects.clone_from(rejects);
    }
    for (given, quirk) in [
        (raw.stream_options, &mut quirks.stream_options),
        (raw.developer_role, &mut quirks.developer_role),
        (raw.aggregator, &mut quirks.aggregator),
        (raw.user, &mut quirks.user),
    ] {
        if let Some(given) = given {
            *quirk = given;
        }
    }
}
