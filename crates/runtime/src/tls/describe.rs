//! What a certificate says, for people.

use std::net::IpAddr;
use std::path::Path;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;
use super::material;

/// One certificate of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDescription {
    /// Distinguished name of its owner; empty when it has none.
    pub subject: String,
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// Whether it may sign others.
    pub authority: bool,
    /// URI names, as they stand there.
    pub uris: Vec<String>,
    /// DNS names, as they stand there.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Begin of validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
    /// Begin of validity in words.
    pub not_before_text: String,
    /// End of validity in words.
    pub not_after_text: String,
}

/// All certificates of a PEM file, in its order.
pub fn describe(path: &Path) -> Result<Vec<CertificateDescription>, TlsError> {
    material::read_certificates(path)?.iter().map(|der| description(path, der)).collect()
}

fn description(path: &Path, der: &[u8]) -> Result<CertificateDescription, TlsError> {
    let wrong = |error: &dyn std::fmt::Display| material::content(path, format!("not an X.509 certificate: {error}"));
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| wrong(&error))?;
    let validity = parsed.validity();
    let mut described = CertificateDescription {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        authority: parsed.is_ca(),
        uris: Vec::new(),
        dns: Vec::new(),
        ips: Vec::new(),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        not_before_text: validity.not_before.to_string(),
        not_after_text: validity.not_after.to_string(),
    };
    let alternatives = parsed.subject_alternative_name().map_err(|error| wrong(&error))?;
    for name in alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default() {
        match name {
            GeneralName::URI(uri) => described.uris.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => described.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => described.ips.extend(address(bytes)),
            _ => {}
        }
    }
    Ok(described)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
