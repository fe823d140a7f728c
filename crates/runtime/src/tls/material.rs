//! Reading PEM files and the few facts of a certificate that matter here.

use std::fs;
use std::path::Path;

use rustls::Error as RustlsError;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateFiles, TlsError};

/// What a leaf certificate says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeafFacts {
    /// DNS names in lower case, wildcards as `*.example.org`.
    pub(crate) names: Vec<String>,
    /// URI names as they stand there.
    pub(crate) uris: Vec<String>,
    /// End of validity, seconds since the Unix epoch.
    pub(crate) not_after: u64,
}

/// All certificates of a PEM file, at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| content(path, error))?;
    if certificates.is_empty() {
        return Err(content(path, "holds no PEM certificate (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

/// The first private key of a PEM file.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        PemError::NoItemsFound => content(path, "holds no PEM private key (PKCS#8, PKCS#1 or SEC1)"),
        other => content(path, other),
    })
}

/// Chain and key as one, proven to belong together.
pub(crate) fn certified_key(
    files: &CertificateFiles,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let key = read_key(&files.key)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(_) => TlsError::Mismatch { cert: files.cert.clone(), key: files.key.clone() },
        other => content(&files.key, other),
    })
}

/// Names and validity of a leaf. `path` is for the error only.
pub(crate) fn leaf_facts(path: &Path, leaf: &CertificateDer<'_>) -> Result<LeafFacts, TlsError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| content(path, format!("not an X.509 certificate: {error}")))?;
    let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let alternatives = parsed.subject_alternative_name().map_err(|error| content(path, format!("subject alternative names: {error}")))?;
    let (mut names, mut uris) = (Vec::new(), Vec::new());
    for name in alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default() {
        match name {
            GeneralName::DNSName(dns) => names.push(dns.to_ascii_lowercase()),
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            _ => {}
        }
    }
    Ok(LeafFacts { names, uris, not_after })
}

/// A complaint about the content of a file.
pub(crate) fn content(path: &Path, problem: impl ToString) -> TlsError {
    TlsError::Content { path: path.to_owned(), problem: problem.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
