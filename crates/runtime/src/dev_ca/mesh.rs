//! An authority for the members of one mesh, and the certificates it issues: what cert-manager or SPIRE do in a cluster, for a laptop
//! and for tests.
//!
//! A folder holds `ca.crt` and `ca.key`. The authority's own URI name, `spiffe://<trust domain>`, says which mesh it is of, so that
//! nobody has to repeat it. Every member gets a folder of its own with `tls.crt`, `tls.key` and `ca.crt`, named as in a cert-manager
//! secret.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};

use super::{AUTHORITY_LIFE, DevCaError, PRIVATE, PUBLIC, make_private_directory, set_validity, write_atomically};
use crate::mesh::{IdentityFiles, MeshName, NameError, Role};
use crate::tls::{TlsError, describe};

/// An authority of one mesh.
pub struct MeshCa {
    trust: String,
    cert_pem: String,
    key: KeyPair,
}

/// What a leaf has beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafOptions {
    /// DNS names, for callers that compare host names (browsers, curl); members of the mesh do not.
    pub dns: Vec<String>,
    /// Addresses, likewise.
    pub ips: Vec<IpAddr>,
    /// How long it is valid.
    pub life: Duration,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Where it lies.
    pub files: IdentityFiles,
    /// The name that stood there before, if there was one.
    pub replaced: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MeshCaError {
    /// There is an authority already.
    #[error("{} exists already; issue from it with `tidegate certs issue`, choose another folder, or give --replace to start a new mesh (every certificate of the old authority is then worthless)", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("no authority in {}: {}; make one with `tidegate certs ca --out {}`", dir.display(), source, dir.display())]
    Missing {
        /// Where it should be.
        dir: PathBuf,
        /// What is missing.
        #[source]
        source: io::Error,
    },
    /// What is there is not an authority of a mesh.
    #[error("{}: {problem}; make another authority with `tidegate certs ca`", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A host name is none.
    #[error("`{0}` is not a DNS name")]
    Dns(String),
    /// A name is not usable.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file cannot be read as a certificate.
    #[error(transparent)]
    Read(#[from] TlsError),
    /// A file cannot be written, or a certificate not be made.
    #[error(transparent)]
    Make(#[from] DevCaError),
}

impl From<rcgen::Error> for MeshCaError {
    fn from(error: rcgen::Error) -> Self {
        MeshCaError::Make(error.into())
    }
}

impl MeshCa {
    /// Makes an authority for the trust domain `trust` in `dir`. `replace` throws away the one that is there, which is an error
    /// otherwise.
    pub fn create(dir: &Path, trust: &str, replace: bool, unix_now: u64) -> Result<Self, MeshCaError> {
        // The rules of a trust domain are those of a name in it.
        MeshName::new(trust, "x", Role::Admin, "x")?;
        let (cert_path, key_path) = paths(dir);
        if let Some(path) = [&cert_path, &key_path].into_iter().find(|path| path.exists() && !replace) {
            return Err(MeshCaError::Exists(path.clone()));
        }
        make_private_directory(dir)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(trust)?;
        set_validity(&mut params, unix_now, AUTHORITY_LIFE);
        let cert_pem = params.self_signed(&key)?.pem();
        write_atomically(&key_path, key.serialize_pem().as_bytes(), PRIVATE)?;
        write_atomically(&cert_path, cert_pem.as_bytes(), PUBLIC)?;
        Ok(Self { trust: trust.to_owned(), cert_pem, key })
    }

    /// The authority in `dir`.
    pub fn open(dir: &Path) -> Result<Self, MeshCaError> {
        let (cert_path, key_path) = paths(dir);
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| MeshCaError::Missing { dir: dir.to_owned(), source });
        let (cert_pem, key_pem) = (read(&cert_path)?, read(&key_path)?);
        let unusable = |path: &Path, problem: String| MeshCaError::Unusable { path: path.to_owned(), problem };
        let key = KeyPair::from_pem(&key_pem).map_err(|error| unusable(&key_path, format!("not a private key: {error}")))?;
        let described = describe(&cert_path)?;
        let trust = match described.first().map(|authority| authority.uris.as_slice()) {
            Some([uri]) => uri.strip_prefix("spiffe://").map(str::to_owned),
            _ => None,
        };
        let trust = trust
            .ok_or_else(|| unusable(&cert_path, "does not name its trust domain (one URI name, spiffe://<trust domain>)".to_owned()))?;
        let certificates = crate::tls::material::read_certificates(&cert_path)?;
        let belongs = certificates.first().is_some_and(|der| super::belongs(der, &key));
        if !belongs {
            return Err(unusable(&cert_path, format!("does not belong to the key {}", key_path.display())));
        }
        Ok(Self { trust, cert_pem, key })
    }

    /// The trust domain.
    pub fn trust(&self) -> &str {
        &self.trust
    }

    /// Issues a certificate into a folder of its own. One that is there is replaced, key first: a process that reads in between keeps
    /// what it has and looks again.
    pub fn issue(&self, dir: &Path, name: &MeshName, options: &LeafOptions, unix_now: u64) -> Result<Issued, MeshCaError> {
        let files = IdentityFiles::in_dir(dir);
        let replaced = describe(&files.pair.cert).ok().and_then(|old| old.into_iter().next()).map(|old| old.uris.join(", "));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = names(name, options)?;
        leaf.distinguished_name.push(DnType::CommonName, name.name());
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.use_authority_key_identifier_extension = true;
        set_validity(&mut leaf, unix_now, options.life);
        let cert = leaf.signed_by(&key, &Issuer::new(params(&self.trust)?, &self.key))?;
        make_private_directory(dir)?;
        for authorities in &files.authorities {
            write_atomically(authorities, self.cert_pem.as_bytes(), PUBLIC)?;
        }
        write_atomically(&files.pair.key, key.serialize_pem().as_bytes(), PRIVATE)?;
        write_atomically(&files.pair.cert, cert.pem().as_bytes(), PUBLIC)?;
        Ok(Issued { files, replaced })
    }
}

impl std::fmt::Debug for MeshCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MeshCa({})", self.trust)
    }
}

fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.crt"), dir.join("ca.key"))
}

fn names(name: &MeshName, options: &LeafOptions) -> Result<Vec<SanType>, MeshCaError> {
    let mut names = vec![SanType::URI(name.to_string().try_into()?)];
    for dns in &options.dns {
        let plain = !dns.is_empty() && dns.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'*'));
        if !plain {
            return Err(MeshCaError::Dns(dns.clone()));
        }
        names.push(SanType::DnsName(dns.as_str().try_into()?));
    }
    names.extend(options.ips.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn params(trust: &str) -> Result<CertificateParams, MeshCaError> {
    let mut params = CertificateParams::default();
    // Distinct per mesh, so that certificates of two laptops are told apart at a glance.
    params.distinguished_name.push(DnType::CommonName, format!("Tidegate authority of {trust}"));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
