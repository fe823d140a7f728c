//! Mutual TLS: both sides prove who they are, and each says why if it will not talk to the other.
//!
//! TLS 1.3 only, no session resumption: every connection is a full handshake against the identity and the authorities of that
//! moment. Host names play no part; a member is its URI name, wherever it runs.

mod dial;
mod listen;

use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, Error, ServerConfig};

use crate::tls::{ALPN_H2, ALPN_HTTP1, provider};

use super::identity::State;
use super::plain::DIAL_TIMEOUT;
use super::verdict::ALPN_MESH;
use super::verify::PeerVerifier;

pub use dial::MtlsDialer;
pub use listen::MtlsListener;

/// Bounds of connections with mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtlsOptions {
    /// Longest time from the look-up of the name (dialling) or the arrival (accepting) to both verdicts.
    pub timeout: Duration,
    /// Greatest age of a connection, shortened at random by up to a tenth.
    pub max_age: Duration,
}

impl Default for MtlsOptions {
    fn default() -> Self {
        Self { timeout: DIAL_TIMEOUT, max_age: MAX_AGE }
    }
}

/// The configuration of one handshake as the dialling side. Made anew for each, so that it sees the newest identity.
fn client_config(state: &State, verifier: Arc<PeerVerifier>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // Only in that no host name is compared.
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&state.leaf.key))));
    config.alpn_protocols = vec![ALPN_MESH.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The configuration of one handshake as the accepting side.
fn server_config(state: &State, verifier: Arc<PeerVerifier>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&state.leaf.key))));
    config.alpn_protocols = vec![ALPN_MESH.to_vec(), ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// New identities and withdrawn trust take effect within an hour.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests;
