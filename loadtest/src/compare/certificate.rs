//! One P-256 certificate for every server under test.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};

/// Files of a certificate; the client trusts it directly.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants it.
    pub(crate) bundle: PathBuf,
}

impl Certificate {
    /// Makes a self-signed certificate for 127.0.0.1 in `directory`.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make a key")?;
        let params = CertificateParams::new(names).context("describe the certificate")?;
        let cert = params.self_signed(&key).context("sign the certificate")?;
        let files =
            Self { cert: directory.join("server.pem"), key: directory.join("server.key"), bundle: directory.join("server.bundle.pem") };
        let (cert, key) = (cert.pem(), key.serialize_pem());
        for (path, text) in [(&files.cert, &cert), (&files.key, &key), (&files.bundle, &format!("{cert}{key}"))] {
            std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(files)
    }
}
