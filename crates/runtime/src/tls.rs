//! TLS material: certificates that callers see, authorities that we trust, and their renewal while connections run.
//!
//! Handshakes and sockets are the listener's and the upstream's business; here are only the configurations they use. The
//! cryptography is aws-lc-rs, named in every configuration rather than installed as the process default, so that no dependency can
//! change it. TLS 1.3 and 1.2, with the post-quantum hybrid X25519MLKEM768 preferred where the other side has it.

mod client;
mod describe;
pub(crate) mod material;
mod metrics;
mod reload;
mod server;
mod store;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{ClientTlsOptions, SystemRoots, TrustedRoots, client_config};
pub use describe::{CertificateDescription, describe};
pub(crate) use metrics::ReloadMetrics;
pub use metrics::{Watched, register_certificate_metrics};
pub use reload::{ReloadReport, Reloader};
pub use server::{ServerTlsOptions, TlsVersion, server_config};
pub use store::{CertificateInfo, CertificateStore};

/// A certificate chain, leaf first, and the private key of the leaf; both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub cert: PathBuf,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// TLS material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not PEM, or holds none of what is looked for.
    #[error("{}: {problem}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key does not belong to the certificate.
    #[error("the key {} does not belong to the certificate {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The certificate is past its end.
    #[error("the certificate {} expired at {not_after} (Unix time, seconds)", path.display())]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// End of its validity, seconds since the Unix epoch.
        not_after: u64,
    },
    /// No certificate was configured.
    #[error("at least one certificate and key are needed")]
    NoCertificates,
    /// Neither the system nor the configuration has certificate authorities.
    #[error("no certificate authorities to trust; install the system's (package ca-certificates) or name a file")]
    NoRoots,
    /// The parts do not make a configuration.
    #[error("TLS configuration: {0}")]
    Config(String),
}

/// The cryptography of every connection.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests;
