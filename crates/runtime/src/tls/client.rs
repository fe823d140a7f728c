//! TLS as a client: whom we trust on the upstream side, and who we say we are.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::{ALPN_H2, ALPN_HTTP1, CertificateFiles, TlsError, material, provider};

/// How to be a TLS client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsOptions {
    /// PEM files with further authorities.
    pub extra_roots: Vec<PathBuf>,
    /// Whether the system's authorities are trusted beside `extra_roots`.
    pub trusted: TrustedRoots,
    /// The certificate we present when asked.
    pub identity: Option<CertificateFiles>,
    /// Application protocols, most wanted first.
    pub alpn: Vec<Vec<u8>>,
}

impl Default for ClientTlsOptions {
    fn default() -> Self {
        Self {
            extra_roots: Vec::new(),
            trusted: TrustedRoots::SystemAndExtra,
            identity: None,
            alpn: vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()],
        }
    }
}

/// Which authorities count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedRoots {
    /// Those of the operating system and the extra ones.
    SystemAndExtra,
    /// Only the extra ones.
    OnlyExtra,
}

/// The authorities of the operating system, read once: there are some 140 of them, and every provider wants them.
#[derive(Debug, Clone)]
pub struct SystemRoots {
    store: Arc<RootCertStore>,
}

impl SystemRoots {
    /// Reads them. Files that do not parse are skipped, as every TLS library does, and a log line says how many.
    pub fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "read the system's certificate authorities");
        }
        let mut store = RootCertStore::empty();
        let (_, skipped) = store.add_parsable_certificates(found.certs);
        if skipped > 0 {
            tracing::debug!(skipped, "certificate authorities of the system that do not parse");
        }
        Self { store: Arc::new(store) }
    }

    /// None at all, where nothing outside is ever called.
    pub fn none() -> Self {
        Self { store: Arc::new(RootCertStore::empty()) }
    }

    /// How many authorities there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}

/// The configuration of connections to one upstream. Sessions are resumed within it, so make one per upstream and keep it.
pub fn client_config(options: &ClientTlsOptions, system: &SystemRoots) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(options, system)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError::Config(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = material::read_certificates(&files.cert)?;
            // Also proves that chain and key belong together, which the next call does not.
            material::certified_key(files, chain.clone(), &provider())?;
            builder.with_client_auth_cert(chain, material::read_key(&files.key)?).map_err(|error| TlsError::Config(error.to_string()))?
        }
    };
    config.alpn_protocols.clone_from(&options.alpn);
    Ok(Arc::new(config))
}

fn roots(options: &ClientTlsOptions, system: &SystemRoots) -> Result<Arc<RootCertStore>, TlsError> {
    let base = match options.trusted {
        TrustedRoots::SystemAndExtra => Arc::clone(&system.store),
        TrustedRoots::OnlyExtra => Arc::new(RootCertStore::empty()),
    };
    if options.extra_roots.is_empty() {
        return if base.is_empty() { Err(TlsError::NoRoots) } else { Ok(base) };
    }
    let mut store = RootCertStore::clone(&base);
    for path in &options.extra_roots {
        for certificate in material::read_certificates(path)? {
            store.add(certificate).map_err(|error| material::content(path, error))?;
        }
    }
    Ok(Arc::new(store))
}
