//! TLS as a server: what a listener hands to its acceptor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::store::CertificateStore;
use super::{ALPN_H2, ALPN_HTTP1, TlsError, material, provider};

/// How to be a TLS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsOptions {
    /// Application protocols, most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// PEM file of the authorities of which callers must present a certificate; `None` asks for none.
    pub client_ca: Option<PathBuf>,
    /// Sessions kept for callers that resume without a ticket. One entry takes about a kilobyte.
    pub session_cache: usize,
}

impl Default for ServerTlsOptions {
    fn default() -> Self {
        Self {
            alpn: vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()],
            min_version: TlsVersion::Tls12,
            client_ca: None,
            session_cache: DEFAULT_SESSION_CACHE,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246, for callers that have nothing newer.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// The configuration of a listener. It stays valid while the store's certificates change.
pub fn server_config(store: &Arc<CertificateStore>, options: &ServerTlsOptions) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match options.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).map_err(config_error)?;
    let builder = match &options.client_ca {
        Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(store) as _);
    config.alpn_protocols.clone_from(&options.alpn);
    // Tickets cost no memory and are what TLS 1.3 callers use; the key rotates by itself every six hours. The cache serves callers
    // without ticket support.
    config.ticketer = Ticketer::new().map_err(config_error)?;
    config.session_storage = ServerSessionMemoryCache::new(options.session_cache);
    // One ticket is enough to resume; the default of two costs a second encryption and 250 bytes on every handshake.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in material::read_certificates(path)? {
        roots.add(certificate).map_err(|error| material::content(path, error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(config_error)
}

fn config_error(error: impl ToString) -> TlsError {
    TlsError::Config(error.to_string())
}

/// About 4 MiB when full.
const DEFAULT_SESSION_CACHE: usize = 4_096;
