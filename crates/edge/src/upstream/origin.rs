//! Where a provider lives: one scheme, host and port with the settings of its connections.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tidegate_runtime::tls::{ClientTlsOptions, SystemRoots, TrustedRoots, client_config};

use crate::config::{ProviderConfig, UpstreamHttp};

/// One address that connections are pooled for.
pub(crate) struct Origin {
    /// Key of this origin in every pool; unique in the process.
    pub(crate) id: u32,
    /// Slug of the provider, for errors and logs.
    pub(crate) provider: String,
    /// Host name or address literal, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `None` speaks plain TCP.
    pub(crate) tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    /// Value of the `Host` header.
    pub(crate) authority: HeaderValue,
    /// The same as a URI part, for HTTP/2.
    pub(crate) uri_authority: Authority,
    /// Path prefix of the base URL, without a trailing slash.
    pub(crate) base_path: String,
    pub(crate) http: UpstreamHttp,
    pub(crate) allow_private: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_connections: usize,
    pub(crate) idle_timeout: Duration,
    identity: Identity,
}

/// What must be equal for an origin to be kept, with its connections, over a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    provider: String,
    base_url: String,
    extra_roots: Vec<(std::path::PathBuf, Option<std::time::SystemTime>)>,
    only_extra_roots: bool,
    http: UpstreamHttp,
    allow_private: bool,
    allow_plain_http: bool,
    connect_timeout: Duration,
    idle_connections: usize,
    idle_timeout: Duration,
}

/// Why a provider's address cannot be used.
#[derive(Debug, Error)]
pub(crate) enum OriginError {
    /// The base URL does not parse.
    #[error("base_url `{url}` is not a URL: {reason}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `http://` without permission.
    #[error("base_url `{0}` is plain http; set `allow_plain_http: true` on this provider if that is meant")]
    PlainHttp(String),
    /// The base URL holds a user name or password.
    #[error("base_url of provider `{0}` holds a user name or password; use `credentials` instead")]
    UserInfo(String),
    /// Certificates could not be read.
    #[error("TLS of provider `{provider}`: {reason}")]
    Tls {
        /// Slug of the provider.
        provider: String,
        /// What is wrong.
        reason: String,
    },
}

/// Read on first use: an edge without https providers starts without them.
static SYSTEM_ROOTS: LazyLock<SystemRoots> = LazyLock::new(SystemRoots::load);
static NEXT_ID: AtomicU32 = AtomicU32::new(0);

impl Origin {
    /// Reads a provider's address, or keeps `previous` when nothing about it changed.
    pub(crate) fn of(provider: &ProviderConfig, previous: Option<&Arc<Origin>>) -> Result<Arc<Origin>, OriginError> {
        let identity = Identity::of(provider);
        if let Some(previous) = previous.filter(|previous| previous.identity == identity) {
            return Ok(Arc::clone(previous));
        }
        let base_url = identity.base_url.clone();
        let bad = |reason: &str| OriginError::Url { url: base_url.clone(), reason: reason.to_owned() };
        let uri: Uri = base_url.parse().map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?.clone();
        if authority.as_str().contains('@') {
            return Err(OriginError::UserInfo(provider.info.slug.to_string()));
        }
        if uri.query().is_some() {
            return Err(bad("it must not have a query"));
        }
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(bad("it must start with https:// or http://")),
        };
        if !secure && !provider.allow_plain_http {
            return Err(OriginError::PlainHttp(base_url));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure { Some(tls_of(provider, &host)?) } else { None };
        let header = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the host holds characters that a header cannot"))?;
        Ok(Arc::new(Origin {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            provider: provider.info.slug.to_string(),
            host,
            port,
            tls,
            authority: header,
            uri_authority: authority,
            base_path: uri.path().trim_end_matches('/').to_owned(),
            http: provider.http,
            allow_private: provider.allow_private_addresses,
            connect_timeout: provider.connect_timeout,
            idle_connections: provider.idle_connections,
            idle_timeout: provider.idle_timeout,
            identity,
        }))
    }
}

impl Identity {
    fn of(provider: &ProviderConfig) -> Self {
        let changed_at = |path: &std::path::PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Self {
            provider: provider.info.slug.to_string(),
            base_url: provider.info.base_url.to_string(),
            extra_roots: provider.extra_roots.iter().map(|path| (path.clone(), changed_at(path))).collect(),
            only_extra_roots: provider.only_extra_roots,
            http: provider.http,
            allow_private: provider.allow_private_addresses,
            allow_plain_http: provider.allow_plain_http,
            connect_timeout: provider.connect_timeout,
            idle_connections: provider.idle_connections,
            idle_timeout: provider.idle_timeout,
        }
    }
}

fn tls_of(provider: &ProviderConfig, host: &str) -> Result<(Arc<rustls::ClientConfig>, ServerName<'static>), OriginError> {
    let bad = |reason: String| OriginError::Tls { provider: provider.info.slug.to_string(), reason };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| bad(format!("`{host}` is not a host name: {error}")))?;
    let alpn: &[&[u8]] = match provider.http {
        UpstreamHttp::Auto => &[b"h2", b"http/1.1"],
        UpstreamHttp::Http1 => &[b"http/1.1"],
        UpstreamHttp::Http2 => &[b"h2"],
    };
    let options = ClientTlsOptions {
        extra_roots: provider.extra_roots.clone(),
        trusted: if provider.only_extra_roots { TrustedRoots::OnlyExtra } else { TrustedRoots::SystemAndExtra },
        identity: None,
        alpn: alpn.iter().map(|name| name.to_vec()).collect(),
    };
    let config = client_config(&options, &SYSTEM_ROOTS).map_err(|error| bad(error.to_string()))?;
    Ok((config, name))
}
