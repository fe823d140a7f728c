//! A certificate authority of a test, with its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tidegate_edge::config::{CertificateFiles, ListenerTls};

/// Issues certificates into a directory that is removed with it.
pub struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority that nobody trusts yet.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("a writable directory");
        let certificate = certificate.der().clone();
        Self { dir, issuer: Issuer::new(params, key), certificate }
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a pair for these names, good for a day, and replaces what was written under the same stem before.
    pub fn issue(&self, stem: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names of a test");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let files = CertificateFiles { cert: self.file(stem, "pem"), key: self.file(stem, "key") };
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        replace(&files.key, &key.serialize_pem());
        replace(&files.cert, &certificate.pem());
        files
    }

    /// TLS of a listener that shows these pairs, the first one by default. Files are only looked at when asked to.
    #[must_use]
    pub fn listener(&self, certificates: Vec<CertificateFiles>) -> ListenerTls {
        ListenerTls { certificates, client_ca: None, tls12: true, reload_every: Duration::from_secs(3_600) }
    }

    /// A client that trusts this authority alone, speaks these versions (all when empty) and these protocols, and shows `identity`.
    #[must_use]
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
        identity: Option<&CertificateFiles>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("the authority's own certificate");
        let versions = if versions.is_empty() { rustls::ALL_VERSIONS } else { versions };
        let builder = ClientConfig::builder_with_provider(crypto()).with_protocol_versions(versions).expect("versions of a test");
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(files) => builder.with_client_auth_cert(vec![leaf(files)], key(files)).expect("a pair of this authority"),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A server that shows this pair.
    #[must_use]
    pub fn server(&self, files: &CertificateFiles, alpn: &[&str]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions().expect("the usual versions");
        let mut config = builder.with_no_client_auth().with_single_cert(vec![leaf(files)], key(files)).expect("a pair of this authority");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn file(&self, stem: &str, extension: &str) -> PathBuf {
        self.dir.path().join(format!("{stem}.{extension}"))
    }
}

/// The certificate in a file.
#[must_use]
pub fn leaf(files: &CertificateFiles) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.cert).expect("a certificate of this authority")
}

fn key(files: &CertificateFiles) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(&files.key).expect("a key of this authority")
}

/// Whoever reads at the same time sees the old or the new file, never half of one.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).expect("a writable directory");
    fs::rename(&fresh, path).expect("the same directory");
}

fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
