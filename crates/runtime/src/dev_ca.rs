//! A certificate authority for one developer's machine, so that `https://localhost` works from the first start.
//!
//! Made once into a directory and used again while it is good; the authority outlives many leaves, so that whoever trusts it needs to
//! do that only once. Not for production: the authority's key lies beside the leaf, protected by file modes alone.

mod mesh;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Clock;

pub use mesh::{Issued, LeafOptions, MeshCa, MeshCaError};

/// Makes development certificates.
#[derive(Debug)]
pub struct DevCa;

/// Where the development certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevCertificates {
    /// The authority's certificate, for clients to trust.
    pub ca_cert_path: PathBuf,
    /// The leaf's certificate, for `localhost`, `127.0.0.1` and `::1`.
    pub cert_path: PathBuf,
    /// The leaf's private key.
    pub key_path: PathBuf,
}

/// Why there are no development certificates.
#[derive(Debug, thiserror::Error)]
pub enum DevCaError {
    /// A file or directory cannot be written.
    #[error("cannot write {}: {source}; make the directory writable or choose another", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificates cannot be made.
    #[error("make a development certificate")]
    Make(#[from] rcgen::Error),
}

impl DevCa {
    /// Uses what is in `dir`, or makes what is missing, broken or about to expire. Several processes may do so at once: every file
    /// is replaced atomically, and the authority never changes while it is good.
    pub fn ensure(dir: &Path) -> Result<DevCertificates, DevCaError> {
        Self::ensure_at(dir, Clock::start().unix_seconds())
    }

    fn ensure_at(dir: &Path, unix_now: u64) -> Result<DevCertificates, DevCaError> {
        let paths =
            DevCertificates { ca_cert_path: dir.join("ca.pem"), cert_path: dir.join("localhost.pem"), key_path: dir.join("localhost.key") };
        let ca_key_path = dir.join("ca.key");
        make_private_directory(dir)?;
        let authority = match Authority::read(&paths.ca_cert_path, &ca_key_path, unix_now) {
            Some(authority) => authority,
            None => Authority::make(unix_now)?.write(&paths.ca_cert_path, &ca_key_path)?,
        };
        if !leaf_is_good(&paths, &authority, unix_now) {
            let (cert, key) = authority.issue(unix_now)?;
            // The key first: between the two writes a reader sees a mismatch, which it reports, rather than an old pair for ever.
            write_atomically(&paths.key_path, key.as_bytes(), PRIVATE)?;
            write_atomically(&paths.cert_path, cert.as_bytes(), PUBLIC)?;
        }
        Ok(paths)
    }
}

/// The authority: a certificate that is out in the world, and its key.
struct Authority {
    cert_pem: String,
    key: KeyPair,
}

impl Authority {
    /// `None` when it is missing, broken, mismatched or about to expire.
    fn read(cert_path: &Path, key_path: &Path, unix_now: u64) -> Option<Self> {
        let cert_pem = fs::read_to_string(cert_path).ok()?;
        let key = KeyPair::from_pem(&fs::read_to_string(key_path).ok()?).ok()?;
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
        let good = belongs_and_lasts(&der, &key, unix_now);
        good.then_some(Self { cert_pem, key })
    }

    fn make(unix_now: u64) -> Result<Self, DevCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = authority_params();
        set_validity(&mut params, unix_now, AUTHORITY_LIFE);
        let cert_pem = params.self_signed(&key)?.pem();
        Ok(Self { cert_pem, key })
    }

    fn write(self, cert_path: &Path, key_path: &Path) -> Result<Self, DevCaError> {
        write_atomically(key_path, self.key.serialize_pem().as_bytes(), PRIVATE)?;
        write_atomically(cert_path, self.cert_pem.as_bytes(), PUBLIC)?;
        Ok(self)
    }

    /// Certificate and key of a new leaf, PEM.
    fn issue(&self, unix_now: u64) -> Result<(String, String), DevCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let names = LEAF_NAMES.map(str::to_owned);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "Tidegate development");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, unix_now, LEAF_LIFE);
        // Name and key are all that a signature takes from the authority, so its certificate need not be parsed back.
        let issuer = Issuer::new(authority_params(), &self.key);
        let cert = params.signed_by(&key, &issuer)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Tidegate development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Whether the leaf is there, matches its key, comes from this authority and lasts.
fn leaf_is_good(paths: &DevCertificates, authority: &Authority, unix_now: u64) -> bool {
    let read = || {
        let cert = fs::read(&paths.cert_path).ok()?;
        let key = KeyPair::from_pem(&fs::read_to_string(&paths.key_path).ok()?).ok()?;
        Some((CertificateDer::from_pem_slice(&cert).ok()?, key))
    };
    let Some((der, key)) = read() else {
        return false;
    };
    belongs_and_lasts(&der, &key, unix_now) && authority.signed(&der, unix_now)
}

impl Authority {
    fn signed(&self, leaf: &CertificateDer<'_>, unix_now: u64) -> bool {
        let verify = || {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.cert_pem.as_bytes()).ok()?).ok()?;
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let parsed = rustls::server::ParsedCertificate::try_from(leaf).ok()?;
            let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_now));
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &roots,
                &[],
                now,
                provider.signature_verification_algorithms.all,
            )
            .ok()
        };
        verify().is_some()
    }
}

/// Whether a certificate is for this key, valid now and for a while longer.
fn belongs_and_lasts(cert: &CertificateDer<'_>, key: &KeyPair, unix_now: u64) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(cert) else {
        return false;
    };
    let now = i64::try_from(unix_now).unwrap_or(i64::MAX);
    let begun = parsed.validity().not_before.timestamp() <= now;
    let margin = i64::try_from(RENEW_BEFORE.as_secs()).unwrap_or(i64::MAX);
    belongs(cert, key) && begun && parsed.validity().not_after.timestamp() > now.saturating_add(margin)
}

/// Whether a certificate is for this key.
fn belongs(cert: &CertificateDer<'_>, key: &KeyPair) -> bool {
    let parsed = X509Certificate::from_der(cert);
    parsed.is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data == key.public_key_raw())
}

/// Sets begin and end of validity. It begins a day early, for machines whose clocks disagree a little.
fn set_validity(params: &mut CertificateParams, unix_now: u64, life: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(unix_now);
    params.not_before = epoch + now.saturating_sub(A_DAY);
    params.not_after = epoch + (now + life);
}

fn make_private_directory(dir: &Path) -> Result<(), DevCaError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| write_error(dir, source))
}

/// Writes a new file beside `path` and puts it in its place, so that no reader ever sees half of it.
fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DevCaError> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        // Left over from a process of the same number that died here; its mode may be wrong.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| write_error(path, source))
}

fn write_error(path: &Path, source: io::Error) -> DevCaError {
    DevCaError::Write { path: path.to_owned(), source }
}

const LEAF_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;
const A_DAY: Duration = Duration::from_secs(24 * 3_600);
/// Long, because trusting it again is manual work.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// Operating systems refuse leaves that live longer than 825 days (Apple, since 2019).
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);
/// A development server may run for weeks after its start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);

#[cfg(test)]
mod tests;
